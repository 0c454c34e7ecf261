"""Instances as applications of Ray Serve: deploying them, deleting them, and seeing how they are."""

import asyncio
import functools
import json
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil
import ray
from ray import serve
from ray._private.state import available_resources_per_node
from ray.exceptions import RayTaskError
from ray.experimental.internal_kv import _internal_kv_get
from ray.serve import Application as ServeApplication
from ray.serve import Deployment, RunTarget
from ray.serve._private.common import DeploymentID
from ray.serve._private.logging_utils import get_serve_logs_dir
from ray.serve.config import AutoscalingConfig
from ray.serve.context import _get_global_client
from ray.serve.generated.serve_pb2 import DEPLOYMENT_STATUS_TRIGGER_DELETING, DeploymentStatusInfo
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from config.instances import InstanceOptions, InstanceSettings
from config.models import MODEL_APP_PREFIX, PROJECT_ROOT, ModelSettings
from deployments.engine.client import DEPLOYMENT
from deployments.engine.directory import read_applications, to_status
from deployments.errors import EngineUnavailableError, InvalidOptionsError, ServingError
from deployments.instances.applications import to_engine_options, to_model_settings, to_version
from deployments.instances.definitions import describe
from deployments.instances.logs import last_lines, read_replicas
from deployments.instances.needs import Cluster, Needs, cpu_memory_bytes, less, require_room, to_needs
from deployments.instances.replicas import History
from deployments.instances.services import App, AppState
from deployments.ray_errors import to_serving_error
from deployments.serve_details import Application, Replica

logger = logging.getLogger("ray.serve")

SERVE_TIMEOUT_S = 30.0
"""Serve's controller answers within milliseconds, or is being started again."""
LOG_TIMEOUT_S = 10.0
"""For what replicas on another machine have written: Ray may have to start a process there."""
POLL_S = 0.05
RETRY_AFTER_S = 5
NUM_THREADS = 4
"""Of their own, so that calls of Serve that hang take none from other work."""

STATES: Mapping[str, AppState] = {
    "running": "running",
    "idle": "idle",
    "starting": "starting",
    "failed": "failed",
    "stopping": "deleting",
}

T = TypeVar("T")


