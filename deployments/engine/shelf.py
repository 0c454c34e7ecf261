"""What an engine core holds of compiled constraints: kept by its replica, which decides what must go."""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from deployments.errors import OverloadedError
from deployments.guided_types import Receipt


@dataclass(slots=True)
class Item:
    size_bytes: int
    receipt: Receipt | None = None
    """None: it is on its way to the core."""


class Shelf:
    """Keys of constraints, the least recently used first. Those that requests use are pinned."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._pins: Counter[str] = Counter()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def get(self, key: str) -> Receipt | None:
        """Return the receipt of a constraint that the core has, and take it for used."""
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item.receipt

    def reserve(self, key: str, size_bytes: int) -> list[str]:
        """Count in a constraint that will be loaded, and return the keys of those that must go for it.

        One that is larger than the shelf may have all of it. Raises OverloadedError when too much is in use; nothing
        has changed then.
        """
        left, gone = self._size_bytes, []
        for other, item in self._items.items():
            if left + size_bytes <= self._max_bytes:
                break
            if item.receipt is not None and not self._pins[other]:
                gone.append(other)
                left -= item.size_bytes
        if left + size_bytes > self._max_bytes and len(gone) < len(self._items):
            raise OverloadedError("The engine holds as many constraints as it may; retry.", None, 1)
        for other in gone:
            self.remove(other)
        self._items[key] = Item(size_bytes)
        self._size_bytes += size_bytes
        return gone

    def arrived(self, key: str, receipt: Receipt) -> None:
        """Note that the core has what was reserved."""
        self._items[key].receipt = receipt

    def remove(self, key: str) -> None:
        self._size_bytes -= self._items.pop(key).size_bytes

    def pin(self, key: str) -> None:
        self._pins[key] += 1

    def unpin(self, key: str) -> None:
        self._pins[key] -= 1
        if self._pins[key] <= 0:
            del self._pins[key]
