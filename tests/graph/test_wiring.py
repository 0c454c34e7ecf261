"""The builders without a cluster: what Serve would deploy."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.serve import Application
from ray.serve._private.build_app import build_app

from config.auth import digest
from config.guided import GuidedSettings
from config.models import GatewaySettings, ModelSettings
from config.settings import Settings
from deployments.app import build_gateway, build_guided, build_model
from deployments.engine import client
from deployments.engine.deployment import Engine
from deployments.engine.resources import engine_options
from deployments.errors import InvalidRequestError
from deployments.guided.client import DEPLOYMENT as COMPILER
from deployments.guided.deployment import GuidedCompiler
from deployments.management_key import FILE

ENGINE: Any = Engine  # a class in the source, a deployment once it is decorated
MODEL = ModelSettings(name="m", engine_args={"model": "config/demo_model", "tensor_parallel_size": 2})


def bind_engine(settings: ModelSettings, device: str) -> Application:
    """Do what `build_model` does once it has asked the cluster for its GPUs."""
    application: Application = ENGINE.options(**engine_options(settings, device)).bind(settings, device)
    return application


def only_deployment(application: Application) -> Any:
    """Return what Serve makes of an application that must have one deployment."""
    (deployment,) = build_app(application, name="test").deployments
    return deployment


def deployments(settings: GatewaySettings) -> dict[str, Any]:
    """Return what Serve makes of the gateway, by name."""
    built = build_app(build_gateway(settings), name="test")
    assert built.ingress_deployment_name == "Ingress"
    return {deployment.name: deployment for deployment in built.deployments}


def test_the_gateway_is_the_front_and_what_works_on_texts() -> None:
    settings = GatewaySettings.model_validate({"default_model": "m", "auth": {"management_keys": "m" * 16}})
    made = deployments(settings)
    assert set(made) == {"Ingress", "Instances", "Tokenizer"}
    given, tokenizer, key_usage, instances = made["Ingress"].init_args
    assert (given, tokenizer.deployment_name, key_usage) == (settings, "Tokenizer", None)
    assert instances.deployment_name == "Instances"
    assert made["Tokenizer"].init_args == (settings.writing, settings.discovery_interval_s)


def test_a_gateway_without_a_management_key_makes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed once; what is deployed, and kept, is its hash."""
    settings = GatewaySettings(data_dir=str(tmp_path / "new"))
    for printed in (1, 0):
        deployed, *_ = deployments(settings)["Ingress"].init_args
        (key,) = deployed.auth.keys
        output = capsys.readouterr().out
        assert output.count("mgmt-") == printed
        if printed:
            made = re.findall(r"mgmt-\S+", output)[0]
        assert (key.kind, key.sha256) == ("management", digest(made))
    assert made not in (tmp_path / "new" / FILE).read_text()


def test_counts_are_shared_only_when_a_key_is_limited() -> None:
    auth = {"management_keys": "m" * 16, "inference_keys": "i" * 16, "default_limits": {"requests_per_minute": 5}}
    made = deployments(GatewaySettings.model_validate({"auth": auth}))
    assert set(made) == {"Ingress", "Instances", "KeyUsage", "Tokenizer"}
    # A machine with two CPUs has room for engines beside them.
    assert all(made[name].ray_actor_options["num_cpus"] <= 0.1 for name in ("Instances", "KeyUsage", "Tokenizer"))


def test_constraints_go_to_the_compiler_of_their_key() -> None:
    settings = GuidedSettings(num_actors=3)
    built = build_app(build_guided(settings), name="test")
    made = {deployment.name: deployment for deployment in built.deployments}
    assert set(made) == {COMPILER, "GuidedFront"}
    compiler = made[COMPILER]
    assert compiler.init_args == (settings,)
    assert compiler.ray_actor_options["num_cpus"] <= 0.1
    router = compiler._deployment_config.request_router_config.get_request_router_class()
    assert router.__name__ == "ConsistentHashRouter"
    # Serve refuses that for an application's front.
    assert built.ingress_deployment_name == "GuidedFront"
    autoscaling = made["GuidedFront"]._deployment_config.autoscaling_config
    assert (autoscaling.min_replicas, autoscaling.initial_replicas) == (0, None)


def test_the_client_calls_methods_that_the_compiler_has() -> None:
    guided: Any = GuidedCompiler
    for name in ("compile", "teach", "find", "stats"):
        assert inspect.iscoroutinefunction(getattr(guided.func_or_class, name))


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_model_is_one_deployment_with_its_settings_and_device(device: str) -> None:
    deployment = only_deployment(bind_engine(MODEL, device))
    assert deployment.name == client.DEPLOYMENT
    assert deployment.init_args == (MODEL, device)


def test_serve_gives_a_model_the_gpus_it_needs() -> None:
    deployment = only_deployment(bind_engine(MODEL, "gpu"))
    assert deployment.ray_actor_options["num_gpus"] == 2
    on_cpu = only_deployment(bind_engine(MODEL, "cpu"))
    assert not on_cpu.ray_actor_options.get("num_gpus")


def test_serve_accepts_the_bundles_of_workers_on_other_nodes() -> None:
    spread = ModelSettings(name="m", engine_args={"tensor_parallel_size": 4, "distributed_executor_backend": "ray"})
    assert only_deployment(bind_engine(spread, "gpu")).name == client.DEPLOYMENT


def test_the_client_calls_methods_that_the_engine_has() -> None:
    engine: Any = ENGINE.func_or_class
    assert inspect.isasyncgenfunction(engine.stream_http)
    assert inspect.iscoroutinefunction(engine.info)


@pytest.mark.parametrize(
    ("builder", "settings"),
    [(build_gateway, GatewaySettings), (build_model, ModelSettings), (build_guided, GuidedSettings)],
)
def test_serve_checks_the_arguments_of_the_yaml(builder: Callable[..., Application], settings: type[Settings]) -> None:
    """Serve does so only for a builder of one parameter whose annotation is the class, not its name."""
    (parameter,) = inspect.signature(builder).parameters.values()
    assert parameter.annotation is settings


def test_a_bad_request_format_is_refused_before_anything_is_deployed() -> None:
    with pytest.raises(InvalidRequestError, match="request_format"):
        build_model(ModelSettings(name="m", request_format="{% if %}"))
    assert not ray.is_initialized()


def test_wiring_loads_no_engine() -> None:
    """The gateway's replicas would need seconds and a gigabyte more, and a machine that has vLLM."""
    heavy = {"vllm", "torch", "transformers", "xgrammar", "llguidance"}
    code = f"import sys, deployments.app; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
