r"""`vllm serve` commands and what they say, as data: from vLLM's documentation, from shells, and from enemies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.errors import CommandError, EmptyCommandError, InvalidRequestError


@dataclass(frozen=True, slots=True)
class Case:
    id: str
    command: str
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    id: str
    command: str
    words: str
    """In the message."""
    error: type[InvalidRequestError] = CommandError


def case_id(case: Case | Refused) -> str:
    return case.id


def nested(depth: int) -> str:
    """Return a JSON object so deep, in quotes."""
    inner, outer = '{"a":' * depth, "}" * depth
    return f"'{inner}1{outer}'"


def said(**options: Any) -> dict[str, Any]:
    return {"model": "org/m", **options}


PROGRAMS = [
    Case("vllm-serve", "vllm serve org/m", said()),
    Case("no-model", "vllm serve --dtype float16", {"dtype": "float16"}),
    Case("nothing", "vllm serve", {}),
    Case("serve", "serve org/m --seed 1", said(seed=1)),
    Case("serve-alone", "serve", {}),
    Case("path", "/opt/venv/bin/vllm serve org/m", said()),
    Case("relative-path", ".venv/bin/vllm serve org/m", said()),
    Case("arguments-alone", "--model org/m --seed 1", said(seed=1)),
    Case("model-and-arguments", "org/m --seed 1", said(seed=1)),
    Case("model-alone", "org/m", said()),
    Case("folder", "/models/llama --seed 1", {"model": "/models/llama", "seed": 1}),
    Case("module", "python -m vllm.entrypoints.openai.api_server --model org/m", said()),
    Case("module-python3", "python3 -m vllm.entrypoints.openai.api_server --model=org/m", said()),
    Case("module-path", "/usr/bin/python3.11 -u -m vllm.entrypoints.openai.api_server --model org/m", said()),
    Case("module-cli", "python -m vllm.entrypoints.cli.main serve org/m", said()),
    Case("uv-run", "uv run vllm serve org/m", said()),
    Case("nohup", "nohup vllm serve org/m", said()),
    Case("exec", "exec vllm serve org/m", said()),
    Case("model-option", "vllm serve --model org/m", said()),
    Case("model-last", "vllm serve --max-model-len 8k org/m", said(max_model_len=8000)),
    Case("model-between", "vllm serve --seed 1 org/m --dtype auto", said(seed=1, dtype="auto")),
    Case("model-twice-the-same", "vllm serve org/m --model org/m", said()),
    Case("model-called-serve", "vllm serve serve --seed 1", {"model": "serve", "seed": 1}),
    Case("model-after-dashes", "vllm serve --seed 1 -- org/m", said(seed=1)),
    Case("quoted-model", "vllm serve 'my models/m 1'", {"model": "my models/m 1"}),
    Case("unicode-model", "vllm serve modèles/été", {"model": "modèles/été"}),
]
ENVIRONMENTS = [
    Case("variable", "A=b vllm serve org/m", said(), {"A": "b"}),
    Case(
        "variables",
        "CUDA_VISIBLE_DEVICES=0,1 VLLM_USE_V1=1 vllm serve org/m",
        said(),
        {"CUDA_VISIBLE_DEVICES": "0,1", "VLLM_USE_V1": "1"},
    ),
    Case("variable-quoted", "A='b c' B=\"d=e\" vllm serve org/m", said(), {"A": "b c", "B": "d=e"}),
    Case("variable-empty", "A= vllm serve org/m", said(), {"A": ""}),
    Case("variable-twice", "A=1 A=2 vllm serve org/m", said(), {"A": "2"}),
    Case("env", "env A=b C=d vllm serve org/m", said(), {"A": "b", "C": "d"}),
    Case("env-after", "A=b env C=d vllm serve org/m", said(), {"A": "b", "C": "d"}),
    Case("env-path", "/usr/bin/env A=b vllm serve org/m", said(), {"A": "b"}),
    Case("env-and-arguments", "A=b --model org/m", said(), {"A": "b"}),
    Case("env-module", "A=b python -m vllm.entrypoints.openai.api_server --model org/m", said(), {"A": "b"}),
    Case("env-nohup", "A=b nohup vllm serve org/m", said(), {"A": "b"}),
    Case("nohup-env", "nohup env A=b vllm serve org/m", said(), {"A": "b"}),
    Case("env-lines", "A=b \\\nC=d \\\n  vllm serve org/m", said(), {"A": "b", "C": "d"}),
]
FLAGS = [
    Case("equals", "vllm serve org/m --seed=1", said(seed=1)),
    Case("underscores", "vllm serve org/m --max_model_len 4096", said(max_model_len=4096)),
    Case("underscores-equals", "vllm serve org/m --max_model_len=4096", said(max_model_len=4096)),
    Case("thousand", "vllm serve org/m --max-model-len 8k", said(max_model_len=8000)),
    Case("kibi", "vllm serve org/m --max-model-len 8K", said(max_model_len=8192)),
    Case("decimal-thousand", "vllm serve org/m --max-model-len 25.6k", said(max_model_len=25600)),
    Case("automatic", "vllm serve org/m --max-model-len auto", said(max_model_len=-1)),
    Case("bytes", "vllm serve org/m --kv-cache-memory-bytes 2G", said(kv_cache_memory_bytes=2**31)),
    Case("float", "vllm serve org/m --gpu-memory-utilization 0.9", said(gpu_memory_utilization=0.9)),
    Case("float-no-zero", "vllm serve org/m --gpu-memory-utilization=.9", said(gpu_memory_utilization=0.9)),
    Case("float-integer", "vllm serve org/m --gpu-memory-utilization 1", said(gpu_memory_utilization=1.0)),
    Case("float-exponent", "vllm serve org/m --watermark 1e-3", said(watermark=0.001)),
    Case("alias", "vllm serve org/m --device-memory-utilization 0.5", said(gpu_memory_utilization=0.5)),
    Case("negative", "vllm serve org/m --seed -1", said(seed=-1)),
    Case("negative-equals", "vllm serve org/m --seed=-1", said(seed=-1)),
    Case("negative-float", "vllm serve org/m --watermark -0.5", said(watermark=-0.5)),
    Case("negative-then-more", "vllm serve org/m --seed -1 --dtype auto", said(seed=-1, dtype="auto")),
    Case("unlimited-logprobs", "vllm serve org/m --max-logprobs -1", said(max_logprobs=-1)),
    Case("switch", "vllm serve org/m --enforce-eager", said(enforce_eager=True)),
    Case("switch-off", "vllm serve org/m --no-enable-prefix-caching", said(enable_prefix_caching=False)),
    Case("switch-off-underscores", "vllm serve org/m --no_enable_prefix_caching", said(enable_prefix_caching=False)),
    Case("switch-then-model", "vllm serve --enforce-eager org/m", said(enforce_eager=True)),
    Case("plain-switch", "vllm serve org/m --disable-log-stats", said(disable_log_stats=True)),
    Case(
        "parallel",
        "vllm serve org/m -tp 2 -pp 3 -dp 4",
        said(tensor_parallel_size=2, pipeline_parallel_size=3, data_parallel_size=4),
    ),
    Case("short-equals", "vllm serve org/m -tp=2", said(tensor_parallel_size=2)),
    Case("quantization", "vllm serve org/m -q awq", said(quantization="awq")),
    Case("experts", "vllm serve org/m -tp 8 -ep", said(tensor_parallel_size=8, enable_expert_parallel=True)),
    Case("optimization", "vllm serve org/m -O3", said(optimization_level="3")),
    Case("optimization-space", "vllm serve org/m -O 1", said(optimization_level="1")),
    Case("optimization-equals", "vllm serve org/m -O=2", said(optimization_level="2")),
    Case("last-wins", "vllm serve org/m --seed 1 --seed 2", said(seed=2)),
    Case("switch-last-wins", "vllm serve org/m --enforce-eager --no-enforce-eager", said(enforce_eager=False)),
    Case("abbreviated", "vllm serve org/m --tensor-par 2", said(tensor_parallel_size=2)),
    Case("names", "vllm serve org/m --served-model-name a b", said(served_model_name=["a", "b"])),
    Case("names-then-flag", "vllm serve org/m --served-model-name a --seed 1", said(served_model_name=["a"], seed=1)),
    Case("numbers", "vllm serve org/m --cudagraph-capture-sizes 1 2 4", said(cudagraph_capture_sizes=[1, 2, 4])),
    Case(
        "list-last-wins", "vllm serve org/m --served-model-name a --served-model-name b", said(served_model_name=["b"])
    ),
    Case("devices", "vllm serve org/m --device-ids 0,1", said(device_ids=[0, 1])),
    Case("optional-value", "vllm serve org/m --hf-token", said(hf_token=True)),
    Case("optional-value-given", "vllm serve org/m --hf-token hf_x", said(hf_token="hf_x")),
    Case("none-is-the-default", "vllm serve org/m --quantization None", said()),
    Case(
        "none-is-not-the-default",
        "vllm serve org/m --prefix-cache-retention-interval None",
        said(prefix_cache_retention_interval="None"),
    ),
    Case("value-like-a-flag", "vllm serve org/m --tokenizer=--odd_name", said(tokenizer="--odd_name")),
    Case("value-with-equals", "vllm serve org/m --revision a=b", said(revision="a=b")),
    Case("value-with-dots", "vllm serve org/m --tokenizer=a.b.c", said(tokenizer="a.b.c")),
    Case("empty-value", "vllm serve org/m --reasoning-parser ''", said(reasoning_parser="")),
    Case("backend-upper-case", "vllm serve org/m --moe-backend TRITON", said(moe_backend="triton")),
]
JSON = [
    Case(
        "json",
        """vllm serve org/m --hf-overrides '{"a": {"b": [1, null, true]}}'""",
        said(hf_overrides={"a": {"b": [1, None, True]}}),
    ),
    Case("json-equals", """vllm serve org/m --hf-overrides='{"a": 1}'""", said(hf_overrides={"a": 1})),
    Case("json-double-quotes", 'vllm serve org/m --hf-overrides "{\\"a\\": \\"b\\"}"', said(hf_overrides={"a": "b"})),
    Case("json-escaped", 'vllm serve org/m --hf-overrides \\{\\"a\\":1\\}', said(hf_overrides={"a": 1})),
    Case("json-lines", "vllm serve org/m --hf-overrides '{\n  \"a\": 1\n}'", said(hf_overrides={"a": 1})),
    Case("json-unicode", """vllm serve org/m --hf-overrides '{"a": "\\u00e9é"}'""", said(hf_overrides={"a": "éé"})),
    Case(
        "json-operators",
        """vllm serve org/m --hf-overrides '{"a": "$(x) | y && z; `w` > #"}'""",
        said(hf_overrides={"a": "$(x) | y && z; `w` > #"}),
    ),
    Case(
        "text-where-json-may-be",
        "vllm serve org/m --hf-overrides my.module.function",
        said(hf_overrides="my.module.function"),
    ),
    Case("dotted", "vllm serve org/m --hf-overrides.a.b 5", said(hf_overrides={"a": {"b": 5}})),
    Case("dotted-equals", "vllm serve org/m --hf-overrides.a=x", said(hf_overrides={"a": "x"})),
    Case(
        "dotted-merged", "vllm serve org/m --hf-overrides.a 1 --hf_overrides.b 2", said(hf_overrides={"a": 1, "b": 2})
    ),
    Case(
        "dotted-list",
        "vllm serve org/m --hf-overrides.a+ x --hf-overrides.a+=y,z",
        said(hf_overrides={"a": ["x", "y", "z"]}),
    ),
    Case("dotted-underscore", "vllm serve org/m --limit_mm_per_prompt.image 2", said(limit_mm_per_prompt={"image": 2})),
    Case("dotted-short", "vllm serve org/m -cc.mode 3", said(compilation_config={"mode": 3})),
    Case(
        "dotted-human",
        "vllm serve org/m --hf-overrides.max_position_embeddings 32k",
        said(hf_overrides={"max_position_embeddings": 32000}),
    ),
    Case(
        "compilation", """vllm serve org/m --compilation-config '{"mode": 3}'""", said(compilation_config={"mode": 3})
    ),
    Case(
        "compilation-sizes",
        """vllm serve org/m -cc '{"cudagraph_capture_sizes": [1, 2, 4], "cudagraph_mode": "FULL_DECODE_ONLY"}'""",
        said(compilation_config={"cudagraph_capture_sizes": [1, 2, 4], "cudagraph_mode": "FULL_DECODE_ONLY"}),
    ),
    Case(
        "json-human",
        """vllm serve org/m --kv-transfer-config '{"kv_connector": "X", "kv_role": "kv_both", "kv_port": 14k}'""",
        said(kv_transfer_config={"kv_connector": "X", "kv_role": "kv_both", "kv_port": 14000}),
    ),
    Case(
        "structured",
        """vllm serve org/m --structured-outputs-config '{"backend": "xgrammar"}'""",
        said(structured_outputs_config={"backend": "xgrammar"}),
    ),
    Case(
        "structured-dotted",
        "vllm serve org/m --structured-outputs-config.backend guidance",
        said(structured_outputs_config={"backend": "guidance"}),
    ),
]
LONG = """\
# The model of the help desk
CUDA_VISIBLE_DEVICES=0,1 \\
vllm serve meta-llama/Llama-3.1-8B-Instruct \\
    --host 0.0.0.0 --port 8001 \\
    --api-key "secret # not a comment" \\
    --tensor-parallel-size 2 \\
    --gpu-memory-utilization 0.92 \\
    --enable-auto-tool-choice --tool-call-parser llama3_json \\
    --served-model-name help-desk  # what clients write
