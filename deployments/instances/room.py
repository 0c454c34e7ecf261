"""Making room for an instance: which others must go, and whether they may."""

from deployments.errors import MaxInstancesError
from deployments.instances.inventory import Inventory


def make_room(inventory: Inventory, name: str, is_urgent: bool = False) -> None:
    """Have those stopped that leave no room for an instance: of its group, and the least recently used ones.

    Only what nobody uses; when urgent also others, which finish what they have under way. Raises MaxInstancesError
    when there are not enough of them; then nothing is stopped.
    """
    others = [other for other, record in inventory.records.items() if other != name and record.wanted == "running"]
    group = inventory.records[name].options.group
    rivals = [other for other in others if group is not None and inventory.records[other].options.group == group]
    rest = [other for other in others if other not in rivals]
    evictable = [other for other in by_last_use(inventory, rest) if may_go(inventory, other, is_urgent)]
    limit = inventory.settings.max_running_instances
    num_too_many = max(0, len(rest) + 1 - limit) if limit is not None else 0
    if len(evictable) < num_too_many:
        raise MaxInstancesError(
            f"{len(others)} instances run, as many as may (max_running_instances: {limit}), and none of them is "
            "unused. Stop one of them."
        )
    if busy := [rival for rival in rivals if not may_go(inventory, rival, is_urgent)]:
        raise MaxInstancesError(f"`{busy[0]}` of the same group (`{group}`) runs and is in use. Stop it.")
    for other in [*rivals, *evictable[:num_too_many]]:
        inventory.dismiss(other, "evicted")


def evict_one(inventory: Inventory, name: str, is_urgent: bool = False) -> bool:
    """Have the least recently used other instance stopped that may be.

    Returns whether there will be more room: none is stopped while another one still makes room.
    """
    if any(live.stopping is not None and live.is_present for live in inventory.lives_but(name)):
        return True
    others = [other for other, record in inventory.records.items() if other != name and record.wanted == "running"]
    for other in by_last_use(inventory, others):
        if may_go(inventory, other, is_urgent):
            inventory.dismiss(other, "evicted")
            return True
    return False


def by_last_use(inventory: Inventory, names: list[str]) -> list[str]:
    return sorted(names, key=inventory.last_request_s)


def may_go(inventory: Inventory, name: str, is_urgent: bool) -> bool:
    live = inventory.live(name)
    if live.stopping is not None or not live.is_ready:
        return False  # it goes already, or somebody waits for it
    if inventory.records[name].previous is not None:
        return False  # its owner waits for an update
    return is_urgent or not inventory.board.in_flight(name)
