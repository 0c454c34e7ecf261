"""vLLM is imported here: about five seconds."""

import argparse
import warnings
from pathlib import Path
from typing import Any

import pytest

from config.models import PROJECT_ROOT
from deployments.errors import InvalidRequestError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns while it is imported
    from deployments.engine.command import SERVER_ONLY, make_parser, resolve_model, to_namespace, to_tokens

DEMO = "config/demo_model"


def parsed(**engine_args: Any) -> argparse.Namespace:
    return to_namespace({"model": DEMO, **engine_args})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_model_len", 4096, 4096),
        ("max-model-len", "4k", 4000),
        ("gpu_memory_utilization", 0.5, 0.5),
        ("dtype", "bfloat16", "bfloat16"),
        ("seed", -1, -1),
        ("trust_remote_code", True, True),
        ("enable_prefix_caching", True, True),
        ("enable_prefix_caching", False, False),
        ("enable-expert-parallel", True, True),
        ("disable_log_stats", True, True),
        ("disable_log_stats", False, False),
        ("served_model_name", ["a", "b"], ["a", "b"]),
        ("served_model_name", "a", ["a"]),
        ("cudagraph_capture_sizes", [1, 2], [1, 2]),
        ("hf_overrides", {"a": {"b": [1, None, True]}}, {"a": {"b": [1, None, True]}}),
        ("limit_mm_per_prompt", {"image": 2}, {"image": 2}),
        ("tokenizer", "--odd name", "--odd name"),
    ],
)
def test_arguments_arrive_as_written(name: str, value: Any, expected: Any) -> None:
    assert vars(parsed(**{name: value}))[name.replace("-", "_")] == expected


@pytest.mark.parametrize("name", ["max_model_len", "enable_prefix_caching", "hf_overrides", "dtype"])
def test_null_leaves_vllms_own_default(name: str) -> None:
    assert vars(parsed(**{name: None}))[name] == vars(parsed())[name]


@pytest.mark.parametrize("value", [True, False])
def test_every_switch_of_vllm_can_be_turned_both_ways(value: bool) -> None:
    parser = make_parser()
    switches = [action for action in parser._actions if isinstance(action, argparse.BooleanOptionalAction)]
    namespace = vars(parser.parse_args([token for switch in switches for token in to_tokens(switch, value)]))
    assert len(switches) > 20
    assert {switch.dest for switch in switches if namespace[switch.dest] is not value} == set()


@pytest.mark.parametrize(
    ("engine_args", "words"),
    [
        ({"max_model_length": 5}, "no argument `max_model_length`; did you mean `max_model_len`?"),
        ({"zzzz": 5}, "no argument `zzzz`"),
        ({"port": 8000}, "`port` belongs to vLLM's HTTP server"),
        ({"api-key": "x"}, "`api_key` belongs to vLLM's HTTP server"),
        ({"chat_template": "x"}, "`chat_template` belongs"),
        ({"max_model_len": "many"}, "--max-model-len"),
        ({"dtype": "float7"}, "--dtype"),
        ({"compilation_config": {"nothing": 1}}, "--compilation-config"),
        ({"enable_auto_tool_choice": True}, "requires --tool-call-parser"),
        ({"model": None}, "`model` is required"),
        ({"model": ""}, "`model` is required"),
    ],
)
def test_mistakes_are_refused_by_name(engine_args: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parsed(**engine_args)
    assert caught.value.message.startswith("engine_args: ")
    assert words in caught.value.message


def test_a_model_is_required() -> None:
    with pytest.raises(InvalidRequestError, match="`model` is required"):
        to_namespace({})


def test_vllm_still_has_the_arguments_that_are_kept_from_it() -> None:
    """A name that vLLM has dropped or changed would let its successor through."""
    assert {action.dest for action in make_parser()._actions} >= SERVER_ONLY


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_model(DEMO) == str(PROJECT_ROOT / DEMO)
    assert parsed().model == str(PROJECT_ROOT / DEMO)
    assert resolve_model("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"
    assert resolve_model(str(tmp_path)) == str(tmp_path)
    (tmp_path / DEMO).mkdir(parents=True)
    assert resolve_model(DEMO) == DEMO


@pytest.mark.parametrize("engine_args", [{"help": True}, {"max-num-seqs": 1, "max_num_seqs": 2}, {"enforce_eager": 1}])
def test_what_cannot_be_meant_is_refused(engine_args: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        to_namespace({"model": "x", **engine_args})


@pytest.mark.parametrize("text", ["false", "False"])
def test_a_switch_given_as_text_is_read(text: str) -> None:
    """`${VAR:-false}` in a YAML arrives as text."""
    assert to_namespace({"model": "x", "enable_prefix_caching": text}).enable_prefix_caching is False
