"""The engine in this process, without a server: ways_in_process.py CONFIG MODEL.

Two ways into it: its Python API, token ids in and texts out; and its OpenAI application, called without a socket.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
import yaml
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from config.models import MODEL_APP_PREFIX, ModelSettings
from deployments.engine.asgi import stream_asgi
from deployments.engine.resources import is_cpu_build
from deployments.engine.vllm_backend import VllmBackend
from deployments.errors import EngineUnavailableError
from deployments.guided_types import GrammarSpec, Verdict, Vocabulary
from deployments.types import HttpRequest
from loadtests.layers.streams import PATH, TEMPERATURE, Source, chat_body, note_tokens
from loadtests.layers.ways_table import API, APPLICATION
from loadtests.layers.ways_worker import answer_loads


class NoCompiler:
    """The pool of compilers is part of the graph; nothing here asks for it."""

    async def compile(self, spec: GrammarSpec, vocabulary: Vocabulary, timeout_s: float) -> Verdict:
        raise EngineUnavailableError("There is no pool here.")

    async def find(self, key: str, timeout_s: float) -> Verdict | None:
        raise EngineUnavailableError("There is no pool here.")


def application_source(backend: VllmBackend, settings: ModelSettings) -> Source:
    """Call vLLM's OpenAI application as an engine replica does, in this process."""

    async def ask(number: int, tokens: int, times_s: list[float]) -> None:
        body = json.dumps(chat_body(settings.name, number, tokens)).encode()
        request = HttpRequest("POST", PATH, b"", ((b"content-type", b"application/json"),), body)
        items = stream_asgi(
            backend.app,
            request,
            max_buffered_bytes=settings.max_buffered_bytes,
            abort_timeout_s=settings.abort_timeout_s,
        )
        await anext(items)
        await note_tokens(items, times_s)

    return ask


def api_source(engine: Any, model: str) -> Source:
    """Call AsyncLLM. Chats become token ids here, as whoever uses the API must make them."""
    tokenizer = engine.renderer.tokenizer
    # The application samples as the model's files say; with top_p, that is half of this engine's time.
    defaults = engine.model_config.get_diff_sampling_param()

    async def ask(number: int, tokens: int, times_s: list[float]) -> None:
        messages = chat_body(model, number, tokens)["messages"]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer.encode(text, add_special_tokens=False)
        wanted = {"max_tokens": tokens, "temperature": TEMPERATURE, "ignore_eos": True}
        params = SamplingParams(**{**defaults, **wanted, "output_kind": RequestOutputKind.DELTA})
        async for output in engine.generate({"prompt_token_ids": ids}, params, f"way-{time.monotonic_ns()}-{number}"):
            times_s += [time.perf_counter()] * len(output.outputs[0].token_ids)

    return ask


def settings_of(config: Path, model: str) -> ModelSettings:
    """Read a model's settings as its engine replicas have them, but without the pool of compilers."""
    applications = yaml.safe_load(config.read_text())["applications"]
    args = next(app["args"] for app in applications if app["name"] == MODEL_APP_PREFIX + model)
    guided = {**args.get("guided", {}), "compiled_by": "engine"}
    return ModelSettings.model_validate({**args, "guided": guided})


async def main(config: str, model: str) -> None:
    settings = settings_of(Path(config), model)
    backend = VllmBackend(settings, "cpu" if is_cpu_build() else "gpu", 0, NoCompiler())
    await backend.start()
    try:
        app: Any = backend.app
        sources = {API: api_source(app.state.engine_client, model), APPLICATION: application_source(backend, settings)}
        await answer_loads(sources)
    finally:
        backend.shutdown()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
