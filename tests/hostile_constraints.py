"""Constraints that no engine may ever compile unseen, as data: what a client sends, and what becomes of it.

Large ones are made by code. `static`: refused by reading alone; the others only a compiler, or trying out, finds out.
`accepted`: odd, but fine after all.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deployments.guided_types import GrammarSpec, Kind

MEGABYTE = 2**20


@dataclass(frozen=True)
class HostileConstraint:
    id: str
    kind: Kind
    make: Callable[[], Any]
    """Makes what stands in `structured_outputs`: an object, a list, or a text."""
    words: str = ""
    """What the message says, among other things; "" for what is accepted."""
    static: bool = True
    accepted: bool = False
    in_response_format: bool = False

    @functools.cached_property
    def value(self) -> Any:
        return self.make()


def as_spec(row: HostileConstraint) -> GrammarSpec:
    text = row.value if isinstance(row.value, str) else json.dumps(row.value)
    return GrammarSpec(row.kind, text)


def as_request_fields(row: HostileConstraint) -> dict[str, Any]:
    """Return the fields that constrain a body of `/v1/chat/completions`."""
    if row.in_response_format and row.kind == "structural_tag":
        return {"response_format": row.value}
    if row.in_response_format:
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "hostile", "schema": row.value}}}
    if row.kind == "structural_tag":
        return {"structured_outputs": {"structural_tag": as_spec(row).text}}
    return {"structured_outputs": {row.kind: row.value}}


def nested(depth: int) -> Any:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(keyword: str, depth: int = 40) -> Any:
    definitions = {f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2, "title": "t"} for i in range(depth)}
    return {"$defs": definitions | {f"d{depth}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


def distributing(branches: int = 10, factors: int = 8) -> Any:
    """Have `allOf` of `anyOf`s that multiply out."""
    one = [{"type": "object", "properties": {f"p{i}": {"type": "integer"}}} for i in range(branches)]
    return {"allOf": [{"anyOf": one} for _ in range(factors)]}


def properties_doubling(depth: int = 30) -> Any:
    definitions: dict[str, Any] = {"d0": {"type": "integer"}}
    for i in range(1, depth):
        inner = {"$ref": f"#/$defs/d{i - 1}"}
        definitions[f"d{i}"] = {"type": "object", "properties": {"a": inner, "b": inner}}
    return {"$defs": definitions, "$ref": f"#/$defs/d{depth - 1}"}


def optional_properties(number: int) -> Any:
    return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(number)}}


def legacy_tag(schema: Any, **fields: Any) -> Any:
    structure = {"begin": "<f>", "schema": schema, "end": "</f>"} | fields
    return {"structures": [structure], "triggers": ["<f"]}


def tag(content: Any) -> Any:
    inner = {"type": "tag", "begin": "<f>", "content": content, "end": "</f>"}
    return {"type": "structural_tag", "format": {"type": "triggered_tags", "triggers": ["<f"], "tags": [inner]}}


def json_row(name: str, schema: Any, words: str = "", **fields: Any) -> HostileConstraint:
    return HostileConstraint(name, "json", lambda: schema, words, accepted=not words, **fields)


def regex_row(name: str, regex: str, words: str = "", **fields: Any) -> HostileConstraint:
    return HostileConstraint(name, "regex", lambda: regex, words, accepted=not words, **fields)


def grammar_row(name: str, grammar: str, words: str = "", **fields: Any) -> HostileConstraint:
    return HostileConstraint(name, "grammar", lambda: grammar, words, accepted=not words, **fields)


def tag_row(name: str, value: Any, words: str = "", **fields: Any) -> HostileConstraint:
    return HostileConstraint(name, "structural_tag", lambda: value, words, accepted=not words, **fields)


LOOP = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
ENDLESS = {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}}}
ENDLESS["$defs"]["a"]["required"] = ["a"]  # type: ignore[index]
STRING, OBJECT, ARRAY = {"type": "string"}, {"type": "object"}, {"type": "array"}

SCHEMAS = [
    json_row("not-json", "{", "no JSON"),
    json_row("not-a-schema", "[]", "A JSON Schema is"),
    json_row("no-schema-at-all", "", "no JSON"),
    json_row("name-twice", '{"type": "string", "type": "integer"}', "'type' twice"),
    json_row("nan", '{"minimum": NaN}', "NaN"),
    json_row("infinity", '{"maximum": -Infinity}', "-Infinity"),
    json_row("infinite-float", '{"maximum": 1e999}', "too large a number"),
    json_row("ten-thousand-digits", '{"minimum": ' + "9" * 10_000 + "}", "too many digits"),
    json_row("lone-surrogate", '{"const": "\\ud800"}', "half a character"),
    json_row("nul-in-pattern", {**STRING, "pattern": "a\0b"}, "NUL"),
    json_row("nul-in-a-name", {**OBJECT, "properties": {"a\0": {}}}, "NUL"),
    json_row("ref-to-itself", {"$ref": "#"}, "refers to itself"),
    json_row("ref-loop", LOOP, "refers to itself", in_response_format=True),
    json_row("ref-loop-in-anyof", {"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "refers to itself"),
    json_row("ref-loop-in-allof", {"allOf": [{"$ref": "#"}], **OBJECT}, "refers to itself"),
    json_row("ref-that-never-ends", ENDLESS, "no JSON value ends"),
    json_row("ref-remote", {"$ref": "http://169.254.169.254/latest"}, "nothing is fetched", in_response_format=True),
    json_row("ref-file", {"$ref": "file:///etc/passwd"}, "nothing is fetched"),
    json_row("ref-anchor", {"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}}, "must point into this schema"),
    json_row("ref-to-nothing", {"$ref": "#/$defs/a"}, "points to nothing"),
    json_row("ref-to-no-schema", {"$ref": "#/title", "title": "a"}, "points to what is no schema"),
    json_row("ref-not-a-text", {"$ref": 1}, "`$ref` at / must be a string"),
    json_row("dynamic-ref", {"$dynamicRef": "#a"}, "`$dynamicRef` at / is not enforced"),
    json_row("negative-length", {**STRING, "minLength": -1}, "`minLength` at / must be"),
    json_row("fractional-length", {**STRING, "maxLength": 1.5}, "`maxLength` at / must be"),
    json_row("lengths-backwards", {**STRING, "minLength": 2, "maxLength": 1}, "larger than `maxLength`"),
    json_row("items-backwards", {**ARRAY, "minItems": 2, "maxItems": 1}, "larger than `maxItems`"),
    json_row("bounds-backwards", {"type": "integer", "minimum": 2, "maximum": 1}, "larger than `maximum`"),
    json_row("no-room-between", {"exclusiveMinimum": 1, "exclusiveMaximum": 2, "type": "integer"}, "No JSON value"),
    json_row("bool-as-bound", {"type": "integer", "minimum": 1, "exclusiveMinimum": True}, "must be a number"),
    json_row("multiple-of-0", {"type": "integer", "multipleOf": 0}, "must be a number above 0"),
    json_row("multiple-of-number", {"type": "number", "multipleOf": 0.01, "maximum": -1}, "`multipleOf`"),
    json_row("anyof-empty", {"anyOf": []}, "`anyOf` at / must be"),
    json_row("enum-empty", {"enum": []}, "`enum` at / must be", in_response_format=True),
    json_row("type-unknown", {"type": "any"}, "`type` at / must be"),
    json_row("type-empty", {"type": []}, "`type` at / must be"),
    json_row("properties-a-list", {"properties": []}, "`properties` at / must be"),
    json_row("required-a-text", {"required": "a"}, "`required` at / must be"),
    json_row("false", "false", "No JSON value"),
    json_row("false-item-needed", {**ARRAY, "items": False, "minItems": 1}, "No JSON value"),
    json_row("false-property-needed", {"properties": {"a": False}, "required": ["a"]}, "No JSON value"),
    json_row("contradictory-allof", {"allOf": [STRING, {"type": "integer"}]}, "No JSON value"),
    json_row("const-against-minimum", {"const": 5, "minimum": 7}, "No JSON value"),
    json_row(
        "uniqueitems", {"properties": {"tags": {**ARRAY, "uniqueItems": True}}}, "`uniqueItems` at /properties/tags"
    ),
    json_row("not", {"not": STRING}, "`not` at / is not enforced", in_response_format=True),
    json_row("if", {"if": STRING, "then": {"minLength": 1}}, "`if` at / is not enforced"),
    json_row("contains", {**ARRAY, "contains": STRING}, "`contains` at / is not enforced"),
    json_row("dependent", {**OBJECT, "dependentRequired": {"a": ["b"]}}, "`dependentRequired` at /"),
    json_row("oneof-that-overlaps", {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "`oneOf` at /"),
    json_row("format-unknown", {**STRING, "format": "regex"}, "`format` at / 'regex'"),
    json_row("keyword-unknown", {"minimun": 1}, "`minimun` at / is unknown"),
    json_row("names-that-may-repeat", {**OBJECT, "minProperties": 2}, "`minProperties` at /"),
    json_row(
        "no-compiler-does-both", {**OBJECT, "properties": {"a": {**STRING, "maxLength": 3}}, "minProperties": 1}, "`"
    ),
    json_row("depth-10000", "[" * 10_000, "max_depth is 64"),
    json_row("nested-200", nested(200), "max_depth is 64"),
    json_row("nested-50", nested(50)),
    json_row("max-items-huge", {**ARRAY, "items": {"type": "null"}, "maxItems": 10**9}, "max_repetition is 10000"),
    json_row("min-items-huge", {**ARRAY, "items": {"type": "null"}, "minItems": 10**9}, "max_repetition is 10000"),
    json_row("max-length-huge", {**STRING, "maxLength": 10**18}, "max_repetition is 10000"),
    json_row("allof-doubling", doubling("allOf")),
    json_row("anyof-doubling", {**doubling("anyOf"), "minimum": 1}, "max_schema_nodes is 20000"),
    json_row("anyofs-multiplied", distributing(), "max_schema_nodes is 20000"),
    json_row("refs-that-double", properties_doubling()),
    json_row("integer-bound-huge", {"type": "integer", "minimum": 10**30}, "`minimum` at /"),
    json_row("const-huge", {"const": 10**30}, "too large"),
    json_row("pattern-lookahead", {**STRING, "pattern": "^(?=a)a$"}, "lookahead"),
    json_row("pattern-backreference", {**STRING, "pattern": "^(a)\\1$"}, "backreference"),
    json_row("pattern-product", {**STRING, "pattern": "(.{0,1000}){0,1000}"}, "max_repetition is 10000"),
    json_row("pattern-and-lengths", {**STRING, "pattern": "^[a-z]*$", "minLength": 2, "maxLength": 3}),
    json_row(
        "patterns-that-overlap", {"patternProperties": {"^a": {"const": 1}, "b$": {}}}, "not disjoint", static=False
    ),
    json_row("x-guidance", {"x-guidance": {"lenient": True, "whitespace_pattern": "a*"}, **STRING}),
    HostileConstraint("properties-6000", "json", lambda: optional_properties(6000), "max_properties is 5000"),
    HostileConstraint("properties-500", "json", lambda: optional_properties(500), accepted=True),
    HostileConstraint("properties-3000", "json", lambda: optional_properties(3000), "compilation.", static=False),
    HostileConstraint(
        "enum-2-mb", "json", lambda: {"enum": [f"{i:0200}" for i in range(10_000)]}, "max_bytes is 524288"
    ),
    HostileConstraint("enum-50000", "json", lambda: {"enum": list(range(50_000))}, "max_choices is 10000"),
    HostileConstraint("anyof-20000", "json", lambda: {"anyOf": [STRING] * 20_000}, "max_choices is 10000"),
    HostileConstraint("nodes-30000", "json", lambda: {"allOf": [{}] * 30_000}, "max_schema_nodes is 20000"),
]

REGEXES = [
    regex_row("regex-empty", "", "empty"),
    regex_row("regex-of-nothing", "^$", "only the empty text"),
    regex_row("regex-product", "(.{0,1000}){0,1000}", "max_repetition is 10000"),
    regex_row("regex-product-nested", "((a{99}){99}){99}", "max_repetition is 10000"),
    regex_row("regex-count-huge", "a{1000000000}", "max_repetition is 10000"),
    regex_row("regex-count-backwards", "a{3,2}", "at least more often"),
    regex_row("regex-trailing-backslash", "a\\", "ends too early"),
    regex_row("regex-open-group", "(a", "does not close"),
    regex_row("regex-open-class", "[a", "ends too early"),
    regex_row("regex-class-empty", "[]", "empty character class"),
    regex_row("regex-class-of-nothing", "[^\\s\\S]", "matches no text"),
    regex_row("regex-lookahead", "(?!a)b", "lookahead"),
    regex_row("regex-lookbehind", "(?<=a)b", "lookbehind"),
    regex_row("regex-backreference", "(a)\\1", "backreference"),
    regex_row("regex-word-boundary", "\\ba", "`\\b`"),
    regex_row("regex-anchor-inside", "a^b", "where no text begins"),
    regex_row("regex-flags", "(?i)a", "flags"),
    regex_row("regex-two-repetitions", "a**", "two repetitions"),
    regex_row("regex-nul", "a\0b", "NUL"),
    regex_row("regex-groups-1000", "(" * 1000 + "a" + ")" * 1000, "max_depth is 64"),
    regex_row("regex-alternatives-50000", "|".join(map(str, range(50_000))), "max_regex_bytes is 8192"),
    regex_row("regex-of-50000", "a" * 50_000, "max_regex_bytes is 8192"),
    regex_row("regex-redos", "(a+)+b"),
    regex_row("regex-redos-alternatives", "(a|a)*b"),
    regex_row("regex-unicode-classes", "".join(f"[\\u{i:04x}-\\u{i + 99:04x}]" for i in range(0x3400, 0x9000, 500))),
    regex_row("regex-exponential-dfa", "(a|b)*a" + "(a|b)" * 40 + "c"),
]

GRAMMARS = [
    grammar_row("grammar-empty", " ", "empty"),
    grammar_row("grammar-of-words", "this is no grammar", "needs one rule `start`"),
    grammar_row("grammar-without-root", 'a ::= "a"', "no rule `root`"),
    grammar_row("grammar-two-roots", 'root ::= "a"\nroot ::= "b"', "`root` is there twice"),
    grammar_row("grammar-empty-body", "root ::= ", "nothing in it"),
    grammar_row("grammar-only-empty", 'root ::= ""', "only the empty text"),
    grammar_row("grammar-left-recursion", 'root ::= root "a"', "`root` never ends"),
    grammar_row("grammar-loop", "root ::= a\na ::= b\nb ::= a", "never ends"),
    grammar_row("grammar-undefined", 'root ::= "a" b', "`b`, which is no rule"),
    grammar_row("grammar-open-group", 'root ::= ("a"', "does not close a group"),
    grammar_row("grammar-open-text", 'root ::= "a', "no EBNF"),
    grammar_row("grammar-product", 'root ::= (("a"{100}){100}){100}', "max_repetition is 10000"),
    grammar_row("grammar-groups-1000", "root ::= " + "(" * 1000 + '"a"' + ")" * 1000, "max_depth is 64"),
    grammar_row("grammar-rules-6000", "\n".join(f'r{i} ::= "a"' for i in range(6000)), "max_rules is 5000"),
    grammar_row(
        "grammar-doubling",
        "root ::= r0\n" + "\n".join(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(20)) + '\nr20 ::= "a"',
    ),
    grammar_row("grammar-ambiguous", 'root ::= root root | "a"'),
    grammar_row("lark-json", 'start: %json {"type": "object"}', "`%json`"),
    grammar_row("lark-lookahead", "start: /(?=a)a/", "lookahead"),
    grammar_row("lark-two-starts", 'start: "a"\nstart: "b"', "one rule `start`"),
]

CHOICES = [
    HostileConstraint("choice-empty", "choice", list, "`choice` must be"),
    HostileConstraint("choice-empty-text", "choice", lambda: [""], "empty text"),
    HostileConstraint("choice-twice", "choice", lambda: ["a", "a"], "twice"),
    HostileConstraint("choice-of-numbers", "choice", lambda: [1, 2], "`choice` must be"),
    HostileConstraint("choice-100000", "choice", lambda: [f"{i}" for i in range(100_000)], "max_"),
    HostileConstraint("choice-nul", "choice", lambda: ["a\0b"], "NUL"),
    HostileConstraint(
        "choice-odd", "choice", lambda: ['"', "\\", "\n", "\x01\x7f", "é😀", '" | root', "#"], accepted=True
    ),
]

TAGS = [
    tag_row("tag-not-json", "{", "no JSON"),
    tag_row("tag-a-list", "[]", "must be an object"),
    tag_row("tag-without-format", {"type": "structural_tag"}, "`format`"),
    tag_row("tag-unknown", {"type": "structural_tag", "format": {"type": "magic"}}, "'magic'", in_response_format=True),
    tag_row("tag-without-structures", {"structures": [], "triggers": ["<"]}, "/structures"),
    tag_row("tag-without-trigger", legacy_tag(STRING, begin="f"), "must begin with one of the `triggers`"),
    tag_row("tag-empty-trigger", {**legacy_tag(STRING), "triggers": [""]}, "/triggers"),
    tag_row("tag-bad-schema", legacy_tag({"type": "any"}), "`type` at / must be"),
    tag_row("tag-remote-ref", legacy_tag({"$ref": "http://x"}), "nothing is fetched"),
    tag_row("tag-uniqueitems", tag({"type": "json_schema", "json_schema": {"uniqueItems": True}}), "`uniqueItems`"),
    tag_row("tag-regex-product", tag({"type": "regex", "pattern": "(a{999}){999}"}), "max_repetition is 10000"),
    tag_row("tag-regex-empty", tag({"type": "regex", "pattern": ""}), "not empty"),
    tag_row("tag-grammar-recursive", tag({"type": "grammar", "grammar": "root ::= root"}), "never ends"),
    tag_row(
        "tag-repeat-huge",
        tag({"type": "repeat", "min": 0, "max": 10**9, "content": {"type": "any_text"}}),
        "max_repetition is 10000",
    ),
    tag_row(
        "tag-repeat-backwards", tag({"type": "repeat", "min": 2, "max": 1, "content": {"type": "any_text"}}), "min"
    ),
    tag_row("tag-max-length", legacy_tag({**OBJECT, "properties": {"a": {**STRING, "maxLength": 5}}})),
]

CONSTRAINTS = [*SCHEMAS, *REGEXES, *GRAMMARS, *CHOICES, *TAGS]
