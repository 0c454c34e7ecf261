import os
import subprocess
import sys
from typing import Any

import pytest

from config.instances import InstanceOptions, InstanceSettings
from config.models import PROJECT_ROOT
from deployments.errors import InvalidOptionsError
from deployments.instances.applications import ENGINE_OPTIONS, to_engine_options, to_model_settings, to_version
from tests.harness import application, default_config

SETTINGS = InstanceSettings()


def options(**fields: Any) -> InstanceOptions:
    return InstanceOptions.model_validate(fields)


def test_a_vllm_instance() -> None:
    given = options(backend_options={"model": "m", "max-model-len": 9}, environment={"A": "1"})
    model = to_model_settings("one", given, SETTINGS)
    assert (model.name, model.app_name, model.backend) == ("one", "model-one", "vllm")
    assert model.engine_args == {"model": "m", "max_model_len": 9}
    assert model.environment == {"A": "1"}


def test_a_fake_instance() -> None:
    model = to_model_settings("one", options(backend_type="fake", backend_options={"itl-s": 0.5}), SETTINGS)
    assert (model.backend, model.fake.itl_s, model.engine_args) == ("fake", 0.5, {})


def test_defaults_are_won_over_by_own_options() -> None:
    defaults = {
        "num_cpus": 0.5,
        "request_format": "plain",
        "engine_args": {"max-model-len": 1, "dtype": "auto"},
        "environment": {"A": "default", "B": "default"},
    }
    settings = InstanceSettings(defaults=defaults)
    given = options(
        backend_options={"max_model_len": 2}, environment={"A": "own"}, settings={"num_cpus": 2, "device": "cpu"}
    )
    model = to_model_settings("one", given, settings)
    assert (model.num_cpus, model.request_format, model.device) == (2, "plain", "cpu")
    assert model.engine_args == {"max_model_len": 2, "dtype": "auto"}
    assert model.environment == {"A": "own", "B": "default"}


def test_defaults_of_another_backend_do_not_matter_to_this_one() -> None:
    settings = InstanceSettings(defaults={"fake": {"itl_s": 0.1}, "engine_args": {"dtype": "auto"}})
    assert to_model_settings("one", options(backend_type="fake"), settings).fake.itl_s == 0.1
    assert to_model_settings("one", options(), settings).engine_args == {"dtype": "auto"}


def test_variables_of_the_configuration_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "here")
    settings = InstanceSettings(defaults={"environment": {"PLACE": "${WHERE}"}})
    assert to_model_settings("one", options(), settings).environment == {"PLACE": "here"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"settings": {"no_such": 1}}, "settings.no_such: "),
        ({"settings": {"cpu": {"threads": 0}}}, "settings.cpu.threads"),
        ({"settings": {"num_cpus": -1}}, "settings.num_cpus: "),
        ({"backend_type": "fake", "backend_options": {"itl_s": -1}}, "backend_options.itl_s: "),
        ({"backend_type": "fake", "backend_options": {"model": "m"}}, "backend_options.model: "),
        ({"settings": {"name": "other"}}, "named by its path"),
        ({"settings": {"backend": "fake"}}, "`backend_type`"),
        ({"settings": {"engine_args": {}}}, "`backend_options`"),
        ({"settings": {"fake": {}}}, "`backend_options`"),
        ({"settings": {"environment": {}}}, "`environment`"),
        ({"environment": {"A": "${PATH}"}}, "environment: `${NAME}`"),
        ({"backend_options": {"model": ["${HOME}/m"]}}, "backend_options: `${NAME}`"),
        ({"settings": {"request_format": "${NOT_SET_ANYWHERE}"}}, "settings: `${NAME}`"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOptionsError) as refused:
        to_model_settings("one", options(**fields), SETTINGS)
    assert words in refused.value.message
    assert "pydantic" not in refused.value.message
    assert os.environ["PATH"] not in refused.value.message


def test_engines_are_deployed_as_the_shipped_configuration_does() -> None:
    (shipped,) = application(default_config(), "model-demo")["deployments"]
    same = ENGINE_OPTIONS.keys() - {"max_constructor_retry_count"}
    assert {key: ENGINE_OPTIONS[key] for key in same} == {key: shipped[key] for key in same}


def test_options_of_the_engine() -> None:
    settings = InstanceSettings(drain_timeout_s=60, deployment={"max_ongoing_requests": 8, "name": "Engine"})
    given = to_engine_options(options(), settings)
    assert given == {**ENGINE_OPTIONS, "num_replicas": 1, "graceful_shutdown_timeout_s": 60, "max_ongoing_requests": 8}


def test_an_instances_autoscaling_wins() -> None:
    settings = InstanceSettings(deployment={"autoscaling_config": {"max_replicas": 2, "upscale_delay_s": 3}})
    given = to_engine_options(options(autoscaling={"max_replicas": 4}), settings)
    assert given["autoscaling_config"] == {"max_replicas": 4, "upscale_delay_s": 3}
    assert "num_replicas" not in given
    assert to_engine_options(options(), settings)["autoscaling_config"]["max_replicas"] == 2


def test_an_instances_autoscaling_wins_over_a_number_of_replicas() -> None:
    settings = InstanceSettings(deployment={"num_replicas": 3})
    assert to_engine_options(options(), settings)["num_replicas"] == 3
    assert "num_replicas" not in to_engine_options(options(autoscaling={"max_replicas": 4}), settings)


def version(**fields: Any) -> str:
    return to_version(to_model_settings("one", options(**fields), SETTINGS))


def test_the_version_is_that_of_the_models_settings() -> None:
    assert version(backend_options={"a": 1, "b": 2}) == version(backend_options={"b": 2, "a": 1})
    assert version(backend_options={"a": 1}) != version(backend_options={"a": 2})
    assert version(environment={"A": "1"}) != version()
    assert version(autoscaling={"max_replicas": 2}, idle_timeout=1) == version()


def test_the_version_is_the_same_in_each_process() -> None:
    program = (
        "from tests.unit.test_instance_settings import version; "
        "print(version(settings={'media_domains': ['a', 'b', 'c', 'd', 'e']}))"
    )
    command = [sys.executable, "-c", program]
    seeds = ({**os.environ, "PYTHONHASHSEED": str(seed)} for seed in range(1, 4))
    printed = {subprocess.check_output(command, cwd=PROJECT_ROOT, env=seed) for seed in seeds}
    assert len(printed) == 1
