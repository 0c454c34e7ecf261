"""Serve's line for each request: where it goes to, with Serve's own logger."""

from collections.abc import Callable, Iterator

import pytest
from ray.serve._private.logging_utils import configure_component_logger
from ray.serve.schema import LoggingConfig

from deployments.access_log import LOGGER, keep_off_stderr, leave_out
from tests.logs import Messages

REQUEST = {"serve_access_log": True}


@pytest.fixture(autouse=True)
def logger() -> Iterator[None]:
    """Put the logger of this process back afterwards."""
    before = LOGGER.handlers[:], LOGGER.filters[:], LOGGER.level, LOGGER.propagate
    yield
    LOGGER.handlers[:], LOGGER.filters[:], LOGGER.level, LOGGER.propagate = before


def configure(file: Messages, log_level: str) -> None:
    """Do what Serve does when a replica starts, and when its `logging_config` has changed."""
    configure_component_logger(
        component_name="Ingress",
        component_id="r1",
        logging_config=LoggingConfig(log_level=log_level),
        stream_handler_only=True,
    )
    LOGGER.addHandler(file)


@pytest.mark.parametrize(("choose", "in_file"), [(keep_off_stderr, ["said", "GET /"]), (leave_out, ["said"])])
def test_requests_are_not_on_stderr(
    choose: Callable[[], None], in_file: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = Messages()
    configure(file, "INFO")
    choose()
    for log_level in ("INFO", "DEBUG"):
        configure(file, log_level)
        LOGGER.info("said")
        LOGGER.info("GET /", extra=REQUEST)
        err = capsys.readouterr().err
        assert "said" in err
        assert "GET /" not in err
    assert file.messages == in_file * 2
