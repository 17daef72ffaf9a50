"""Program text and places in it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property

MAX_TEXT = 1_000_000
MAX_WORDS = 40_000
"""Characters that a program's text may have."""


@dataclass(frozen=True, eq=False)
class Source:
    """One program text and the name under which messages speak of it."""

    name: str
    text: str

    @cached_property
    def line_starts(self) -> list[int]:
        starts = [0]
        starts.extend(i + 1 for i, char in enumerate(self.text) if char == "\n")
        return starts

    def line_column(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both counted from 1."""
        line = bisect_right(self.line_starts, offset) - 1
        return line + 1, offset - self.line_starts[line] + 1

    def line(self, number: int) -> str:
        """The text of a line (counted from 1), without its end."""
        lines = self.line_starts
        if not 1 <= number <= len(lines):
            return ""
        end = lines[number] if number < len(lines) else len(self.text)
        return self.text[lines[number - 1] : end].rstrip("\r\n")


@dataclass(frozen=True)
class Span:
    """A stretch of a source, from start up to end (offsets)."""

    source: Source = field(repr=False)
    start: int
    end: int

    @property
    def line(self) -> int:
        return self.source.line_column(self.start)[0]

    @property
    def column(self) -> int:
        return self.source.line_column(self.start)[1]

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def to(self, other: Span) -> Span:
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))
