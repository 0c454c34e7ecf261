import pytest

from deployments.guided.references import key_of, to_reference

KEY = "0123456789abcdef" * 4


def test_a_reference_holds_its_key() -> None:
    assert key_of(to_reference(KEY)) == KEY


@pytest.mark.parametrize(
    "grammar", ["", 'root ::= "a"', to_reference(KEY) + "\n", " " + to_reference(KEY), to_reference(KEY[:-1] + "g")]
)
def test_other_grammars_are_none(grammar: str) -> None:
    assert key_of(grammar) is None


def test_vllm_finds_nothing_wrong_with_a_reference() -> None:
    """It checks the grammar of every request with xgrammar before the engine core sees it."""
    import xgrammar

    xgrammar.Grammar.from_ebnf(to_reference(KEY))
