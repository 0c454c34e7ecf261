"""One JSON Schema from text to what the compilers are given."""

from dataclasses import dataclass
from typing import Any

from config.guided import ConstraintLimits
from deployments.errors import InvalidRequestError
from deployments.guided.emission import Emitter, ForLlguidance, ForXgrammar, LacksError
from deployments.guided.schema_checks import unenforced
from deployments.guided.schemas import Reader
from deployments.guided.shapes import Shape, Shaper


@dataclass(frozen=True, slots=True)
class SchemaPlan:
    """What the compilers are given for one schema; a compiler that does not enforce all of it is None."""

    xgrammar: dict[str, Any] | None
    llguidance: dict[str, Any] | None
    enforced: tuple[str, ...]
    ignored: tuple[str, ...]


def plan_schema(schema: Any, limits: ConstraintLimits, is_strict: bool, is_narrow: bool = False) -> SchemaPlan:
    """Find out who enforces a schema; raises InvalidRequestError when nobody does.

    `is_narrow`: only xgrammar can be used, so that strings with constraints may lack characters that JSON escapes.
    """
    if not isinstance(schema, dict | bool):
        raise InvalidRequestError("A JSON Schema is an object, `true` or `false`.")
    reader = Reader(schema, limits, is_strict)
    shaper = Shaper(reader)
    root = shaper.shape(((schema, ""),))
    definitions = _definitions(root, shaper)
    if root is None:
        raise InvalidRequestError("No JSON value satisfies this schema.")
    _check_loops(definitions)
    _check_possible(definitions)
    names = {pointer: f"d{index}" for index, pointer in enumerate(definitions)}
    xgrammar, first = _emit(ForXgrammar(names, is_narrow), root, definitions)
    llguidance, second = _emit(ForLlguidance(names), root, definitions)
    if first is not None and (second is not None or is_narrow):
        raise InvalidRequestError(_nobody(first, first if second is None else second))
    enforced = tuple(keyword for keyword in reader.enforced if keyword not in reader.ignored)
    return SchemaPlan(xgrammar, llguidance, enforced, tuple(reader.ignored))


def _emit(
    emitter: Emitter, root: Shape, definitions: dict[str, Shape]
) -> tuple[dict[str, Any] | None, LacksError | None]:
    try:
        return emitter.document(root, definitions), None
    except LacksError as error:
        return None, error


def _nobody(first: LacksError, second: LacksError) -> str:
    if (first.keyword, first.pointer) == (second.keyword, second.pointer):
        return unenforced(
            first.keyword, first.pointer, "is not enforced by any compiler together with what is beside it"
        )
    other = f"`{second.keyword}` at {second.pointer or '/'} by the other"
    return unenforced(first.keyword, first.pointer, f"is not enforced by one compiler and {other}")


def inner_shapes(shape: Shape | None) -> list[Shape]:
    """Return the shapes directly in a shape."""
    if not shape:
        return []
    found = [*shape.get("anyOf", ()), *shape.get("prefixItems", ()), *shape.get("properties", {}).values()]
    found += [one for _, one in shape.get("patternProperties", {}).values()]
    found += [shape.get("items"), shape.get("additionalProperties")]
    return [one for one in found if one]


def _references(shape: Shape | None) -> list[str]:
    found, waiting = [], [shape]
    while waiting:
        one = waiting.pop()
        if one and "ref" in one:
            found.append(one["ref"])
        waiting += inner_shapes(one)
    return found


def _definitions(root: Shape | None, shaper: Shaper) -> dict[str, Shape]:
    """Make the shapes of everything that is referred to."""
    found: dict[str, Shape] = {}
    waiting = _references(root)
    while waiting:
        pointer = waiting.pop()
        if pointer in found:
            continue
        shape = shaper.referred(pointer)
        if shape is None:
            raise InvalidRequestError(f"No JSON value satisfies the schema at {pointer or '/'}.")
        found[pointer] = shape
        waiting += _references(shape)
    return found


def _check_loops(definitions: dict[str, Shape]) -> None:
    """Raise InvalidRequestError for references that go round without anything in between."""
    done: set[str] = set()
    for start in definitions:
        waiting = [(start, iter(_first(definitions[start])))]
        path = {start}
        while waiting:
            pointer, rest = waiting[-1]
            following = next((one for one in rest if one not in done), None)
            if following is None:
                waiting.pop()
                path.discard(pointer)
                done.add(pointer)
            elif following in path:
                raise InvalidRequestError(f"`$ref` to #{following} refers to itself, with nothing in between.")
            else:
                path.add(following)
                waiting.append((following, iter(_first(definitions[following]))))


def _first(shape: Shape) -> list[str]:
    """Return the references that a shape may be, without anything around them."""
    if "anyOf" in shape:
        return [pointer for one in shape["anyOf"] for pointer in _first(one)]
    return [shape["ref"]] if "ref" in shape else []


def _check_possible(definitions: dict[str, Shape]) -> None:
    """Raise InvalidRequestError for references that never come to an end."""
    users: dict[str, list[str]] = {}
    for pointer, shape in definitions.items():
        for target in _references(shape):
            users.setdefault(target, []).append(pointer)
    ending: set[str] = set()
    waiting = list(definitions)
    while waiting:
        pointer = waiting.pop()
        if pointer not in ending and _ends(definitions[pointer], ending):
            ending.add(pointer)
            waiting += users.get(pointer, ())
    endless = next((pointer for pointer in definitions if pointer not in ending), None)
    if endless is not None:
        raise InvalidRequestError(f"`$ref` to #{endless} requires itself again and again: no JSON value ends.")


def _ends(shape: Shape | None, ending: set[str]) -> bool:
    if shape is None:
        return False
    if "ref" in shape:
        return shape["ref"] in ending
    if "anyOf" in shape:
        return any(_ends(one, ending) for one in shape["anyOf"])
    if shape.get("type") == "object":
        return all(_ends(shape["properties"][name], ending) for name in shape["required"])
    if shape.get("type") == "array":
        needed = [*shape["prefixItems"], shape["items"]][: shape["minItems"]]
        return all(_ends(one, ending) for one in needed)
    return True
