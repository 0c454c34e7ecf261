"""Regular expressions as both compilers understand them: parsed, counted, and written anew in what they share.

What is accepted is what ECMAScript, Rust and Python have in common. Anchors are resolved, `\\d`, `\\w` and `.` are
spelled out as ASCII and code points, so that no dialect is left in what is written.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from config.guided import ConstraintLimits
from deployments.errors import InvalidRequestError
from deployments.guided.characters import ESCAPED, LAST_CONTROL, UNSAFE_IN_JSON, Ranges, complement, has, union


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Anchor:
    """`^` or `$`."""

    sign: str


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    options: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    part: "Node"
    least: int
    most: int | None


Node = Chars | Anchor | Sequence | Choice | Repeat

EMPTY = Sequence(())
NEVER = Chars(())


ANY = Chars(complement(()))
DOT = Chars(complement(((10, 10), (13, 13), (0x2028, 0x2029))))
ANYTHING = Repeat(ANY, 0, None)


@dataclass(slots=True)
class Work:
    """How much is left to do with the patterns of one document."""

    steps: int

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise InvalidRequestError("Names or values are too many to be compared with the patterns beside them.")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that a whole text must match."""

    node: Node
    is_json_safe: bool
    """No text that matches has a character that JSON escapes."""
    work: Work = field(compare=False)

    @property
    def text(self) -> str:
        return write(self.node)

    @property
    def anchored(self) -> str:
        """Return it as a JSON Schema has it, where patterns are searched for."""
        return f"^({self.text})$"

    def matches(self, text: str) -> bool:
        """Say whether a text matches; raises InvalidRequestError when all this takes too long."""
        return len(text) in advance(self.node, text, {0}, self.work)


def whole(node: Node, work: Work) -> Pattern:
    """Make a pattern of a node without anchors."""
    return Pattern(node, is_json_safe(node), work)


def is_json_safe(node: Node) -> bool:
    match node:
        case Chars(ranges):
            return not any(low <= unsafe[1] and unsafe[0] <= high for low, high in ranges for unsafe in UNSAFE_IN_JSON)
        case Sequence(parts) | Choice(parts):
            return all(is_json_safe(part) for part in parts)
        case Repeat(part):
            return is_json_safe(part)
    return True


def json_safe(node: Node) -> Node:
    """Leave out the characters that JSON escapes."""
    match node:
        case Chars(ranges):
            return Chars(complement(union([*complement(ranges), *UNSAFE_IN_JSON])))
        case Sequence(parts):
            return Sequence(tuple(json_safe(part) for part in parts))
        case Choice(parts):
            return Choice(tuple(json_safe(part) for part in parts))
        case Repeat(part, least, most):
            return Repeat(json_safe(part), least, most)
    return node


def to_whole(node: Node, is_search: bool) -> Node | None:
    """Resolve anchors; what has none is searched for, or must match the whole text. None: anchors in the middle."""
    return _resolve(node, is_search, is_search)


def _resolve(node: Node, left: bool, right: bool) -> Node | None:
    # left, right: whether anything may stand before and after this node.
    if isinstance(node, Choice):
        options = [_resolve(option, left, right) for option in node.options]
        return None if None in options else Choice(tuple(option for option in options if option is not None))
    parts = list(node.parts) if isinstance(node, Sequence) else [node]
    while parts and parts[0] == Anchor("^"):
        left, parts = False, parts[1:]
    while parts and parts[-1] == Anchor("$"):
        right, parts = False, parts[:-1]
    if len(parts) == 1 and isinstance(parts[0], Sequence | Choice) and has_anchor(parts[0]):
        return _resolve(parts[0], left, right)
    if any(has_anchor(part) for part in parts):
        return None
    return Sequence((*((ANYTHING,) if left else ()), *parts, *((ANYTHING,) if right else ())))


def has_anchor(node: Node) -> bool:
    match node:
        case Sequence(parts) | Choice(parts):
            return any(has_anchor(part) for part in parts)
        case Repeat(part):
            return has_anchor(part)
    return isinstance(node, Anchor)


