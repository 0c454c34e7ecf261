"""The shipped graph with the demo model on real vLLM, as `make serve` starts it."""

from collections.abc import Iterator

import pytest

from deployments.haproxy_models import BODY_TIMEOUT
from tests.collector import Collector, collecting
from tests.harness import PLANES, Server, application, default_config, serving
from tests.hostile import BODY_S
from tests.instances import MANAGEMENT
from tests.planes import on_planes


@pytest.fixture(scope="package")
def collector() -> Iterator[Collector]:
    """Take the spans of every request to `server`."""
    with collecting() as collector:
        yield collector


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    on_planes(metafunc, PLANES[:1])


@pytest.fixture(scope="package")
def server(request: pytest.FixtureRequest, collector: Collector) -> Iterator[Server]:
    config = default_config()
    config["controller_options"]["runtime_env"]["env_vars"][BODY_TIMEOUT] = str(BODY_S)
    for app in ("gateway", "model-demo"):
        application(config, app)["args"]["tracing"] = {"endpoint": collector.url}
    application(config, "gateway")["args"]["auth"] = {"management_keys": MANAGEMENT}
    application(config, "gateway")["args"]["deadlines"] = {"body_s": BODY_S}
    # An engine that hangs is found within a test's patience.
    application(config, "model-demo")["args"] |= {"probe_interval_s": 2, "hung_after_s": 15}
    application(config, "model-demo")["args"]["guided"] = {"precompile": [{"kind": "regex", "spec": "[0-9]{7}"}]}
    with serving(config, plane=request.param) as server:
        yield server


@pytest.fixture(scope="package")
def model() -> str:
    return "demo"


@pytest.fixture(scope="package")
def slow_model() -> str:
    return "demo"


@pytest.fixture(scope="package")
def slow_writer() -> str:
    return "demo"
