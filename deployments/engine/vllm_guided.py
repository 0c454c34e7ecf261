"""Ties an engine to the pool of compilers, when it starts."""

import logging

from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from config.guided import EngineGuidedSettings
from deployments.engine.grammars import read_spec
from deployments.engine.guide import Compiler, Guide
from deployments.engine.guided_llm import EngineCore, GuidedLLM
from deployments.errors import InvalidRequestError, ServingError
from deployments.guided.artifact import vocabulary_of

logger = logging.getLogger("ray.serve")


async def make_guide(engine: GuidedLLM, compiler: Compiler, settings: EngineGuidedSettings) -> Guide | None:
    """Return what has constraints compiled for this engine; None when vLLM compiles them itself, which is logged."""
    config = engine.vllm_config
    backend = config.structured_outputs_config.backend
    if settings.compiled_by == "engine" or config.model_config.skip_tokenizer_init:
        return None
    if "generate" not in await engine.get_supported_tasks():
        return None
    if backend != "xgrammar":
        logger.warning("the structured outputs backend is %s: vLLM compiles constraints itself, in the engine", backend)
        return None
    core = EngineCore(engine)
    try:
        vocabulary = vocabulary_of(**await core.vocabulary())
    except Exception:
        logger.exception(
            "THE ENGINE COMPILES CONSTRAINTS ITSELF: our plugin is not in its core. A bad constraint can stop it. "
            "Is vllm-graph installed there (`pip install -e .`), and is VLLM_PLUGINS unset?"
        )
        return None
    spaces = not config.structured_outputs_config.disable_any_whitespace
    return Guide(compiler, core, vocabulary, settings, any_whitespace=spaces)


async def warm_up(engine: GuidedLLM) -> None:
    """Have the first mask of a batch filled, and the pool get to know the vocabulary."""
    params = SamplingParams(max_tokens=2, structured_outputs=StructuredOutputsParams(json_object=True))
    try:
        async for _ in engine.generate({"prompt_token_ids": [1]}, params, "warm-up-mask"):
            pass
    except Exception as error:  # plain requests need none of it
        if engine.errored:
            raise
        logger.warning("no constraint could be had to warm the engine: %r", error)


async def precompile(guide: Guide, settings: EngineGuidedSettings) -> None:
    """Have the constraints of the settings ready; raises InvalidRequestError when one can never be."""
    for number, constraint in enumerate(settings.precompile):
        pending = guide.expect(read_spec(constraint.kind, constraint.spec))
        try:
            await pending.ready()
        except InvalidRequestError as error:
            raise InvalidRequestError(f"`guided.precompile[{number}]`: {error.message}") from error
        except ServingError as error:
            logger.warning("`guided.precompile[%d]` will be compiled at its first use: %s", number, error)
        finally:
            pending.leave()
