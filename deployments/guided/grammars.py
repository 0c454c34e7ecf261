"""Grammars of clients: EBNF as xgrammar writes it, and Lark."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from config.guided import ConstraintLimits
from deployments.errors import InvalidRequestError
from deployments.guided.regexes import read_pattern

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<class>\[(?:[^\]\\\n]|\\.)*\])"""
    r"""|(?P<assign>::=)|(?P<name>[A-Za-z_][A-Za-z0-9_.\-]*)|(?P<sign>[()|*+?])|(?P<count>\{\s*\d+\s*(?:,\s*\d*\s*)?\})""",
    re.VERBOSE,
)
_COMMENT = re.compile(r"(#|//).*$")
_LARK_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\\n]|\\.)*+"i?)|//[^\n]*|\#[^\n]*|/(?P<regex>(?:[^/\\\n]|\\.)++)/(?P<flags>[a-z]*)"""
    r"""|%(?P<order>\w+)|(?P<open>[(\[])|(?P<close>[)\]])|(?P<fault>["/])""",
    re.VERBOSE,
)
_LARK_RULE = re.compile(r"^[ \t]*[?!]{0,2}(?P<name>[A-Za-z_][A-Za-z0-9_]*+)[^\n:\"/|]*+:", re.MULTILINE)
LARK_ORDERS = frozenset({"ignore", "import", "declare"})

Token = tuple[str, str]


@dataclass(slots=True)
class _Rule:
    tokens: list[Token]
    uses: set[str]


def is_likely_lark(grammar: str) -> bool:
    """Tell Lark from EBNF by the same rule as vLLM: EBNF has `::=` outside of comments."""
    lines = (_COMMENT.sub("", line).strip() for line in grammar.split("\n"))
    return bool(grammar) and not any("::=" in line for line in lines)


def check_lark(grammar: str, limits: ConstraintLimits) -> None:
    """Raise InvalidRequestError for what is seen without a compiler."""
    names = [found["name"] for found in _LARK_RULE.finditer(grammar)]
    if names.count("start") != 1:
        raise InvalidRequestError("A Lark grammar needs one rule `start`, and EBNF needs `root ::= ...`.")
    if len(names) > limits.max_rules:
        raise InvalidRequestError(f"The grammar has {len(names)} rules: max_rules is {limits.max_rules}.")
    depth = 0
    for found in _LARK_TOKEN.finditer(grammar):
        _check_lark_token(found, limits)
        depth += (found["open"] is not None) - (found["close"] is not None)
        if depth > limits.max_depth:
            limit = f"max_depth is {limits.max_depth}"
            raise InvalidRequestError(f"The grammar has too many groups inside each other: {limit}.")


def _check_lark_token(found: re.Match[str], limits: ConstraintLimits) -> None:
    if found["fault"] is not None:
        raise InvalidRequestError("The grammar has a text or a regular expression that is not closed on its line.")
    if found["order"] is not None and found["order"] not in LARK_ORDERS:
        raise InvalidRequestError(f"`%{found['order'][:50]}` in a grammar is not supported.")
    if found["flags"]:
        raise InvalidRequestError("A regular expression in the grammar has flags, which are not supported.")
    if found["regex"] is not None:
        read_pattern(found["regex"], limits, "A regular expression in the grammar", is_search=False)


def check_ebnf(grammar: str, limits: ConstraintLimits) -> None:
    """Raise InvalidRequestError for what is seen without a compiler: rules that are missing, or never end."""
    rules = _rules(_tokens(grammar), limits)
    if "root" not in rules:
        raise InvalidRequestError("The grammar has no rule `root`.")
    for name, rule in rules.items():
        missing = next((used for used in rule.uses if used not in rules), None)
        if missing is not None:
            raise InvalidRequestError(f"The rule `{name[:100]}` uses `{missing[:100]}`, which is no rule.")
    trees = {name: _Tree(rule.tokens, name, limits).read() for name, rule in rules.items()}
    users: dict[str, list[str]] = {}
    for name, rule in rules.items():
        for used in rule.uses:
            users.setdefault(used, []).append(name)
    ending = _closure(trees, users, _ends)
    endless = next((name for name in rules if name not in ending), None)
    if endless is not None:
        raise InvalidRequestError(f"The rule `{endless[:100]}` never ends: each of its alternatives needs it again.")
    if "root" not in _closure(trees, users, _has_text):
        raise InvalidRequestError("The grammar allows only the empty text.")


def _tokens(grammar: str) -> list[Token]:
    tokens, at = [], 0
    while at < len(grammar):
        found = _TOKEN.match(grammar, at)
        if found is None:
            line = grammar.count("\n", 0, at) + 1
            raise InvalidRequestError(f"The grammar is no EBNF: line {line} has {grammar[at : at + 20]!r}.")
        if found.lastgroup is not None:
            tokens.append((found.lastgroup, found[0]))
        at = found.end()
    return tokens


