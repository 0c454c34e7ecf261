from typing import Any

import pytest
from pydantic import ValidationError

from config.auth import AuthSettings, Key
from config.limits import Deadlines, RequestLimits
from config.models import CpuSettings, FakeEngineSettings, GatewaySettings, ModelSettings
from config.settings import Settings

ALL: list[type[Settings]] = [
    GatewaySettings,
    ModelSettings,
    CpuSettings,
    FakeEngineSettings,
    AuthSettings,
    Key,
    RequestLimits,
    Deadlines,
]


def is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


@pytest.mark.parametrize("kind", ALL)
def test_every_field_says_what_it_is(kind: type[Settings]) -> None:
    silent = [
        name
        for name, field in kind.model_fields.items()
        if not (field.description or (is_settings(field.annotation) and field.annotation.__doc__))
    ]
    assert not silent


@pytest.mark.parametrize("kind", ALL)
def test_names_of_times_and_sizes_end_in_their_unit(kind: type[Settings]) -> None:
    units = ("_s", "_bytes", "_len", "_tokens", "_requests", "_per_node")
    numbers = [name for name, field in kind.model_fields.items() if field.annotation in (int, float, int | None)]
    if kind is RequestLimits:  # counts say of what: `max_choices`
        numbers = [name for name in numbers if not name.startswith("max_")]
    assert [name for name in numbers if not name.endswith(units)] in ([], ["num_cpus"], ["seed"])


@pytest.mark.parametrize("name", ["demo", "Qwen2.5-7B_x", "a" * 50, "0"])
def test_names_of_models(name: str) -> None:
    assert ModelSettings(name=name).app_name == f"model-{name}"


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a" * 51, "é", "a\n", "${UNSET_NAME:-}"])
def test_names_that_would_break_routing_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        ModelSettings(name=name)
    with pytest.raises(ValidationError):
        GatewaySettings(default_model=name)


@pytest.mark.parametrize(
    "values",
    [
        {"backend": "sglang"},
        {"device": "tpu"},
        {"abort_timeout_s": 0},
        {"abort_timeout_s": "soon"},
        {"max_buffered_bytes": 0},
        {"completions_default_max_tokens": 0},
        {"environment": {"A": 1}},
        {"engine_args": []},
        {"cpu": {"threads": "some"}},
        {"cpu": {"threads": 0}},
        {"cpu": {"max_replicas_per_node": 0}},
        {"fake": {"itl_s": -1}},
        {"fake": {"ttft": 1}},
        {"modle": "x"},
    ],
)
def test_mistakes_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelSettings.model_validate({"name": "m", **values})


@pytest.mark.parametrize(
    "values",
    [
        {"discovery_interval_s": 0},
        {"retry_after_s": 0},
        {"limits": {"max_body_bytes": 1}},
        {"deadlines": {"idle_s": 0}},
        {"port": 80},
    ],
)
def test_mistakes_in_the_gateway_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings.model_validate(values)


def test_a_model_needs_nothing_but_a_name() -> None:
    settings = ModelSettings.model_validate({"name": "m"})
    assert (settings.backend, settings.device, settings.request_format) == ("vllm", "auto", "default-template")


def test_engine_arguments_are_kept_as_written() -> None:
    engine_args = {"max-model-len": 4096, "hf_overrides": {"a": [1, None, True]}, "dtype": None}
    assert ModelSettings(name="m", engine_args=engine_args).engine_args == engine_args
