"""Writing tools: what the model thinks of every token of a document. Answered by the Tokenizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from config.models import GatewaySettings
from deployments.analysis_types import AnalysisRequest, HighlightsQuestion, Question
from deployments.ingress import questions
from deployments.ingress.budget import POLICY, budget_of
from deployments.ingress.choice import find
from deployments.ingress.middleware.body import read_body
from deployments.ingress.on_demand import answering
from deployments.ingress.parsing import parse_object
from deployments.ingress.relay import Relay
from deployments.ingress.routes.openai import key_of
from deployments.ingress.schemas.writing import Body, Conversation, Highlights, NextToken, Revisions
from deployments.ingress.services import Models, Upstream


@dataclass(frozen=True)
class Tool:
    """One route: what it takes, and the question that becomes of it."""

    method: str
    path: str
    schema: type[Body]
    to_question: Callable[[Any, GatewaySettings, bool], Question]
    summary: str


TOOLS = (
    Tool("GET", "/api/highlights", Highlights, questions.to_highlights, "How likely each token of a document is"),
    Tool("POST", "/api/highlights", Highlights, questions.to_highlights, "The same, also as server-sent events"),
    Tool("POST", "/api/continue_messages", Conversation, questions.to_continuations, "The most likely continuations"),
    Tool("GET", "/api/next_token", NextToken, questions.to_next_token, "How a rewritten document may go on"),
    Tool("POST", "/api/logprobs", Conversation, questions.to_logprobs, "How likely each token of a chat was"),
    Tool("GET", "/api/gen_revisions", Revisions, questions.to_revisions, "Sampled rewritings of a document"),
)
PATHS = tuple(dict.fromkeys(tool.path for tool in TOOLS))


def create_router(models: Models, settings: GatewaySettings, tokenizer: Upstream[AnalysisRequest]) -> APIRouter:
    router = APIRouter()
    limits = settings.limits

    async def read(tool: Tool, request: Request) -> tuple[bytes, Body]:
        if tool.method == "GET":
            return request.scope["query_string"], questions.checked(tool.schema, known(tool, request), is_strict=False)
        raw = await read_body(request.scope, request.receive, limits.max_body_bytes, settings.deadlines.body_s)
        return raw, questions.checked(tool.schema, parse_object(raw, limits), is_strict=True)

    def add(tool: Tool) -> None:
        async def answer(request: Request) -> Response:
            budget_of(request.scope).mark(POLICY)
            sent, body = await read(tool, request)
            question = tool.to_question(body, settings, tool.method == "POST" and wants_events(request))
            is_stream = isinstance(question, HighlightsQuestion) and question.is_stream
            model = await find(models, key_of(request), body.model, settings.default_model)
            asked = AnalysisRequest(model.name, tool.path, sent, question)
            upstream = answering(model, lambda _: tokenizer, settings.retry_after_s)
            return Relay(upstream, asked, settings.deadlines, is_stream, model.name)

        described = query_of(tool.schema) if tool.method == "GET" else body_of(tool.schema)
        router.add_api_route(
            tool.path,
            answer,
            methods=[tool.method],
            name=f"{tool.method} {tool.path}",
            summary=tool.summary,
            openapi_extra=described,
        )

    for tool in TOOLS:
        add(tool)
    return router


def known(tool: Tool, request: Request) -> dict[str, str]:
    """Return the query's values that a route reads; links carry others, for example to keep caches away."""
    return {name: value for name, value in request.query_params.items() if name in tool.schema.model_fields}


def wants_events(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "").lower()


def query_of(schema: type[Body]) -> dict[str, Any]:
    """Describe a query for OpenAPI."""
    described = schema.model_json_schema()
    required = described.get("required", ())
    parameters = [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in described["properties"].items()
    ]
    return {"parameters": parameters}


def body_of(schema: type[BaseModel]) -> dict[str, Any]:
    """Describe a body for OpenAPI; models inside it are written out."""
    described = schema.model_json_schema()
    inlined = inline(described, described.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inlined}}}}


def inline(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [inline(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if reference := schema.get("$ref"):
        return inline(definitions[reference.rsplit("/", 1)[1]], definitions)
    return {name: inline(value, definitions) for name, value in schema.items()}
