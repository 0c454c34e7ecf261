"""The words of one shell command, read without a shell: quotes, escapes, comments, lines that go on."""

import re

from deployments.errors import CommandError, EmptyCommandError

ONLY_ONE = "only one plain command is understood, without pipes, redirections, variables or other commands"
_EXPANDED = r"`|\$[A-Za-z0-9_({?!@\#*$'\"-]"
"""What a shell replaces by something that only the machine knows where the command was written."""
_LOOKALIKES = (
    "\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_PIECE = re.compile(
    rf"""
      (?P<continued>\\[ \t]*\n)
    | \\(?P<escaped>.)
    | '(?P<single>[^']*)'
    | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
    | (?P<unfinished>['"\\])
    | (?P<blank>[ \t]+)
    | (?P<newline>\n)
    | (?P<hash>\#)
    | (?P<operator>[|&;<>()]+ | {_EXPANDED})
    | (?P<lookalike>[{_LOOKALIKES}])
    | (?P<plain>[^\\'"\ \t\n\#|&;<>()`${_LOOKALIKES}]+ | \$)
    """,
    re.VERBOSE | re.DOTALL,
)
_IN_DOUBLE_QUOTES = re.compile(rf"\\(?P<escaped>[\"\\$`\n]) | (?P<operator>{_EXPANDED})", re.VERBOSE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_DASHES = "\u2013\u2014\u2212"


def split_words(command: str) -> list[str]:
    """Return the words of one command, as a POSIX shell would.

    A line that begins with `-` goes on with the command although the backslash before it was lost: nothing else can be
    meant. Raises EmptyCommandError when there is no word, CommandError for anything but one plain command.
    """
    command = command.replace("\r\n", "\n")
    if bad := _CONTROL.search(command):
        raise CommandError(f"the command has the character U+{ord(bad[0]):04X}, which no command line can have")
    reader = _Reader()
    position = 0
    while match := _PIECE.match(command, position):
        position = reader.take(str(match.lastgroup), match)
    words = reader.end_word()
    if not words:
        raise EmptyCommandError("the command is empty")
    return words


class _Reader:
    """Words as they come about."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._pieces: list[str] | None = None
        """Of the word that is being read; None between words."""
        self._is_new_line = False
        """The command has words, and then a line ended without a backslash."""

    def take(self, kind: str, match: re.Match[str]) -> int:
        """Read one piece; returns where the next one begins."""
        if kind == "hash" and self._pieces is None:
            end_of_line = match.string.find("\n", match.end())
            return end_of_line if end_of_line >= 0 else len(match.string)
        if kind in ("blank", "newline"):
            is_begun = bool(self.end_word())
            self._is_new_line = self._is_new_line or (kind == "newline" and is_begun)
        elif kind != "continued":
            self._add(_text_of(kind, match, self._pieces is None), match)
        return match.end()

    def end_word(self) -> list[str]:
        """End the word that is being read, if there is one; returns all words so far."""
        if self._pieces is not None:
            self._words.append("".join(self._pieces))
        self._pieces = None
        return self._words

    def _add(self, text: str, match: re.Match[str]) -> None:
        if self._pieces is None:
            if self._is_new_line and not text.startswith("-"):
                line = match.string.count("\n", 0, match.start()) + 1
                raise CommandError(f"line {line} begins another command; {ONLY_ONE}")
            self._is_new_line = False
            self._pieces = []
        self._pieces.append(text)


def _text_of(kind: str, match: re.Match[str], is_first: bool) -> str:
    text = str(match[kind])
    if kind == "operator":
        raise CommandError(f"`{text}` outside quotes; {ONLY_ONE}")
    if kind == "unfinished":
        what = "escape" if text == "\\" else f"quotation (no second {text})"
        raise CommandError(f"unterminated {what}, begun at character {match.start() + 1}")
    if kind == "lookalike" or (kind == "plain" and is_first and text[0] in _DASHES):
        raise CommandError(f"`{text[0]}` (U+{ord(text[0]):04X}) only looks like a quote, a dash or a space")
    return _IN_DOUBLE_QUOTES.sub(_unescape, text) if kind == "double" else text


def _unescape(match: re.Match[str]) -> str:
    if match["operator"]:
        raise CommandError(f"`{match['operator']}` inside double quotes; {ONLY_ONE}")
    return "" if match["escaped"] == "\n" else str(match["escaped"])
