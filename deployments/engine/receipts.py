"""Receipts of constraints, as a client reads them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from deployments.guided_types import Receipt
from deployments.types import HttpHead

HEADER = b"x-guided-receipt"


def to_json(receipt: Receipt) -> Mapping[str, Any]:
    return {
        "id": f"{receipt.kind}-{receipt.key}",
        "kind": receipt.kind,
        "backend": receipt.compiler,
        "bytes": receipt.size_bytes,
        "compile_ms": round(receipt.compile_s * 1000, 3),
        "cached": receipt.is_cached,
        "enforced": list(receipt.enforced),
        "ignored": list(receipt.ignored),
    }


def with_receipts(head: HttpHead, receipts: Iterable[Receipt]) -> HttpHead:
    """Add a header with each different constraint's receipt to a response."""
    by_key = {receipt.key: receipt for receipt in receipts}
    values = tuple((HEADER, json.dumps(to_json(receipt)).encode()) for receipt in by_key.values())
    return replace(head, headers=head.headers + values)
