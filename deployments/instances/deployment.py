"""The Instances deployment: one replica, which defines, starts and ends model instances."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from config.models import GatewaySettings, ModelSettings
from deployments.access_log import leave_out
from deployments.instance_types import Policy, Report, Snapshot, StoredKey
from deployments.instances.commands import VllmCommands
from deployments.instances.inventory import Inventory
from deployments.instances.keeper import Keeper
from deployments.instances.lifecycle import ServeApps
from deployments.instances.logs import LogFiles
from deployments.instances.manager import Manager
from deployments.instances.metrics import Metrics, Observer
from deployments.instances.store import Store
from deployments.instances.stored_keys import StoredKeys

DATABASE = "instances.sqlite"
LOGS = "logs"


@serve.deployment
class Instances:
    """Called through InstancesClient. What it has answered is stored: another replica goes on where this one ended."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, gateway: GatewaySettings, build_model: Callable[[ModelSettings], Application]
    ) -> None:
        leave_out()  # it is asked every second
        self._gateway, settings = gateway, gateway.instances
        folder = at_home(gateway.data_dir)
        self._store = Store(folder / DATABASE, settings.store_wait_s)
        self._inventory = Inventory(self._store, settings)
        self._commands = VllmCommands(settings)
        apps, journal = ServeApps(settings, build_model), LogFiles(folder / LOGS, settings.max_log_bytes)
        keeper = Keeper(self._inventory, apps, journal)
        manager = Manager(self._inventory, keeper, apps, self._commands, journal)
        self._stored_keys = StoredKeys(self._store, settings.max_keys)
        self._share_keys()
        self._operations: dict[str, Callable[..., Any]] = {
            "ensure": manager.ensure,
            "list": manager.list,
            "get": manager.get,
            "create": manager.create,
            "update": manager.update,
            "start": manager.start,
            "stop": manager.stop,
            "restart": manager.restart,
            "delete": manager.delete,
            "log": manager.log,
            "parse": self._commands.parse,
            "vllm_version": self._commands.version,
            "nodes": self._nodes,
            "create_key": self._create_key,
            "keys": self._keys,
            "revoke_key": self._revoke_key,
        }
        observer = Observer(self._inventory, Metrics())
        self._tasks = [asyncio.create_task(keeper.watch()), asyncio.create_task(observer.watch())]

    async def call(self, operation: str, *arguments: Any) -> Any:
        """Do one of the operations of `ingress/services.py: Instances`; raises ServingError."""
        return await self._operations[operation](*arguments)

    async def exchange(self, report: Report) -> Snapshot | None:
        """Take an ingress replica's report; returns what it does not know yet."""
        return self._inventory.learn(report)

    async def policy(self, seen: int) -> Policy | None:
        """Return what holds for requests now; None when it is what the caller has seen."""
        snapshot = self._inventory.snapshot
        return None if seen == snapshot.version else Policy(snapshot.version, self._gateway, snapshot.keys)

    async def _create_key(self, fields: dict[str, Any]) -> tuple[StoredKey, str]:
        made = self._stored_keys.create(fields)
        self._share_keys()
        return made

    async def _keys(self) -> tuple[StoredKey, ...]:
        return self._stored_keys.list()

    async def _revoke_key(self, key_id: str) -> None:
        self._stored_keys.revoke(key_id)
        self._share_keys()

    def _share_keys(self) -> None:
        self._inventory.set_keys(self._stored_keys.valid())

    async def _nodes(self) -> tuple[dict[str, Any], ...]:
        return tuple(to_node(node) for node in await asyncio.to_thread(ray.nodes))

    async def __del__(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._commands.close()
        self._store.close()


def at_home(folder: str) -> Path:
    """Return the folder on the node that runs this: `~` is another one elsewhere."""
    return Path(folder).expanduser()


def to_node(node: dict[str, Any]) -> dict[str, Any]:
    """Describe one of Ray's nodes: its share of the cluster, memory in bytes."""
    resources = node.get("Resources", {})
    return {
        "id": node["NodeID"],
        "address": node["NodeManagerAddress"],
        "alive": node["Alive"],
        "num_cpus": resources.get("CPU", 0.0),
        "num_gpus": resources.get("GPU", 0.0),
        "memory_bytes": int(resources.get("memory", 0)),
    }
