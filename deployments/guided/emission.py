"""Shapes written as JSON Schemas for one of the compilers, which then enforces all of them; or what it lacks.

What each compiler does with a keyword was measured; `tests/unit/test_guided_agreement.py` measures it again.
"""

from collections.abc import Mapping
from typing import Any

from deployments.guided.limits import MAX_EXACT
from deployments.guided.patterns import Pattern, Work, json_safe, matches_nothing, whole
from deployments.guided.shapes import Shape, as_pattern

NO_WORK = Work(0)
"""Nothing is compared with patterns that are only written."""
MAX_INT64 = 2**63 - 1
MAX_MULTIPLE = 1024
"""xgrammar drops `multipleOf` above it."""
MAX_DECIMALS = 6
"""xgrammar rounds bounds to so many."""


class LacksError(Exception):
    """The compiler does not enforce this keyword here."""

    def __init__(self, keyword: str, pointer: str) -> None:
        super().__init__(keyword, pointer)
        self.keyword = keyword
        self.pointer = pointer


class Emitter:
    """What both compilers are given alike. Raises LacksError."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        """Short names of references."""

    def schema(self, shape: Shape | None) -> Any:
        """Write one shape as a JSON Schema."""
        if shape is None or not shape:
            return shape is not None
        if "ref" in shape:
            return {"$ref": f"#/$defs/{self._names[shape['ref']]}"}
        if "anyOf" in shape:
            return {"anyOf": [self.schema(one) for one in shape["anyOf"]]}
        if "enum" in shape:
            return self._enum(shape)
        match shape["type"]:
            case "integer" | "number":
                return self._number(shape)
            case "string":
                return self._string(shape)
            case "array":
                return self._array(shape)
            case "object":
                return self._object(shape)
        return {"type": shape["type"]}

    def document(self, root: Shape, definitions: Mapping[str, Shape]) -> dict[str, Any]:
        """Write a root and all that is referred to."""
        found = self.schema(root)
        document = found if isinstance(found, dict) else {}
        if definitions:
            document["$defs"] = {self._names[pointer]: self.schema(one) for pointer, one in definitions.items()}
        return document

    def _enum(self, shape: Shape) -> Any:
        return {"enum": shape["enum"]}

    def _number(self, shape: Shape) -> Any:
        return {keyword: value for keyword, value in shape.items() if keyword != "at"}

    def _string(self, shape: Shape) -> Any:
        raise NotImplementedError

    def _array(self, shape: Shape) -> Any:
        found: dict[str, Any] = {"type": "array"}
        if shape["prefixItems"]:
            found["prefixItems"] = [self.schema(one) for one in shape["prefixItems"]]
        found["items"] = self.schema(shape["items"])
        if shape["minItems"]:
            found["minItems"] = shape["minItems"]
        if shape["maxItems"] is not None and shape["items"] is not None:
            found["maxItems"] = shape["maxItems"]
        return found

    def _object(self, shape: Shape) -> Any:
        found: dict[str, Any] = {"type": "object"}
        if shape["properties"]:
            found["properties"] = {name: self.schema(one) for name, one in shape["properties"].items()}
        if shape["patternProperties"]:
            found["patternProperties"] = {
                self._key(pattern, shape): self.schema(one) for pattern, one in shape["patternProperties"].values()
            }
        if shape["required"]:
            found["required"] = shape["required"]
        found["additionalProperties"] = self.schema(shape["additionalProperties"])
        if shape["minProperties"]:
            found["minProperties"] = shape["minProperties"]
        if shape["maxProperties"] is not None:
            found["maxProperties"] = shape["maxProperties"]
        return found

    def _key(self, pattern: Pattern, shape: Shape) -> str:
        return pattern.anchored


class ForXgrammar(Emitter):
    """`is_narrow`: strings with constraints may be left without the characters that JSON escapes."""

    def __init__(self, names: Mapping[str, str], is_narrow: bool = False) -> None:
        super().__init__(names)
        self._is_narrow = is_narrow

    def _enum(self, shape: Shape) -> Any:
        if not all(_is_written_well(value) for value in shape["enum"]):
            raise LacksError("enum", shape.get("at", ""))
        return {"enum": shape["enum"]}

    def _number(self, shape: Shape) -> Any:
        bounds = [value for keyword, value in shape.items() if keyword not in ("type", "at", "multipleOf")]
        if shape["type"] == "integer":
            if any(not -MAX_INT64 - 1 <= bound <= MAX_INT64 for bound in bounds):
                raise LacksError("minimum", shape["at"])
        elif any(abs(bound) >= MAX_EXACT or round(bound, MAX_DECIMALS) != bound for bound in bounds):
            raise LacksError("minimum", shape["at"])
        divisor = shape.get("multipleOf")
        is_whole = divisor is not None and divisor == int(divisor) <= MAX_MULTIPLE
        if divisor is not None and (bounds or shape["type"] == "number" or not is_whole):
            raise LacksError("multipleOf", shape["at"])
        return super()._number(shape)

    def _string(self, shape: Shape) -> Any:
        if not shape["patterns"] and not shape["minLength"] and shape["maxLength"] is None:
            return {"type": "string"}
        pattern = as_pattern(shape, NO_WORK)
        if pattern is None:
            raise LacksError("minLength" if shape["minLength"] else "maxLength", shape["at"])
        return {"type": "string", "pattern": self._key(pattern, shape)}

    def _key(self, pattern: Pattern, shape: Shape) -> str:
        if pattern.is_json_safe:
            return pattern.anchored
        narrow = whole(json_safe(pattern.node), NO_WORK)
        if not self._is_narrow or matches_nothing(narrow.node):
            raise LacksError("pattern" if shape.get("patterns") else "maxLength", shape["at"])
        return narrow.anchored

    def _object(self, shape: Shape) -> Any:
        if shape["patternProperties"]:
            if len(shape["patternProperties"]) > 1 or shape["properties"]:
                raise LacksError("patternProperties", shape["at"])
        elif shape["additionalProperties"] is None:
            kept = {name: one for name, one in shape["properties"].items() if one is not None}
            shape = shape | {"properties": kept}
        return super()._object(shape)


class ForLlguidance(Emitter):
    def _number(self, shape: Shape) -> Any:
        bounds = [value for keyword, value in shape.items() if keyword not in ("type", "at", "multipleOf")]
        if any(abs(bound) >= MAX_EXACT for bound in bounds):
            raise LacksError("minimum", shape["at"])
        is_negative = any(shape.get(keyword, 0) < 0 for keyword in ("maximum", "exclusiveMaximum"))
        if is_negative and "multipleOf" in shape:
            raise LacksError("multipleOf", shape["at"])
        return super()._number(shape)

    def _string(self, shape: Shape) -> Any:
        found: dict[str, Any] = {"type": "string"}
        patterns = [{"pattern": pattern.anchored} for pattern in shape["patterns"]]
        found |= patterns[0] if len(patterns) == 1 else {"allOf": patterns} if patterns else {}
        if shape["minLength"]:
            found["minLength"] = shape["minLength"]
        if shape["maxLength"] is not None:
            found["maxLength"] = shape["maxLength"]
        return found

    def _object(self, shape: Shape) -> Any:
        is_bounded = shape["minProperties"] or shape["maxProperties"] is not None
        if is_bounded and len(shape["required"]) < len(shape["properties"]):
            raise LacksError("minProperties" if shape["minProperties"] else "maxProperties", shape["at"])
        return super()._object(shape)


def _is_written_well(value: Any) -> bool:
    """Say whether xgrammar writes a value as Python does."""
    if isinstance(value, float):
        return f"{value:.17g}" == repr(value)
    if isinstance(value, dict):
        return all(_is_written_well(one) for one in value.values())
    return not isinstance(value, list) or all(_is_written_well(one) for one in value)
