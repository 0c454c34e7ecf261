import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.errors import EngineUnavailableError, InvalidRequestError, ModelNotFoundError, NotFoundError
from deployments.ingress.routing import choose_model, requested_model, require_callable, require_path
from tests.fakes import FixedModel, model_info

A, B = FixedModel("a"), FixedModel("b")
SLASHED = FixedModel("a/x")

json_values = st.recursive(st.none() | st.text() | st.integers(), st.lists)
bodies = st.dictionaries(st.sampled_from(["model", "x"]), json_values)


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model": "a"}', "a"),
        (b'{"messages": [{"model": 5}], "model": "a/b", "n": 1}', "a/b"),
        (b'{"model": null}', None),
        (b"{}", None),
        (b'{"metadata": {"model": 5}}', None),
        ('{"model": "模型"}'.encode(), "模型"),
    ],
)
def test_requested_model(body: bytes, model: str | None) -> None:
    assert requested_model(body) == model


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'"a"', b"null", b'{"model": "a"', b'{"model": "a"} x', b'{"model": "\xff"}', b'{"x":' * 100_000],
    ids=["empty", "list", "text", "null", "cut", "trailing", "no UTF-8", "very deep"],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="JSON object") as caught:
        requested_model(body)
    assert caught.value.param is None


@pytest.mark.parametrize("model", ["5", '["a"]', "{}", "true"])
def test_a_model_that_is_no_text_is_refused(model: str) -> None:
    with pytest.raises(InvalidRequestError, match="string") as caught:
        requested_model(f'{{"model": {model}}}'.encode())
    assert caught.value.param == "model"


@given(st.binary() | bodies.map(lambda body: json.dumps(body).encode()))
def test_any_bytes_give_a_name_or_a_400(body: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        assert isinstance(requested_model(body), str | None)


@pytest.mark.parametrize(
    ("models", "requested", "default", "chosen"),
    [
        ([A, B], "a", None, A),
        ([A, B], "b", "a", B),
        ([A, B], "b/anything/else", None, B),
        ([A, SLASHED], "a/x", None, SLASHED),
        ([A, B], None, "b", B),
        ([A, B], "", "b", B),
        ([A], None, None, A),
        ([A], "", None, A),
    ],
)
def test_choose_model(models: list[FixedModel], requested: str | None, default: str | None, chosen: FixedModel) -> None:
    assert choose_model({model.name: model for model in models}, requested, default) is chosen


@pytest.mark.parametrize("models", [[], [A, B]], ids=["none", "several"])
def test_a_name_is_required_when_there_is_no_obvious_one(models: list[FixedModel]) -> None:
    with pytest.raises(InvalidRequestError, match="required") as caught:
        choose_model({model.name: model for model in models}, None, None)
    assert caught.value.param == "model"


@pytest.mark.parametrize("requested", ["c", "c/a", "/a", "A"])
def test_an_unknown_model_is_named_with_those_there_are(requested: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"`{requested}` does not exist.*a, b"):
        choose_model({"b": B, "a": A}, requested, "a")


def test_an_unknown_default_is_named() -> None:
    with pytest.raises(ModelNotFoundError, match="`c` does not exist"):
        choose_model({"a": A, "b": B}, None, "c")


def test_a_route_that_the_model_lacks_is_refused_only_when_known() -> None:
    chat = FixedModel("a", info=model_info("a", "/v1/chat/completions"))
    require_path(chat, "/v1/chat/completions")
    require_path(A, "/v1/embeddings")
    with pytest.raises(NotFoundError, match="/v1/embeddings"):
        require_path(chat, "/v1/embeddings")


@pytest.mark.parametrize("status", ["running", "idle"])
def test_a_model_that_can_answer_or_wake_up_is_callable(status: str) -> None:
    require_callable(FixedModel("a", status=status), 5)


@pytest.mark.parametrize(
    ("status", "words"), [("starting", "is loading"), ("stopping", "is shutting down"), ("failed", "failed.*no memory")]
)
def test_a_model_that_cannot_answer_is_503_and_says_why(status: str, words: str) -> None:
    with pytest.raises(EngineUnavailableError, match=words) as caught:
        require_callable(FixedModel("a", status=status, message="no memory"), 9)
    assert caught.value.retry_after_s == 9
