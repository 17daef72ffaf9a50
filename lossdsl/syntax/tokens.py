"""The words of a text, found without a grammar.

Where the grammar refuses a text, this reading of it says why; the formatter takes comments from it. Nothing is refused
here: what is no word of the language is a token of kind `bad`, a string without an end one of kind `open`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lossdsl.syntax.source import Source, Span

DECLARATIONS = ("use", "record", "def", "loss")
OPENING = {"(": ")", "[": "]"}
CLOSING = {")": "(", "]": "["}

_TOKEN = re.compile(
    r"""
      (?P<string>"{3}[\s\S]*?"{3}|"(?!"")[^"\n]*")
    | (?P<open>"{3}[\s\S]*|"[^\n]*)
    | (?P<comment>\#[^\n]*)
    | (?P<newline>\r?\n)
    | (?P<space>[ \t\f]+|\\[ \t]*\r?\n)
    | (?P<number>[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<op>->|:=|==|!=|<=|>=|//|[-+*/%^<>=()\[\],:;.|~])
    | (?P<bad>[\s\S])
    """,
    re.VERBOSE,
)

# The first line of a declaration, strictly enough to be recognised inside a docstring that was never closed.
_HEADER = re.compile(r"^(?:(?:loss|def)\s+\w+\s*\(|record\s+\w+[^\n]*:[ \t]*$|use\s+[\w.]+\s*:)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Token:
    """One word.

    line: the line that it starts on; depth: how many brackets are open before it; logical: the number of its
    logical line, which goes on inside brackets; first: nothing but blanks stands before it on its line.
    """

    kind: str
    text: str
    start: int
    end: int
    line: int
    depth: int
    logical: int
    first: bool

    def span(self, source: Source) -> Span:
        return Span(source, self.start, self.end)

    @property
    def is_comment(self) -> bool:
        return self.kind == "comment"


def scan(text: str, start: int = 0, end: int | None = None) -> list[Token]:
    """The tokens of a text, comments among them, without blanks and line ends."""
    return list(_scan(text, start, len(text) if end is None else end))


def _scan(text: str, start: int, end: int) -> Iterator[Token]:
    unclosed = _unclosed_docstring(text, start, end)
    line = text.count("\n", 0, start) + 1
    depth = logical = 0
    first = True
    begun = False
    at = start
    while at < end:
        match = _TOKEN.match(text, at, end)
        assert match is not None
        kind = match.lastgroup or "bad"
        stop = match.end()
        if unclosed is not None and at == unclosed[0]:
            kind, stop = "open", unclosed[1]
        word = text[at:stop]
        if kind == "newline":
            line += 1
            first = True
            if depth == 0 and begun:
                logical += 1
                begun = False
        elif kind == "space":
            line += word.count("\n")
        else:
            yield Token(kind, word, at, stop, line, depth, logical, first)
            line += word.count("\n")
            first = False
            begun = begun or kind != "comment"
            if word in OPENING:
                depth += 1
            elif word in CLOSING:
                depth = max(depth - 1, 0)
            elif kind == "open" and "\n" in word:
                first, depth, begun = True, 0, False
                logical += 1
        at = stop


def _unclosed_docstring(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Where a docstring without an end begins and how far it may reach; it swallows the beginning of the next one."""
    marks = [m.start() for m in re.finditer('"""', text[start:end])]
    if len(marks) % 2 == 0:
        return None
    for k in range(0, len(marks) - 1, 2):
        inside = _HEADER.search(text, start + marks[k] + 3, start + marks[k + 1])
        if inside is not None:
            return start + marks[k], inside.start()
    at = start + marks[-1]
    after = _HEADER.search(text, at + 3, end)
    return at, end if after is None else after.start()


@dataclass(frozen=True)
class Part:
    """A declaration, or what stands before, between and after declarations."""

    start: int
    end: int
    tokens: tuple[Token, ...]

    @property
    def keyword(self) -> str | None:
        """use, record, def or loss, or None for a part that is no declaration."""
        return self.tokens[0].text if self.tokens and self.tokens[0].text in DECLARATIONS else None

    @property
    def names(self) -> frozenset[str]:
        """The names that it declares, as far as can be seen."""
        words = [t.text for t in self.tokens]
        if words[:1] in (["use"], ["from"], ["import"]):
            colon = words.index(":") if ":" in words else 1
            return frozenset(t.text for t in self.tokens[colon:] if t.kind == "name")
        return (
            frozenset(words[1:2])
            if self.keyword and len(self.tokens) > 1 and self.tokens[1].kind == "name"
            else frozenset()
        )


def split(source: Source) -> list[Part]:
    """The parts of a text.

    A new one begins with every line at the left margin that no bracket or docstring encloses, and with every declaration even there.
    """
    words = [t for t in scan(source.text) if not t.is_comment]
    starts: list[int] = []
    for k, token in enumerate(words):
        if not token.first or source.line_column(token.start)[1] != 1:
            continue
        if token.depth == 0 or (token.text in DECLARATIONS and k + 1 < len(words) and words[k + 1].kind == "name"):
            starts.append(token.start)
    if words and (not starts or starts[0] != words[0].start):
        starts.insert(0, words[0].start)
    ends = [*starts[1:], len(source.text)]
    return [part(source, start, end) for start, end in zip(starts, ends, strict=False)]


def part(source: Source, start: int, end: int) -> Part:
    """The stretch of a text as a part, its brackets counted anew."""
    return Part(start, end, tuple(t for t in scan(source.text, start, end) if not t.is_comment))
