"""What `vllm-graph serve` runs and `vllm-graph config` prints is what Serve and our settings accept."""

from pathlib import Path
from typing import Any

import yaml
from ray.serve.schema import ServeDeploySchema

from config.models import PROJECT_ROOT, ModelSettings
from deployments.console_serve import BUILDER, ServeCommand, to_config, to_yaml

SHIPPED: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "serve_config.yaml").read_text())
COMMAND = ServeCommand(
    "vllm serve org/m --served-model-name chat",
    {"model": "org/m", "served_model_name": ["chat"], "hf_overrides": {"a": [1, None, True]}},
    {"A": "b"},
    {"host": "127.0.0.1", "port": 9000, "root_path": "/x"},
)


def check(config: dict[str, Any]) -> None:
    schema = ServeDeploySchema.model_validate(config)
    (model,) = [application for application in schema.applications if application.import_path == BUILDER]
    settings = ModelSettings.model_validate(model.args)
    assert model.name == settings.app_name == "model-chat"
    assert settings.engine_args == {"model": "org/m", "hf_overrides": {"a": [1, None, True]}}
    assert [deployment.name for deployment in model.deployments] == ["Engine"]


def test_the_config_that_runs() -> None:
    config = to_config(COMMAND, SHIPPED, Path("/"))
    check(config)
    assert ServeDeploySchema.model_validate(config).http_options.port == 9000


def test_the_section_that_is_printed() -> None:
    text = (PROJECT_ROOT / "serve_config.yaml").read_text()
    others = text[: text.index("  - name: model-demo")]
    check(yaml.safe_load(others + to_yaml(COMMAND, SHIPPED, Path("/"))))
