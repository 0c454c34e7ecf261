"""What can be said before Ray is started: settings that are wrong, and the management key, while somebody looks."""

from pathlib import Path

import yaml

from config.models import GatewaySettings
from deployments.launch import LaunchError
from deployments.management_key import with_management_key

BUILDER = "deployments.app:build_gateway"


def prepare_gateway(config: Path) -> None:
    """Check the gateway's settings, and make its management key when it has none, which prints it.

    Raises LaunchError saying what is wrong. The cluster reads the same settings in the same environment.
    """
    try:
        for application in yaml.safe_load(config.read_text())["applications"]:
            if application["import_path"] == BUILDER:
                with_management_key(GatewaySettings.model_validate(application.get("args") or {}))
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise LaunchError(f"cannot use {config}: {error}") from error
