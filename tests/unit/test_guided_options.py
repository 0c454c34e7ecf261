"""What the gateway reads of a request's constraint."""

from typing import Any

import pytest

from deployments.errors import InvalidRequestError
from deployments.ingress.guided import options_of, translated
from deployments.types import GuidedOptions

SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("field", "kind", "value"),
    [
        ("guided_json", "json", SCHEMA),
        ("guided_json", "json", '{"type": "object"}'),
        ("guided_regex", "regex", "a+"),
        ("guided_choice", "choice", ["a", "b"]),
        ("guided_grammar", "grammar", 'root ::= "a"'),
    ],
)
def test_earlier_names_are_translated(field: str, kind: str, value: Any) -> None:
    assert translated({"model": "m", field: value}) == {"model": "m", "structured_outputs": {kind: value}}


def test_what_needs_no_translation_is_the_same_object() -> None:
    body = {"model": "m", "structured_outputs": {"json": SCHEMA}, "guided_json": None}
    assert translated(body) is body


@pytest.mark.parametrize(
    "body",
    [
        {"guided_json": SCHEMA, "guided_regex": "a"},
        {"guided_json": SCHEMA, "structured_outputs": {"regex": "a"}},
        {"guided_choice": ["a"], "response_format": {"type": "json_object"}},
    ],
)
def test_two_constraints_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="cannot both hold"):
        translated(body)


def test_strict_of_structured_outputs_is_ours() -> None:
    body = {"structured_outputs": {"json": SCHEMA, "strict": False}}
    assert translated(body) == {"structured_outputs": {"json": SCHEMA}}
    assert options_of(body, []) == GuidedOptions(strict=False)


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": False}}},
        {"text": {"format": {"type": "json_schema", "schema": SCHEMA, "strict": False}}},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA, "strict": False}}},
    ],
)
def test_strict_is_read_where_openai_has_it(body: dict[str, Any]) -> None:
    assert options_of(body, []).strict is False


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"response_format": "text"},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": None}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": True}}},
        {"text": "strict"},
    ],
)
def test_strict_is_the_default(body: dict[str, Any]) -> None:
    assert options_of(body, []).strict is True


@pytest.mark.parametrize("strict", ["false", 0, [], {}])
def test_strict_is_a_truth_value(strict: Any) -> None:
    with pytest.raises(InvalidRequestError, match="strict"):
        options_of({"structured_outputs": {"strict": strict}}, [])


def test_a_receipt_is_opt_in() -> None:
    assert options_of({}, [(b"x-guided-receipt", b"1")]).receipt
    assert not options_of({}, [(b"x-guided-receipt", b"0"), (b"other", b"1")]).receipt
