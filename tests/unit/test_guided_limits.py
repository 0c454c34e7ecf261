"""Size, depth, and JSON that is the same to all who read it; regular expressions, and grammars."""

import json
from typing import Any

import pytest

from config.guided import ConstraintLimits
from deployments.errors import InvalidRequestError
from deployments.guided.grammars import check_ebnf, check_lark, is_likely_lark
from deployments.guided.limits import check_text, read_json
from deployments.guided.patterns import Work, whole, without
from deployments.guided.regexes import read_pattern

SMALL = ConstraintLimits(
    max_bytes=100, max_depth=3, max_repetition=10, max_regex_bytes=50, max_choices=3, max_rules=3, max_schema_nodes=10
)
LIMITS = ConstraintLimits()


def test_bytes_are_counted_not_characters() -> None:
    check_text("é" * 50, SMALL)
    with pytest.raises(InvalidRequestError, match="has 102 bytes: max_bytes is 100"):
        check_text("é" * 51, SMALL)


@pytest.mark.parametrize("text", ["\ud800", "a\0"])
def test_texts_are_characters(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_text(text, LIMITS)


@pytest.mark.parametrize("text", ['"[[[[[["', '["\\"[[[["]', "[[[]]]", '[[], [], [], {"a": [1]}]'])
def test_depth_is_of_brackets_outside_of_strings(text: str) -> None:
    assert read_json(text, SMALL, "It") == json.loads(text)


def test_depth_is_bounded() -> None:
    with pytest.raises(InvalidRequestError, match="max_depth is 3"):
        read_json("[[[[1]]]]", SMALL, "It")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nan",
        "NaN",
        "[Infinity]",
        "1e999",
        "9" * 500,
        '{"a": 1, "a": 2}',
        '"\\u0000"',
        '"\\udc00"',
        '{"\\u0000": 1}',
    ],
)
def test_what_readers_read_differently_is_no_json(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_json(text, LIMITS, "It")


@pytest.mark.parametrize(
    ("regex", "matching", "other"),
    [
        ("abc", "abc", "xabc"),
        ("^abc$", "abc", "abcd"),
        ("(^a$|^b$)", "b", "ab"),
        ("^(?:a|b)+$", "abab", "c"),
        ("(?P<year>[0-9]{4})-(?<m>\\d\\d)", "2024-12", "2024-1"),
        ("a{2,3}?b*?", "aaabb", "a"),
        ("[^a-c\\]]", "d", "]"),
        ("[\\u{1F600}\\x41-C]", "😀", "D"),
        ("\\w\\s\\S", "a\u00a0é", "é a"),
        (".", "é", "\n"),
        ("a|", "", "b"),
        ("[-a][a-]", "-a", "ba"),
        ("\\.\\/\\-", "./-", "a/-"),
        ("]}", "]}", "]"),
    ],
)
def test_regular_expressions(regex: str, matching: str, other: str) -> None:
    pattern = read_pattern(regex, LIMITS, "It", is_search=False)
    assert pattern.matches(matching)
    assert not pattern.matches(other)
    again = read_pattern(pattern.text, LIMITS, "It", is_search=False)
    assert again.matches(matching)
    assert not again.matches(other)


def test_patterns_of_schemas_are_searched_for() -> None:
    pattern = read_pattern("^a|b$", LIMITS, "It", is_search=True)
    assert [text for text in ("ax", "xb", "xax", "b") if pattern.matches(text)] == ["ax", "xb", "b"]


@pytest.mark.parametrize(
    ("regex", "fault"),
    [
        ("a" * 51, "max_regex_bytes is 50"),
        ("(a{4}){3}", "max_repetition is 10"),
        ("((((a))))", "max_depth is 3"),
        ("a|b|c|d", "max_choices is 3"),
    ],
)
def test_regular_expressions_have_limits(regex: str, fault: str) -> None:
    with pytest.raises(InvalidRequestError, match=fault):
        read_pattern(regex, SMALL, "It", is_search=False)


@pytest.mark.parametrize(
    ("regex", "is_safe"),
    [("[a-z]+", True), ("a.b", False), ("\\n", False), ('"', False), ('[^\\x00-\\x1f\\x7f"\\\\]', True)],
)
def test_which_patterns_need_no_escapes_in_json(regex: str, is_safe: bool) -> None:
    assert read_pattern(regex, LIMITS, "It", is_search=False).is_json_safe is is_safe


def test_comparing_texts_with_patterns_is_bounded() -> None:
    pattern = read_pattern("((a*)*)*b", SMALL, "It", is_search=False)
    with pytest.raises(InvalidRequestError, match="too many to be compared"):
        pattern.matches("a" * 1000)


def test_everything_but_some_names() -> None:
    names = ["a", "ab", "b", ""]
    pattern = whole(without(names), Work(1000))
    assert not any(pattern.matches(name) for name in names)
    assert all(pattern.matches(name) for name in ("abc", "aa", "ba", "c", "\n"))


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "a" root | "b"',
        "root ::= (digit){1,3} # a number\ndigit ::= [0-9]\n",
        'root ::= root "a" | "a"',
        'root ::= "" | "a"',
        'a ::= "x"\nroot ::= a? a* a+',
        'root ::= "a ::= b"',
        'root ::= "\\"" [^"\\\\]* "\\""',
    ],
)
def test_ebnf(grammar: str) -> None:
    assert not is_likely_lark(grammar)
    check_ebnf(grammar, LIMITS)


