"""vLLM in this process: AsyncLLM from typed settings, and vLLM's own OpenAI application in front of it."""

import asyncio
import json
import logging
import os
import time
import uuid
from argparse import Namespace
from array import array
from types import SimpleNamespace
from typing import Any

from config.models import ModelSettings
from deployments.analysis_types import Branches, BranchRequest, SampleRequest, Samples, ScoreRequest, TokenScores
from deployments.engine.arguments import underscored, with_xgrammar
from deployments.engine.asgi import AsgiApp
from deployments.engine.cpu import core_environment, cpu_environment, default_threads, share_of_cores
from deployments.engine.early_core import EarlyCore
from deployments.engine.grammars import PATH, Grammars, with_route
from deployments.engine.guide import Compiler
from deployments.engine.serve_log import serves_log_kept
from deployments.engine.templates import PLAIN_TEMPLATE_WITH_BOS, template_variables, to_chat_template
from deployments.guided.references import SWITCH
from deployments.guided_types import EngineGrammars
from deployments.tracing import engine_arguments, engine_environment, shut_down_engine
from deployments.types import EngineStats, ModelInfo, TokenizerSource

logger = logging.getLogger(__name__)

POOLING_TASKS = ("embed", "classify", "token_embed", "token_classify")
UNIPROC_EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"


