"""What can be said before Ray is started: settings that are wrong, and the management key, while somebody looks."""

from pathlib import Path

import yaml

from config.models import GatewaySettings
from deployments.access import is_loopback, require_keys
from deployments.errors import InvalidRequestError
from deployments.launch import LaunchError
from deployments.management_key import with_management_key

BUILDER = "deployments.app:build_gateway"


def prepare_gateway(config: Path) -> None:
    """Check the gateway's settings, and make its management key when it has none, which prints it.

    Raises LaunchError saying what is wrong. The cluster reads the same settings in the same environment.
    """
    try:
        parsed = yaml.safe_load(config.read_text())
        host = (parsed.get("http_options") or {}).get("host", "0.0.0.0")  # as Serve does
        for application in parsed["applications"]:
            if application["import_path"] == BUILDER:
                settings = GatewaySettings.model_validate(application.get("args") or {})
                require_keys(settings.auth, is_loopback(host))
                with_management_key(settings)
    except (OSError, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError, InvalidRequestError) as error:
        raise LaunchError(f"cannot use {config}: {error}") from error
