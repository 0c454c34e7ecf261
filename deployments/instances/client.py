"""Calling Instances: what each ingress replica reports and hears, one call for each operation, and what others hear."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from config.instances import InstanceSettings
from deployments.errors import DeadlineExceededError, EngineUnavailableError
from deployments.instance_types import Activity, Instance, ParsedCommand, Policy, Report, Snapshot, StoredKey
from deployments.ray_errors import REPLICA_LOST, to_serving_error

logger = logging.getLogger("ray.serve")

DEPLOYMENT = "Instances"
RETRY_S = 0.5
EXCHANGE_TIMEOUT_S = 5.0
RETRY_AFTER_S = 5


class InstancesClient:
    """Typed front of the handle. For one event loop; `watch` keeps the snapshot fresh."""

    def __init__(self, handle: Any, settings: InstanceSettings) -> None:
        # `.options()` makes a new handle with its own state, so these are made once and kept.
        self._call = handle.options(method_name="call")
        self._exchange = handle.options(method_name="exchange")
        self._settings = settings
        self._replica = uuid.uuid4().hex
        self._snapshot = Snapshot(0)
        self._in_flight: dict[str, int] = {}
        self._last_request_s: dict[str, float] = {}
        self._exchanging = asyncio.Lock()
        self._on_change: Callable[[], None] = lambda: None

    def snapshot(self) -> Snapshot:
        return self._snapshot

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[None]:
        self._in_flight[name] = self._in_flight.get(name, 0) + 1
        self._last_request_s[name] = time.time()
        try:
            yield
        finally:
            self._last_request_s[name] = time.time()
            self._in_flight[name] -= 1
            if not self._in_flight[name]:
                del self._in_flight[name]

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Exchange what is new for ever, and call `on_change` when there is; while that fails, the last news hold."""
        self._on_change = on_change
        is_well = True
        while True:
            try:
                await self.renew(EXCHANGE_TIMEOUT_S)
                is_well = True
            except Exception:
                if is_well:
                    logger.exception("cannot reach Instances; what was last heard of instances and keys holds")
                is_well = False
            await asyncio.sleep(self._settings.sync_interval_s)

    async def renew(self, timeout_s: float) -> None:
        """Hear at once what is new; raises what is in the way."""
        if await asyncio.wait_for(self.exchange(), timeout_s):
            self._on_change()

    async def exchange(self) -> bool:
        """Report what is in use, and take a newer snapshot; returns whether there was one."""
        async with self._exchanging:  # of two that overlap, the answer to the earlier one may come last
            snapshot: Snapshot | None = await self._exchange.remote(self._report())
            if snapshot is None:
                return False
            self._snapshot = snapshot
        known = {instance.name for instance in snapshot.instances}
        self._last_request_s = {name: at_s for name, at_s in self._last_request_s.items() if name in known}
        return True

    def _report(self) -> Report:
        activity = {name: Activity(self._in_flight.get(name, 0), at_s) for name, at_s in self._last_request_s.items()}
        return Report(self._replica, self._snapshot.version, activity)

    async def ensure(self, name: str) -> None:
        """Have an instance started and wait until it is ready, also when Instances itself is replaced meanwhile."""
        timeout_s = self._settings.on_demand_start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        await self._ask("ensure", name)
                        return
                    except ManagerLostError:
                        await asyncio.sleep(RETRY_S)
        except TimeoutError:
            text = f"The instance `{name}` was not ready within {timeout_s:g} s (on_demand_start_timeout_s)."
            raise DeadlineExceededError(text, "model", RETRY_AFTER_S) from None

    async def list(self) -> tuple[Instance, ...]:
        found: tuple[Instance, ...] = await self._ask("list")
        return found

    async def get(self, name: str) -> Instance:
        return await self._instance("get", name)

    async def create(self, name: str, options: dict[str, Any]) -> Instance:
        return await self._instance("create", name, options)

    async def update(self, name: str, options: dict[str, Any]) -> Instance:
        return await self._instance("update", name, options)

    async def start(self, name: str) -> Instance:
        return await self._instance("start", name)

    async def stop(self, name: str) -> Instance:
        return await self._instance("stop", name)

    async def restart(self, name: str) -> Instance:
        return await self._instance("restart", name)

    async def delete(self, name: str) -> None:
        await self._ask("delete", name)

    async def log(self, name: str, lines: int | None) -> str:
        text: str = await self._ask("log", name, lines)
        return text

    async def parse(self, command: str) -> ParsedCommand:
        parsed: ParsedCommand = await self._ask("parse", command)
        return parsed

    async def vllm_version(self) -> str:
        version: str = await self._ask("vllm_version")
        return version

    async def nodes(self) -> tuple[dict[str, Any], ...]:
        nodes: tuple[dict[str, Any], ...] = await self._ask("nodes")
        return nodes

    async def create_key(self, fields: dict[str, Any]) -> tuple[StoredKey, str]:
        made: tuple[StoredKey, str] = await self._ask("create_key", fields)
        await self._hear_of_it()
        return made

    async def keys(self) -> tuple[StoredKey, ...]:
        keys: tuple[StoredKey, ...] = await self._ask("keys")
        return keys

    async def revoke_key(self, key_id: str) -> None:
        await self._ask("revoke_key", key_id)
        await self._hear_of_it()

    async def _hear_of_it(self) -> None:
        """Have a change hold here before it is answered; the other ingress replicas hear of it at their next look."""
        with contextlib.suppress(Exception):
            await self.renew(EXCHANGE_TIMEOUT_S)

    async def _instance(self, operation: str, *arguments: Any) -> Instance:
        instance: Instance = await self._ask(operation, *arguments)
        return instance

    async def _ask(self, operation: str, *arguments: Any) -> Any:
        response = self._call.remote(operation, *arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except REPLICA_LOST as error:
            text = "The manager of instances was lost on the way: look at what has become of it, then retry."
            raise ManagerLostError(text, None, RETRY_AFTER_S) from error
        except Exception as error:
            raise to_serving_error(error) from error


class PolicyClient:
    """Follows what holds for requests, for replicas that take them without the gateway. For one event loop.

    `handle` is that of Instances.
    """

    def __init__(self, handle: Any, interval_s: float) -> None:
        self._policy = handle.options(method_name="policy")
        self._interval_s = interval_s
        self._seen = 0

    async def watch(self, on_change: Callable[[Policy], None]) -> None:
        """Call `on_change` with each policy, the first included, for ever; while it cannot be asked, the last holds."""
        is_well = True
        while True:
            try:
                policy: Policy | None = await asyncio.wait_for(self._policy.remote(self._seen), EXCHANGE_TIMEOUT_S)
                if policy is not None:
                    on_change(policy)
                    self._seen = policy.version
                is_well = True
            except Exception:
                if is_well and self._seen:
                    logger.exception("cannot ask the gateway for keys and limits; those that were last heard hold")
                is_well = False
            await asyncio.sleep(self._interval_s)


class ManagerLostError(EngineUnavailableError):
    """The Instances replica ended before it answered; another one takes over."""

    code = "manager_unavailable"
