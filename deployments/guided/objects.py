"""Shapes of objects: names that are not declared, names that are required, and how many there are."""

import math
from typing import TYPE_CHECKING, Any

from deployments.guided.merging import Part, Subs, subs_of
from deployments.guided.patterns import Pattern, whole, without

if TYPE_CHECKING:
    from deployments.guided.shapes import Shape, Shaper

OPEN: Subs = ()
"""Of undeclared names: everything is allowed."""
CLOSED: Subs = ((False, "no others"),)


class ObjectShaper:
    """The part of a Shaper that is about objects."""

    def __init__(self, shaper: "Shaper") -> None:
        self._shaper = shaper
        self._reader = shaper.reader

    def shape(self, shape: "Shape", part: Part) -> "Shape | None":
        """Make an object's shape; None when there is no such object."""
        part = dict(part)
        if "additionalProperties" not in part and ("properties" in part or "patternProperties" in part):
            # As strictly as xgrammar: whoever declares properties means these.
            self._declare_required(part, OPEN)
            part["additionalProperties"] = CLOSED
        self._declare_required(part, None)
        part = self._with_names(part, shape["at"])
        names = {name: self._shaper.shape(subs) for name, subs in part.get("properties", {}).items()}
        patterns = {
            text: (pattern, self._shaper.shape(subs))
            for text, (pattern, subs) in part.get("patternProperties", {}).items()
        }
        rest = self._shaper.shape(part.get("additionalProperties", OPEN))
        required = [name for name in part.get("required", ()) if name in names]
        if any(names[name] is None for name in required):
            return None
        patterns = {text: (pattern, inner) for text, (pattern, inner) in patterns.items() if inner is not None}
        shape |= {"properties": names, "patternProperties": patterns, "additionalProperties": rest}
        return self._bounded(shape | {"required": required}, part)

    def _declare_required(self, part: Part, subs: Subs | None) -> None:
        missing = [name for name in part.get("required", ()) if name not in part.get("properties", {})]
        if missing:
            declared = {name: subs_of(part, name) if subs is None else subs for name in missing}
            part["properties"] = part.get("properties", {}) | declared

    def _with_names(self, part: Part, pointer: str) -> Part:
        """Say what `propertyNames` says with properties and patterns."""
        if "propertyNames" not in part:
            return part
        names = self._shaper.shape(part["propertyNames"])
        if names == {}:
            return part
        names = _only_strings(names)
        kept = {n: s for n, s in part.get("properties", {}).items() if names and self._shaper.fits(n, names)}
        gone = {name: CLOSED for name in part.get("properties", {}) if name not in kept}
        part = {**part, "properties": kept | gone}
        rest, patterns = part.get("additionalProperties", OPEN), part.get("patternProperties", {})
        if names is None:
            return {**part, "additionalProperties": CLOSED, "patternProperties": {}}
        if "enum" in names:
            listed = {name: subs_of(part, name) for name in names["enum"] if name not in part["properties"]}
            return {
                **part,
                "properties": part["properties"] | listed,
                "additionalProperties": CLOSED,
                "patternProperties": {},
            }
        if rest == CLOSED and not patterns:
            return part
        pattern = self._pattern(names)
        if pattern is None or patterns or part["properties"]:
            self._reader.refuse("propertyNames", pointer, "is enforced by no compiler together with what is beside it")
            return part
        return {**part, "patternProperties": {pattern.text: (pattern, rest)}, "additionalProperties": CLOSED}

    def _pattern(self, names: "Shape") -> Pattern | None:
        from deployments.guided.shapes import as_pattern

        return as_pattern(names, self._reader.work) if names.get("type") == "string" else None

    def _bounded(self, shape: "Shape", part: Part) -> "Shape | None":
        possible = sum(inner is not None for inner in shape["properties"].values())
        is_closed = shape["additionalProperties"] is None and not shape["patternProperties"]
        least, most = int(part.get("minProperties", 0)), part.get("maxProperties")
        most = None if most is None else int(most)
        needed = len(shape["required"])
        if is_closed:
            most = None if most is not None and most >= possible else most
            if least > possible:
                return None
        elif least > needed + 1:
            # Names that are not declared may be repeated: one of them is all that is sure to count.
            self._reader.refuse("minProperties", shape["at"], "is not enforced: names that are not declared may repeat")
            least = 0
        if most is not None and (most < needed or most < least):
            return None
        self._shaper.check_count(least, most, "Properties", shape["at"])
        least = 0 if least <= needed else least
        return self._open(shape | {"minProperties": least, "maxProperties": most})

    def _open(self, shape: "Shape") -> "Shape":
        """Keep names that are declared from being written as others: with escapes, `\\u0061` for `a`."""
        rest = shape["additionalProperties"]
        if rest is None or not (shape["properties"] or shape["patternProperties"]):
            return shape
        if shape["patternProperties"]:
            reason = "is enforced by no compiler beside `patternProperties`; `false` is"
            self._reader.refuse("additionalProperties", shape["at"], reason)
            return shape | {"additionalProperties": None}
        if sum(len(name) for name in shape["properties"]) > self._reader.limits.max_regex_bytes:
            limit = f"max_regex_bytes is {self._reader.limits.max_regex_bytes}"
            reason = f"is not enforced beside properties whose names are so long, all together: {limit}"
            self._reader.refuse("additionalProperties", shape["at"], reason)
            return shape | {"additionalProperties": None}
        others = whole(without(shape["properties"]), self._reader.work)
        return shape | {"patternProperties": {others.text: (others, rest)}, "additionalProperties": None}

    def fits(self, value: dict[str, Any], shape: "Shape") -> bool:
        """Say whether an object has a shape."""
        most = math.inf if shape["maxProperties"] is None else shape["maxProperties"]
        if not shape["minProperties"] <= len(value) <= most:
            return False
        if any(name not in value for name in shape["required"]):
            return False
        return all(self._fits_property(name, one, shape) for name, one in value.items())

    def _fits_property(self, name: str, value: Any, shape: "Shape") -> bool:
        found = [shape["properties"][name]] if name in shape["properties"] else []
        found += [inner for pattern, inner in shape["patternProperties"].values() if pattern.matches(name)]
        found = found or [shape["additionalProperties"]]
        return all(inner is not None and self._shaper.fits(value, inner) for inner in found)


def _only_strings(names: "Shape | None") -> "Shape | None":
    if names is None or "enum" in names:
        listed = [name for name in names["enum"] if isinstance(name, str)] if names else []
        return {"enum": listed} if listed else None
    if "anyOf" in names:
        strings = [one for one in names["anyOf"] if one.get("type") == "string"]
        return strings[0] if len(strings) == 1 else names
    return names if names.get("type", "string") == "string" else None
