"""One trace from the gateway into vLLM, as a collector receives it from both processes."""

import uuid
from typing import Any

import pytest

from tests.collector import Collector, Span
from tests.harness import PLANES, Server, eventually

planes = PLANES

TEXT = "Tell me a story about a fox"
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 5}
PROMPT: dict[str, Any] = {"prompt": TEXT, "max_tokens": 5}
LLM = "llm_request"
EXPORTED_WITHIN_S = 60.0
"""OpenTelemetry sends every 5 s."""


REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "streamed chat": ("/v1/chat/completions", {**CHAT, "stream": True}),
    "streamed completion": ("/v1/completions", {**PROMPT, "stream": True}),
    "messages": ("/v1/messages", CHAT),
    "responses": ("/v1/responses", {"input": TEXT, "max_output_tokens": 5}),
    "choices": ("/v1/completions", {**PROMPT, "n": 2, "temperature": 1}),
}
CLIENTS_TRACE = "0af7651916cd43dd8448eb211c80319c"
OF_A_CLIENT = {"traceparent": f"00-{CLIENTS_TRACE}-b7ad6b7169203331-01"}


@pytest.fixture(scope="module")
def sent(server: Server) -> dict[str, str]:
    """Send every request before anybody waits for spans; return the id of each."""
    ids = {}
    for name, (path, body) in REQUESTS.items():
        ids[name] = f"traced-{uuid.uuid4().hex}"
        headers = {"x-request-id": ids[name], **OF_A_CLIENT}
        response = server.http.post(path, json={"model": "demo", **body}, headers=headers)
        assert response.status_code == 200, response.text
    return ids


def trace(collector: Collector, request_id: str, num_llm_spans: int = 1) -> tuple[Span, list[Span]]:
    """Return the gateway's span of a request, and those of the engine within its trace."""

    def complete() -> dict[str, list[Span]] | None:
        found = collector.trace_of(request_id)
        return found if len(found.get(LLM, [])) >= num_llm_spans and len(found) == 2 else None

    found = eventually(complete, f"both processes' spans of {request_id}", EXPORTED_WITHIN_S)
    llm = found.pop(LLM)
    ((gateway,),) = found.values()
    return gateway, llm


@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "choices"])
def test_one_trace_from_the_gateway_to_the_engine(sent: dict[str, str], collector: Collector, name: str) -> None:
    gateway, (llm,) = trace(collector, sent[name])
    assert (gateway.name, gateway.parent_id) == (f"POST {REQUESTS[name][0]}", "")
    assert llm.parent_id == gateway.span_id
    assert llm.trace_id == gateway.trace_id != CLIENTS_TRACE
    services = gateway.resource["service.name"], llm.resource["service.name"]
    assert services == ("vllm-graph-gateway", "vllm-graph-engine")
    assert (gateway.attributes["gen_ai.request.model"], llm.resource["vllm_graph.model"]) == ("demo", "demo")
    assert any(name.startswith("vllm_graph.layer.") for name in gateway.attributes)
    assert gateway.start_s <= llm.start_s <= gateway.end_s
    assert llm.attributes["gen_ai.usage.completion_tokens"] in range(1, 6)


def test_each_choice_is_a_span_of_the_engine(sent: dict[str, str], collector: Collector) -> None:
    gateway, llm = trace(collector, sent["choices"], num_llm_spans=2)
    assert [span.parent_id for span in llm] == [gateway.span_id] * 2


def test_no_text_is_in_any_span(sent: dict[str, str], collector: Collector) -> None:
    trace(collector, sent["chat"])
    assert not [span for span in collector.spans() if "fox" in str(span.attributes)]


def test_what_the_engine_does_for_itself_begins_no_traces(sent: dict[str, str], collector: Collector) -> None:
    """It is asked for a token every two seconds when idle, and was warmed up."""
    trace(collector, sent["chat"])
    of_engine = [span for span in collector.spans() if span.resource["service.name"] == "vllm-graph-engine"]
    assert {span.name for span in of_engine} == {LLM}
    assert all(span.parent_id for span in of_engine)
