"""A fuzzer reads our OpenAPI document and sends what it makes of it to real vLLM: nothing may be answered 5xx."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

from tests.harness import Server
from tests.hostile import DEADLINE_S, assert_serves

EXAMPLES = 20
"""For each route, once of bodies that fit its schema and once of bodies that do not."""
MAX_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

fuzzing = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_route_answers_5xx(server: Server, model: str, mode: GenerationMode) -> None:
    document = server.http.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    paths = {operation.path for operation in operations}
    assert paths >= {"/v1/chat/completions", "/v1/models/{name}", "/tokenize", "/api/logprobs"}
    for operation in operations:

        @fuzzing
        @given(case=operation.as_strategy(generation_mode=mode))
        def attack(case: Case[Any]) -> None:
            aim(case, model)
            response = case.call(base_url=server.base_url, timeout=DEADLINE_S)
            assert response.status_code < 500, (response.status_code, response.text, case.as_curl_command())

        attack()
    assert_serves(server, model)


def aim(case: Case[Any], model: str) -> None:
    """Send a body to the model that is there, and have it ask for few tokens when it may have any."""
    body: Any = case.body
    if not isinstance(body, dict):
        return
    body["model"] = model
    for name in MAX_TOKENS:
        if type(body.get(name)) is int and 0 < body[name] <= 4096:
            body[name] = 3
    if not case.path.startswith("/api/") and not any(name in body for name in MAX_TOKENS):
        body["max_output_tokens" if "input" in body else "max_tokens"] = 3
