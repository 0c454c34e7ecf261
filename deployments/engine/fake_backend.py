"""An engine without a model: the OpenAI routes at a set speed, for tests of the graph and load on front doors.

It goes through the same code path as vLLM's application: ASGI in, bytes out. The cases in `tests/cases.py` run against
both, so that it cannot drift.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from config.models import PROJECT_ROOT, ModelSettings
from deployments.analysis_types import Branches, BranchRequest, SampleRequest, Samples, ScoreRequest, TokenScores
from deployments.engine import fake_native, metering
from deployments.engine.asgi import AsgiApp
from deployments.engine.fake_formats import FORMATS, Format, Generation, join_messages
from deployments.engine.fake_openapi import FIELDS, fake_openapi
from deployments.engine.fake_text import FakeTokenizer, fake_tokens
from deployments.errors import InvalidRequestError, ServingError
from deployments.types import EngineStats, ModelInfo, TokenizerSource, Usage

Body = dict[str, Any]


class FakeBackend:
    """Deterministic and seeded; see FakeEngineSettings for its speed."""

    app: AsgiApp

    def __init__(self, settings: ModelSettings) -> None:
        self._name = settings.name
        self._settings = settings.fake
        self._tokenizer = FakeTokenizer()
        self._created = int(time.time())
        self._running = 0
        self._dead = False
        self._served = 0
        self._last_step_s = time.monotonic()

    async def start(self) -> None:
        await asyncio.sleep(self._settings.start_s)
        routes = [Route(path, self._generating(kind), methods=["POST"]) for path, kind in FORMATS.items()]
        routes += [
            Route("/tokenize", self._json(self._tokenize), methods=["POST"]),
            Route("/detokenize", self._json(self._detokenize), methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    def info(self) -> ModelInfo:
        return ModelInfo(
            name=self._name,
            max_model_len=self._settings.max_model_len,
            created=self._created,
            version="fake 1",
            paths=frozenset(FIELDS),
            vocab_size=self._tokenizer.vocabulary_tokens,
            openapi=fake_openapi(),
            tokenizer=TokenizerSource(str(PROJECT_ROOT / fake_native.TOKENIZER)),
        )

    def stats(self) -> EngineStats:
        return EngineStats(self._running, 0, min(1.0, self._running / 256))

    def num_unfinished(self) -> int:
        return self._running

    def last_step_s(self) -> float:
        return self._last_step_s

    async def probe(self) -> None:
        probe = Generation("probe", self._name, 0, [1], max_tokens=1, seed=0, n=1, include_usage=False)
        async for _ in self._tokens(probe, self._hangs()):
            pass

    async def score(self, request: ScoreRequest) -> TokenScores:
        await self._compute()
        return fake_native.score(request)

    async def branch(self, request: BranchRequest) -> Branches:
        await self._compute()
        return fake_native.branch(request)

    async def sample(self, request: SampleRequest) -> Samples:
        await self._compute()
        return fake_native.sample(request, self._settings.seed)

    async def _compute(self) -> None:
        """Take the time of a first token."""
        question = Generation("analysis", self._name, 0, [1], max_tokens=1, seed=0, n=1, include_usage=False)
        async for _ in self._texts(question):
            pass

    async def grammars(self) -> None:
        return None

    def is_dead(self) -> bool:
        return self._dead

    def shutdown(self) -> None:
        self._dead = True

    def _json(self, answer: Callable[[Body], Body]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                return JSONResponse(answer(await request.json()))
            except ServingError as error:
                return JSONResponse(error.to_body(), error.status)

        return endpoint

    def _tokenize(self, body: Body) -> Body:
        text = body.get("prompt") if "prompt" in body else join_messages(body)
        if not isinstance(text, str):
            raise InvalidRequestError("`prompt` or `messages` is required", "prompt")
        ids = self._tokenizer.encode(text)
        return {"count": len(ids), "max_model_len": self._settings.max_model_len, "tokens": ids, "token_strs": None}

    def _detokenize(self, body: Body) -> Body:
        try:
            return {"prompt": self._tokenizer.decode(body["tokens"])}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InvalidRequestError(f"`tokens` must be a list of token ids: {error!r}", "tokens") from error

    def _generating(self, kind: Format) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                body = await request.json()
                generation = self._generation(kind, body)
            except ServingError as error:
                return JSONResponse(error.to_body(), error.status)
            if body.get("stream"):
                return StreamingResponse(self._events(generation, kind), media_type="text/event-stream")
            return await self._whole(request, generation, kind)

        return endpoint

    def _generation(self, kind: Format, body: Body) -> Generation:
        prompt = kind.prompt(body)
        ids = self._tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        room = self._settings.max_model_len - len(ids)
        if room <= 0:
            raise InvalidRequestError(f"The prompt has {len(ids)} tokens, the window {self._settings.max_model_len}.")
        asked = next((body[key] for key in kind.limits if body.get(key) is not None), self._settings.default_max_tokens)
        if not isinstance(asked, int) or asked < 1:
            raise InvalidRequestError("`max_tokens` must be at least 1", "max_tokens")
        seed = self._settings.seed if body.get("seed") is None else body["seed"]
        options = body.get("stream_options") or {}
        return Generation(
            id=f"{kind.id_prefix}-{uuid.uuid4().hex}",
            model=self._name,
            created=int(time.time()),
            prompt_token_ids=ids,
            max_tokens=min(asked, room),
            seed=seed,
            n=body.get("n") or 1,
            include_usage=bool(options.get("include_usage")),
        )

    def _hangs(self) -> bool:
        return self._settings.hang_after_requests is not None and self._served >= self._settings.hang_after_requests

    def _texts(self, generation: Generation) -> AsyncIterator[str]:
        """Answer a request."""
        hangs = self._hangs()
        self._served += 1
        return self._tokens(generation, hangs)

    async def _tokens(self, generation: Generation, hangs: bool) -> AsyncIterator[str]:
        """Yield token texts at the set speed."""
        made = 0
        arrived_s = last_s = time.monotonic()
        first_s = 0.0
        metering.note(
            lambda: Usage(len(generation.prompt_token_ids), made * generation.n),
            lambda: metering.Stamps(arrived_s, arrived_s, first_s, last_s),
        )
        self._running += 1
        try:
            tokens = fake_tokens(generation.prompt_token_ids, generation.seed)
            await asyncio.sleep(self._settings.ttft_s)
            if hangs:
                await asyncio.Event().wait()
            for index in range(generation.max_tokens):
                if index:
                    await asyncio.sleep(self._settings.itl_s)  # also for 0 s: the loop has others to serve
                self._last_step_s = last_s = time.monotonic()
                first_s = first_s or last_s
                made += 1
                yield self._tokenizer.decode([next(tokens)])
        finally:
            self._running -= 1

    async def _events(self, generation: Generation, kind: Format) -> AsyncIterator[bytes]:
        is_first = True
        async for text in self._texts(generation):
            if is_first:
                for event in kind.opening(generation):
                    yield to_sse(event)
            is_first = False
            for event in kind.delta(generation, text):
                yield to_sse(event)
        for event in kind.closing(generation):
            yield to_sse(event)
        yield to_sse("[DONE]")

    async def _whole(self, request: Request, generation: Generation, kind: Format) -> Response:
        async def collect() -> str:
            return "".join([text async for text in self._texts(generation)])

        # As in vLLM: a client that leaves ends a plain request, too.
        work = asyncio.create_task(collect())
        leaving = asyncio.create_task(wait_for_disconnect(request))
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not work.done():
            work.cancel()
            return Response(status_code=499)
        return JSONResponse(kind.whole(generation, work.result()))


async def wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def to_sse(event: Body | str) -> bytes:
    return f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
