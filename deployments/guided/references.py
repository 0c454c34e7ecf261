"""What a replica and its engine core have agreed on: how a request names a constraint that the core holds."""

import re

SWITCH = "VLLM_GRAPH_GUIDED"
"""Environment variable that a replica sets for its core: `strict`, `lenient`, or nothing to leave vLLM as it is."""

MAX_ITEMS = 10_000
"""llguidance's `max_items_in_row`, which says how many properties an object may have, about; its own default is 2,000.
What the pool has tried out with one limit must not fail with another in an engine core."""

# A grammar that is valid by itself: vLLM checks what it is given in microseconds, and finds nothing wrong.
_REFERENCE = re.compile(r'root ::= "vllm-graph:guided:([0-9a-f]{64})"')


def to_reference(key: str) -> str:
    """Write a key (64 hexadecimal digits) as the EBNF grammar that stands for its constraint."""
    return f'root ::= "vllm-graph:guided:{key}"'


def key_of(grammar: str) -> str | None:
    """Return the key that a grammar stands for; None: it is a grammar of its own."""
    found = _REFERENCE.fullmatch(grammar)
    return found[1] if found else None
