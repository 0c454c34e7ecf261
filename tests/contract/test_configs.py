"""Every configuration that ships is one that Serve, our settings and vLLM accept."""

import importlib
import inspect
import ipaddress
import re
import warnings
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private.application_state import override_deployment_info
from ray.serve._private.deployment_info import DeploymentInfo
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from config.guided import GuidedSettings
from config.models import PROJECT_ROOT, GatewaySettings, ModelSettings
from config.settings import Settings
from deployments.app import build_gateway, build_guided, build_model
from deployments.engine.deployment import Engine
from deployments.engine.resources import engine_options, gpus_per_replica
from deployments.engine.templates import to_chat_template
from deployments.guided.client import APPLICATION
from deployments.guided.deployment import GuidedCompiler, GuidedFront
from deployments.ingress.deployment import Ingress
from deployments.instances.deployment import Instances
from deployments.openai_paths import DIRECT_PREFIX
from deployments.tokenizer.deployment import Tokenizer

DEFAULT = PROJECT_ROOT / "serve_config.yaml"
CONFIGS = [path for path in [DEFAULT, *sorted(PROJECT_ROOT.glob("config/clusters/*.yaml"))] if path.is_file()]
BUILDS: dict[Any, set[str]] = {
    build_gateway: {Ingress.name, Instances.name, Tokenizer.name},
    build_guided: {GuidedCompiler.name, GuidedFront.name},
    build_model: {Engine.name},
}
CPUS_OF_A_SMALL_MACHINE = 2


@pytest.fixture(params=CONFIGS, ids=[path.name for path in CONFIGS])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    config: Path = request.param
    for name in re.findall(r"\$\{(\w+)\}", config.read_text()):
        monkeypatch.setenv(name, f"{name}-of-16-characters-and-more")
    return config


@pytest.fixture
def schema(path: Path) -> ServeDeploySchema:
    return ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))


def load(import_path: str) -> Any:
    module, _, name = import_path.partition(":")
    return getattr(importlib.import_module(module), name)


def settings_of(application: ServeApplicationSchema) -> Settings:
    """Check an application's `args` as Serve does: by the annotation of its builder."""
    (parameter,) = inspect.signature(load(application.import_path)).parameters.values()
    assert issubclass(parameter.annotation, Settings)
    settings: Settings = parameter.annotation.model_validate(application.args)
    return settings


def models(schema: ServeDeploySchema) -> Iterator[tuple[ServeApplicationSchema, ModelSettings]]:
    for application in schema.applications:
        settings = settings_of(application)
        if isinstance(settings, ModelSettings):
            yield application, settings


def test_the_default_is_there() -> None:
    assert DEFAULT in CONFIGS


def test_only_this_machine_reaches_the_default() -> None:
    options = yaml.safe_load(DEFAULT.read_text())["http_options"]
    assert ipaddress.ip_address(options["host"]).is_loopback


def test_builders_are_ours(schema: ServeDeploySchema) -> None:
    assert {load(application.import_path) for application in schema.applications} <= set(BUILDS)


def test_one_gateway_takes_all_requests(schema: ServeDeploySchema) -> None:
    (gateway,) = [application for application in schema.applications if application.route_prefix == "/"]
    settings = settings_of(gateway)
    assert isinstance(settings, GatewaySettings)
    assert settings.default_model in {None, *(model.name for _, model in models(schema))}


def test_models_are_applications_of_their_name_behind_the_gateway(schema: ServeDeploySchema) -> None:
    found = list(models(schema))
    assert found
    assert [application.name for application, _ in found] == [settings.app_name for _, settings in found]
    for application, settings in found:
        expected = DIRECT_PREFIX + settings.name if settings.data_plane == "direct" else None
        assert application.route_prefix == expected


def test_deployments_are_those_that_the_builders_make(schema: ServeDeploySchema) -> None:
    for application in schema.applications:
        assert {deployment.name for deployment in application.deployments} <= BUILDS[load(application.import_path)]


def test_one_application_compiles_constraints(schema: ServeDeploySchema) -> None:
    """Engines find it by its name."""
    found = [app for app in schema.applications if isinstance(settings_of(app), GuidedSettings)]
    assert [(app.name, app.route_prefix) for app in found] == [(APPLICATION, None)]


def test_an_upgrade_of_everything_fits_on_a_small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the default reserves at its smallest, twice: new replicas start before the old ones go."""
    reserved = Decimal(0)
    for application in ServeDeploySchema.model_validate(yaml.safe_load(DEFAULT.read_text())).applications:
        settings = settings_of(application)
        if isinstance(settings, GuidedSettings):
            reserved += settings.num_actors * Decimal(str(settings.actor_options["num_cpus"]))
        for deployment in application.deployments:
            options = deployment.ray_actor_options
            is_engine = isinstance(settings, ModelSettings)
            reserved += Decimal(str(settings.num_cpus if is_engine else options.num_cpus))
    assert 2 * reserved <= CPUS_OF_A_SMALL_MACHINE


def test_autoscaling_policies_take_their_arguments(path: Path) -> None:
    for application in yaml.safe_load(path.read_text())["applications"]:
        for deployment in application["deployments"]:
            policy = (deployment.get("autoscaling_config") or {}).get("policy")
            if policy is not None:
                assert callable(load(policy["policy_function"])(**policy.get("policy_kwargs", {})))


def test_request_formats_can_be_read(schema: ServeDeploySchema) -> None:
    for _, settings in models(schema):
        to_chat_template(settings.request_format)


def test_vllm_knows_the_engine_arguments(schema: ServeDeploySchema) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns while it is imported
        from deployments.engine.command import to_namespace

    for _, settings in models(schema):
        if settings.backend == "vllm":
            to_namespace(settings.engine_args)
            to_namespace(settings.cpu.engine_args | settings.engine_args)


def test_the_gpus_that_the_builder_asks_for_survive_the_file(schema: ServeDeploySchema) -> None:
    """Serve lets `ray_actor_options` of a file replace the builder's, and would then schedule without a GPU."""
    for application, settings in models(schema):
        engine = Engine.options(**engine_options(settings, "gpu"))
        info = DeploymentInfo(
            deployment_config=engine._deployment_config,
            replica_config=engine._replica_config,
            start_time_ms=0,
            deployer_job_id="x",
        )
        replica = override_deployment_info({"Engine": info}, application)["Engine"].replica_config
        bundles = replica.placement_group_bundles or [{"GPU": replica.ray_actor_options.get("num_gpus", 0)}]
        assert sum(bundle.get("GPU", 0) for bundle in bundles) == gpus_per_replica(settings.engine_args)
