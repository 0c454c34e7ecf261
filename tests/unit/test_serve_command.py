"""vLLM is imported here: about five seconds."""

import argparse
import contextlib
import json
import shlex
import shutil
import subprocess
import warnings
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deployments.engine.shell_words import split_words
from deployments.errors import CommandError, InvalidOptionsError, InvalidRequestError
from deployments.instance_types import ParsedCommand
from tests.serve_commands import HOSTILE, JSON, LARGE, LENIENT, READ, SHELL, Case, Refused, case_id

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns while it is imported
    from deployments.engine.command import SERVER_ONLY, make_parser, options_of
    from deployments.engine.serve_command import command_of, parse, read_words, refuse_unknown


def test_there_are_many_cases() -> None:
    ids = [*map(case_id, READ), *map(case_id, HOSTILE), *map(case_id, LARGE)]
    assert len(ids) == len(set(ids)) >= 200


@pytest.mark.parametrize("case", [*READ, *LARGE], ids=case_id)
def test_commands_are_read(case: Case) -> None:
    assert parse(case.command) == ParsedCommand(case.options, case.environment, case.ignored, case.extra)


@pytest.mark.parametrize("case", HOSTILE, ids=case_id)
def test_what_is_no_command_is_refused(case: Refused) -> None:
    with pytest.raises(case.error) as caught:
        parse(case.command)
    assert type(caught.value) is case.error
    assert case.words in caught.value.message
    assert len(caught.value.message) < 1500
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("case", READ, ids=case_id)
def test_what_is_read_is_written_and_read_again(case: Case) -> None:
    options = {"model": "org/m", **case.options}
    command = command_of(options)
    assert command.startswith("vllm serve ")
    assert parse(command) == ParsedCommand(options)
    assert command_of(parse(command).backend_options) == command


def test_secrets_of_the_server_are_named_and_not_told() -> None:
    secret = "sk-0123456789abcdef"
    parsed = parse(f"vllm serve org/m --api-key {secret}")
    assert parsed.ignored == ("api_key",)
    assert secret not in repr(parsed)
    with pytest.raises(CommandError) as caught:
        parse(f"vllm serve org/m --api={secret}")
    assert "ambiguous" in caught.value.message
    assert secret not in caught.value.message


def test_the_server_side_is_for_who_runs_it() -> None:
    reading = read_words(shlex.split("vllm serve org/m --host 0.0.0.0 --port 1 --api-key a b"))
    assert reading.server == {"host": "0.0.0.0", "port": 1, "api_key": ["a", "b"]}
    assert read_words(shlex.split("serve --api-key a --api-key=b")).server == {"api_key": ["a", "b"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-modl-len", "4"], "no argument `max_modl_len`; did you mean `max_model_len`?"),
        (["--max-modl-len=4"], "did you mean `max_model_len`?"),
        (["--hf-override.a", "1"], "did you mean `hf_overrides`?"),
        (["-tp2"], "no argument `tp2`"),
    ],
)
def test_unknown_options_are_named_with_the_nearest(words: list[str], message: str) -> None:
    with pytest.raises(CommandError) as caught:
        refuse_unknown(words)
    assert message in caught.value.message


