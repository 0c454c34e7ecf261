import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from config.models import ModelSettings
from config.settings import ApplicationSettings, Settings, expand_variables


class Inner(Settings):
    words: tuple[str, ...] = ()


class Outer(ApplicationSettings):
    name: str = "x"
    number: int = 1
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${SET}", "value"),
        ("a-${SET}-b-${SET}", "a-value-b-value"),
        ("${SET:-other}", "value"),
        ("${UNSET:-other}", "other"),
        ("${UNSET:-}", ""),
        ("${EMPTY:-other}", ""),
        ("$SET ${} ${1A} {SET}", "$SET ${} ${1A} {SET}"),
    ],
)
def test_variables_are_expanded(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setenv("SET", "value")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    assert expand_variables(text) == expected
    assert expand_variables({"a": [text, {"b": text}]}) == {"a": [expected, {"b": expected}]}


@pytest.mark.parametrize("value", [1, 1.5, True, None])
def test_what_is_no_text_is_left_alone(value: Any) -> None:
    assert expand_variables([value]) == [value]


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    with pytest.raises(ValueError, match="UNSET is not set"):
        expand_variables("${UNSET}")
    with pytest.raises(ValidationError, match="UNSET is not set"):
        Outer.model_validate({"inner": {"words": ["${UNSET}"]}})


def test_variables_are_expanded_before_types_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBER", "7")
    settings = Outer.model_validate({"number": "${NUMBER}", "inner": {"words": ["${NUMBER}"]}})
    assert settings == Outer(number=7, inner=Inner(words=("7",)))


@pytest.mark.parametrize("values", [{"nam": "x"}, {"inner": {"word": []}}])
def test_unknown_keys_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Outer.model_validate(values)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().name = "y"


def test_settings_reach_a_replica_unchanged() -> None:
    settings = Outer(name="y", inner=Inner(words=("a",)))
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_value_that_looks_like_a_variable_is_not_expanded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "pa${NUMBER}ss")
    assert ModelSettings(name="m", cpu={"engine_args": {"x": "${SECRET}"}}).cpu.engine_args == {"x": "pa${NUMBER}ss"}  # type: ignore[arg-type]
