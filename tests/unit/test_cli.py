"""The console script: what it makes of a `vllm serve` command. Nothing is served here."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.models import PROJECT_ROOT, ModelSettings
from deployments import cli, console_serve
from deployments.cli import parse_arguments, private_file
from deployments.console_serve import ServeCommand, keys_of, read_command, remarks, to_application, to_config, to_yaml
from deployments.launch import LaunchError

SHIPPED: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "serve_config.yaml").read_text())
SHIPPED_MODEL = console_serve.shipped_model(SHIPPED)


def command(
    options: Mapping[str, Any] | None = None,
    server: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> ServeCommand:
    given = {"model": "org/m", **(options or {})}
    return ServeCommand("vllm serve org/m", given, environment or {}, server or {})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "m"),
        ({"model": "Qwen/Qwen2.5-0.5B-Instruct"}, "Qwen2.5-0.5B-Instruct"),
        ({"model": "/models/llama 3/"}, "llama-3"),
        ({"model": "a/été (b)"}, "t-b"),
        ({"model": "a/..."}, "model"),
        ({"model": "a/" + "x" * 60}, "x" * 50),
        ({"served_model_name": ["chat"]}, "chat"),
        ({"served_model_name": ["my chat", "org/chat", "chat", "b"]}, "chat"),
        ({"served_model_name": ["org/chat"]}, "m"),
    ],
)
def test_the_model_has_a_name_that_the_graph_can_use(options: dict[str, Any], name: str) -> None:
    assert command(options).name == name
    assert to_application(command(options), SHIPPED_MODEL, Path("/"))["name"] == f"model-{name}"
    ModelSettings(name=name)


def test_the_application_is_what_the_command_says(tmp_path: Path) -> None:
    given = command({"max_model_len": 8000, "served_model_name": ["chat"]}, {"port": 1}, {"A": "b"})
    application = to_application(given, SHIPPED_MODEL, tmp_path)
    settings = ModelSettings.model_validate(application["args"])
    assert settings.app_name == application["name"] == "model-chat"
    assert settings.engine_args == {"model": "org/m", "max_model_len": 8000}
    assert settings.environment == {"A": "b"}
    assert application["route_prefix"] is None
    assert application["deployments"] == SHIPPED_MODEL["deployments"]
    assert settings.cpu == ModelSettings(name="x").cpu  # not the demo model's


def test_a_model_in_the_folder_is_named_by_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "org" / "m").mkdir(parents=True)
    args = to_application(command(), SHIPPED_MODEL, tmp_path)["args"]
    assert args["engine_args"]["model"] == str(tmp_path / "org" / "m")


@pytest.mark.parametrize("template", ["x.jinja", "{{ messages }}"])
def test_a_chat_template_is_the_request_format(template: str, tmp_path: Path) -> None:
    args = to_application(command(server={"chat_template": template}), SHIPPED_MODEL, tmp_path)["args"]
    assert args["request_format"] == (template if "{{" in template else str(tmp_path / template))


def test_the_config_has_this_model_only_at_the_commands_address() -> None:
    config = to_config(command(server={"host": "0.0.0.0", "port": 9000}), SHIPPED, Path("/"))
    assert [application["name"] for application in config["applications"]] == ["gateway", "guided", "model-m"]
    assert config["http_options"] == {**SHIPPED["http_options"], "host": "0.0.0.0", "port": 9000}
    assert config["controller_options"] == SHIPPED["controller_options"]
    assert to_config(command(), SHIPPED, Path("/"))["http_options"] == SHIPPED["http_options"]


def test_what_is_not_done_is_said() -> None:
    said = remarks(command({"served_model_name": ["a", "b"]}, {"port": 1, "ssl_keyfile": "k.pem", "root_path": "/x"}))
    assert said == ["--ssl-keyfile is ignored", "--root-path is ignored", "the model has one name, `a`; not `b`"]


@pytest.mark.parametrize(
    ("server", "environment", "keys"),
    [
        ({}, {}, []),
        ({"api_key": ["a" * 16, "b" * 16]}, {}, ["a" * 16, "b" * 16]),
        ({}, {"VLLM_API_KEY": "c" * 16}, ["c" * 16]),
        ({"api_key": ["a" * 16]}, {"VLLM_API_KEY": "c" * 16}, ["a" * 16]),
    ],
)
def test_keys(server: dict[str, Any], environment: dict[str, str], keys: list[str]) -> None:
    assert keys_of(command(server=server), environment) == keys


@pytest.mark.parametrize("key", ["short", "a" * 16 + "," + "b" * 16])
def test_what_cannot_be_a_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(LaunchError) as caught:
        keys_of(command(server={"api_key": [key]}), {})
    assert key not in str(caught.value)


def test_keys_are_in_no_file() -> None:
    given = command(server={"api_key": ["secret-of-16-characters"]})
    assert "secret" not in yaml.safe_dump(to_config(given, SHIPPED, Path("/")))
    assert "secret" not in to_yaml(given, SHIPPED, Path("/"))


@pytest.mark.parametrize("value", ["${HOME}", "${NOT_SET_ANYWHERE}"])
def test_variables_of_the_config_cannot_come_from_the_command(value: str) -> None:
    with pytest.raises(LaunchError, match="environment"):
        to_application(command({"revision": value}), SHIPPED_MODEL, Path("/"))


def test_the_section_is_yaml_whatever_the_command_has() -> None:
    hostile = "a\n  - name: other\n\u2028- b: 'c\" # d"
    given = ServeCommand(
        f"vllm serve '{hostile}'",
        {"model": hostile, "served_model_name": ["x", hostile]},
        {"A": hostile},
        {"host": hostile},
    )
    section = to_yaml(given, SHIPPED, Path("/"))
    assert yaml.safe_load("applications:\n" + section)["applications"] == [
        to_application(given, SHIPPED_MODEL, Path("/"))
    ]
    assert section.startswith("  # vllm serve ")


def test_a_private_file_is_for_its_user_and_goes() -> None:
    with private_file({"a": "é"}) as path:
        assert path.stat().st_mode & 0o777 == 0o600
        assert yaml.safe_load(path.read_text(encoding="utf-8")) == {"a": "é"}
    assert not path.exists()


def test_a_private_file_goes_when_the_start_fails() -> None:
    with pytest.raises(LaunchError), private_file({}) as path:
        raise LaunchError("x")
    assert not path.exists()


def test_vllms_flags_are_left_to_its_parser() -> None:
    options, words = parse_arguments(["serve", "--timeout", "5", "-h", "org/m"])
    assert (options.command, words) == ("serve", ["--timeout", "5", "-h", "org/m"])
    options, words = parse_arguments(["config", "vllm serve x"])
    assert (options.command, words) == ("config", ["vllm serve x"])
    options, words = parse_arguments(["up", "x.yaml", "--timeout", "5"])
    assert (options.command, options.config, options.timeout, words) == ("up", Path("x.yaml"), 5.0, [])


def test_up_imports_no_vllm() -> None:
    program = "import sys, deployments.cli; sys.exit(bool({'vllm', 'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=PROJECT_ROOT).returncode == 0


def test_vllms_parser_reads_the_command() -> None:
    """Five seconds."""
    given = read_command(["A=b vllm serve org/m -tp 2 --port 9000 --api-key 'k 1' k2"])
    assert given.options == {"model": "org/m", "tensor_parallel_size": 2}
    assert given.command == "vllm serve org/m --tensor-parallel-size 2"
    assert given.environment == {"A": "b"}
    assert given.server == {"port": 9000, "api_key": ["k 1", "k2"]}


def test_what_vllms_parser_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seconds."""
    monkeypatch.setattr(sys, "argv", ["vllm-graph", "serve", "org/m", "--max-modl-len", "4"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == "vllm-graph: vLLM has no argument `max_modl_len`; did you mean `max_model_len`?"


def test_help_is_vllms_with_ours_on_top() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "serve", "org/m", "--help=SchedulerConfig"],
        cwd=PROJECT_ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--max-num-seqs" in result.stdout
    assert "--dtype" not in result.stdout
