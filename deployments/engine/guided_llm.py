"""vLLM's engine, which never sees a constraint that the pool has not compiled: the one way for all of its APIs."""

import asyncio
import copy
import json
from collections.abc import AsyncGenerator, Sequence
from contextvars import Context
from time import monotonic
from typing import Any

from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from deployments.engine import constraints, metering
from deployments.engine.guide import LOCAL, Guide, Pending, settled
from deployments.engine.metered_llm import MeteredLLM
from deployments.errors import InvalidRequestError, ServingError
from deployments.guided.references import to_reference
from deployments.guided_types import EngineGrammars, GrammarSpec, Receipt
from deployments.types import Usage

NOT_SUPPORTED = ("whitespace_pattern", "disable_additional_properties")
"""Fields of vLLM's that its xgrammar backend passes over without a word."""


class GuidedLLM(MeteredLLM):
    """An AsyncLLM whose requests wait for their constraints, and carry references to them."""

    guide: Guide | None = None
    """None: vLLM compiles constraints itself."""

    def generate(self, prompt: Any, sampling_params: Any, request_id: str, **options: Any) -> AsyncGenerator[Any, None]:
        """As vLLM's. Not a generator itself: a constraint begins to be made ready before anybody asks for an output,
        so that whoever serves the HTTP request can wait for it before the response begins."""
        given = getattr(sampling_params, "structured_outputs", None)
        if self.guide is None or given is None or given.all_constraints_none():
            return super().generate(prompt, sampling_params, request_id, **options)  # type: ignore[no-any-return]
        return self._generate(begin(self.guide, given), prompt, sampling_params, request_id, options)

    async def _generate(
        self, pending: Pending, prompt: Any, params: Any, request_id: str, options: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        try:
            begun_s = monotonic()
            receipt = await self._ready(pending, prompt, request_id, options)
            metering.waited(monotonic() - begun_s)
            params = with_reference(params, receipt, pending.spec)
            async for output in super().generate(prompt, params, request_id, **options):
                yield output
        except InvalidRequestError as error:
            raise VLLMValidationError(error.message, parameter="structured_outputs") from error
        finally:
            pending.leave()

    async def _ready(self, pending: Pending, prompt: Any, request_id: str, options: dict[str, Any]) -> Receipt:
        """Wait for a constraint; when it takes long, have the prompt's KV blocks computed meanwhile."""
        assert self.guide is not None
        if pending.is_ready or not self._may_prefill(prompt):
            return await pending.ready()
        ready = asyncio.ensure_future(pending.ready())
        prefill: asyncio.Task[None] | None = None
        try:
            await asyncio.wait({ready}, timeout=self.guide.settings.overlap_after_s)
            if not ready.done():
                # In a context of its own: its tokens are those of the request itself, which pays for them.
                prefill = asyncio.create_task(self._prefill(prompt, request_id, options), context=Context())
            return await ready
        except (ServingError, asyncio.CancelledError):
            if prefill is not None:  # work that nobody would pay for otherwise
                metering.note(lambda: Usage(len(prompt["prompt_token_ids"]), 0))
            raise
        finally:
            ready.cancel()
            if prefill is not None:
                prefill.cancel()
                await asyncio.gather(prefill, return_exceptions=True)

    def _may_prefill(self, prompt: Any) -> bool:
        config = self.vllm_config
        # Of several data-parallel cores, the request may go to another one than its prompt.
        is_there = config.cache_config.enable_prefix_caching and config.parallel_config.data_parallel_size == 1
        return bool(is_there) and isinstance(prompt, dict) and prompt.get("type") == "token"

    async def _prefill(self, prompt: Any, request_id: str, options: dict[str, Any]) -> None:
        params = SamplingParams(max_tokens=1, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY)
        kept = {name: options[name] for name in ("lora_request", "priority", "data_parallel_rank") if name in options}
        async for _ in super().generate(copy.copy(prompt), params, f"{request_id}-prefill", **kept):
            pass


def begin(guide: Guide, given: StructuredOutputsParams) -> Pending:
    """Have a request's constraint made ready, and note it with the HTTP request that is being served."""
    request = constraints.current()
    try:
        spec = to_spec(given, request is None or request.options.strict)
    except InvalidRequestError as error:
        pending = Pending(GrammarSpec("json_object", ""), settled(error), lambda: None)
    else:
        pending = guide.expect(spec)
    if request is not None:
        request.add(pending)
    return pending


def to_spec(given: StructuredOutputsParams, strict: bool) -> GrammarSpec:
    """Read vLLM's parameters; raises InvalidRequestError for what would have no effect."""
    for name in NOT_SUPPORTED:
        if getattr(given, name):
            raise InvalidRequestError(f"`structured_outputs.{name}` has no effect here.", "structured_outputs")
    spaces = not given.disable_any_whitespace
    if given.json_object is not None:
        if not given.json_object:
            raise InvalidRequestError("`json_object` must be true, or left out.", "structured_outputs")
        return GrammarSpec("json_object", "", spaces, strict)
    for kind in ("json", "regex", "choice", "grammar", "structural_tag"):
        if (value := getattr(given, kind)) is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            return GrammarSpec(kind, text, spaces, strict)
    raise InvalidRequestError("`structured_outputs` holds no constraint.", "structured_outputs")


def with_reference(params: Any, receipt: Receipt, spec: GrammarSpec) -> Any:
    """Return parameters that name a constraint in place of stating it. What is stated may be 100 kB, which vLLM would
    parse on this loop."""
    if receipt.compiler == LOCAL and spec.kind != "json":
        return params
    params = copy.copy(params)
    # vLLM would write a schema with escapes, and the core not recognize it as a small one.
    given = {"json": spec.text} if receipt.compiler == LOCAL else {"grammar": to_reference(receipt.key)}
    params.structured_outputs = StructuredOutputsParams(**given)
    return params


class EngineCore:
    """The shelf of the engine's core processes; each of them holds all constraints."""

    def __init__(self, engine: Any) -> None:
        self._call = engine.engine_core.call_utility_all_async

    async def vocabulary(self) -> dict[str, Any]:
        """Return what `guided/plugin.py` says of the tokens; raises when the plugin is not in place."""
        found: dict[str, Any] = (await self._call("guided_vocabulary"))[0]
        return found

    async def load(self, key: str, artifact: bytes) -> None:
        await self._call("guided_load", key, artifact)

    async def drop(self, keys: Sequence[str]) -> None:
        await self._call("guided_drop", list(keys))

    async def counts(self) -> EngineGrammars:
        return EngineGrammars(**(await self._call("guided_counts"))[0])
