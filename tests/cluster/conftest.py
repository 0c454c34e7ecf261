"""Real Serve, HAProxy and handles; the engine is the fake one."""

from collections.abc import Iterator

import pytest

from deployments.haproxy_models import BODY_TIMEOUT
from tests.harness import PLANES, Server, application, default_config, fake_model, serving
from tests.hostile import BODY_S
from tests.planes import on_planes


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    on_planes(metafunc, PLANES)


@pytest.fixture(scope="package")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    config = default_config()
    config["controller_options"]["runtime_env"]["env_vars"][BODY_TIMEOUT] = str(BODY_S)
    application(config, "gateway")["args"]["deadlines"] = {"body_s": BODY_S}
    narrow = fake_model("narrow", ttft_s=1.0)
    narrow["deployments"][0] |= {"max_ongoing_requests": 1, "max_queued_requests": 1, "autoscaling_config": None}
    models = [fake_model("fast"), fake_model("slow", itl_s=0.02), narrow, fake_model("pensive", ttft_s=0.5)]
    config["applications"] = [application(config, "gateway"), *models]
    with serving(config, plane=request.param) as server:
        yield server


@pytest.fixture(scope="package")
def model() -> str:
    return "fast"


@pytest.fixture(scope="package")
def slow_model() -> str:
    return "slow"


@pytest.fixture(scope="package")
def slow_writer() -> str:
    return "pensive"
