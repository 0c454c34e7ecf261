"""Read regular expressions: what is in every dialect is taken, anything else is refused by name."""

from config.guided import ConstraintLimits
from deployments.errors import InvalidRequestError
from deployments.guided.characters import (
    DIGITS,
    LAST,
    SPACE,
    SURROGATES,
    WORD,
    Ranges,
    complement,
    union,
)
from deployments.guided.patterns import (
    DOT,
    NEVER,
    Anchor,
    Chars,
    Choice,
    Node,
    Pattern,
    Repeat,
    Sequence,
    Work,
    check_counts,
    check_size,
    to_whole,
    whole,
)

SETS = {"d": DIGITS, "w": WORD, "s": SPACE}
CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11}
GROUPS = {"?=": "lookahead", "?!": "lookahead", "?<=": "lookbehind", "?<!": "lookbehind"}
DIGIT = "0123456789"


def read_pattern(
    source: str, limits: ConstraintLimits, place: str, is_search: bool, work: Work | None = None
) -> Pattern:
    """Read a regular expression; raises InvalidRequestError, which begins with `place`.

    `is_search`: without anchors, it may match anywhere in a text, as JSON Schema has it.
    """
    check_size(source, limits, place)
    node = to_whole(_Reader(source, limits, place).read(), is_search)
    if node is None:
        raise InvalidRequestError(f"{place} has `^` or `$` where no text begins or ends.")
    check_counts(node, limits, place)
    return whole(node, work or Work(limits.max_bytes))


