"""docs/guided-keywords.md says what the compilers really do."""

import json
from typing import Any

import pytest

from deployments.errors import InvalidRequestError
from deployments.guided.keywords import ANNOTATIONS, HARMLESS, REFUSED, standing
from deployments.guided.plan import plan
from tests.guided_keywords import FILE, SAMPLES, format_samples, here, missing, table
from tests.guided_matching import LIMITS, schema


def test_the_document_is_what_is_measured() -> None:
    assert FILE.read_text(encoding="utf-8") == table(), "python -m tests.guided_keywords writes it"


def test_every_keyword_is_measured() -> None:
    assert missing() == set()


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_enforced_here_is_enforced_by_each_compiler_named(name: str) -> None:
    found = here(SAMPLES[name])
    assert found in ("xgrammar", "llguidance", "xgrammar; llguidance", "refused")
    assert (found == "refused") == (name in REFUSED)


@pytest.mark.parametrize("name", format_samples())
def test_formats_are_enforced_by_both_or_refused(name: str) -> None:
    assert here(format_samples()[name]) in ("xgrammar; llguidance", "refused")


@pytest.mark.parametrize("name", sorted(ANNOTATIONS) + sorted(HARMLESS) + ["x-anything", "$defs", "definitions"])
def test_annotations_change_nothing(name: str) -> None:
    value: Any = {} if name in ("$defs", "definitions") else {"lenient": True}
    planned = plan(schema({"type": "string", name: value}), LIMITS)
    assert planned == plan(schema({"type": "string"}), LIMITS)


@pytest.mark.parametrize("name", REFUSED)
def test_without_strict_a_keyword_is_left_out_and_named(name: str) -> None:
    value = SAMPLES[name].schema.get(name, "#")
    with pytest.raises(InvalidRequestError, match="set `strict` to false") as caught:
        plan(schema({"type": "object", "properties": {"a/b": {name: value}}}), LIMITS)
    assert f"`{name}` at /properties/a~1b " in str(caught.value)
    planned = plan(schema({"type": "integer", name: value}, strict=False), LIMITS)
    assert planned.ignored == (name,)
    assert planned.enforced == ("type",)


@pytest.mark.parametrize(("name", "value"), [("uniqueItems", False), ("not", False), ("dependentRequired", {})])
def test_values_that_allow_everything_are_fine(name: str, value: Any) -> None:
    planned = plan(schema({"type": "integer", name: value}), LIMITS)
    assert planned.xgrammar is not None
    assert json.loads(planned.xgrammar.text) == {"type": "integer"}


def test_unknown_keywords_are_refused() -> None:
    assert standing("minimun") == "unknown"
    assert plan(schema({"minimun": 1}, strict=False), LIMITS).ignored == ("minimun",)