class ServeApps:
    """The Apps of `services.py`, from inside a process that is connected to the cluster.

    What Serve 2.60 does, found by experiment; tests/cluster/test_instance_apps.py holds it to that:

    - A deployment that is deployed again with the same `version`, by whatever process, keeps its replicas, and takes
      over what needs no restart, such as autoscaling. `serve.run` makes up another version each time; here it is a
      digest of the model's settings. Other actor options (resources, the runtime environment that an application
      inherits from the caller) are another version, too.
    - Another version is rolled out: with `max_surge_percent` 100 the new replica starts beside the old one, which stops
      once that is ready and its own requests have ended.
    - When the new replica cannot start, the application is DEPLOY_FAILED and the old replica serves on. Deploying the
      old version again heals it within a second and restarts nothing. Should the old replica die before that, nothing
      is started in its place.
    - What has failed to start stays DEPLOY_FAILED when its version is deployed again; it has to be deleted in between.
    - A replica that has been ready and is lost is replaced at once, without delay or limit; for that there is no
      `max_constructor_retry_count`. Meanwhile the application is UNHEALTHY.
    - An application that is deleted shows no deployments from then on, but is there until the last request has ended.
      Deployed again before the controller has begun to stop its replicas, which takes 0.1 s, it was never deleted.
    - `last_deployed_time_s` of an application that was not deployed by the YAML is that of its creation, for ever.
    """

    def __init__(self, settings: InstanceSettings, build_model: Callable[[ModelSettings], ServeApplication]) -> None:
        self._settings = settings
        self._build_model = build_model
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="instances")
        self._histories: dict[str, History] = defaultdict(History)
        self._starting: dict[str, Needs] = {}
        """What is on its way, and will take what still looks free."""

    async def check(self, name: str, options: InstanceOptions) -> None:
        """Raise InvalidOptionsError when an instance with these options cannot be built."""
        await self._in_thread(self._build, name, options)

    async def run(self, name: str, options: InstanceOptions) -> None:
        """Deploy an instance, or deploy it anew: what runs serves on until its successor is ready. Returns at once.

        The same options again change nothing, unless none of its replicas could start: then it is tried again. Raises
        InvalidOptionsError, InsufficientResourcesError when the cluster can never hold it, NoRoomError when
        it cannot now, saying what is missing.
        """
        settings, deployment = await self._in_thread(self._build, name, options)
        version, history = to_version(settings), self._histories[name]
        application = (await self._applications()).get(name)
        if application is not None and _must_be_deleted(application):
            await self.delete(name)
            application = None
        deployed = await self._in_thread(_deployed_version, settings.app_name) if application is not None else None
        if deployed is None or (deployed != version and not history.may_run(version)):
            self._starting.pop(name, None)
            needs = await self._in_thread(_needs, settings, deployment)
            require_room(needs, less(await self._in_thread(_cluster), self._starting.values()), RETRY_AFTER_S)
            self._starting[name] = needs
        history.deploy(version, deployed)
        await self._in_thread(_deploy, settings.app_name, deployment.options(version=version, _internal=True))
        self._histories[name] = history  # a look in between saw no application, and forgot it

    async def delete(self, name: str) -> None:
        """Have an instance's application ended once its requests have; returns at once, also when there is none."""
        app_name = MODEL_APP_PREFIX + name
        self._histories[name].delete()
        self._starting.pop(name, None)
        client = await self._in_thread(_get_global_client)
        await _answered(client._controller.delete_apps.remote([app_name]))
        await _answered(_until_going(client._controller, app_name))

    async def states(self) -> Mapping[str, App]:
        """Return the applications `model-*` that are there, by instance name.

        `num_starts` is 1 and the crashes since it was deployed, by this object; crashes of before its first look are
        unknown. Of several that begin and end between two looks Serve tells the last ten. Not told apart: a replica
        that crashes in the same moment as Serve scales down by one.
        """
        applications = await self._applications()
        for name in self._histories.keys() - applications.keys():
            del self._histories[name]
            self._starting.pop(name, None)
        return {name: self._see(name, application) for name, application in applications.items()}

    async def declared(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the models that the YAML declares: name -> `args` of the application."""
        found = await self._applications()
        return {name: one.declared_args for name, one in found.items() if one.declared_args is not None}

    async def log(self, name: str) -> str:
        """Return what an instance's replicas since it was deployed have written, oldest replica first.

        At most `max_log_bytes`, the ends. What lies on a machine that does not answer is left out, and that is said.
        Nothing is returned once it is being deleted.
        """
        replicas = self._histories[name].replicas() if name in self._histories else []
        share = self._settings.max_log_bytes // max(1, len(replicas))
        texts = await asyncio.gather(*(self._read(replica, share) for replica in replicas))
        return last_lines("".join(texts), self._settings.max_log_bytes)

    def _see(self, name: str, application: Application) -> App:
        history, state = self._histories[name], STATES[to_status(application)]
        is_failed, deploying = application.status == "DEPLOY_FAILED", application.status == "DEPLOYING"
        deployment = application.deployments.get(DEPLOYMENT)
        is_declared = application.declared_args is not None
        if deployment is None:  # it is deleted, or Serve has only just heard of it
            return App(state, application.message, 1 + history.num_crashes, deploying, is_failed, is_declared)
        history.look(deployment, is_failed)
        if name in self._starting and (is_failed or history.progress() == "ready"):
            del self._starting[name]
        elif name in self._starting and history.progress() == "placed":
            self._starting[name] = self._starting[name].placed()
        deploying = deploying and not history.is_rolled_out(deployment.target)
        message = deployment.message or application.message
        return App(state, message, 1 + history.num_crashes, deploying, is_failed, is_declared)

    def _build(self, name: str, options: InstanceOptions) -> tuple[ModelSettings, Deployment]:
        settings = to_model_settings(name, options, self._settings)
        if unknown := sorted(options.autoscaling.keys() - AutoscalingConfig.model_fields.keys()):
            # Serve would ignore it.
            raise InvalidOptionsError(f"autoscaling: there is no `{unknown[0]}`", "autoscaling")
        try:
            deployment = self._build_model(settings)._bound_deployment
            return settings, deployment.options(**to_engine_options(options, self._settings))
        except ServingError as error:
            raise InvalidOptionsError(error.message) from error
        except (ValueError, TypeError) as error:  # what Serve says about its options, and what is no number
            text = describe(error) if isinstance(error, ValueError) else str(error)
            raise InvalidOptionsError(f"The instance cannot be built: {text}") from error

    async def _applications(self) -> dict[str, Application]:
        found = await _answered(read_applications())
        return {name.removeprefix(MODEL_APP_PREFIX): application for name, application in found.items()}

    async def _read(self, replica: Replica, max_bytes: int) -> str:
        if not replica.node_id:
            return ""
        if replica.node_id == ray.get_runtime_context().get_node_id():
            return await self._in_thread(_read_here, replica, max_bytes)
        there = NodeAffinitySchedulingStrategy(replica.node_id, soft=False)
        reading = ray.remote(_read_here).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        answer = None
        try:
            answer = reading.remote(replica, max_bytes)
            text: str = await asyncio.wait_for(answer, LOG_TIMEOUT_S)
        except Exception as error:
            if answer is not None:
                ray.cancel(answer)
            return f"--- replica {replica.id}: its machine does not answer ({type(error).__name__})\n"
        return text

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call what blocks on Serve or Ray; raises ServingError."""
        call = functools.partial(function, *arguments)
        return await _answered(asyncio.get_running_loop().run_in_executor(self._threads, call))


async def _answered(call: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(call, SERVE_TIMEOUT_S)
    except TimeoutError:
        text = f"Ray Serve's controller has not answered for {SERVE_TIMEOUT_S:g} s. Retry."
        raise EngineUnavailableError(text, None, RETRY_AFTER_S) from None
    except ServingError:
        raise
    except Exception as error:
        logger.warning("a call of Ray Serve has failed", exc_info=True)
        raise to_serving_error(error) from error


def _must_be_deleted(application: Application) -> bool:
    """Say whether Serve has to forget an application first: it would not start what has failed, or stop what it has."""
    return to_status(application) in ("failed", "stopping")


def _deployed_version(app_name: str) -> str | None:
    try:
        version: str | None = _get_global_client().get_deployment_info(DEPLOYMENT, app_name)[0].version
    except RayTaskError:  # it is not there, or not yet
        return None
    return version


def _deploy(app_name: str, deployment: Deployment) -> None:
    target = RunTarget(ServeApplication(deployment), app_name, None)
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


async def _until_going(controller: Any, app_name: str) -> None:
    """Wait until Serve has begun to stop the replicas of an application that is deleted."""
    key = DeploymentID(DEPLOYMENT, app_name)
    while status := await controller.get_deployment_status.remote(DEPLOYMENT, app_name):
        is_deleting = DeploymentStatusInfo.FromString(status).status_trigger == DEPLOYMENT_STATUS_TRIGGER_DELETING
        # It is told what to stop in one round of the controller, and does it in the next one.
        if is_deleting and not (await controller._all_running_replicas.remote()).get(key):
            return
        await asyncio.sleep(POLL_S)


def _needs(settings: ModelSettings, deployment: Deployment) -> Needs:
    config = deployment._replica_config
    options, bundles = deployment.ray_actor_options or {}, config.placement_group_bundles
    return to_needs(options, bundles, config.placement_group_strategy, cpu_memory_bytes(settings, PROJECT_ROOT))


def _cluster() -> Cluster:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    free = available_resources_per_node()
    is_alone = len(nodes) == 1
    memory = psutil.virtual_memory()
    return Cluster(
        total=tuple(node["Resources"] for node in nodes),
        free=tuple(free.get(node["NodeID"], {}) for node in nodes),
        can_grow=not _is_fixed({node["NodeID"] for node in nodes}),
        total_memory_bytes=memory.total if is_alone else None,
        free_memory_bytes=memory.available if is_alone else None,
    )


def _is_fixed(node_ids: set[str]) -> bool:
    """Say whether nothing adds nodes to this cluster.

    Ray's monitor calls a node that no autoscaler has made `node_<its id>`. With the second autoscaler, or when the
    monitor runs elsewhere and has not reported yet, nobody knows.
    """
    report = json.loads(_internal_kv_get("__autoscaling_status") or "{}").get("autoscaler_report") or {}
    types = report.get("node_type_mapping") or {}
    return node_ids <= types.keys() and all(types[node_id] == f"node_{node_id}" for node_id in node_ids)


def _read_here(replica: Replica, max_bytes: int) -> str:
    return read_replicas(Path(get_serve_logs_dir()).parent, [replica], max_bytes)
