"""The shipped graph with the demo model on real vLLM, as `make serve` starts it."""

from collections.abc import Iterator

import pytest

from tests.harness import Server, default_config, serving


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    with serving(default_config()) as server:
        yield server


@pytest.fixture(scope="package")
def model() -> str:
    return "demo"


@pytest.fixture(scope="package")
def slow_model() -> str:
    return "demo"
