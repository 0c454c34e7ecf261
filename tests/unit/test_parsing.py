import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.limits import RequestLimits
from deployments.errors import InvalidRequestError
from deployments.ingress.parsing import depth_over, parse_object, size_bytes
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


def test_size_is_that_of_utf8() -> None:
    assert size_bytes("é") == 4
    assert size_bytes({"a": [1, 2]}) == len(b'{"a":[1,2]}')
