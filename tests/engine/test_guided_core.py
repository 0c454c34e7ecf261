"""Our part of the engine core, on vLLM's own manager of constraints: what it loads, and what it refuses."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from config.models import PROJECT_ROOT
from deployments.guided import plugin
from deployments.guided.artifact import BadArtifact, pack, versions_tag
from deployments.guided.references import SWITCH, to_reference

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns while it is imported
    import llguidance
    import xgrammar
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.structured_output import StructuredOutputManager
    from vllm.v1.structured_output.backend_types import StructuredOutputOptions

# vLLM passes xgrammar an argument that it no longer needs.
pytestmark = pytest.mark.filterwarnings("ignore:max_rollback_tokens")

KEY, OTHER = "a" * 64, "b" * 64
EOS = 2


@pytest.fixture(scope="module")
def manager() -> Iterator[Any]:
    init, methods = StructuredOutputManager.__init__, dict(vars(EngineCore))
    os.environ[SWITCH] = "strict"
    plugin.install()
    try:
        args = AsyncEngineArgs(
            model=str(PROJECT_ROOT / "config/demo_model"), structured_outputs_config={"backend": "xgrammar"}
        )
        manager = StructuredOutputManager(args.create_engine_config())
        yield manager
        manager.clear_backend()
    finally:
        del os.environ[SWITCH]
        StructuredOutputManager.__init__ = init
        for name in vars(EngineCore).keys() - methods.keys():
            delattr(EngineCore, name)


class Core:
    """The part of an EngineCore that utility calls reach."""

    def __init__(self, manager: Any) -> None:
        self.structured_output_manager = manager


def load(manager: Any, key: str, artifact: bytes) -> None:
    loading: Future[None] = plugin.guided_load(Core(manager), key, artifact)
    loading.result(timeout=30)


def compiled(manager: Any, regex: str) -> str:
    info = xgrammar.TokenizerInfo.deserialize_json(manager.backend.vocabulary()["tokenizer_info_json"])
    text: str = xgrammar.GrammarCompiler(info, max_threads=1).compile_regex(regex).serialize_json()
    return text


def grammar_of(manager: Any, key: str) -> Any:
    return manager.backend.compile_grammar(StructuredOutputOptions.GRAMMAR, to_reference(key), {EOS})


def ids(manager: Any, text: str) -> list[int]:
    return list(manager.tokenizer.encode(text, add_special_tokens=False))


def test_what_is_loaded_is_used(manager: Any) -> None:
    load(manager, KEY, pack("xgrammar", compiled(manager, "[0-9]{2}")))
    before = plugin.guided_counts(Core(manager))
    grammar = grammar_of(manager, KEY)
    assert grammar.accept_tokens("r", ids(manager, "4"))
    assert not grammar.accept_tokens("r", ids(manager, "x"))
    after = plugin.guided_counts(Core(manager))
    assert after["num_used"] == before["num_used"] + 1
    assert after["num_compiled"] == before["num_compiled"]


def test_llguidance_fills_the_same_masks(manager: Any) -> None:
    load(manager, KEY, pack("xgrammar", compiled(manager, "[0-9]{2}")))
    load(manager, OTHER, pack("llguidance", llguidance.grammar_from("regex", "[0-9]{2}")))
    masks = []
    for key in (KEY, OTHER):
        grammar, mask = grammar_of(manager, key), manager.backend.allocate_token_bitmask(1)
        assert grammar.accept_tokens("r", ids(manager, "4"))
        grammar.fill_bitmask(mask, 0)
        masks.append(mask)
    assert (masks[0] == masks[1]).all()


def test_each_request_has_its_own_matcher(manager: Any) -> None:
    load(manager, OTHER, pack("llguidance", llguidance.grammar_from("regex", "ab")))
    first, second = grammar_of(manager, OTHER), grammar_of(manager, OTHER)
    assert first.accept_tokens("r", ids(manager, "a"))
    assert second.accept_tokens("r", ids(manager, "a"))


def test_an_error_of_llguidance_ends_the_request_as_one(manager: Any) -> None:
    load(manager, OTHER, pack("llguidance", llguidance.grammar_from("regex", "ab")))
    grammar = grammar_of(manager, OTHER)
    assert not grammar.accept_tokens("r", ids(manager, "zz"))
    assert not grammar.accept_tokens("r", [EOS])


def test_what_is_not_there_fails_the_request_that_names_it(manager: Any) -> None:
    with pytest.raises(LookupError):
        grammar_of(manager, "c" * 64)
    load(manager, KEY, pack("xgrammar", compiled(manager, "a")))
    plugin.guided_drop(Core(manager), [KEY, "d" * 64])
    with pytest.raises(LookupError):
        grammar_of(manager, KEY)


def test_a_damaged_artifact_is_not_loaded(manager: Any) -> None:
    artifact = pack("xgrammar", compiled(manager, "abc"))
    damaged = [b"", artifact[:-1], artifact[:20], artifact[:-5] + b"12345", b"x" + artifact[1:]]
    for one in damaged:
        with pytest.raises(BadArtifact):
            load(manager, "e" * 64, one)
    with pytest.raises(LookupError):
        grammar_of(manager, "e" * 64)


def test_an_artifact_of_other_versions_is_not_loaded(manager: Any) -> None:
    tag = versions_tag().encode()
    artifact = pack("xgrammar", compiled(manager, "abc"))
    assert tag in artifact
    with pytest.raises(BadArtifact, match="but installed is"):
        load(manager, "e" * 64, artifact.replace(tag, tag[:-1] + b"9"))


def test_what_is_not_xgrammars_is_not_loaded(manager: Any) -> None:
    with pytest.raises(Exception, match=r".+"):
        load(manager, "e" * 64, pack("xgrammar", "{}"))
    with pytest.raises(ValueError, match=r".+"):
        load(manager, "e" * 64, pack("llguidance", "nonsense"))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (StructuredOutputOptions.JSON, '{"type": "string", "pattern": "(a{0,100}){0,100}"}'),
        (StructuredOutputOptions.REGEX, "a"),
        (StructuredOutputOptions.GRAMMAR, 'root ::= "a" root'),
        (StructuredOutputOptions.STRUCTURAL_TAG, "{}"),
    ],
)
def test_the_core_compiles_nothing_else(manager: Any, kind: Any, text: str) -> None:
    with pytest.raises(PermissionError):
        manager.backend.compile_grammar(kind, text, None)


def test_small_ones_it_compiles(manager: Any) -> None:
    from vllm.v1.structured_output.utils import choice_as_grammar

    before = plugin.guided_counts(Core(manager))["num_compiled"]
    compile_grammar = manager.backend.compile_grammar
    compile_grammar(StructuredOutputOptions.JSON_OBJECT, "", None)
    compile_grammar(StructuredOutputOptions.JSON, '{"type": "object", "properties": {"a": {"type": "integer"}}}', None)
    compile_grammar(StructuredOutputOptions.GRAMMAR, choice_as_grammar(["yes", "don't know"]), None)
    assert plugin.guided_counts(Core(manager))["num_compiled"] == before + 3
