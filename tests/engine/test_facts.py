"""What real vLLM says of itself, and that the fake engine says the same."""

import json

from deployments.engine.fake_openapi import FIELDS
from deployments.ingress.validation import known_fields
from tests.harness import Server


def test_the_fake_knows_the_same_fields(server: Server) -> None:
    real = known_fields(json.dumps(server.http.get("/openapi.json").json()))
    for path, names in FIELDS.items():
        assert sorted(real[path]) == sorted(names), path


def test_every_forwarded_route_that_the_model_has_is_described(server: Server) -> None:
    document = server.http.get("/openapi.json").json()
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/tokenize"):
        assert "requestBody" in document["paths"][path]["post"]
    assert "/collective_rpc" not in document["paths"]
