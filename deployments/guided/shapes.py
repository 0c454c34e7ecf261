"""Schemas of one type each, made of what a Reader found: what the compilers are asked about, and given.

A shape is a dict: `{}` allows everything; `ref` names another shape, `anyOf` has several, `enum` has values; all
others have `type`, the keywords of this type, and `at`, their JSON pointer. `patterns` has Patterns;
`patternProperties` has a pair of Pattern and shape for each text; None is a shape that nothing has.
"""

import math
from typing import Any

from deployments.errors import InvalidRequestError
from deployments.guided.keywords import KEYWORDS_OF, TYPES
from deployments.guided.limits import MAX_EXACT
from deployments.guided.merging import Part, Subs, kind_of
from deployments.guided.objects import ObjectShaper
from deployments.guided.patterns import ANY, Pattern, Repeat, Work, whole
from deployments.guided.schemas import Reader

Shape = dict[str, Any]
ALL_TYPES = frozenset(TYPES) - {"integer"}


class Shaper:
    """Makes the shapes of one document."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.objects = ObjectShaper(self)
        self._made: dict[str, Shape | None] = {}

    def shape(self, subs: Subs) -> Shape | None:
        """Make the shape of schemas that hold together; None when no value satisfies them."""
        found: list[Shape] = []
        pointer = subs[0][1] if subs else ""
        for part in self.reader.all_of(subs):
            found += self._of_part(part, pointer)
        if {} in found:
            return {}
        if len(found) < 2:
            return found[0] if found else None
        return {"anyOf": found}

    def referred(self, pointer: str) -> Shape | None:
        """Make the shape of what a reference refers to."""
        if pointer not in self._made:
            self._made[pointer] = self.shape(((self.reader.target(pointer), pointer),))
        return self._made[pointer]

    def _of_part(self, part: Part, pointer: str) -> list[Shape]:
        if "ref" in part:
            return [{"ref": part["ref"]}]
        if "enum" in part:
            rest = {keyword: value for keyword, value in part.items() if keyword != "enum"}
            base = self._of_part(rest, pointer)
            self.reader.spend(len(part["enum"]))
            values = [value for value in part["enum"] if any(self.fits(value, shape) for shape in base)]
            for value in values:
                check_literal(value, pointer)
            return [{"enum": values}] if values else []
        types = self._types(part)
        if not part:
            return [{}]
        found = [self._typed(name, part, pointer) for name in TYPES if name in types]
        return [shape for shape in found if shape is not None]

    def _types(self, part: Part) -> frozenset[str]:
        if "types" in part:
            names: frozenset[str] = part["types"]
            return names
        meant = [name for name, keywords in KEYWORDS_OF.items() if any(keyword in part for keyword in keywords)]
        return frozenset(meant) or ALL_TYPES

    def _typed(self, name: str, part: Part, pointer: str) -> Shape | None:
        shape: Shape = {"type": name, "at": pointer}
        match name:
            case "integer" | "number":
                return _number(shape, part)
            case "string":
                return self._string(shape, part)
            case "array":
                return self._array(shape, part)
            case "object":
                return self.objects.shape(shape, part)
        return shape

    def _array(self, shape: Shape, part: Part) -> Shape | None:
        least, most = int(part.get("minItems", 0)), part.get("maxItems")
        prefix: list[Shape] = []
        for subs in part.get("prefixItems", ()):
            item = self.shape(subs)
            if item is None:
                most = len(prefix) if most is None else min(most, len(prefix))
                break
            prefix.append(item)
        items = self.shape(part.get("items", ()))
        if items is None:
            most = len(prefix) if most is None else min(most, len(prefix))
        if most is not None:
            most = int(most)
            prefix = prefix[:most]
            items = None if most <= len(prefix) else items
        if most is not None and least > most:
            return None
        self.check_count(least, most, "Items", shape["at"])
        return shape | {"prefixItems": prefix, "items": items, "minItems": least, "maxItems": most}

    def _string(self, shape: Shape, part: Part) -> Shape | None:
        least, most = int(part.get("minLength", 0)), part.get("maxLength")
        if most is not None and least > most:
            return None
        self.check_count(least, most, "Length", shape["at"])
        patterns: tuple[Pattern, ...] = tuple({pattern.text: pattern for pattern in part.get("patterns", ())}.values())
        return shape | {"patterns": patterns, "minLength": least, "maxLength": None if most is None else int(most)}

    def check_count(self, least: int, most: int | None, name: str, pointer: str) -> None:
        """Raise InvalidRequestError for counts that are over the limit; `name` is what follows `min` and `max`."""
        limit = self.reader.limits.max_repetition
        if max(least, most or 0) > limit:
            place = f"`min{name}` or `max{name}` at {pointer or '/'}"
            raise InvalidRequestError(f"{place} is too large: max_repetition is {limit}.")

    def fits(self, value: Any, shape: Shape) -> bool:
        """Say whether a JSON value has a shape."""
        if not shape:
            return True
        if "ref" in shape:
            target = self.referred(shape["ref"])
            return target is not None and self.fits(value, target)
        if "anyOf" in shape:
            return any(self.fits(value, one) for one in shape["anyOf"])
        if "enum" in shape:
            return value in shape["enum"]
        if not _has_type(value, shape["type"]):
            return False
        match shape["type"]:
            case "integer" | "number":
                return _fits_number(value, shape)
            case "string":
                return fits_string(value, shape)
            case "array":
                return self._fits_array(value, shape)
            case "object":
                return self.objects.fits(value, shape)
        return True

    def _fits_array(self, value: list[Any], shape: Shape) -> bool:
        if not shape["minItems"] <= len(value) <= (math.inf if shape["maxItems"] is None else shape["maxItems"]):
            return False
        prefix = shape["prefixItems"]
        shapes = [*prefix, *[shape["items"]] * (len(value) - len(prefix))]
        return all(one is not None and self.fits(item, one) for item, one in zip(value, shapes, strict=False))


def check_literal(value: Any, pointer: str) -> None:
    """Raise InvalidRequestError for numbers in `enum` and `const` that compilers do not write exactly."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        waiting += found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
        is_large = isinstance(found, int) and abs(found) >= MAX_EXACT
        if is_large or (isinstance(found, float) and "e" in repr(found)):
            raise InvalidRequestError(f"`enum` or `const` at {pointer or '/'} has a number that is too large or small.")


