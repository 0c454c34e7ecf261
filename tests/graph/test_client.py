import pytest
from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger, ReplicaState
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, DeploymentStatusOverview

from deployments.engine.client import DEPLOYMENT, ModelDirectory, to_status
from deployments.errors import EngineUnavailableError


def overview(application: str, engine: str, **replicas: int) -> ApplicationStatusOverview:
    deployment = DeploymentStatusOverview(
        status=DeploymentStatus(engine),
        status_trigger=DeploymentStatusTrigger.UNSPECIFIED,
        replica_states={ReplicaState(state): count for state, count in replicas.items()},
        message="",
    )
    return ApplicationStatusOverview(
        status=ApplicationStatus(application),
        message="",
        last_deployed_time_s=0.0,
        deployments={DEPLOYMENT: deployment},
    )


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
    ids=lambda value: (
        None if isinstance(value, str) else f"{value.status.value}-{value.deployments[DEPLOYMENT].status.value}"
    ),
)
def test_to_status(application: ApplicationStatusOverview, status: str) -> None:
    assert to_status(application) == status


def test_a_model_runs_on_while_its_application_is_built_anew() -> None:
    building = overview("DEPLOYING", "UPDATING")
    building.deployments.clear()
    assert to_status(building) == "starting"
    assert to_status(building, before="running") == "running"


def test_a_directory_that_has_not_looked_yet_is_unavailable_not_empty() -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        ModelDirectory(interval_s=1.0).models()
    assert caught.value.retry_after_s
