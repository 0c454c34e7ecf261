"""The shipped graph with the demo model on real vLLM, as `make serve` starts it."""

from collections.abc import Iterator

import pytest

from tests.harness import Server, application, default_config, serving
from tests.hostile import BODY_S


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    config = default_config()
    application(config, "gateway")["args"]["deadlines"] = {"body_s": BODY_S}
    with serving(config) as server:
        yield server


@pytest.fixture(scope="package")
def model() -> str:
    return "demo"


@pytest.fixture(scope="package")
def slow_model() -> str:
    return "demo"
