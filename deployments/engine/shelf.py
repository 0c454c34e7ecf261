"""What an engine core holds of compiled constraints: kept by its replica, which decides what must go."""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from deployments.errors import OverloadedError
from deployments.guided_types import Receipt


@dataclass(frozen=True, slots=True)
class Item:
    receipt: Receipt
    size_bytes: int


class Shelf:
    """Keys of loaded constraints, the least recently used first. Those that requests use are pinned."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._pins: Counter[str] = Counter()
        self._size_bytes = 0

    def get(self, key: str) -> Receipt | None:
        """Return a loaded constraint's receipt, and take it for used."""
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item.receipt

    def make_room(self, size_bytes: int) -> list[str]:
        """Take out as many as must go for one more, and return their keys; raises OverloadedError if all are in use."""
        room = self._max_bytes - size_bytes
        free = [key for key in self._items if not self._pins[key]]
        gone = []
        while self._size_bytes > room and free:
            gone.append(free.pop(0))
            self._size_bytes -= self._items.pop(gone[-1]).size_bytes
        if self._size_bytes > room and self._items:
            raise OverloadedError("The engine holds as many constraints as it may; retry.", None, 1)
        return gone

    def put(self, key: str, receipt: Receipt, size_bytes: int) -> None:
        self._items[key] = Item(receipt, size_bytes)
        self._size_bytes += size_bytes

    def pin(self, key: str) -> None:
        self._pins[key] += 1

    def unpin(self, key: str) -> None:
        self._pins[key] -= 1
        if self._pins[key] <= 0:
            del self._pins[key]
