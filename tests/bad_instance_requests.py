"""Management requests that are wrong, as data: what is sent, and the status and code that API.md promises for it.

They expect a stopped instance `here` and no other one, no stored key, and a management key on each request.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.bad_requests import NOT_JSON

INSTANCES, KEYS = "/api/v1/instances", "/api/v1/auth/keys"
HERE, NEW, NOWHERE = f"{INSTANCES}/here", f"{INSTANCES}/new", f"{INSTANCES}/nowhere"
PARSE = "/api/v1/backends/vllm/parse-command"
OPTIONS: dict[str, Any] = {"backend_type": "fake"}


@dataclass(frozen=True)
class BadCall:
    name: str
    method: str
    path: str
    body: bytes = b""
    status: int = 400
    code: str = "invalid_request"


BAD_NAMES: dict[str, str] = {
    "space": "a b",
    "only a space": " ",
    "trailing space": "a ",
    "51 characters": "a" * 51,
    "5,000 characters": "a" * 5000,
    "letter with an accent": "é",
    "Chinese": "模型",
    "fullwidth": "\uff41",
    "emoji": "\U0001f98a",
    "line break at the end": "a\n",
    "carriage return": "a\r",
    "NUL": "a\x00",
    "escape": "\x1b[31m",
    "right-to-left mark": "a\u200f",
    "zero-width space": "a\u200bb",
    "one dot": ".",
    "two dots": "..",
    "fifty dots": "." * 50,
    "backslash": "..\\..\\etc",
    "quote": 'a"b',
    "SQL": "a'; DROP TABLE instances; --",
    "shell": "$(reboot)",
    "template": "{{7*7}}",
    "variable": "${HOME}",
    "percent twice": "%2e%2e",
    "star": "*",
    "colon": "a:b",
    "at": "a@b",
    "hash": "a#b",
    "question mark": "a?b",
    "plus": "a+b",
    "tilde": "~root",
    "semicolon": "a;b",
    "ampersand": "a&b",
    "less than": "<script>",
    "surrogate as bytes": "\udc80",
}

BAD_OPTIONS: dict[str, Any] = {
    "unknown option": {"frobnicate": 1},
    "option of the environment's case": {"Backend_type": "fake"},
    "unknown backend": {"backend_type": "sglang"},
    "number as backend": {"backend_type": 5},
    "null as backend": {"backend_type": None},
    "list as backend": {"backend_type": ["vllm"]},
    "text as backend options": {"backend_options": "--model x"},
    "list as backend options": {"backend_options": ["--model", "x"]},
    "null as backend options": {"backend_options": None},
    "text as auto_restart": {"auto_restart": "maybe"},
    "negative max_restarts": {"max_restarts": -1},
    "huge max_restarts": {"max_restarts": 10**9},
    "fraction as max_restarts": {"max_restarts": 1.5},
    "text as max_restarts": {"max_restarts": "many"},
    "negative restart_delay": {"restart_delay": -0.1},
    "restart_delay of a day": {"restart_delay": 86400},
    "list as restart_delay": {"restart_delay": [1]},
    "number as on_demand_start": {"on_demand_start": 2},
    "negative idle_timeout": {"idle_timeout": -1},
    "huge idle_timeout": {"idle_timeout": 1e300},
    "text as idle_timeout": {"idle_timeout": "30m"},
    "list as environment": {"environment": ["A=1"]},
    "number in the environment": {"environment": {"A": 1}},
    "null in the environment": {"environment": {"A": None}},
    "name with = in the environment": {"environment": {"A=B": "1"}},
    "empty name in the environment": {"environment": {"": "1"}},
    "name with a digit first in the environment": {"environment": {"1A": "1"}},
    "line break in a name of the environment": {"environment": {"A\n": "1"}},
    "number as autoscaling": {"autoscaling": 3},
    "empty group": {"group": ""},
    "group of 51 characters": {"group": "g" * 51},
    "number as group": {"group": 1},
    "list as settings": {"settings": []},
}

BAD_LINES = (
    "",
    "0",
    "-1",
    "+1",
    "1.5",
    "1e3",
    "x",
    "0x10",
    " 1",
    "1 ",
    "\u0663",
    "\u00b2",
    "1_000",
    "9" * 30,
    "9" * 5000,
)

BAD_COMMANDS: dict[str, Any] = {
    "no command": {},
    "null as command": {"command": None},
    "number as command": {"command": 5},
    "list as command": {"command": ["vllm", "serve", "x"]},
    "object as command": {"command": {}},
    "another field": {"command": "vllm serve x", "cmd": "y"},
    "64 KiB and one byte": {"command": "a" * (2**16 + 1)},
    "64 KiB in characters of two bytes": {"command": "é" * 2**15 + "a"},
}

BAD_KEYS: dict[str, Any] = {
    "no name": {},
    "null as name": {"name": None},
    "empty name": {"name": ""},
    "name with a space": {"name": "a b"},
    "name of 51 characters": {"name": "a" * 51},
    "name with a line break": {"name": "a\n"},
    "number as name": {"name": 5},
    "unknown kind": {"name": "a", "kind": "admin"},
    "null as kind": {"name": "a", "kind": None},
    "a key of one's own": {"name": "a", "key": "sk-mine-0123456789abcdef"},
    "a hash": {"name": "a", "sha256": "0" * 64},
    "negative time": {"name": "a", "expires_in_s": -1},
    "no time": {"name": "a", "expires_in_s": 0},
    "text as time": {"name": "a", "expires_in_s": "60"},
    "fraction as time": {"name": "a", "expires_in_s": 1.5},
    "true as time": {"name": "a", "expires_in_s": True},
    "time over a million years": {"name": "a", "expires_in_s": 10**15},
    "text as instances": {"name": "a", "instances": "here"},
    "no instances": {"name": "a", "instances": []},
    "number in instances": {"name": "a", "instances": [1]},
    "bad name in instances": {"name": "a", "instances": ["a/b"]},
    "instances of a management key": {"name": "a", "kind": "management", "instances": ["here"]},
}

NO_ROUTES: dict[str, tuple[str, str]] = {
    "no name": ("POST", f"{INSTANCES}/"),
    "no name before a verb": ("POST", f"{INSTANCES}//start"),
    "unknown verb": ("POST", f"{HERE}/destroy"),
    "verb in capitals": ("POST", f"{HERE}/START"),
    "slash after a verb": ("POST", f"{HERE}/start/"),
    "slash after the name": ("GET", f"{HERE}/"),
    "slash after the collection's name in capitals": ("GET", "/api/v1/INSTANCES"),
    "slash in the name": ("GET", f"{INSTANCES}/{quote('a/b', safe='')}"),
    "dots and a slash in the name": ("GET", f"{INSTANCES}/{quote('../secret', safe='')}"),
    "another collection": ("GET", "/api/v1/models"),
    "neighbour of the collection": ("GET", "/api/v1/instancesx"),
    "another backend": ("POST", "/api/v1/backends/llama.cpp/parse-command"),
    "key without id": ("DELETE", f"{KEYS}/"),
    "slash in a key's id": ("DELETE", f"{KEYS}/a/b"),
    "proxy without a slash": ("GET", f"{HERE}/proxy"),
    "proxy to nothing": ("GET", f"{HERE}/proxy/"),
    "proxy to sleep": ("POST", f"{HERE}/proxy/sleep"),
    "proxy to wake_up": ("POST", f"{HERE}/proxy/wake_up"),
    "proxy to collective_rpc": ("POST", f"{HERE}/proxy/collective_rpc"),
    "proxy to adapters": ("POST", f"{HERE}/proxy/v1/load_lora_adapter"),
    "proxy to scaling": ("POST", f"{HERE}/proxy/scale_elastic_ep"),
    "proxy to invocations": ("POST", f"{HERE}/proxy/invocations"),
    "proxy to raw inference": ("POST", f"{HERE}/proxy/inference/v1/generate"),
    "proxy to the server's information": ("GET", f"{HERE}/proxy/server_info"),
    "proxy to the scripts of docs": ("GET", f"{HERE}/proxy/docs"),
    "proxy through dots": ("POST", f"{HERE}/proxy/{quote('v1/../sleep', safe='')}"),
    "proxy with two slashes": ("POST", f"{HERE}/proxy//v1/completions"),
    "proxy with a slash at the end": ("POST", f"{HERE}/proxy/v1/completions/"),
    "proxy with a query in the path": ("POST", f"{HERE}/proxy/{quote('v1/completions?a=1', safe='/')}"),
    "proxy into the gateway": ("GET", f"{HERE}/proxy/api/v1/instances"),
}

BAD_METHODS: dict[str, tuple[str, str]] = {
    "post to the list": ("POST", INSTANCES),
    "delete the list": ("DELETE", INSTANCES),
    "patch": ("PATCH", HERE),
    "start by reading": ("GET", f"{HERE}/start"),
    "stop by putting": ("PUT", f"{HERE}/stop"),
    "restart by deleting": ("DELETE", f"{HERE}/restart"),
    "write logs": ("POST", f"{HERE}/logs"),
    "parse by reading": ("GET", PARSE),
    "post to nodes": ("POST", "/api/v1/nodes"),
    "read one key": ("GET", f"{KEYS}/id-1"),
    "put to a proxy": ("PUT", f"{HERE}/proxy/v1/completions"),
    "read what is posted through a proxy": ("GET", f"{HERE}/proxy/v1/completions"),
    "post what is read through a proxy": ("POST", f"{HERE}/proxy/health"),
}


def bad_calls() -> Iterator[BadCall]:
    """Yield all of them."""
    yield from with_bad_names()
    yield from with_bad_bodies()
    for lines in BAD_LINES:
        what = f"lines={lines[:20]!r}, {len(lines)} characters"
        yield BadCall(what, "GET", f"{HERE}/logs?lines={quote(lines)}", code="invalid_parameter")
    yield BadCall("two numbers of lines", "GET", f"{HERE}/logs?lines=1&lines=2", code="invalid_parameter")
    for what, (method, path) in NO_ROUTES.items():
        yield BadCall(f"route: {what}", method, path, b"{}", 404, "not_found_error")
    for what, (method, path) in BAD_METHODS.items():
        yield BadCall(f"method: {what}", method, path, b"{}", 405, "invalid_request_error")
    yield from about_nobody()


def with_bad_names() -> Iterator[BadCall]:
    """Yield every call with a name that no instance can have; a body that is wrong as well is not looked at."""
    for what, name in BAD_NAMES.items():
        # Every byte: clients take dots out of a URL.
        path = f"{INSTANCES}/" + "".join(f"%{byte:02x}" for byte in name.encode("utf-8", "surrogateescape"))
        yield BadCall(f"create with a bad name: {what}", "POST", path, as_json(OPTIONS), code="invalid_instance_name")
    path = f"{INSTANCES}/a%20b"
    calls = (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/start"), ("POST", "/stop"), ("POST", "/restart"))
    others = (
        ("GET", "/logs?lines=x"),
        ("GET", "/proxy/health"),
        ("POST", "/proxy/v1/completions"),
        ("GET", "/proxy/x"),
    )
    for method, rest in (*calls, *others):
        yield BadCall(f"{method} {rest} of a bad name", method, path + rest, b"{", code="invalid_instance_name")


def with_bad_bodies() -> Iterator[BadCall]:
    for what, body in NOT_JSON.items():
        yield BadCall(f"create: {what}", "POST", NEW, body)
    for what in ("empty body", "list", "open brace", "NaN", "Latin-1", "lone high surrogate", "bomb of objects"):
        for method, path in (("PUT", HERE), ("POST", PARSE), ("POST", KEYS)):
            yield BadCall(f"{method} {path}: {what}", method, path, NOT_JSON[what])
    for what, options in BAD_OPTIONS.items():
        yield BadCall(f"create: {what}", "POST", NEW, as_json({**OPTIONS, **options}))
        yield BadCall(f"update: {what}", "PUT", HERE, as_json({**OPTIONS, **options}))
    for what, command in BAD_COMMANDS.items():
        yield BadCall(f"command: {what}", "POST", PARSE, as_json(command))
    for blank in ("", " \t\n"):
        yield BadCall(f"command {blank!r}", "POST", PARSE, as_json({"command": blank}), code="invalid_command")
    for what, key in BAD_KEYS.items():
        yield BadCall(f"key: {what}", "POST", KEYS, as_json(key))


def about_nobody() -> Iterator[BadCall]:
    """Yield calls that are well formed, about what there is not, or is already."""
    calls = (("GET", ""), ("DELETE", ""), ("POST", "/start"), ("POST", "/stop"), ("POST", "/restart"), ("GET", "/logs"))
    proxied = (("GET", "/proxy/health"), ("POST", "/proxy/v1/completions"))
    for method, rest in (*calls, *proxied):
        yield BadCall(f"{method} {rest} of nobody", method, NOWHERE + rest, b"{}", 404, "invalid_instance")
    yield BadCall("update of nobody", "PUT", NOWHERE, as_json(OPTIONS), 404, "invalid_instance")
    yield BadCall("create what there is", "POST", HERE, as_json(OPTIONS), 409, "instance_exists")
    yield BadCall("revoke a key of nobody", "DELETE", f"{KEYS}/nothing", b"", 404, "invalid_key")
    yield BadCall("read what is stopped", "GET", f"{HERE}/proxy/health", b"", 503, "instance_not_running")
    prompt = as_json({"prompt": "A fox", "max_tokens": 1})
    yield BadCall("ask what is stopped", "POST", f"{HERE}/proxy/v1/completions", prompt, 503, "instance_not_running")


def as_json(body: Any) -> bytes:
    return json.dumps(body).encode()


BAD_CALLS = tuple(bad_calls())