def test_known_options_are_not_unknown() -> None:
    refuse_unknown([])


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ({}, "vllm serve org/m"),
        ({"max-model-len": "8k"}, "vllm serve org/m --max-model-len 8000"),
        (
            {"enforce_eager": True, "enable-prefix-caching": False},
            "vllm serve org/m --enforce-eager --no-enable-prefix-caching",
        ),
        ({"disable_log_stats": False, "quantization": None}, "vllm serve org/m"),
        ({"hf_overrides": {"a": [1, None]}}, """vllm serve org/m --hf-overrides '{"a": [1, null]}'"""),
        ({"served_model_name": "it's"}, """vllm serve org/m --served-model-name 'it'"'"'s'"""),
        ({"seed": -1, "tokenizer": "-x"}, "vllm serve org/m --seed=-1 --tokenizer=-x"),
        ({"tensor_parallel_size": "2"}, "vllm serve org/m --tensor-parallel-size 2"),
        ({"hf_token": True}, "vllm serve org/m --hf-token"),
        ({"device_ids": [0, "GPU-1"]}, "vllm serve org/m --device-ids 0,GPU-1"),
        ({"model": "-x"}, "vllm serve --model=-x"),
        ({"model": "my model"}, "vllm serve 'my model'"),
        ({"model": "serve"}, "vllm serve serve"),
    ],
)
def test_options_are_written_as_a_command(options: dict[str, Any], command: str) -> None:
    assert command_of({"model": "org/m", **options}) == command
    assert command_of(parse(command).backend_options) == command


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": None}, "`model` is required"),
        ({"model": ""}, "`model` is required"),
        ({"max_model_length": 5}, "no argument `max_model_length`; did you mean `max_model_len`?"),
        ({"port": 8000}, "`port` belongs to vLLM's HTTP server"),
        ({"api-key": "x"}, "`api_key` belongs to vLLM's HTTP server"),
        ({"max_model_len": "many"}, "--max-model-len"),
        ({"max_num_seqs": True}, "--max-num-seqs"),
        ({"max_num_seqs": {"a": 1}}, "--max-num-seqs"),
        ({"gpu_memory_utilization": float("nan")}, "JSON cannot hold"),
        ({"dtype": "float7"}, "--dtype"),
        ({"compilation_config": {"nothing": 1}}, "--compilation-config"),
        ({"enable_auto_tool_choice": True}, "requires --tool-call-parser"),
        ({"enforce_eager": 1}, "`enforce_eager` must be true or false"),
        ({"max-num-seqs": 1, "max_num_seqs": 2}, "given twice"),
        ({"served_model_name": []}, "--served-model-name"),
        ({"served_model_name": ["a", "--trust-remote-code"]}, "begins with `-`"),
        ({"served_model_name": ["a", "--seed=1"]}, "begins with `-`"),
        ({"served_model_name": ["a", "--port", "1"]}, "`port` belongs to vLLM's HTTP server"),
        ({"served_model_name": ["a", "--no-such"]}, "--no-such"),
        ({"revision": "a\0b"}, "U+0000"),
        ({"revision": "a\ud800"}, "JSON cannot hold"),
        ({"config": "x.yaml"}, "`config` belongs"),
        ({"--seed": 1}, "no argument `__seed`"),
        ({"": 1}, "no argument ``"),
        ({"model_tag": "x"}, "no argument `model_tag`"),
    ],
)
def test_options_that_vllm_would_refuse_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        command_of({"model": "org/m", **options})
    assert caught.value.message.startswith("backend_options: ")
    assert words in caught.value.message


def plain_text(forbidden: str = "") -> st.SearchStrategy[str]:
    characters = st.characters(blacklist_categories=("Cc", "Cs"), blacklist_characters="{" + forbidden)
    return st.text(characters, min_size=1, max_size=12).filter(lambda text: text != "None")


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | plain_text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text(), inner, max_size=3),
    max_leaves=6,
)


def one_value(action: argparse.Action) -> st.SearchStrategy[Any] | None:
    """Return values of an option in vLLM's own types, found out by asking its parser; None: only its own fields."""
    if action.choices:
        return st.sampled_from([choice for choice in action.choices if choice is not None])
    convert: Any = action.type or str
    for word, values in (
        ("7", st.integers(-(10**6), 10**6)),
        ("0.5", st.floats(allow_nan=False, allow_infinity=False)),
        ('{"a": 1}', st.dictionaries(plain_text(), JSON_VALUES, max_size=3)),
        ("text", plain_text("-")),
    ):
        try:
            value = convert(word)
        except (argparse.ArgumentTypeError, ValueError):
            continue
        # `float` takes "7", too, and text takes everything.
        if type(value) is {"7": int, "0.5": float, '{"a": 1}': dict, "text": str}[word]:
            return values
    return None


