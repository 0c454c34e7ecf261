from typing import Any

import pytest

from config.auth import Key
from deployments.errors import (
    AccessDeniedError,
    EngineUnavailableError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
)
from deployments.ingress.routing import (
    choose_model,
    requested_model,
    require_allowed,
    require_callable,
    require_path,
    visible,
)
from tests.fakes import FixedModel, model_info

A, B = FixedModel("a"), FixedModel("b")
SLASHED = FixedModel("a/x")


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"model": "a"}, "a"),
        ({"messages": [{"model": 5}], "model": "a/b", "n": 1}, "a/b"),
        ({"model": None}, None),
        ({}, None),
        ({"metadata": {"model": 5}}, None),
        ({"model": "模型"}, "模型"),
    ],
)
def test_requested_model(body: dict[str, Any], model: str | None) -> None:
    assert requested_model(body) == model


@pytest.mark.parametrize("model", [5, ["a"], {}, True])
def test_a_model_that_is_no_text_is_refused(model: Any) -> None:
    with pytest.raises(InvalidRequestError, match="string") as caught:
        requested_model({"model": model})
    assert caught.value.param == "model"


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


def key(*instances: str) -> Key:
    return Key(name="k", sha256="0" * 64, instances=frozenset(instances) if instances else None)


@pytest.mark.parametrize("allowed", [None, key(), key("a"), key("b", "a")])
def test_a_model_that_a_key_opens(allowed: Key | None) -> None:
    require_allowed(allowed, "a")


@pytest.mark.parametrize("name", ["a", "", "B", "b/x", " b", "x" * 10**6])
def test_a_model_that_a_key_does_not_open(name: str) -> None:
    with pytest.raises(AccessDeniedError, match="does not open the model") as caught:
        require_allowed(key("b"), name)
    assert caught.value.param == "model"
    assert len(caught.value.message) < 500


def test_an_empty_list_of_models_opens_none() -> None:
    closed = Key(name="k", sha256="0" * 64, instances=frozenset())
    assert visible(closed, ["a"]) == []
    with pytest.raises(AccessDeniedError):
        require_allowed(closed, "a")


def test_a_key_sees_what_it_opens() -> None:
    assert visible(None, {"b": 1, "a": 2}) == ["b", "a"]
    assert visible(key(), ["b", "a"]) == ["b", "a"]
    assert visible(key("a", "gone"), ["b", "a"]) == ["a"]