class _Reader:
    def __init__(self, source: str, limits: ConstraintLimits, place: str) -> None:
        self.source = source
        self.limits = limits
        self.place = place
        self.at = 0
        self.depth = 0

    def read(self) -> Node:
        node = self._choice()
        if self.at < len(self.source):
            raise self._error("closes a group that is not open")
        return node

    def _error(self, reason: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self.place} is no regular expression that can be used: at {self.at}, it {reason}."
        )

    def _next(self, text: str) -> bool:
        """Go on if this comes next."""
        found = self.source.startswith(text, self.at)
        self.at += len(text) * found
        return found

    def _take(self) -> str:
        if self.at >= len(self.source):
            raise self._error("ends too early")
        self.at += 1
        return self.source[self.at - 1]

    def _choice(self) -> Node:
        options = [self._sequence()]
        while self._next("|"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self.at < len(self.source) and self.source[self.at] not in "|)":
            parts.append(self._repeated(self._atom()))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _repeated(self, part: Node) -> Node:
        counts = self._counts()
        if counts is None:
            return part
        least, most = counts
        if most is not None and least > most:
            raise self._error("repeats at least more often than at most")
        if isinstance(part, Anchor):
            raise self._error("repeats an anchor")
        self._next("?")  # which match is found first makes no difference to what may be written
        if self.at < len(self.source) and self.source[self.at] in "*+?{":
            raise self._error("has two repetitions on one another")
        return Repeat(part, least, most)

    def _counts(self) -> tuple[int, int | None] | None:
        for sign, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._next(sign):
                return counts
        if not self._next("{"):
            return None
        least = self._number()
        most = least if not self._next(",") else None if self.source.startswith("}", self.at) else self._number()
        if not self._next("}"):
            raise self._error("has a `{` that begins no repetition")
        return least, most

    def _number(self) -> int:
        start = self.at
        while self.at < len(self.source) and self.source[self.at] in DIGIT:
            self.at += 1
        if start == self.at:
            raise self._error("has a `{` that begins no repetition")
        # Any number of so many digits is over every limit; longer ones Python does not read.
        return int(self.source[start : self.at][:16])

    def _atom(self) -> Node:
        char = self._take()
        match char:
            case "(":
                return self._group()
            case "[":
                return self._class()
            case ".":
                return DOT
            case "^" | "$":
                return Anchor(char)
            case "\\":
                return self._escape()
            case "*" | "+" | "?" | "{":
                raise self._error("repeats nothing")
        return self._literal(char)

    def _literal(self, char: str) -> Chars:
        code = ord(char)
        if code == 0:
            raise self._error("has a NUL character")
        if SURROGATES[0] <= code <= SURROGATES[1]:
            raise self._error("has half a character (a lone surrogate)")
        return Chars(((code, code),))

    def _group(self) -> Node:
        self.depth += 1
        if self.depth > self.limits.max_depth:
            raise self._error(f"has too many groups inside each other: max_depth is {self.limits.max_depth}")
        for start, name in GROUPS.items():
            if self.source.startswith(start, self.at):
                raise self._error(f"has a {name}, which no compiler enforces")
        if self._next("?P<") or self._next("?<"):
            self._name()
        elif self.source.startswith("?", self.at) and not self._next("?:"):
            raise self._error("has flags or a group of another dialect")
        node = self._choice()
        if not self._next(")"):
            raise self._error("does not close a group")
        self.depth -= 1
        # A sequence of one keeps what belongs to the group together: `(ab)*`, `(^a)`.
        return Sequence((node,))

    def _name(self) -> None:
        end = self.source.find(">", self.at)
        if end < 0 or not self.source[self.at : end].isidentifier():
            raise self._error("has a group without a name")
        self.at = end + 1

    def _escape(self) -> Node:
        char = self._take()
        if char in "123456789k":
            raise self._error("has a backreference, which no compiler enforces")
        if char in "bBAZzG":
            raise self._error(f"has `\\{char}`, which no compiler enforces")
        return Chars(self._set(char) or self._code_of(char))

    def _set(self, char: str) -> Ranges | None:
        found = SETS.get(char.lower())
        return complement(found) if found and char.isupper() else found

    def _code_of(self, char: str) -> Ranges:
        if char in CONTROLS:
            code = CONTROLS[char]
        elif char in "xu":
            code = self._hexadecimal(2 if char == "x" else 4)
        elif char.isalnum() or not char.isascii() or char < " ":
            raise self._error(f"has `\\{char}`, which is not in every dialect")
        else:
            code = ord(char)
        if not 0 < code <= LAST or SURROGATES[0] <= code <= SURROGATES[1]:
            raise self._error("has a NUL, or half a character, or none at all")
        return ((code, code),)

    def _hexadecimal(self, length: int) -> int:
        digits = self.source[self.at : self.at + length]
        if self._next("{"):
            end = self.source.find("}", self.at)
            digits = self.source[self.at : end] if self.at < end <= self.at + 6 else ""
            self.at = end + 1
        else:
            self.at += length
            digits = digits if len(digits) == length else ""
        if not digits or not digits.isascii() or not digits.isalnum():
            raise self._error("has an escape without its hexadecimal digits")
        try:
            return int(digits, 16)
        except ValueError:
            raise self._error("has an escape without its hexadecimal digits") from None

    def _class(self) -> Node:
        is_negated = self._next("^")
        found: list[tuple[int, int]] = []
        while not self._next("]"):
            low = self._member()
            is_range = self.source.startswith("-", self.at) and not self.source.startswith("-]", self.at)
            high = self._member() if is_range and self._next("-") else low
            found += self._between(low, high) if is_range else low
        if not found:
            raise self._error("has an empty character class")
        ranges = union(found)
        return Chars(complement(ranges)) if is_negated else Chars(ranges) if ranges else NEVER

    def _between(self, low: Ranges, high: Ranges) -> Ranges:
        (start, _), (end, last) = low[0], high[0]
        if len(low) > 1 or len(high) > 1 or end != last or low[0][1] != start or end < start:
            raise self._error("has a range of characters that runs backwards, or from or to a set")
        return complement(complement(((start, end),)))  # without surrogates

    def _member(self) -> Ranges:
        char = self._take()
        if char == "\\":
            char = self._take()
            if char in "xu" and self._next("00" if char == "x" else "0000"):
                return ((0, 0),)  # NUL as a bound: `[^\x00-\x1f]`
            return self._set(char) or self._code_of(char)
        if char == "[" and self.source.startswith((":", ".", "="), self.at):
            raise self._error("has a character class of another dialect")
        if char in "&-~" and self.source.startswith(char, self.at):
            raise self._error(f"has `{char * 2}` in a class, which is an operator in some dialects")
        return self._literal(char).ranges
