"""Making and revoking API keys over HTTP."""

import json
from typing import Any

import httpx
import pytest

from config.auth import digest
from config.models import GatewaySettings
from deployments.ingress.api import create_api
from deployments.ingress.middleware.key_ring import KeyRing
from deployments.instances.stored_keys import to_key
from tests.bad_instance_requests import KEYS
from tests.fakes import FixedModel, FixedModels, ScriptedInstances, ScriptedTokenizer, ask, get, make_api, post

MANAGEMENT, INFERENCE = "sk-management-0123456789", "sk-inference-0123456789"
SETTINGS = GatewaySettings.model_validate({"auth": {"inference_keys": INFERENCE, "management_keys": MANAGEMENT}})


def manage(manager: ScriptedInstances, method: str, path: str, body: Any = None) -> httpx.Response:
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {MANAGEMENT}"}
    request = httpx.Request(method, f"http://localhost{path}", content=content, headers=headers)
    return ask(make_api(manager=manager, settings=SETTINGS), request)


@pytest.mark.parametrize(
    ("fields", "kind", "instances"),
    [
        ({"name": "a"}, "inference", None),
        ({"name": "a", "kind": "management", "expires_in_s": 60}, "management", None),
        ({"name": "a", "kind": "inference", "instances": ["x", "y"]}, "inference", ["x", "y"]),
    ],
)
def test_a_key_is_told_once(fields: dict[str, Any], kind: str, instances: list[str] | None) -> None:
    manager = ScriptedInstances()
    made = manage(manager, "POST", KEYS, fields)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    told = made.json()
    assert told.pop("key") == "sk-secret"
    assert told == {
        "id": "id-1",
        "name": "a",
        "kind": kind,
        "created": 1,
        "expires": None,
        "instances": instances,
    }
    listed = manage(manager, "GET", KEYS)
    assert listed.json() == [told]
    assert "sk-secret" not in listed.text


def test_a_key_is_revoked_once() -> None:
    manager = ScriptedInstances()
    manage(manager, "POST", KEYS, {"name": "a"})
    revoked = manage(manager, "DELETE", f"{KEYS}/id-1")
    assert (revoked.status_code, revoked.content) == (204, b"")
    again = manage(manager, "DELETE", f"{KEYS}/id-1")
    assert (again.status_code, again.json()["error"]) == (404, "invalid_key")
    assert manage(manager, "GET", KEYS).json() == []


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(("key", "status"), [(INFERENCE, 403), ("sk-nobody-0123456789", 401), ("", 401)])
def test_only_a_management_key_makes_keys(method: str, key: str, status: int) -> None:
    manager = ScriptedInstances()
    path = f"{KEYS}/id-1" if method == "DELETE" else KEYS
    headers = {"authorization": f"Bearer {key}"} if key else {}
    request = httpx.Request(method, f"http://localhost{path}", json={"name": "a"}, headers=headers)
    assert ask(make_api(manager=manager, settings=SETTINGS), request).status_code == status
    assert not manager.stored


def test_a_stored_key_opens_what_it_names_until_it_is_revoked() -> None:
    manager, ring = ScriptedInstances(), KeyRing(SETTINGS.auth)
    manage(manager, "POST", KEYS, {"name": "a", "instances": ["x"]})
    stored = to_key(manager.stored["id-1"], digest("sk-secret-0123456789"))
    models = FixedModels(FixedModel("x"), FixedModel("y"))
    api = create_api(models, SETTINGS, ScriptedTokenizer(), manager=manager, ring=ring)

    def status(model: str) -> int:
        request = post("/v1/completions", {"model": model, "prompt": "A fox"})
        request.headers["authorization"] = "Bearer sk-secret-0123456789"
        return ask(api, request).status_code

    assert status("x") == 401
    ring.learn([stored])
    assert (status("x"), status("y")) == (200, 403)
    ring.learn([])
    assert status("x") == 401


def test_an_inference_key_sees_no_keys() -> None:
    request = get(KEYS, authorization=f"Bearer {INFERENCE}")
    assert ask(make_api(manager=ScriptedInstances(), settings=SETTINGS), request).status_code == 403
