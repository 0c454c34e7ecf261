"""Read a JSON Schema: every keyword is checked, then all is written anew in what the compilers understand.

What comes out says the same with less: each schema is a reference, a choice, a list of values, or has one type and
only this type's keywords. `allOf` and siblings of `$ref`, `anyOf` and `oneOf` are merged.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from config.guided import ConstraintLimits
from deployments.errors import InvalidRequestError
from deployments.guided.keywords import (
    ANNOTATION_FORMATS,
    FORMATS,
    NUMBER_FORMATS,
    REFUSED,
    standing,
)
from deployments.guided.limits import check_schema_size
from deployments.guided.merging import (
    ImpossibleError,
    InseparableError,
    Part,
    Sub,
    Subs,
    are_disjoint,
    key_of,
    merge,
    whole_numbers,
)
from deployments.guided.patterns import Pattern, Work
from deployments.guided.regexes import read_pattern
from deployments.guided.schema_checks import check_values, unenforced

COPIED = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "required"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
)


class Reader:
    """Reads the schemas of one document."""

    def __init__(self, root: Any, limits: ConstraintLimits, is_strict: bool) -> None:
        check_schema_size(root, limits)
        self.root = root
        self.limits = limits
        self.is_strict = is_strict
        self.enforced: dict[str, None] = {}
        self.ignored: dict[str, None] = {}
        self.names: dict[str, str] = {}
        """Of references that are kept: a short name for each pointer."""
        self.work = Work(limits.max_bytes)
        self._spent = 0
        self._expanding: list[str] = []
        self._checked: set[int] = set()
        self._followed: set[str] = set()
        self._patterns: dict[str, Pattern] = {}

    def parts(self, sub: Sub) -> list[Part]:
        """Return what a schema allows: any of these. An empty list: nothing."""
        schema, pointer = sub
        self.spend(1)
        if isinstance(schema, bool):
            return [{}] if schema else []
        self._check(schema, pointer)
        if "$ref" in schema and not self._others(schema):
            return [{"ref": self._resolve(schema["$ref"], pointer)}]
        try:
            found = [self._own(schema, pointer)]
        except ImpossibleError:
            return []
        if "$ref" in schema:
            found = self._cross(found, [{"ref": self._resolve(schema["$ref"], pointer)}], pointer)
        for index, branch in enumerate(schema.get("allOf", ())):
            found = self._cross(found, self.parts((branch, f"{pointer}/allOf/{index}")), pointer)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                found = self._cross(found, self._branches(schema, keyword, pointer), pointer)
        return self._evaluated(schema, pointer, found)

    def all_of(self, subs: Subs) -> list[Part]:
        """Return what all of some schemas together allow."""
        found: list[Part] = [{}]
        for schema, pointer in {pointer: (schema, pointer) for schema, pointer in subs}.values():
            found = self._cross(found, self.parts((schema, pointer)), pointer)
        return found

    def expand(self, part: Part) -> Iterator[Part]:
        """Replace a reference by what it refers to; raises InvalidRequestError for a loop."""
        if "ref" not in part:
            yield part
            return
        pointer = part["ref"]
        if pointer in self._expanding:
            raise InvalidRequestError(f"`$ref` to #{pointer} refers to itself, with nothing in between.")
        self._expanding.append(pointer)
        try:
            for found in self.parts((self.target(pointer), pointer)):
                yield from self.expand(found)
        finally:
            self._expanding.pop()

    def target(self, pointer: str) -> Any:
        """Return what a pointer points to; raises InvalidRequestError."""
        found = self.root
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and name.isascii() and int(name[:9]) < len(found):
                found = found[int(name[:9])]
            else:
                raise InvalidRequestError(f"`$ref` to #{pointer[:200]} points to nothing in this schema.")
        if not isinstance(found, dict | bool):
            raise InvalidRequestError(f"`$ref` to #{pointer[:200]} points to what is no schema.")
        return found

    def pattern(self, source: str, pointer: str, is_search: bool = True) -> Pattern:
        key = f"{is_search}{source}"
        if key not in self._patterns:
            place = f"`pattern` at {pointer or '/'}"
            self._patterns[key] = read_pattern(source, self.limits, place, is_search, self.work)
        return self._patterns[key]

    def refuse(self, keyword: str, pointer: str, reason: str = "is not enforced by any compiler") -> None:
        """Raise InvalidRequestError for a keyword; without `strict`, note that it is left out."""
        if self.is_strict:
            raise InvalidRequestError(unenforced(keyword, pointer, reason))
        self.ignored[keyword] = None

    def spend(self, nodes: int) -> None:
        """Count the work; raises InvalidRequestError when merging makes it too much."""
        self._spent += nodes
        if self._spent > self.limits.max_schema_nodes:
            limit = f"max_schema_nodes is {self.limits.max_schema_nodes}"
            raise InvalidRequestError(
                f"The schema is too large once `allOf`, `anyOf` and the like are merged: {limit}."
            )

    def _others(self, schema: dict[str, Any]) -> bool:
        return any(standing(keyword) == "enforced" and keyword != "$ref" for keyword in schema)

    def _check(self, schema: dict[str, Any], pointer: str) -> None:
        if id(schema) in self._checked:
            return
        self._checked.add(id(schema))
        check_values(schema, pointer)
        for keyword, value in schema.items():
            match standing(keyword):
                case "enforced" if keyword != "format":
                    self.enforced[keyword] = None
                case "refused" if not REFUSED[keyword](value):
                    self.refuse(keyword, pointer)
                case "unknown":
                    self.refuse(keyword, pointer, "is unknown")

    def _resolve(self, reference: str, pointer: str) -> str:
        if reference != "#" and not reference.startswith("#/"):
            raise InvalidRequestError(
                f"`$ref` at {pointer or '/'} must point into this schema, with `#` or `#/...`: nothing is fetched."
            )
        found = unquote(reference[1:])
        self._follow(found)
        return found

    def _follow(self, pointer: str) -> None:
        """Raise InvalidRequestError when references lead only to each other, or to nothing."""
        seen: set[str] = set()
        while pointer not in self._followed:
            target = self.target(pointer)
            if pointer in seen:
                raise InvalidRequestError(f"`$ref` to #{pointer[:200]} refers to itself, with nothing in between.")
            seen.add(pointer)
            if not isinstance(target, dict) or "$ref" not in target or self._others(target):
                break
            self._check(target, pointer)
            if not target["$ref"].startswith("#"):
                break
            pointer = unquote(target["$ref"][1:])
        self._followed |= seen

    def _cross(self, ones: list[Part], others: list[Part], pointer: str) -> list[Part]:
        found: list[Part] = []
        for one in ones:
            for other in others:
                found += self._merged(one, other, pointer)
        return found

    def _merged(self, one: Part, other: Part, pointer: str) -> list[Part]:
        if not one or not other:
            return [one or other]
        if "ref" in one or "ref" in other:
            if one == other:
                return [one]
            ones, others = list(self.expand(one)), list(self.expand(other))
            return self._cross(ones, others, pointer)
        self.spend(1 + len(one.get("properties", ())) + len(other.get("properties", ())) + len(one.get("enum", ())))
        try:
            return [merge(one, other)]
        except ImpossibleError:
            return []
        except InseparableError as error:
            reason = "cannot be enforced beside `additionalProperties` of a schema that it is merged with"
            raise InvalidRequestError(unenforced(str(error), pointer, reason)) from None

    def _branches(self, schema: dict[str, Any], keyword: str, pointer: str) -> list[Part]:
        branches = [self.parts((one, f"{pointer}/{keyword}/{index}")) for index, one in enumerate(schema[keyword])]
        if keyword == "oneOf" and len(branches) > 1:
            expanded = [[one for part in branch for one in self.expand(part)] for branch in branches]
            if not are_disjoint(expanded, self.values_of):
                self.refuse(
                    keyword, pointer, "has branches that may hold at once, which no compiler excludes (`anyOf`?)"
                )
        return [part for branch in branches for part in branch]

    def values_of(self, part: Part, name: str) -> list[Any] | None:
        """Return the values that a required property may have; None when they are not listed."""
        if name not in part.get("required", ()):
            return None
        for schema, _ in part.get("properties", {}).get(name, ()):
            if isinstance(schema, dict) and "const" in schema:
                return [schema["const"]]
            if isinstance(schema, dict) and isinstance(schema.get("enum"), list):
                return list(schema["enum"])
        return None

    def _evaluated(self, schema: dict[str, Any], pointer: str, found: list[Part]) -> list[Part]:
        pairs = (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items"))
        for keyword, stands_for in pairs:
            if keyword in schema:
                rest = {stands_for: ((schema[keyword], f"{pointer}/{keyword}"),)}
                found = [one if stands_for in one else {**one, **rest} for part in found for one in self.expand(part)]
        return found

    def _own(self, schema: dict[str, Any], pointer: str) -> Part:
        part: Part = {keyword: schema[keyword] for keyword in COPIED if keyword in schema}
        if "type" in schema:
            names = frozenset([schema["type"]] if isinstance(schema["type"], str) else schema["type"])
            part["types"] = names - {"integer"} if "number" in names else names
        if "const" in schema:
            part["enum"] = [whole_numbers(schema["const"])]
        if "enum" in schema:
            values = list({key_of(value): whole_numbers(value) for value in schema["enum"]}.values())
            part = merge(part, {"enum": values}) if "enum" in part else {**part, "enum": values}
        if "pattern" in schema:
            part["patterns"] = (self.pattern(schema["pattern"], f"{pointer}/pattern"),)
        if "format" in schema:
            part = self._with_format(part, schema["format"], pointer)
        self._add_array(part, schema, pointer)
        self._add_object(part, schema, pointer)
        return part

    def _with_format(self, part: Part, name: str, pointer: str) -> Part:
        if name in FORMATS:
            self.enforced["format"] = None
            return merge(part, {"patterns": (self.pattern(FORMATS[name], pointer, is_search=False),)})
        if name in NUMBER_FORMATS:
            self.enforced["format"] = None
            low, high = NUMBER_FORMATS[name]
            return merge(part, {"minimum": low, "maximum": high})
        if name not in ANNOTATION_FORMATS and "string" in part.get("types", ("string",)):
            self.refuse("format", pointer, f"{name[:100]!r} is not enforced by any compiler")
        return part

    def _add_array(self, part: Part, schema: dict[str, Any], pointer: str) -> None:
        is_list = isinstance(schema.get("items"), list)
        prefix, rest = ("items", "additionalItems") if is_list else ("prefixItems", "items")
        if prefix in schema:
            part["prefixItems"] = [((one, f"{pointer}/{prefix}/{i}"),) for i, one in enumerate(schema[prefix])]
        if rest in schema:
            part["items"] = ((schema[rest], f"{pointer}/{rest}"),)

    def _add_object(self, part: Part, schema: dict[str, Any], pointer: str) -> None:
        for keyword in ("additionalProperties", "propertyNames"):
            if keyword in schema:
                part[keyword] = ((schema[keyword], f"{pointer}/{keyword}"),)
        if "properties" in schema:
            place = f"{pointer}/properties"
            part["properties"] = {name: ((one, _below(place, name)),) for name, one in schema["properties"].items()}
        if "patternProperties" in schema:
            place = f"{pointer}/patternProperties"
            part["patternProperties"] = {
                text: (self.pattern(text, place), ((one, _below(place, text)),))
                for text, one in schema["patternProperties"].items()
            }


def _below(pointer: str, name: str) -> str:
    return f"{pointer}/" + name.replace("~", "~0").replace("/", "~1")
