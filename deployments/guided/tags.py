"""Structural tags: free text with constrained parts, as clients write them and as vLLM makes them of tools."""

from collections.abc import Callable
from typing import Any

from config.guided import ConstraintLimits
from deployments.errors import InvalidRequestError
from deployments.guided.documents import plan_schema
from deployments.guided.grammars import check_ebnf
from deployments.guided.limits import read_json
from deployments.guided.regexes import read_pattern

STYLES = frozenset(
    "json qwen_xml minimax_xml minimax_m3_xml deepseek_xml glm_xml cohere_xml kimi_k3_xml deepseek_v4_1_xml".split()
)
"""How xgrammar 0.2.8 writes the values of a schema."""

INNER = {
    "sequence": "elements",
    "or": "elements",
    "optional": "content",
    "plus": "content",
    "star": "content",
    "repeat": "content",
    "tag": "content",
    "triggered_tags": "tags",
    "token_triggered_tags": "tags",
    "tags_with_separator": "tags",
}
"""Which field of a format has the formats in it."""

PLAIN = frozenset({"any_text", "token", "exclude_token", "any_tokens"})


class TagReader:
    """Checks a structural tag, and writes its schemas and regular expressions anew."""

    def __init__(self, limits: ConstraintLimits, is_strict: bool) -> None:
        self.limits = limits
        self.is_strict = is_strict
        self.enforced: dict[str, None] = {}
        self.ignored: dict[str, None] = {}
        self._num_formats = 0

    def read(self, text: str) -> dict[str, Any]:
        """Return what xgrammar is given; raises InvalidRequestError."""
        tag = read_json(text, self.limits, "The structural tag")
        if not isinstance(tag, dict):
            raise _fault("", "must be an object")
        if "structures" in tag:
            return self._older(tag)
        if tag.get("type", "structural_tag") != "structural_tag" or "format" not in tag:
            raise _fault("", 'must have `type` "structural_tag" and a `format`')
        return {"type": "structural_tag", "format": self._format(tag["format"], "/format")}

    def _older(self, tag: dict[str, Any]) -> dict[str, Any]:
        structures, triggers = tag["structures"], tag.get("triggers")
        if not isinstance(structures, list) or not structures:
            raise _fault("/structures", "must be a list that is not empty")
        if not _is_filled_texts(triggers):
            raise _fault("/triggers", "must be a list of strings that are not empty")
        return {
            "structures": [self._structure(one, triggers, i) for i, one in enumerate(structures)],
            "triggers": triggers,
        }

    def _structure(self, one: Any, triggers: Any, index: int) -> dict[str, Any]:
        place = f"/structures/{index}"
        if not isinstance(one, dict) or not isinstance(one.get("begin"), str) or not isinstance(one.get("end"), str):
            raise _fault(place, "must have `begin` and `end`, both strings")
        if "schema" not in one:
            raise _fault(place, "must have a `schema`")
        _check_trigger(one["begin"], triggers, place)
        schema = one["schema"]
        if isinstance(schema, str):
            schema = read_json(schema, self.limits, f"The schema at {place}")
        return {"begin": one["begin"], "schema": self._schema(schema, f"{place}/schema"), "end": one["end"]}

    def _format(self, found: Any, place: str) -> dict[str, Any]:
        self._num_formats += 1
        if self._num_formats > self.limits.max_schema_nodes:
            limit = f"max_schema_nodes is {self.limits.max_schema_nodes}"
            raise InvalidRequestError(f"The structural tag has too many formats: {limit}.")
        if not isinstance(found, dict) or not isinstance(found.get("type"), str):
            raise _fault(place, "must be an object with a `type`")
        kind = found["type"]
        if kind in INNER:
            return self._with_inner(found, kind, INNER[kind], place)
        if kind in ("dispatch", "token_dispatch"):
            return self._dispatch(found, place)
        leaf: Callable[[dict[str, Any], str], dict[str, Any]] | None = {
            "json_schema": self._json_schema,
            "qwen_xml_parameter": self._json_schema,
            "regex": self._regex,
            "grammar": self._grammar,
            "const_string": self._text,
            **dict.fromkeys(PLAIN, lambda one, _: one),
        }.get(kind)
        if leaf is None:
            raise _fault(place, f"has an unknown `type`, {kind[:100]!r}")
        return leaf(found, place)

    def _with_inner(self, found: dict[str, Any], kind: str, field: str, place: str) -> dict[str, Any]:
        inner = found.get(field)
        if field == "content":
            _check_tag(found, kind, place, self.limits)
            return {**found, field: self._format(inner, f"{place}/{field}")}
        if not isinstance(inner, list) or not inner:
            raise _fault(f"{place}/{field}", "must be a list that is not empty")
        if len(inner) > self.limits.max_choices:
            raise _fault(f"{place}/{field}", f"has {len(inner)} formats: max_choices is {self.limits.max_choices}")
        made = [self._format(self._as_tag(one, field), f"{place}/{field}/{i}") for i, one in enumerate(inner)]
        if kind == "triggered_tags":
            triggers = found.get("triggers")
            if not _is_filled_texts(triggers):
                raise _fault(f"{place}/triggers", "must be a list of strings that are not empty")
            for index, one in enumerate(made):
                _check_trigger(one.get("begin"), triggers, f"{place}/tags/{index}")
        return {**found, field: made}

    def _as_tag(self, one: Any, field: str) -> Any:
        # Among tags, `type` may be left out.
        return {"type": "tag", **one} if field == "tags" and isinstance(one, dict) else one

    def _dispatch(self, found: dict[str, Any], place: str) -> dict[str, Any]:
        rules = found.get("rules")
        if not isinstance(rules, list) or not rules or not all(isinstance(r, list) and len(r) == 2 for r in rules):
            raise _fault(f"{place}/rules", "must be a list of pairs that is not empty")
        return {**found, "rules": [[r[0], self._format(r[1], f"{place}/rules/{i}/1")] for i, r in enumerate(rules)]}

    def _json_schema(self, found: dict[str, Any], place: str) -> dict[str, Any]:
        if "json_schema" not in found:
            raise _fault(place, "must have a `json_schema`")
        style = found.get("style", "json")
        if style not in STYLES:
            raise _fault(f"{place}/style", f"is unknown; one of {', '.join(sorted(STYLES))}")
        if found.get("any_order") and self.is_strict:
            raise _fault(f"{place}/any_order", "leaves `required` unenforced: remove it, or set `strict` to false")
        if found.get("any_order"):
            self.ignored["required"] = None
        return {**found, "json_schema": self._schema(found["json_schema"], f"{place}/json_schema")}

    def _schema(self, schema: Any, place: str) -> Any:
        try:
            made = plan_schema(schema, self.limits, self.is_strict, is_narrow=True)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"In the structural tag, at {place}: {error.message}") from None
        self.enforced |= dict.fromkeys(made.enforced)
        self.ignored |= dict.fromkeys(made.ignored)
        return made.xgrammar

    def _regex(self, found: dict[str, Any], place: str) -> dict[str, Any]:
        source = found.get("pattern")
        if not isinstance(source, str) or not source:
            raise _fault(f"{place}/pattern", "must be a regular expression that is not empty")
        pattern = read_pattern(source, self.limits, f"The regular expression at {place}", is_search=False)
        return {**found, "pattern": pattern.text}

    def _grammar(self, found: dict[str, Any], place: str) -> dict[str, Any]:
        if not isinstance(found.get("grammar"), str):
            raise _fault(f"{place}/grammar", "must be a grammar, in EBNF")
        check_ebnf(found["grammar"], self.limits)
        return found

    def _text(self, found: dict[str, Any], place: str) -> dict[str, Any]:
        if not isinstance(found.get("value"), str):
            raise _fault(f"{place}/value", "must be a string")
        return found


def _fault(place: str, reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"The structural tag is invalid: {place or '/'} {reason}.")


def _is_filled_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one for one in value)


def _check_trigger(begin: Any, triggers: Any, place: str) -> None:
    if not isinstance(begin, str) or not any(begin.startswith(trigger) for trigger in triggers):
        raise _fault(f"{place}/begin", "must begin with one of the `triggers`")


def _check_tag(found: dict[str, Any], kind: str, place: str, limits: ConstraintLimits) -> None:
    if kind == "tag" and not {"begin", "end"} <= found.keys():
        raise _fault(place, "must have `begin` and `end`")
    if kind == "repeat":
        least, most = found.get("min"), found.get("max")
        if type(least) is not int or type(most) is not int or least < 0 or (most != -1 and most < least):
            raise _fault(place, "must have whole numbers `min` and `max`, in this order; `max` -1 is without end")
        if max(least, most) > limits.max_repetition:
            raise _fault(place, f"repeats too often: max_repetition is {limits.max_repetition}")
