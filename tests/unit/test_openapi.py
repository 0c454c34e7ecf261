import json
from typing import Any

from deployments.ingress.openapi import with_engines
from deployments.types import ModelInfo
from tests.fakes import FixedModel, get, make_api
from tests.fakes import ask as ask_api

OWN: dict[str, Any] = {
    "paths": {"/v1/chat/completions": {"post": {"summary": "ours"}}, "/health": {"get": {}}, "/v1/models": {"get": {}}}
}


def model(name: str, document: dict[str, Any]) -> FixedModel:
    return FixedModel(name, info=ModelInfo(name, 10, 0, "v", frozenset(document["paths"]), 10, json.dumps(document)))


def described(title: str) -> dict[str, Any]:
    body = {"content": {"application/json": {"schema": {"title": title}}}}
    return {
        "paths": {
            "/v1/chat/completions": {"post": {"requestBody": body, "summary": "theirs"}},
            "/v1/models": {"get": {"summary": "theirs"}},
            "/collective_rpc": {"post": {}},
        },
        "components": {"schemas": {title: {}}},
    }


def test_forwarded_routes_are_described_by_the_first_engine_that_has_them() -> None:
    document = with_engines(OWN, {"a": model("a", described("A")), "b": model("b", described("B"))})
    post = document["paths"]["/v1/chat/completions"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"]["title"] == "A"
    assert post["summary"] == "ours"
    assert set(document["components"]["schemas"]) == {"A", "B"}


def test_no_route_is_added_and_our_own_stay() -> None:
    document = with_engines(OWN, {"a": model("a", described("A"))})
    assert document["paths"].keys() == OWN["paths"].keys()
    assert document["paths"]["/v1/models"] == {"get": {}}
    assert "requestBody" not in OWN["paths"]["/v1/chat/completions"]["post"]


def test_it_says_how_to_authenticate_and_is_there_without_models() -> None:
    document = ask_api(make_api(FixedModel("a")), get("/openapi.json")).json()
    assert {"bearer", "header"} == set(document["components"]["securitySchemes"])
    assert "/v1/chat/completions" in document["paths"]
