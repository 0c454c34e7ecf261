import asyncio

import pytest

from deployments.engine.client import DEPLOYMENT
from deployments.engine.directory import ModelDirectory, to_status
from deployments.errors import EngineUnavailableError
from deployments.serve_details import Application, Deployment, Replica
from tests.aio import settle


def overview(application: str, engine: str, **replicas: int) -> Application:
    found = tuple(Replica(f"{state}{number}", state) for state, count in replicas.items() for number in range(count))
    return Application(application, "", {DEPLOYMENT: Deployment(engine, replicas=found)})


@pytest.mark.parametrize(
    ("application", "status"),
    [
        (overview("DEPLOYING", "UPDATING", STARTING=1), "starting"),
        (overview("DEPLOYING", "UPDATING"), "starting"),
        (overview("RUNNING", "HEALTHY", RUNNING=1), "running"),
        (overview("RUNNING", "HEALTHY"), "idle"),
        (overview("RUNNING", "UPSCALING", STARTING=1), "idle"),
        (overview("RUNNING", "UPSCALING", RUNNING=1, STARTING=1), "running"),
        (overview("DEPLOYING", "UPDATING", RUNNING=1, STARTING=1), "running"),
        (overview("UNHEALTHY", "UNHEALTHY", RUNNING=1), "running"),
        (overview("UNHEALTHY", "UNHEALTHY", STARTING=1), "starting"),
        (overview("DEPLOY_FAILED", "DEPLOY_FAILED"), "failed"),
        (overview("DEPLOY_FAILED", "UNHEALTHY", RUNNING=1), "running"),
        (overview("DELETING", "UPDATING", RUNNING=1, STOPPING=1), "stopping"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{value.status}-{value.deployments[DEPLOYMENT].status}",
)
def test_to_status(application: Application, status: str) -> None:
    assert to_status(application) == status


def test_a_model_runs_on_while_its_application_is_built_anew() -> None:
    building = Application("DEPLOYING", "", {})
    assert to_status(building) == "starting"
    assert to_status(building, before="running") == "running"


def test_a_directory_that_has_not_looked_yet_is_unavailable_not_empty() -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        ModelDirectory(interval_s=1.0).models()
    assert caught.value.retry_after_s


class Looks(ModelDirectory):
    """Looks at a Serve that is not there, when the test lets it."""

    def __init__(self) -> None:
        super().__init__(interval_s=1.0)
        self.gates: list[asyncio.Future[None]] = []

    async def _look(self) -> None:
        self.gates.append(asyncio.get_running_loop().create_future())
        await self.gates[-1]


def test_looks_do_not_overlap_and_none_is_older_than_who_asked() -> None:
    async def main() -> None:
        directory = Looks()
        first = asyncio.ensure_future(directory.refresh())
        await settle()
        others = [asyncio.ensure_future(directory.refresh()) for _ in range(3)]
        await settle()
        assert len(directory.gates) == 1
        directory.gates[0].set_result(None)
        await settle()
        assert first.done()
        assert not any(other.done() for other in others), "that look began before they asked"
        assert len(directory.gates) == 2
        directory.gates[1].set_result(None)
        await asyncio.gather(*others)
        assert len(directory.gates) == 2

    asyncio.run(main())


def test_a_look_that_fails_or_is_left_is_done_by_the_next_one() -> None:
    async def main() -> None:
        directory = Looks()
        leaving, failing, last = (asyncio.ensure_future(directory.refresh()) for _ in range(3))
        await settle()
        leaving.cancel()
        await settle()
        directory.gates[1].set_exception(ConnectionError("no Serve"))
        await settle()
        directory.gates[2].set_result(None)
        await last
        assert leaving.cancelled()
        assert isinstance(failing.exception(), ConnectionError)

    asyncio.run(main())