def values_of(action: argparse.Action) -> st.SearchStrategy[Any] | None:
    if isinstance(action, argparse.BooleanOptionalAction):
        return st.booleans()
    if action.nargs == 0:
        return st.just(True)
    value = one_value(action)
    return st.lists(value, min_size=1, max_size=4) if value is not None and action.nargs == "+" else value


PARTICULAR = {"model", "lora_modules", "device_ids"}
"""With forms of their own, which the cases have."""
ACTIONS = {name: action for name, action in options_of(make_parser()).items() if name not in SERVER_ONLY | PARTICULAR}
DRAWN = {name: values for name, action in ACTIONS.items() if (values := values_of(action)) is not None}


def test_most_options_of_vllm_are_drawn() -> None:
    """The others take the fields of one of vLLM's configs."""
    assert len(DRAWN) > 150
    assert all(name.endswith(("_config", "_priority")) for name in ACTIONS.keys() - DRAWN.keys())


def written(options: dict[str, Any]) -> str:
    """Return the command; "" when vLLM refuses the options only because they stand together."""
    refusal = ""
    try:
        return command_of(options)
    except InvalidOptionsError as error:
        refusal = error.message
    assert "Error: " in refusal
    return ""


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_options_are_written_and_read_again(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(DRAWN)), unique=True, max_size=6))
    options = {"model": data.draw(plain_text()), **{name: data.draw(DRAWN[name], label=name) for name in names}}
    command = written(options)
    assume(command)
    assert parse(command) == ParsedCommand(options)


@pytest.mark.parametrize("name", sorted(DRAWN))
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_each_option_is_written_and_read_again(name: str, data: st.DataObject) -> None:
    options = {"model": "org/m", name: data.draw(DRAWN[name])}
    command = written(options)
    assert not command or parse(command) == ParsedCommand(options)


@settings(max_examples=300, deadline=None)
@given(st.lists(plain_text() | st.just(""), min_size=1, max_size=6))
def test_quoted_words_are_read_as_they_are(words: list[str]) -> None:
    assert split_words(shlex.join(words)) == words


PIECES = st.sampled_from(
    """vllm serve org/m --seed -1 --hf-overrides {"a":1} '{"a": 2}' --hf-overrides.a -O3 -O -tp --tp -0.5 -- - = --= --.
    --served-model-name --no-such --lora-modules a=b --config --api-key "x y" \\ | # $X 'a A=b env python -m -cc.mode
    --compilation-config --enforce-eager=1 --max --device-ids ,, --help --help=all --model= --model --a.b.c+ --+
    """.split()
) | st.text(max_size=5)


@settings(max_examples=1000, deadline=None)
@given(st.lists(PIECES, max_size=8), st.sampled_from([" ", "\n", " \\\n"]))
def test_any_text_is_a_command_or_refused(pieces: list[str], between: str) -> None:
    with contextlib.suppress(InvalidRequestError):
        parsed = parse("vllm serve " + between.join(pieces))
        json.dumps([parsed.backend_options, parsed.extra_args], allow_nan=False)


BASH = shutil.which("bash")
SAME_IN_A_SHELL = [case for case in [*SHELL, *JSON] if case.id not in LENIENT]


@pytest.mark.skipif(BASH is None, reason="no bash to compare with")
@pytest.mark.parametrize("case", SAME_IN_A_SHELL, ids=case_id)
def test_a_shell_has_the_same_words(case: Case) -> None:
    assert BASH is not None
    script = f"set -f\nargs() {{ printf '%s\\0' \"$@\"; }}\nargs {case.command.lstrip()}"
    words = subprocess.run([BASH, "-c", script], capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    assert split_words(case.command) == words