@pytest.mark.parametrize(
    ("grammar", "fault"),
    [
        ("root ::= " + '"a" | ' * 3 + '"a"', "max_choices is 3"),
        ("root ::= ((((" + '"a"' + "))))", "max_depth is 3"),
        ("".join(f'r{i} ::= "a"\n' for i in range(4)), "max_rules is 3"),
        ('root ::= ("a"{5}){5}', "max_repetition is 10"),
        ('root ::= "a" | | "b"', "an alternative with nothing in it"),
        ("root ::= *", "where nothing is repeated"),
        ('"a"', "begins with no rule"),
        ('root ::= "a" )', "where nothing may be"),
        ('root ::= "a"{3,2}', "at least more often"),
        ('root ::= TagDispatch(("a", b))', "no EBNF: line 1"),
        ("root ::= a\na ::= a | a a", "never ends"),
    ],
)
def test_what_is_wrong_with_ebnf(grammar: str, fault: str) -> None:
    with pytest.raises(InvalidRequestError, match=fault):
        check_ebnf(grammar, SMALL)


def test_lark() -> None:
    grammar = '// a ::= in a comment\n?start: item+ \nitem: /[a-z]+/ | "%json" // text\n%ignore " "'
    assert is_likely_lark(grammar)
    check_lark(grammar, LIMITS)


@pytest.mark.parametrize(
    ("grammar", "fault"),
    [
        ("item: 'a'", "needs one rule `start`"),
        ('start: "a"\n' + "".join(f'r{i}: "a"\n' for i in range(3)), "max_rules is 3"),
        ('start: (((("a"))))', "max_depth is 3"),
        ("start: /a/i", "flags"),
        ('start: "a', "not closed on its line"),
        ("start: /(?=a)/", "lookahead"),
        ("start: %json {}", "%json"),
        ('start: "a"\n%llguidance {}', "%llguidance"),
    ],
)
def test_what_is_wrong_with_lark(grammar: str, fault: str) -> None:
    with pytest.raises(InvalidRequestError, match=fault):
        check_lark(grammar, SMALL)


@pytest.mark.parametrize("value", [{"a": {}}, [{}], 1, "a"])
def test_any_json_is_read(value: Any) -> None:
    assert read_json(json.dumps(value), LIMITS, "It") == value