"""
DOCUMENTED = [
    Case(
        "several-lines",
        LONG,
        {
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "tensor_parallel_size": 2,
            "gpu_memory_utilization": 0.92,
            "enable_auto_tool_choice": True,
            "tool_call_parser": "llama3_json",
            "served_model_name": ["help-desk"],
        },
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        ("host", "port", "api_key"),
    ),
    Case(
        "quickstart",
        "vllm serve Qwen/Qwen2.5-1.5B-Instruct",
        {"model": "Qwen/Qwen2.5-1.5B-Instruct"},
    ),
    Case(
        "lora",
        "vllm serve meta-llama/Llama-3.2-3B-Instruct \\\n    --enable-lora \\\n"
        "    --lora-modules sql-lora=jeeejeee/llama32-3b-text2sql-spider",
        {
            "model": "meta-llama/Llama-3.2-3B-Instruct",
            "enable_lora": True,
            "lora_modules": ["sql-lora=jeeejeee/llama32-3b-text2sql-spider"],
        },
    ),
    Case(
        "lora-json",
        "vllm serve org/m --enable-lora --max-lora-rank 64 "
        """--lora-modules '{"name": "sql", "path": "/l/sql", "base_model_name": "org/m"}' b=/l/b""",
        said(
            enable_lora=True,
            max_lora_rank=64,
            lora_modules=[{"name": "sql", "path": "/l/sql", "base_model_name": "org/m"}, "b=/l/b"],
        ),
    ),
    Case(
        "speculation",
        "vllm serve Qwen/Qwen3-8B --seed 42 -tp 1 --max_model_len 2048 --gpu_memory_utilization 0.8 "
        """--speculative_config '{"model": "RedHatAI/Qwen3-8B-speculator.eagle3", """
        """"num_speculative_tokens": 3, "method": "eagle3"}'""",
        {
            "model": "Qwen/Qwen3-8B",
            "seed": 42,
            "tensor_parallel_size": 1,
            "max_model_len": 2048,
            "gpu_memory_utilization": 0.8,
            "speculative_config": {
                "model": "RedHatAI/Qwen3-8B-speculator.eagle3",
                "num_speculative_tokens": 3,
                "method": "eagle3",
            },
        },
    ),
    Case(
        "ngram",
        "vllm serve org/m "
        """--speculative-config '{"method":"ngram","num_speculative_tokens":5,"prompt_lookup_max":4}'""",
        said(speculative_config={"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 4}),
    ),
    Case(
        "spec-flags",
        "vllm serve org/m --spec-method ngram --spec-tokens 3",
        said(spec_method="ngram", spec_tokens=3),
    ),
    Case(
        "transfer",
        """vllm serve org/m --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'""",
        said(kv_transfer_config={"kv_connector": "NixlConnector", "kv_role": "kv_both"}),
    ),
    Case(
        "tools",
        "vllm serve org/m --enable-auto-tool-choice --tool-call-parser hermes --chat-template examples/tool.jinja",
        said(enable_auto_tool_choice=True, tool_call_parser="hermes"),
        ignored=("chat_template",),
    ),
    Case("reasoning", "vllm serve org/m --reasoning-parser deepseek_r1", said(reasoning_parser="deepseek_r1")),
    Case(
        "thinking",
        """vllm serve org/m --default-chat-template-kwargs '{"enable_thinking": false}'""",
        said(default_chat_template_kwargs={"enable_thinking": False}),
    ),
    Case(
        "rope",
        "vllm serve Qwen/Qwen3-8B --max-model-len 131072 "
        """--hf-overrides '{"rope_parameters": {"rope_type":"yarn","factor":4.0}}'""",
        {
            "model": "Qwen/Qwen3-8B",
            "hf_overrides": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
            "max_model_len": 131072,
        },
    ),
    Case(
        "rope-scaling",
        """vllm serve org/m --rope-scaling '{"rope_type":"yarn","factor":4.0}' --seed 1""",
        said(seed=1),
        extra=("--rope-scaling", '{"rope_type":"yarn","factor":4.0}'),
    ),
    Case(
        "images",
        "vllm serve org/m --runner generate --trust-remote-code --max-model-len 4096 "
        """--limit-mm-per-prompt '{"image":2,"video":0}'""",
        said(
            runner="generate", trust_remote_code=True, max_model_len=4096, limit_mm_per_prompt={"image": 2, "video": 0}
        ),
    ),
    Case(
        "pooling",
        "vllm serve BAAI/bge-m3 --runner pooling --convert embed",
        {"model": "BAAI/bge-m3", "runner": "pooling", "convert": "embed"},
    ),
    Case(
        "pooler",
        """vllm serve org/m --pooler-config '{"pooling_type": "CLS"}'""",
        said(pooler_config={"pooling_type": "CLS"}),
    ),
    Case(
        "fp8",
        "vllm serve org/m --quantization fp8 --kv-cache-dtype fp8",
        said(quantization="fp8", kv_cache_dtype="fp8"),
    ),
    Case(
        "ray",
        "vllm serve org/m -tp 4 -pp 2 --distributed-executor-backend ray",
        said(tensor_parallel_size=4, pipeline_parallel_size=2, distributed_executor_backend="ray"),
    ),
    Case(
        "data-parallel",
        "vllm serve org/m -dp 4 -dpl 2 -dpa 10.99.48.128 -dpp 13345",
        said(
            data_parallel_size=4,
            data_parallel_size_local=2,
            data_parallel_address="10.99.48.128",
            data_parallel_rpc_port=13345,
        ),
    ),
    Case(
        "experts-and-balance",
        "vllm serve org/m --enable-expert-parallel --enable-eplb "
        """--eplb-config '{"window_size":1000,"step_interval":3000}'""",
        said(enable_expert_parallel=True, enable_eplb=True, eplb_config={"window_size": 1000, "step_interval": 3000}),
    ),
    Case(
        "scheduling",
        "vllm serve org/m --max-num-seqs 256 --max-num-batched-tokens 8192 --enable-chunked-prefill",
        said(max_num_seqs=256, max_num_batched_tokens=8192, enable_chunked_prefill=True),
    ),
    Case(
        "generation",
        """vllm serve org/m --generation-config vllm --override-generation-config '{"temperature": 0.5}'""",
        said(generation_config="vllm", override_generation_config={"temperature": 0.5}),
    ),
    Case("attention", "vllm serve org/m --attention-backend FLASH_ATTN", said(attention_backend="FLASH_ATTN")),
    Case(
        "requests",
        "vllm serve org/m --enable-log-requests --max-log-len 100",
        said(enable_log_requests=True, max_log_len=100),
    ),
    Case(
        "media",
        "vllm serve org/m --allowed-local-media-path /images --allowed-media-domains a.example b.example",
        said(allowed_local_media_path="/images", allowed_media_domains=["a.example", "b.example"]),
    ),
]
SERVER = [
    Case("address", "vllm serve org/m --host 0.0.0.0 --port 9000", said(), ignored=("host", "port")),
    Case("keys", "vllm serve org/m --api-key a b --seed 1", said(seed=1), ignored=("api_key",)),
    Case("origins", """vllm serve org/m --allowed-origins '["*"]'""", said(), ignored=("allowed_origins",)),
    Case("middleware", "vllm serve org/m --middleware a.b --middleware c.d", said(), ignored=("middleware",)),
    Case(
        "tls",
        "vllm serve org/m --ssl-keyfile k.pem --ssl-certfile c.pem",
        said(),
        ignored=("ssl_keyfile", "ssl_certfile"),
    ),
    Case(
        "uvicorn",
        "vllm serve org/m --uvicorn-log-level debug --disable-uvicorn-access-log",
        said(),
        ignored=("uvicorn_log_level", "disable_uvicorn_access_log"),
    ),
    Case("template", "vllm serve org/m --chat-template '{{ messages }}'", said(), ignored=("chat_template",)),
    Case(
        "headless", "vllm serve org/m --headless --api-server-count 2", said(), ignored=("headless", "api_server_count")
    ),
]
UNKNOWN = [
    Case("unknown", "vllm serve org/m --swap-space 4", said(), extra=("--swap-space", "4")),
    Case("unknown-equals", "vllm serve org/m --swap_space=4 --seed 1", said(seed=1), extra=("--swap_space=4",)),
    Case("unknown-switch", "vllm serve org/m --use-v9 --seed 1", said(seed=1), extra=("--use-v9",)),
    Case("unknown-values", "vllm serve org/m --many a b --seed 1", said(seed=1), extra=("--many", "a", "b")),
    Case("unknown-before-model", "vllm serve --swap-space 4 org/m", said(), extra=("--swap-space", "4")),
    Case("unknown-negative", "vllm serve org/m --new -1", said(), extra=("--new", "-1")),
    Case("unknown-dotted", "vllm serve org/m --new.a_b.c 1", said(), extra=("--new.a_b.c", "1")),
    Case("unknown-short", "vllm serve org/m -Z 1", said(), extra=("-Z", "1")),
    Case("unknown-joined", "vllm serve org/m -tp2", said(), extra=("-tp2",)),
    Case("help", "vllm serve --help", {}, extra=("--help",)),
    Case("misspelt", "vllm serve org/m --max-model-length 4", said(), extra=("--max-model-length", "4")),
    Case("unknown-no", "vllm serve org/m --no-such", said(), extra=("--no-such",)),
]
SHELL = [
    Case("spaces", "  vllm \t serve   org/m  ", said()),
    Case("joined-quotes", "vllm serve o'rg'\"/m\"", said()),
    Case("escaped-space", "vllm serve my\\ model/x", {"model": "my model/x"}),
    Case("single-quotes-keep-backslashes", "vllm serve 'a\\b/c'", {"model": "a\\b/c"}),
    Case("double-quotes-keep-backslashes", 'vllm serve "a\\b/c"', {"model": "a\\b/c"}),
    Case("double-quotes-escapes", 'vllm serve "a\\"\\\\\\$b/c"', {"model": 'a"\\$b/c'}),
    Case("hash-in-a-word", "vllm serve org/m --revision a#b", said(revision="a#b")),
    Case("hash-in-quotes", "vllm serve org/m --revision '#a'", said(revision="#a")),
    Case("comment-after", "vllm serve org/m # | && 'unfinished", said()),
    Case("comments-around", "\n# one\n\n  # two\nvllm serve org/m\n# three\n", said()),
    Case("comment-between", "vllm serve org/m \\\n  # --seed 2 \\\n  --seed 1", said(seed=1)),
    Case("continued-word", "vllm ser\\\nve org/m", said()),
    Case("continued-in-quotes", 'vllm serve "or\\\ng/m"', said()),
    Case("windows-lines", "vllm serve org/m \\\r\n  --seed 1\r\n", said(seed=1)),
    Case("space-after-backslash", "vllm serve org/m \\  \n  --seed 1", said(seed=1)),
    Case("lost-backslash", "vllm serve org/m\n  --seed 1\n  -tp 2", said(seed=1, tensor_parallel_size=2)),
    Case("dollar-alone", "vllm serve org/m --revision a$", said(revision="a$")),
    Case("dollar-in-single-quotes", "vllm serve org/m --revision '$X'", said(revision="$X")),
    Case("dollar-escaped", "vllm serve org/m --revision \\$X", said(revision="$X")),
    Case("braces", "vllm serve org/m --chat-template {{x}} --seed 1", said(seed=1), ignored=("chat_template",)),
]
LENIENT = {"comments-around", "comment-between", "windows-lines", "space-after-backslash", "lost-backslash"}
"""Cases that a shell takes for several commands, or for other words."""
READ = [*PROGRAMS, *ENVIRONMENTS, *FLAGS, *JSON, *DOCUMENTED, *SERVER, *UNKNOWN, *SHELL]

DEEP = 100_000
HOSTILE = [
    Refused("empty", "", "empty", EmptyCommandError),
    Refused("blank", " \t\n \r\n ", "empty", EmptyCommandError),
    Refused("only-a-comment", "# vllm serve org/m", "empty", EmptyCommandError),
    Refused("only-a-backslash", "\\\n", "empty", EmptyCommandError),
    Refused("unterminated-single", "vllm serve 'org/m", "unterminated quotation"),
    Refused("unterminated-double", 'vllm serve "org/m', "unterminated quotation"),
    Refused("unterminated-escape", "vllm serve org/m \\", "unterminated escape"),
    Refused("docker", "docker run --gpus all vllm/vllm-openai --model org/m", "another program"),
    Refused("python-script", "python serve.py --model org/m", "another program"),
    Refused("python-module", "python -m http.server", "another program"),
    Refused("python-code", "python -c 'import os'", "another program"),
    Refused("ls", "ls -la", "another program"),
    Refused("rm", "rm -rf /", "another program"),
    Refused("llama-server", "llama-server -m x.gguf --port 8080", "another program"),
    Refused("sglang", "python -m sglang.launch_server --model org/m", "another program"),
    Refused("bench", "vllm bench serve --model org/m", "another program than `vllm serve`"),
    Refused("vllm", "vllm", "another program than `vllm serve`"),
    Refused("sudo", "sudo vllm serve org/m", "another program"),
    Refused("empty-program", "'' vllm serve org/m", "another program"),
    Refused("only-variables", "A=b C=d", "starts no program"),
    Refused("env-options", "env -i vllm serve org/m", "`env -i` is not understood"),
    Refused("export", "export A=b", "another program"),
    Refused("pipe", "vllm serve org/m | tee log", "`|` outside quotes"),
    Refused("and", "cd /x && vllm serve org/m", "`&&` outside quotes"),
    Refused("semicolon", "vllm serve org/m; rm -rf /", "`;` outside quotes"),
    Refused("background", "vllm serve org/m &", "`&` outside quotes"),
    Refused("redirection", "vllm serve org/m > log 2>&1", "`>` outside quotes"),
    Refused("placeholder", "vllm serve <model>", "`<` outside quotes"),
    Refused("substitution", "vllm serve $(rm -rf /)", "`$(` outside quotes"),
    Refused("substitution-in-quotes", 'vllm serve "$(rm -rf /)"', "`$(` inside double quotes"),
    Refused("backticks", "vllm serve `whoami`", "outside quotes"),
    Refused("backticks-in-quotes", 'vllm serve "a`whoami`"', "inside double quotes"),
    Refused("expanded-variable", "vllm serve $MODEL", "outside quotes; only one plain command"),
    Refused("variable-in-quotes", 'vllm serve "${MODEL}"', "`${` inside double quotes"),
    Refused("ansi-quotes", "vllm serve $'a\\nb'", "outside quotes"),
    Refused("subshell", "(vllm serve org/m)", "`(` outside quotes"),
    Refused("two-lines", "vllm serve org/m\nrm -rf /", "line 2 begins another command"),
    Refused("two-commands", "vllm serve a/b\n\n# next\nvllm serve c/d", "line 4 begins another command"),
    Refused("variable-on-its-own-line", "A=b\nvllm serve org/m", "line 2 begins another command"),
    Refused("nul", "vllm serve org/m\0", "U+0000"),
    Refused("nul-in-quotes", "vllm serve 'org\0/m'", "U+0000"),
    Refused("escape-character", "vllm serve org/m\x1b[31m", "U+001B"),
    Refused("carriage-return", "vllm serve org/m\r--seed 1", "U+000D"),
    Refused("half-a-surrogate", "vllm serve \ud800", "U+D800"),
    Refused("typographic-quotes", "vllm serve org/m --hf-overrides \u201c{}\u201d", "U+201C"),
    Refused("typographic-single-quotes", "vllm serve \u2018org/m\u2019", "U+2018"),
    Refused("long-dash", "vllm serve org/m \u2014seed 1", "U+2014"),
    Refused("no-break-space", "vllm serve org/m\u00a0--seed 1", "U+00A0"),
    Refused("byte-order-mark", "\ufeffvllm serve org/m", "U+FEFF"),
    Refused("two-models", "vllm serve a/b c/d", "one model"),
    Refused("two-models-option", "vllm serve a/b --model c/d", "one model"),
    Refused("three-models", "vllm serve a/b c/d e/f", "e/f"),
    Refused("config", "vllm serve --config config.yaml", "--config"),
    Refused("config-equals", "vllm serve org/m --config=/etc/passwd", "--config"),
    Refused("config-dotted", "vllm serve org/m --config.a 1", "--config"),
    Refused("bad-int", "vllm serve org/m --max-num-seqs many", "--max-num-seqs"),
    Refused("bad-length", "vllm serve org/m --max-model-len 8q", "--max-model-len"),
    Refused("bad-float", "vllm serve org/m --gpu-memory-utilization high", "--gpu-memory-utilization"),
    Refused("bad-choice", "vllm serve org/m --dtype float7", "--dtype"),
    Refused("bad-port", "vllm serve org/m --port many", "--port"),
    Refused("no-value", "vllm serve org/m --seed", "--seed: expected one argument"),
    Refused("no-value-dotted", "vllm serve org/m --hf-overrides.a", "lacks its value"),
    Refused("no-values", "vllm serve org/m --served-model-name --seed 1", "expected at least one argument"),
    Refused("switch-with-value", "vllm serve org/m --enforce-eager=1", "--enforce-eager"),
    Refused("ambiguous", "vllm serve org/m --max 4", "ambiguous option: --max "),
    Refused("bad-json", "vllm serve org/m --default-chat-template-kwargs '{bad'", "invalid JSON"),
    Refused("json-without-quotes", 'vllm serve org/m --limit-mm-per-prompt {"image":2}', "cannot be read as JSON"),
    Refused("unknown-field", """vllm serve org/m --compilation-config '{"nothing": 1}'""", "--compilation-config"),
    Refused("bad-lora", "vllm serve org/m --lora-modules '{\"x\": 1}'", "--lora-modules"),
    Refused("not-a-number", "vllm serve org/m --gpu-memory-utilization nan", "JSON cannot hold this value"),
    Refused("infinite", "vllm serve org/m --gpu-memory-utilization 1e999", "JSON cannot hold this value"),
    Refused("not-a-number-in-json", "vllm serve org/m --hf-overrides '{\"a\": NaN}'", "JSON cannot hold this value"),
    Refused("surrogate-in-json", 'vllm serve org/m --hf-overrides \'{"a": "\\ud800"}\'', "JSON cannot hold this value"),
    Refused("deep", "vllm serve org/m --hf-overrides " + nested(65), "levels deep"),
    Refused("very-deep", "vllm serve org/m --hf-overrides " + nested(DEEP), "levels deep"),
    Refused("very-deep-list", f"vllm serve org/m --limit-mm-per-prompt '{'[' * DEEP}{']' * DEEP}'", "levels deep"),
    Refused(
        "very-deep-config", f"vllm serve org/m --compilation-config '{'[' * DEEP}{']' * DEEP}'", "--compilation-config"
    ),
    Refused("very-deep-keys", f"vllm serve org/m --hf-overrides{'.a' * DEEP} 1", "levels deep"),
    Refused("long-digits", f"vllm serve org/m --seed {'9' * 10_000}", "--seed"),
    Refused("long-bad-value", f"vllm serve org/m --seed {'x' * 2**20}", "--seed"),
    Refused("long-other-program", "x" * 2**20, "another program"),
    Refused("many-words", "a " * 2**19, "another program"),
    Refused("many-models", "vllm serve org/m " + "a " * 2**16, "unrecognized arguments"),
    Refused("many-quotes", "vllm serve " + "'" * (2**20 + 1), "unterminated quotation"),
    Refused("many-lines", "vllm serve org/m" + "\n" * 2**20 + "x", "begins another command"),
]
LARGE = [
    Case("long-value", f"vllm serve org/m --revision {'x' * 2**20}", said(revision="x" * 2**20)),
    Case("many-flags", "vllm serve org/m" + " --seed 1" * 2**11, said(seed=1)),
    Case("many-unknown-flags", "vllm serve org/m" + " --x" * 2**12, said(), extra=("--x",) * 2**12),
    Case("many-names", "vllm serve org/m --served-model-name" + " a" * 2**14, said(served_model_name=["a"] * 2**14)),
    Case("many-comments", "# x\n" * 2**18 + "vllm serve org/m", said()),
    Case("many-continued-lines", "vllm serve org/m " + "\\\n" * 2**18 + "--seed 1", said(seed=1)),
]
