"""Diagnostics: what is wrong, where, and how to mend it.

A phase reports through `Diagnostics`; it raises `Stop` where it cannot go on, and the caller decides how far to recover.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lossdsl.syntax.source import Span

MAX_DIAGNOSTICS = 50


@dataclass(frozen=True)
class Label:
    """A second place that matters for a diagnostic, with a word on why."""

    span: Span
    text: str


@dataclass(frozen=True)
class Diagnostic:
    """One finding. `code` is listed with cause and cure in docs/diagnostics.md."""

    code: str
    message: str
    span: Span | None
    underline: str = ""
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str | None = None
    severity: str = "error"

    def __str__(self) -> str:
        return render(self)

    def to_json(self) -> dict[str, Any]:
        """Plain data for tools: lines and columns count from 1."""

        def place(span: Span | None) -> dict[str, Any] | None:
            if span is None:
                return None
            line, column = span.source.line_column(span.start)
            end_line, end_column = span.source.line_column(span.end)
            return {
                "file": span.source.name,
                "line": line,
                "column": column,
                "end_line": end_line,
                "end_column": end_column,
            }

        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "span": place(self.span),
            "labels": [{"span": place(label.span), "text": label.text} for label in self.labels],
            "notes": list(self.notes),
            "help": self.help,
        }


class LossError(Exception):
    """A program was refused; `diagnostics` says why. Raised by the Python API."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = list(diagnostics)
        super().__init__("\n\n".join(render(d) for d in self.diagnostics))

    def __reduce__(self) -> tuple[Any, ...]:
        return (LossError, (self.diagnostics,))


class Stop(Exception):  # noqa: N818 - control flow: the finding is already reported
    """Raised after reporting, to leave a phase that cannot go on here."""


@dataclass
class Diagnostics:
    """Collects findings; the same finding at the same place counts once."""

    found: list[Diagnostic] = field(default_factory=list)

    def report(
        self,
        code: str,
        message: str,
        span: Span | None,
        underline: str = "",
        labels: Iterable[Label] = (),
        notes: Iterable[str] = (),
        help: str | None = None,  # noqa: A002 - the word of the printed message
        severity: str = "error",
    ) -> None:
        new = Diagnostic(code, message, span, underline, tuple(labels), tuple(notes), help, severity)
        known = any((d.code, d.message, d.span) == (code, message, span) for d in self.found)
        if not known and len(self.found) < MAX_DIAGNOSTICS:
            self.found.append(new)

    def stop(self, code: str, message: str, span: Span | None, **details: Any) -> Stop:
        """Report and return the exception to raise: `raise diagnostics.stop(...)`."""
        self.report(code, message, span, **details)
        return Stop()

    @property
    def errors(self) -> list[Diagnostic]:
        return [d for d in self.found if d.severity == "error"]

    def raise_if_errors(self) -> None:
        if self.errors:
            raise LossError(self.found)


def suggest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None."""
    known = list(known)
    same_letters = [k for k in known if k.lower() == word.lower() and k != word]
    if same_letters:
        return same_letters[0]
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return close[0] if close else None


def render(diagnostic: Diagnostic, color: bool = False) -> str:
    """The printed form: message, place, source lines underlined, notes, help."""
    paint = _paint if color else _plain
    head = paint(f"{diagnostic.severity}[{diagnostic.code}]", "red" if diagnostic.severity == "error" else "yellow")
    lines = [f"{head}: {diagnostic.message}"]
    span = diagnostic.span
    if span is not None:
        lines.append(f"  --> {span.source.name}:{span.line}:{span.column}")
        lines.extend(_excerpt(diagnostic, span, paint))
    margin = " " * _gutter(diagnostic)
    lines.extend(f"{margin} = note: {note}" for note in diagnostic.notes)
    if diagnostic.help:
        lines.append(f"{margin} = help: {diagnostic.help}")
    return "\n".join(lines)


def _gutter(diagnostic: Diagnostic) -> int:
    spans = [label.span for label in diagnostic.labels]
    if diagnostic.span is not None:
        spans.append(diagnostic.span)
    return max((len(str(s.line)) for s in spans), default=1) + 1


def _excerpt(diagnostic: Diagnostic, span: Span, paint: Any) -> list[str]:
    marks: dict[int, list[tuple[int, int, str, str]]] = {}
    outside: list[str] = []
    for place, text, char in [
        *((label.span, label.text, "-") for label in diagnostic.labels),
        (span, diagnostic.underline, "^"),
    ]:
        if place.source is not span.source:
            outside.append(f"note: {text}, at {place.source.name}:{place.line}:{place.column}")
            continue
        line = place.source.line(place.line)
        stop = min(place.end - place.start, len(line) - place.column + 1)
        marks.setdefault(place.line, []).append((place.column, max(stop, 1), char, text))
    width = _gutter(diagnostic)
    out = [f"{'':>{width}}|"]
    previous = None
    for number in sorted(marks):
        if previous is not None and number > previous + 1:
            out.append("...")
        previous = number
        text = span.source.line(number)
        shown, shift = _clip(text, min(m[0] for m in marks[number]))
        out.append(f"{number:>{width - 1}} | {shown}".rstrip())
        for column, length, char, words in sorted(marks[number]):
            pad = "".join("\t" if c == "\t" else " " for c in text[shift : column - 1])
            line_mark = paint(char * min(length, 120), "red" if char == "^" else "blue")
            out.append(f"{'':>{width}}| {pad}{line_mark} {words}".rstrip())
    out.extend(f"{'':>{width}}= {line}" for line in outside)
    return out


def _clip(text: str, column: int) -> tuple[str, int]:
    """A very long line is shown around the place of interest only."""
    limit = 160
    if len(text) <= limit:
        return text, 0
    shift = max(0, column - limit // 2)
    return text[shift : shift + limit], shift


_COLORS = {"red": "31;1", "yellow": "33;1", "blue": "34;1"}


def _paint(text: str, color: str) -> str:
    return f"\033[{_COLORS[color]}m{text}\033[0m"


def _plain(text: str, color: str) -> str:
    return text
