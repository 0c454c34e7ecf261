"""HAProxy's rules for models on the direct data plane: their requests go to their own replicas, not to the gateway.

`/v1/chat/completions` with `"model": "demo"` becomes `/models/demo/v1/chat/completions`, the route of that model's own
Serve application. Whatever is in doubt goes to the gateway: no such model, no replica, a body without a model in its
first `tune.bufsize` bytes. Only the standard library and constants are imported; see `deployments/haproxy.py`.
"""

import json
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from deployments.errors import EngineUnavailableError, OverloadedError, ServingError, SlowBodyError
from deployments.openai_paths import DIRECT_PREFIX, FORWARDED

BODY_TIMEOUT = "VLLM_GRAPH_BODY_TIMEOUT_S"
"""Environment variable: how long a client may take to send the part of a body that HAProxy reads. As the gateway's
`deadlines.body_s`, which is not known here."""
DEFAULT_BODY_TIMEOUT_S = 60
RETRY_STATUS = 425
"""What a replica says whose engine was lost before it had answered: the next replica is asked."""
RETRIED_HEADER = "x-vllm-graph-retried"
"""Tells the replica that RETRY_STATUS will be understood; its value is that status."""
RETRIES = 2
TOO_SLOW = SlowBodyError("The request's body did not arrive in time.")
FULL = OverloadedError("Too many requests are waiting for this model. Retry later.")
LOST = EngineUnavailableError("The engine that served this request was lost. Retry.")
REQUEST_ID = "x-request-id"
_FRONTEND = re.compile(r"^frontend http_frontend\n +bind \S+\n", re.MULTILINE)
_NO_ROUTER = re.compile(r"^ +http-request return status 503 .*Ingress request router failed.*\n", re.MULTILINE)
_PREFIX = re.compile(rf"^ +acl is_(\S+) path_beg {DIRECT_PREFIX}([A-Za-z0-9._-]+)/$", re.MULTILINE)


class Backend(NamedTuple):
    """What HAProxy calls the replicas of one application."""

    name: str
    replicas: list[str]


def with_models(text: str) -> str:
    """Return the config with these rules, unchanged when no model is on the direct data plane."""
    models = direct_models(text)
    if not models:
        return text
    for backend in models.values():
        text = re.sub(
            rf"^(backend {re.escape(backend.name)}(?:-via-ingress-request-router)?)\n",
            rf"\1\n{retry_rules()}",
            text,
            flags=re.MULTILINE,
        )
    # Who only says which replica would be best must not be needed for an answer: HAProxy then chooses by load.
    text = _NO_ROUTER.sub("", text)
    return _FRONTEND.sub(lambda found: found[0] + model_rules(models), text, count=1)


def direct_models(text: str) -> dict[str, Backend]:
    """Return the backend of each model on the direct data plane that has a replica."""
    found = {model: Backend(backend, replicas(text, backend)) for backend, model in _PREFIX.findall(text)}
    return {model: backend for model, backend in found.items() if backend.replicas}


def replicas(text: str, backend: str) -> list[str]:
    """Return the names of a backend's servers that are replicas: a backup is Serve's own proxy."""
    section = re.search(rf"^backend {re.escape(backend)}\n((?: .*\n|\n)*)", text, re.MULTILINE)
    servers = re.findall(r"^ +server (\S+) (.*)$", section[1], re.MULTILINE) if section else []
    return [name for name, options in servers if not options.endswith(" backup")]


def model_rules(models: dict[str, Backend]) -> str:
    """Return the frontend's rules."""
    wait_s = float(os.environ.get(BODY_TIMEOUT, DEFAULT_BODY_TIMEOUT_S))
    rules = [
        f"acl vllm_graph_path path {' '.join(FORWARDED)}",
        f"http-request set-header {REQUEST_ID} %[uuid()] if METH_POST vllm_graph_path "
        f"!{{ req.hdr({REQUEST_ID}) -m found }}",
        f"http-request set-var(txn.vllm_graph_id) req.hdr({REQUEST_ID})",
        f"http-error status 408 {answer_of(TOO_SLOW)}",
        f"http-request wait-for-body time {round(wait_s * 1000)}ms if METH_POST vllm_graph_path",
        "http-request set-var(txn.vllm_graph_model) req.body,json_query('$.model'),field(1,/) "
        "if METH_POST vllm_graph_path",
        # Not nbsrv, which counts the backup. Of several lines for one name, one is enough.
        *(
            f"acl vllm_graph_up_{model} srv_is_up({backend.name}/{replica})"
            for model, backend in sorted(models.items())
            for replica in backend.replicas
        ),
        *(
            f"http-request set-path {DIRECT_PREFIX}{model}%[path] if METH_POST vllm_graph_path "
            f"{{ var(txn.vllm_graph_model) -m str {model} }} vllm_graph_up_{model}"
            for model in sorted(models)
        ),
    ]
    return indented(rules)


def retry_rules() -> str:
    return indented(
        [
            f"retry-on conn-failure empty-response {RETRY_STATUS}",
            f"retries {RETRIES}",
            f"http-request set-header {RETRIED_HEADER} {RETRY_STATUS}",
            # What HAProxy says itself when no replica has answered, or the last one broke off before a byte.
            *(f"http-error status {status} {answer_of(LOST)} hdr retry-after 1" for status in (502, 503, 504)),
            f"http-response set-status 503 if {{ status {RETRY_STATUS} }}",
            # What Serve itself says when too many requests wait in a replica; ours have bodies in JSON.
            f"http-response return status 429 {answer_of(FULL)} hdr retry-after 1 "
            "if { status 429 503 } { res.hdr(content-type) -m beg text/plain }",
        ]
    )


def answer_of(error: ServingError) -> str:
    """Write an answer of HAProxy's own, in the shape of every other error."""
    body = quoted(json.dumps(error.to_body()))
    return f"content-type application/json string {body} hdr {REQUEST_ID} %[var(txn.vllm_graph_id)]"


def quoted(text: str) -> str:
    """Write a text as one word of HAProxy's config (https://docs.haproxy.org/2.8/configuration.html#2.2)."""
    return "'" + text.replace("'", r"'\''") + "'"


def indented(rules: Iterable[str]) -> str:
    return "".join(f"    {rule}\n" for rule in rules)