def _has_type(value: Any, name: str) -> bool:
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return kind_of(value) == name


def _number(shape: Shape, part: Part) -> Shape | None:
    found = {keyword: part[keyword] for keyword in KEYWORDS_OF["number"] if keyword in part}
    if shape["type"] == "integer":
        low, high = _whole_bounds(found)
        found = {name: value for name, value in found.items() if name == "multipleOf"}
        found |= {} if low is None else {"minimum": low}
        found |= {} if high is None else {"maximum": high}
        return None if low is not None and high is not None and low > high else shape | found
    low = max(found.get("minimum", -math.inf), found.get("exclusiveMinimum", -math.inf))
    high = min(found.get("maximum", math.inf), found.get("exclusiveMaximum", math.inf))
    is_open = low in (found.get("exclusiveMinimum"),) or high in (found.get("exclusiveMaximum"),)
    return None if low > high or (low == high and is_open) else shape | found


def _whole_bounds(found: Part) -> tuple[int | None, int | None]:
    lows = [math.ceil(found[name]) for name in ("minimum",) if name in found]
    lows += [math.floor(found[name]) + 1 for name in ("exclusiveMinimum",) if name in found]
    highs = [math.floor(found[name]) for name in ("maximum",) if name in found]
    highs += [math.ceil(found[name]) - 1 for name in ("exclusiveMaximum",) if name in found]
    return max(lows, default=None), min(highs, default=None)


def _fits_number(value: float, shape: Shape) -> bool:
    low, high = shape.get("minimum", -math.inf), shape.get("maximum", math.inf)
    is_inside = low <= value <= high and shape.get("exclusiveMinimum", -math.inf) < value
    divisor = shape.get("multipleOf")
    is_multiple = divisor is None or math.isclose(value / divisor, round(value / divisor), rel_tol=0, abs_tol=1e-9)
    return is_inside and value < shape.get("exclusiveMaximum", math.inf) and is_multiple


def fits_string(value: str, shape: Shape) -> bool:
    is_long = len(value) >= shape["minLength"]
    is_short = shape["maxLength"] is None or len(value) <= shape["maxLength"]
    return is_long and is_short and all(pattern.matches(value) for pattern in shape["patterns"])


def as_pattern(shape: Shape, work: Work) -> Pattern | None:
    """Return a string's shape as one pattern; None when it has more than one constraint."""
    least, most = shape["minLength"], shape["maxLength"]
    if not least and most is None and len(shape["patterns"]) == 1:
        found: Pattern = shape["patterns"][0]
        return found
    return None if shape["patterns"] else whole(Repeat(ANY, least, most), work)
