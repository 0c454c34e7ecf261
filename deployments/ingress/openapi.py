"""The gateway's OpenAPI document: its own routes, and those of the engines as the engines describe them."""

import copy
import functools
import json
from collections.abc import Mapping
from typing import Any

from deployments.ingress.services import Model

Document = dict[str, Any]

SECURITY: Document = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def with_engines(own: Document, models: Mapping[str, Model]) -> Document:
    """Return the document with the forwarded routes as the ready models describe them; the first to have one counts."""
    document = copy.deepcopy(own)
    document["security"] = [{name: []} for name in SECURITY]
    components = document.setdefault("components", {})
    components["securitySchemes"] = SECURITY
    schemas = components.setdefault("schemas", {})
    described: set[str] = set()
    for model in models.values():
        if model.info is None:
            continue
        theirs = parsed(model.info.openapi)
        for path in posts(theirs) & posts(document) - described:
            document["paths"][path]["post"] |= request_of(theirs["paths"][path]["post"])
            described.add(path)
        for name, schema in theirs.get("components", {}).get("schemas", {}).items():
            schemas.setdefault(name, schema)
    return document


def posts(document: Document) -> set[str]:
    return {path for path, methods in document["paths"].items() if "post" in methods}


def request_of(operation: Document) -> Document:
    return {name: operation[name] for name in ("requestBody", "parameters") if name in operation}


@functools.lru_cache(maxsize=64)
def parsed(openapi: str) -> Document:
    document: Document = json.loads(openapi)
    return document
