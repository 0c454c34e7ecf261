import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.limits import RequestLimits
from deployments.errors import InvalidRequestError
from deployments.ingress.parsing import depth_over, levels, parse_object, parsed_text, size_bytes
from tests.bad_requests import NOT_JSON

LIMITS = RequestLimits()

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@given(st.dictionaries(st.text(), values))
def test_an_object_is_what_python_reads(body: dict[str, Any]) -> None:
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert parse_object(text, LIMITS) == body


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parse_object(body, LIMITS)


@given(st.binary())
def test_any_bytes_give_an_object_or_a_400(body: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        assert isinstance(parse_object(body, LIMITS), dict)


def test_of_doubled_names_the_last_counts_as_in_the_engine() -> None:
    body = b'{"n": 1, "n": 2}'
    assert parse_object(body, LIMITS) == json.loads(body) == {"n": 2}


@pytest.mark.parametrize("limit", [8, 64, 500])
def test_depth(limit: int) -> None:
    limits = RequestLimits(max_json_depth=limit)
    assert parse_object(json.dumps({"a": nested(limit - 1)}).encode(), limits)
    with pytest.raises(InvalidRequestError, match=f"deeper than {limit}"):
        parse_object(json.dumps({"a": nested(limit)}).encode(), limits)


@given(st.integers(0, 40), st.integers(0, 30))
def test_depth_over(depth: int, limit: int) -> None:
    assert depth_over(nested(depth), limit) == (depth > limit)


def test_number_of_values() -> None:
    limits = RequestLimits(max_json_values=100)
    assert parse_object(json.dumps({"a": [1] * 90}).encode(), limits)
    with pytest.raises(InvalidRequestError, match="more than 100 values"):
        parse_object(json.dumps({"a": [1] * 110}).encode(), limits)


def test_number_of_objects_and_lists() -> None:
    limits = RequestLimits(max_json_objects=100)
    assert parse_object(json.dumps({"a": [{}] * 98}).encode(), limits)
    with pytest.raises(InvalidRequestError, match="more than 100 objects"):
        parse_object(json.dumps({"a": [{}] * 99}).encode(), limits)


@given(values)
def test_levels_hold_every_object_and_list_once(value: Any) -> None:
    assert sum(map(len, levels(value))) == sum(json.dumps(value).replace(r"\"", "").count(mark) for mark in "[{") - sum(
        text.count(mark) for text in texts(value) for mark in "[{"
    )


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(text for inner in value.values() for text in texts(inner))]
    if isinstance(value, list):
        return [text for inner in value for text in texts(inner)]
    return [value] if isinstance(value, str) else []


def test_json_in_a_text() -> None:
    assert parsed_text("f", '{"a": [1]}') == {"a": [1]}
    assert parsed_text("f", "{") is None
    assert parsed_text("f", "") is None
    with pytest.raises(InvalidRequestError, match="`f`"):
        parsed_text("f", "[" * 200_000)


def test_size_is_that_of_utf8() -> None:
    assert size_bytes("é") == 4
    assert size_bytes({"a": [1, 2]}) == len(b'{"a":[1,2]}')
