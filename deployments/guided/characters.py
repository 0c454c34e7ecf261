"""Sets of characters, as regular expressions have them: ranges of code points."""

from bisect import bisect_right
from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]
"""Code points, both ends in it; ordered, apart from each other."""

LAST = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)
UNSAFE_IN_JSON: Ranges = ((0, 31), (34, 34), (92, 92), (127, 127))
"""Characters that a JSON string has only escaped; U+007F only when llguidance writes it."""
ESCAPED = frozenset("\\.+*?()|[]{}^$#&-~/")
LAST_CONTROL = 0xA0
"""Up to it there are controls, and a space that looks like another."""

DIGITS: Ranges = ((48, 57),)
WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
SPACE: Ranges = ((9, 13), (32, 32), (160, 160), (0x2028, 0x2029), (0xFEFF, 0xFEFF))


def complement(ranges: Ranges) -> Ranges:
    """Return all other characters; surrogates are none."""
    found, start = [], 0
    for low, high in (*union([*ranges, SURROGATES]), (LAST + 1, LAST + 1)):
        if start < low:
            found.append((start, low - 1))
        start = high + 1
    return tuple(found)


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def has(ranges: Ranges, char: int) -> bool:
    at = bisect_right(ranges, (char, LAST))
    return at > 0 and ranges[at - 1][1] >= char