def _rules(tokens: list[Token], limits: ConstraintLimits) -> dict[str, _Rule]:
    rules: dict[str, _Rule] = {}
    starts = [at - 1 for at, (kind, _) in enumerate(tokens) if kind == "assign"]
    if not starts or starts[0] != 0:
        raise InvalidRequestError("The grammar is no EBNF: it begins with no rule.")
    if len(starts) > limits.max_rules:
        raise InvalidRequestError(f"The grammar has {len(starts)} rules: max_rules is {limits.max_rules}.")
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        kind, name = tokens[start]
        body = tokens[start + 2 : end]
        if kind != "name" or not body:
            raise InvalidRequestError(f"The rule `{name[:100]}` has no name, or nothing in it.")
        if name in rules:
            raise InvalidRequestError(f"The rule `{name[:100]}` is there twice.")
        rules[name] = _Rule(body, {text for kind, text in body if kind == "name"})
    return rules


Tree = bool | str | tuple[str, list["Tree"]]
"""What a rule needs: a name of a rule; `any` or `all` of others; True: characters. False: nothing is needed."""


class _Tree:
    """Reads the body of one rule."""

    def __init__(self, tokens: list[Token], rule: str, limits: ConstraintLimits) -> None:
        self._tokens = tokens
        self._rule = rule[:100]
        self._limits = limits
        self._at = 0

    def read(self) -> Tree:
        tree, repetition = self._choice(0)
        if self._at < len(self._tokens):
            raise self._error(f"has {self._tokens[self._at][1]!r} where nothing may be")
        if repetition > self._limits.max_repetition:
            limit = f"max_repetition is {self._limits.max_repetition}"
            raise self._error(f"repeats too often, all repetitions inside each other multiplied: {limit}")
        return tree

    def _error(self, reason: str) -> InvalidRequestError:
        return InvalidRequestError(f"The rule `{self._rule}` {reason}.")

    def _choice(self, depth: int) -> tuple[Tree, int]:
        if depth > self._limits.max_depth:
            raise self._error(f"has too many groups inside each other: max_depth is {self._limits.max_depth}")
        options: list[Tree] = []
        most = 1
        while True:
            option, repetition = self._sequence(depth)
            options.append(option)
            most = max(most, repetition)
            if self._at >= len(self._tokens) or self._tokens[self._at][1] != "|":
                break
            self._at += 1
        if len(options) > self._limits.max_choices:
            raise self._error(f"has {len(options)} alternatives: max_choices is {self._limits.max_choices}")
        return ("any", options), most

    def _sequence(self, depth: int) -> tuple[Tree, int]:
        parts: list[Tree] = []
        most = 1
        while self._at < len(self._tokens) and self._tokens[self._at] not in (("sign", "|"), ("sign", ")")):
            part, repetition = self._item(depth)
            parts.append(part)
            most = max(most, repetition)
        if not parts:
            raise self._error('has an alternative with nothing in it (`""` is the empty text)')
        return ("all", parts), most

    def _item(self, depth: int) -> tuple[Tree, int]:
        kind, text = self._tokens[self._at]
        self._at += 1
        tree: Tree = text if kind == "name" else text != '""'
        repetition = 1
        if text == "(" and kind == "sign":
            tree, repetition = self._choice(depth + 1)
            if self._at >= len(self._tokens) or self._tokens[self._at] != ("sign", ")"):
                raise self._error("does not close a group")
            self._at += 1
        elif kind not in ("string", "class", "name"):
            raise self._error(f"has {text!r} where nothing is repeated")
        least, count = self._counts()
        return (tree if least else ("optional", [tree])), repetition * count

    def _counts(self) -> tuple[int, int]:
        if self._at >= len(self._tokens):
            return 1, 1
        kind, text = self._tokens[self._at]
        if kind == "sign" and text in "*+?":
            self._at += 1
            return int(text == "+"), 1
        if kind != "count":
            return 1, 1
        self._at += 1
        numbers = [int(number[:16]) for number in re.findall(r"\d+", text)]
        if numbers[0] > numbers[-1]:
            raise self._error("repeats at least more often than at most")
        return numbers[0], max(*numbers, 1)


def _ends(tree: Tree, ending: set[str]) -> bool:
    if isinstance(tree, tuple):
        kind, inner = tree
        return kind == "optional" or (any if kind == "any" else all)(_ends(one, ending) for one in inner)
    return tree in ending if isinstance(tree, str) else True


def _has_text(tree: Tree, found: set[str]) -> bool:
    if isinstance(tree, tuple):
        return any(_has_text(one, found) for one in tree[1])
    return tree in found if isinstance(tree, str) else tree


def _closure(trees: dict[str, Tree], users: dict[str, list[str]], holds: Callable[[Tree, set[str]], bool]) -> set[str]:
    """Return the rules for which something holds, given the rules for which it does."""
    found: set[str] = set()
    waiting = list(trees)
    while waiting:
        name = waiting.pop()
        if name not in found and holds(trees[name], found):
            found.add(name)
            waiting += users.get(name, ())
    return found
