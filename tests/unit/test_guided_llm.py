"""What becomes of vLLM's parameters. vLLM is imported here: about five seconds."""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from config.guided import Constraint, EngineGuidedSettings
from deployments.engine.constraints import constrained
from deployments.engine.metering import metered
from deployments.errors import EngineUnavailableError, InvalidRequestError
from deployments.guided.references import key_of
from deployments.guided_types import GrammarSpec, Receipt
from deployments.types import GuidedOptions
from tests.aio import run
from tests.guided import InMemoryCompiler, make_guide

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns while it is imported
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

    from deployments.engine.guided_llm import to_spec, with_reference
    from deployments.engine.tool_calls import constrain_forced_calls, forced
    from deployments.engine.vllm_guided import precompile

KEY = "a" * 64


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"json": {"type": "string", "title": "é"}}, "json", '{"type": "string", "title": "é"}'),
        ({"json": '{"type":"string"}'}, "json", '{"type":"string"}'),
        ({"json_object": True}, "json_object", ""),
        ({"regex": ""}, "regex", ""),
        ({"choice": ["a", "b"]}, "choice", '["a", "b"]'),
        ({"grammar": 'root ::= "a"'}, "grammar", 'root ::= "a"'),
        ({"structural_tag": "{}"}, "structural_tag", "{}"),
    ],
)
def test_every_constraint_of_vllm_is_read(given: Any, kind: Any, text: str) -> None:
    params = StructuredOutputsParams(**given)
    assert to_spec(params, strict=True) == GrammarSpec(kind, text)
    assert to_spec(params, strict=False) == GrammarSpec(kind, text, strict=False)


def test_a_request_may_leave_whitespace_out() -> None:
    params = StructuredOutputsParams(json="{}", disable_any_whitespace=True)
    assert to_spec(params, strict=True).any_whitespace is False


@pytest.mark.parametrize(
    "given",
    [
        {"json_object": False},
        {"json": "{}", "whitespace_pattern": " "},
        {"json": "{}", "disable_additional_properties": True},
    ],
)
def test_what_would_have_no_effect_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequestError):
        to_spec(StructuredOutputsParams(**given), strict=True)


def test_a_reference_takes_the_place_of_the_constraint() -> None:
    params = SamplingParams(structured_outputs=StructuredOutputsParams(regex="a"), max_tokens=3, seed=5)
    sent = with_reference(params, Receipt(KEY, "regex", "xgrammar", 0.1, 10, is_cached=True), GrammarSpec("regex", "a"))
    assert key_of(sent.structured_outputs.grammar) == KEY
    assert (sent.max_tokens, sent.seed) == (3, 5)
    assert params.structured_outputs.regex == "a"


def test_what_the_engine_compiles_itself_stays_as_it_is() -> None:
    local = Receipt(KEY, "", "engine", 0.0, 0, is_cached=False)
    params = SamplingParams(structured_outputs=StructuredOutputsParams(json_object=True))
    assert with_reference(params, local, GrammarSpec("json_object", "")) is params


def test_a_schema_is_sent_as_it_was_judged() -> None:
    """vLLM writes `é` as six characters, and a small schema may become a large one."""
    local = Receipt(KEY, "", "engine", 0.0, 0, is_cached=False)
    params = SamplingParams(structured_outputs=StructuredOutputsParams(json={"enum": ["é"]}))
    spec = to_spec(params.structured_outputs, strict=True)
    assert with_reference(params, local, spec).structured_outputs.json == '{"enum": ["é"]}'


@pytest.mark.parametrize(
    ("outcome", "message"),
    [("refused", r"guided.precompile\[1\]"), ("compiled", None), (EngineUnavailableError("away"), None)],
)
def test_a_constraint_of_the_settings_that_can_never_be_fails_the_start(outcome: Any, message: str | None) -> None:
    settings = EngineGuidedSettings(
        precompile=(Constraint(kind="choice", spec=["a"]), Constraint(kind="regex", spec="a"))
    )

    async def main() -> None:
        compiler = InMemoryCompiler()
        guide, _ = make_guide(compiler)
        await guide.expect(GrammarSpec("choice", '["a"]')).ready()
        compiler.outcome = outcome
        await precompile(guide, settings)

    if message is None:
        run(main())
    else:
        with pytest.raises(InvalidRequestError, match=message):
            run(main())


def tool(strict: bool | None) -> Any:
    return SimpleNamespace(function=SimpleNamespace(strict=strict))


@pytest.mark.parametrize(
    ("choice", "strict", "level", "is_strict"),
    [
        ("auto", None, ToolStrictLevel.AUTO, True),
        ("none", None, ToolStrictLevel.AUTO, True),
        ("required", None, ToolStrictLevel.PARAMETER, False),
        ("required", False, ToolStrictLevel.PARAMETER, False),
        ("required", True, ToolStrictLevel.PARAMETER, True),
        (SimpleNamespace(type="function"), None, ToolStrictLevel.PARAMETER, False),
    ],
)
def test_forced_calls_are_constrained_and_lenient_unless_a_tool_is_strict(
    choice: Any, strict: bool | None, level: ToolStrictLevel, is_strict: bool
) -> None:
    _, context = metered()
    held = constrained(context, GuidedOptions())
    resolve = forced(lambda _tools, _choice, strict_level: strict_level)
    assert context.run(resolve, [tool(strict)], choice, ToolStrictLevel.AUTO) == level
    assert held.options.strict is is_strict


def test_vllm_asks_us_wherever_it_decides() -> None:
    from vllm.parser import abstract_parser
    from vllm.tool_parsers import structural_tag_registry

    constrain_forced_calls()
    constrain_forced_calls()
    for module in (abstract_parser, structural_tag_registry):
        resolve = module.resolve_tool_strictness
        assert resolve.__module__ == "vllm.tool_parsers.structural_tag_registry"
        assert not hasattr(resolve.__wrapped__, "__wrapped__")