def write(node: Node) -> str:
    """Return a regular expression that both compilers read the same way."""
    match node:
        case Chars(ranges):
            if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
                return _char(ranges[0][0])
            return "[" + "".join(_char(a) + (f"-{_char(b)}" if b > a else "") for a, b in ranges) + "]"
        case Sequence(parts):
            return "".join(f"({write(part)})" if isinstance(part, Choice) else write(part) for part in parts)
        case Choice(options):
            return "|".join(write(option) for option in options)
        case Repeat(part, least, most):
            inner = write(part) if isinstance(part, Chars) else f"({write(part)})"
            return inner + _quantifier(least, most)
    raise TypeError(node)


def _quantifier(least: int, most: int | None) -> str:
    signs: dict[tuple[int, int | None], str] = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    counted = f"{{{least}}}" if least == most else f"{{{least},{'' if most is None else most}}}"
    return signs.get((least, most), counted)


def _char(code: int) -> str:
    char = chr(code)
    if char in ESCAPED:
        return "\\" + char
    # No `\\x`: xgrammar reads as many digits as follow.
    return char if " " <= char < "\x7f" or code > LAST_CONTROL else f"\\u{code:04x}"


def advance(node: Node, text: str, starts: set[int], work: Work) -> set[int]:
    """Return where a match that begins at one of `starts` may end."""
    work.spend(1 + len(starts))
    match node:
        case Chars(ranges):
            return {at + 1 for at in starts if at < len(text) and has(ranges, ord(text[at]))}
        case Sequence(parts):
            for part in parts:
                starts = advance(part, text, starts, work) if starts else starts
            return starts
        case Choice(options):
            return set().union(*(advance(option, text, starts, work) for option in options))
        case Repeat(part, least, most):
            return _repeat(part, (least, most), text, starts, work)
    raise TypeError(node)


def _repeat(part: Node, counts: tuple[int, int | None], text: str, starts: set[int], work: Work) -> set[int]:
    least, most = counts
    for _ in range(least):
        starts = advance(part, text, starts, work)
        if not starts:
            return starts
    found, new, count = set(starts), starts, least
    while new and (most is None or count < most):
        new = advance(part, text, new, work) - found
        found |= new
        count += 1
    return found


def without(names: Iterable[str]) -> Node:
    """Return what matches every text but these."""
    rest: dict[str, set[str]] = {}
    for name in names:
        rest.setdefault(name[:1], set()).add(name[1:])
    options: list[Node] = [] if "" in rest else [EMPTY]
    heads = sorted(head for head in rest if head)
    options.append(Sequence((Chars(complement(union((ord(head), ord(head)) for head in heads))), ANYTHING)))
    options += [Sequence((Chars(((ord(head), ord(head)),)), without(rest[head]))) for head in heads]
    return Choice(tuple(options))


def largest_repetition(node: Node) -> int:
    """Return the largest product of counted repetitions inside each other."""
    match node:
        case Sequence(parts) | Choice(parts):
            return max((largest_repetition(part) for part in parts), default=1)
        case Repeat(part, least, most):
            return max(least, most or 1, 1) * largest_repetition(part)
    return 1


def most_choices(node: Node) -> int:
    match node:
        case Choice(options):
            return max(len(options), max(most_choices(option) for option in options))
        case Sequence(parts):
            return max((most_choices(part) for part in parts), default=1)
        case Repeat(part):
            return most_choices(part)
    return 1


def matches_nothing(node: Node) -> bool:
    match node:
        case Chars(ranges):
            return not ranges
        case Sequence(parts):
            return any(matches_nothing(part) for part in parts)
        case Choice(options):
            return all(matches_nothing(option) for option in options)
        case Repeat(part, least):
            return least > 0 and matches_nothing(part)
    return False


def check_size(source: str, limits: ConstraintLimits, place: str) -> None:
    if len(source.encode()) > limits.max_regex_bytes:
        limit = f"max_regex_bytes is {limits.max_regex_bytes}"
        raise InvalidRequestError(f"{place} is longer than a regular expression may be: {limit}.")


def check_counts(node: Node, limits: ConstraintLimits, place: str) -> None:
    """Raise InvalidRequestError for a regular expression that compilers take too long for."""
    if largest_repetition(node) > limits.max_repetition:
        limit = f"max_repetition is {limits.max_repetition}"
        raise InvalidRequestError(f"{place} repeats too often, all repetitions inside each other multiplied: {limit}.")
    if most_choices(node) > limits.max_choices:
        raise InvalidRequestError(f"{place} has too many alternatives: max_choices is {limits.max_choices}.")
    if matches_nothing(node):
        raise InvalidRequestError(f"{place} matches no text at all.")