class VllmBackend:
    """An engine replica's vLLM. `device` is "cpu" or "gpu"; `rank` numbers the replica on its machine."""

    app: AsgiApp

    def __init__(self, settings: ModelSettings, device: str, rank: int, compiler: Compiler) -> None:
        self._settings = settings
        self._compiler = compiler
        self._device = device
        self._rank = rank
        self._created = int(time.time())
        self._engine: Any = None
        self._early: EarlyCore | None = None
        self._native: Any = None
        self._tokenizer: TokenizerSource | None = None
        self._recorders: list[Any] = []
        self._paths: frozenset[str] = frozenset()
        self._openapi = ""
        self._template_variables: frozenset[str] = frozenset()

    async def start(self) -> None:
        with serves_log_kept():
            # Building an engine blocks for seconds or minutes: in a thread, so that the replica still answers Serve.
            args = await asyncio.to_thread(self._prepare)
            self._engine = await asyncio.to_thread(self._make_engine, args)
            self.app = await self._make_app(args)
            await self._guide()
        from vllm.envs import enable_envs_cache

        from deployments.engine.vllm_native import NativeCalls

        self._native = NativeCalls(self._engine, self._settings.scoring)
        await self._warm_up()
        enable_envs_cache()  # vLLM asks the environment for each token; its own server leaves it so
        if self._engine.guide is not None:
            from deployments.engine.vllm_guided import precompile, warm_up

            await warm_up(self._engine)
            await precompile(self._engine.guide, self._settings.guided)

    def info(self) -> ModelInfo:
        import vllm

        return ModelInfo(
            name=self._settings.name,
            max_model_len=self._engine.model_config.max_model_len,
            created=self._created,
            version=f"vllm {vllm.__version__}",
            paths=self._paths,
            vocab_size=self._engine.model_config.get_vocab_size(),
            openapi=self._openapi,
            chat_template_kwargs=self._settings.chat_template_kwargs | self._template_variables,
            allow_chat_template=self._settings.allow_request_chat_template,
            media_domains=self._settings.media_domains,
            tokenizer=self._tokenizer,
        )

    def stats(self) -> EngineStats:
        from deployments.engine.load import total_load

        return total_load(self._recorders, self.num_unfinished())

    def num_unfinished(self) -> int:
        return int(self._engine.get_num_unfinished_requests())

    def last_step_s(self) -> float:
        # Of several data-parallel cores the one that was last: one that hangs alone is not found.
        return max((recorder.last_step_s for recorder in self._recorders), default=0.0)

    async def probe(self) -> None:
        from vllm import PoolingParams, SamplingParams

        tasks = await self._engine.get_supported_tasks()
        prompt, request_id = {"prompt_token_ids": [1]}, f"probe-{uuid.uuid4().hex}"
        pooling = [task for task in POOLING_TASKS if task in tasks]
        if "generate" in tasks:
            params = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
            outputs = self._engine.generate(prompt, params, request_id)
        elif pooling:
            outputs = self._engine.encode(prompt, PoolingParams(task=pooling[0]), request_id)
        else:  # speech: nothing is as cheap as a token
            await self._engine.check_health()
            return
        async for _ in outputs:
            pass

    async def score(self, request: ScoreRequest) -> TokenScores:
        scores: TokenScores = await self._native.score(request)
        return scores

    async def branch(self, request: BranchRequest) -> Branches:
        branches: Branches = await self._native.branch(request)
        return branches

    async def sample(self, request: SampleRequest) -> Samples:
        samples: Samples = await self._native.sample(request)
        return samples

    async def grammars(self) -> EngineGrammars | None:
        guide = self._engine.guide
        return await guide.counts() if guide is not None else None

    def is_dead(self) -> bool:
        return self._engine is not None and bool(self._engine.errored)

    def shutdown(self) -> None:
        if self._early is not None:
            self._early.close()
        if self._engine is not None:
            self._engine.shutdown(timeout=0)
            shut_down_engine(self._settings.tracing)

    def _prepare(self) -> Namespace:
        """Set the environment, then import vLLM and parse its arguments (vLLM reads the environment at import)."""
        os.environ.update(self._environment())
        self._early = EarlyCore()
        from deployments.engine.command import to_namespace

        args = to_namespace(self._engine_args())
        args.served_model_name = [self._settings.name, *(args.served_model_name or [])]
        args.chat_template = to_chat_template(self._settings.request_format)
        args.trust_request_chat_template = self._settings.allow_request_chat_template
        # An empty list means every host to vLLM; the name is one that never exists (RFC 2606).
        args.allowed_media_domains = sorted(self._settings.media_domains) or ["none.invalid"]
        args.enable_scale_out = True  # for the render routes; of its others the gateway forwards none
        return args

    def _environment(self) -> dict[str, str]:
        environment = {
            # The gateway chooses the model, so `name/anything` and requests without a model belong here.
            "VLLM_SKIP_MODEL_NAME_VALIDATION": "1",
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
            "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",  # an allowed host must not send the engine to another one
        }
        if self._device == "cpu":
            # vLLM 0.32 cannot load what it saves so on CPU, and compiles for 8 s at every start.
            environment["VLLM_USE_AOT_COMPILE"] = "0"
            cpu = self._settings.cpu
            machine = sorted(os.sched_getaffinity(0))
            cores = share_of_cores(machine, self._rank, cpu.max_replicas_per_node)
            threads = default_threads(cores) if cpu.threads == "auto" else cpu.threads
            environment |= cpu_environment(cores, threads, is_own=len(cores) < len(machine))
            environment |= core_environment(os.environ.get("LD_PRELOAD", ""))
        if self._settings.guided.compiled_by == "pool":
            environment[SWITCH] = "strict" if self._settings.guided.strict else "lenient"
        name, own = self._settings.name, self._settings.environment
        return environment | engine_environment(self._settings.tracing, name, {**os.environ, **own}) | own

    def _engine_args(self) -> dict[str, Any]:
        own, cpu = underscored(self._settings.engine_args), underscored(self._settings.cpu.engine_args)
        # Scoring a document must not delay chats, and looks further than the 20 alternatives that clients may ask for.
        defaults: dict[str, Any] = {"scheduling_policy": "priority", "max_logprobs": 1024}
        defaults |= engine_arguments(self._settings.tracing, os.environ)
        if own.get("tool_call_parser", "") is not None:
            defaults |= {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
        return with_xgrammar(defaults | (cpu if self._device == "cpu" else {}) | own, self._settings.guided)

    def _make_engine(self, args: Namespace) -> Any:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.reasoning import ReasoningParserManager
        from vllm.tool_parsers import ToolParserManager
        from vllm.usage.usage_lib import UsageContext

        from deployments.engine.guided_llm import GuidedLLM
        from deployments.engine.load import LoadRecorder
        from deployments.engine.vllm_metrics import EngineMetrics
        from deployments.engine.vllm_streams import Streams

        # vLLM's launcher imports parser plugins, build_app does not.
        if args.tool_parser_plugin:
            ToolParserManager.import_tool_parser(args.tool_parser_plugin)
        if args.reasoning_parser_plugin:
            ReasoningParserManager.import_reasoning_parser(args.reasoning_parser_plugin)
        engine_args = AsyncEngineArgs.from_cli_args(args)
        if self._device == "cpu" and engine_args.distributed_executor_backend is None and _world_size(args) == 1:
            # One process less; vLLM's command line refuses it on CPU, its engine arguments do not.
            engine_args.distributed_executor_backend = UNIPROC_EXECUTOR

        def make_load_recorder(vllm_config: Any, engine_index: int = 0) -> LoadRecorder:
            recorder = LoadRecorder(vllm_config, engine_index)
            self._recorders.append(recorder)
            return recorder

        streams = Streams(self._settings.streaming)
        assert self._early is not None
        with self._early.used():
            engine = GuidedLLM.from_engine_args(
                engine_args,
                usage_context=UsageContext.OPENAI_API_SERVER,
                stat_loggers=[make_load_recorder, streams.make_recorder, EngineMetrics],
            )
        streams.follow(engine.output_processor, args.reasoning_parser)
        return engine

    async def _guide(self) -> None:
        """Have the pool compile this engine's constraints, when it can."""
        from deployments.engine.tool_calls import constrain_forced_calls
        from deployments.engine.vllm_guided import make_guide

        constrain_forced_calls()
        guide = await make_guide(self._engine, self._compiler, self._settings.guided)
        if guide is not None:
            self._engine.guide = guide
            self.app = Grammars(self.app, guide)
            self._paths |= {PATH}
            self._openapi = with_route(self._openapi)

    async def _make_app(self, args: Namespace) -> AsgiApp:
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app
        from vllm.entrypoints.openai.completion.protocol import CompletionRequest

        from deployments.engine.vllm_app import lighten
        from deployments.engine.vllm_chats import chat_templates, tokenizer_source

        # vLLM fills an absent or null max_tokens from this default (16), clamped to what is left of the window.
        CompletionRequest.model_fields["max_tokens"].default = (
            self._settings.completions_default_max_tokens or self._engine.model_config.max_model_len
        )
        if self._settings.request_format == "plain" and self._adds_bos():
            args.chat_template = PLAIN_TEMPLATE_WITH_BOS
        tasks = await self._engine.get_supported_tasks()
        app = build_app(args, tasks, self._engine.model_config)
        lighten(app)
        await init_app_state(self._engine, app.state, args, tasks)
        app.state.server = SimpleNamespace(should_exit=False)  # vLLM's error handlers write to it
        document = app.openapi()
        self._paths, self._openapi = frozenset(document["paths"]), json.dumps(document)
        templates = chat_templates(self._engine, args)
        self._template_variables = frozenset().union(*map(template_variables, templates.values()))
        if "generate" in tasks:
            self._tokenizer = tokenizer_source(self._engine, args, templates.get("without tools"))
        asgi: AsgiApp = app
        return asgi

    def _adds_bos(self) -> bool:
        tokenizer = self._engine.renderer.tokenizer
        bos = getattr(tokenizer, "bos_token_id", None)
        return bos is not None and tokenizer.encode("a")[:1] == [bos]

    async def _warm_up(self) -> None:
        """Run each path once that compiles at first use: 13 s for the first prompt_logprobs on CPU."""
        from vllm import SamplingParams

        if "generate" not in await self._engine.get_supported_tasks():
            return
        if self._device == "cpu":
            params = SamplingParams(max_tokens=2, prompt_logprobs=1, logprobs=1, temperature=1.0, top_p=0.9)
            async for _ in self._engine.generate({"prompt_token_ids": [1, 2, 3]}, params, "warm-up"):
                pass
        length = min(self._settings.scoring.warm_up_tokens, self._engine.model_config.max_model_len // 2)
        ids = array("i", [1]) * length
        try:
            await self.score(ScoreRequest(ids, 1, 5, with_next=True))
            await self.branch(BranchRequest(ids, 5, 1, frozenset()))
        except Exception as error:  # what this engine refuses needs no warming
            if self.is_dead():
                raise
            logger.warning("texts could not be scored to warm the engine: %r", error)


def _world_size(args: Namespace) -> int:
    return int(args.tensor_parallel_size) * int(args.pipeline_parallel_size) * int(args.data_parallel_size or 1)
