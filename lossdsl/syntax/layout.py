"""Laying out words in lines: groups break as a whole where they do not fit, comments never get lost.

A document is a string, a list of documents, or one of the nodes below. In a group that fits, a `Line` is its flat text; in one
that does not, it is a line end. What a group holds may still fit on lines of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A line end, or its flat text."""

    flat: str = " "


@dataclass(frozen=True)
class Indent:
    """What stands one step further right."""

    inner: Doc


@dataclass(frozen=True)
class Group:
    """What is laid out on one line if it fits, unless it is `broken` beforehand. late: broken only after others."""

    inner: Doc
    broken: bool = False
    late: bool = False


@dataclass(frozen=True)
class Fill:
    """Parts one after the other, as many on a line as fit; on one line within a group that fits.

    starts: parts that begin a line in any case, where the group does not fit; at: the part that is next.
    """

    parts: list[Doc]
    starts: frozenset[int] = frozenset()
    at: int = 0


@dataclass(frozen=True)
class Comment:
    """A comment, on the line of the word before it or, if `own`, on a line of its own. The line ends after it."""

    text: str
    own: bool


Doc = str | list["Doc"] | Line | Indent | Group | Fill | Comment


def grouped(doc: Doc, late: bool = False) -> Doc:
    """A group, with the comments at its two ends outside of it: they do not keep it from fitting."""
    above, doc = _without(doc, 0)
    behind, doc = _without(doc, -1)
    group = Group(doc, late=late)
    return [*above, group, *reversed(behind)] if above or behind else group


def _without(doc: Doc, end: int) -> tuple[list[Doc], Doc]:
    """The comments at one end of a document, from the outside in, and the rest."""
    if not isinstance(doc, list):
        return [], doc
    parts = list(doc)
    comments: list[Doc] = []
    while parts:
        if isinstance(parts[end], Comment):
            comments.append(parts.pop(end))
            continue
        inside, rest = _without(parts[end], end)
        comments += inside
        if rest in ("", []):
            parts.pop(end)
            continue
        parts[end] = rest
        break
    return comments, parts


@dataclass(frozen=True)
class Row:
    """A line of the result: code, which may be empty, and a comment."""

    code: str
    comment: str | None = None


def rows(doc: Doc, margin: int, width: int, step: int) -> list[Row]:
    """A document as lines that start at a margin.

    Where it does not fit on one, the longest of its outermost groups is broken first.
    """
    if _length(doc) > width - margin:
        outermost = list(_outermost(doc))
        if outermost:
            doc = _breaking(doc, max(outermost, key=lambda g: (not g.late, _length(g))))
    return _Printer(margin, width, step).run(doc)


def _length(doc: Doc) -> int:
    """How long it is on one line."""
    total = 0
    stack: list[Doc] = [doc]
    while stack:
        match stack.pop():
            case str() as text:
                total += len(text)
            case list() as parts:
                stack.extend(parts)
            case Fill(parts):
                stack.extend(parts)
                total += len(parts) - 1
            case Indent(inner) | Group(inner):
                stack.append(inner)
            case Line(flat):
                total += len(flat)
            case _:
                pass
    return total


def _outermost(doc: Doc) -> Iterator[Group]:
    """The groups that hold line ends and stand in no other group that does."""
    match doc:
        case list():
            for part in doc:
                yield from _outermost(part)
        case Group(inner) if _ends_lines(inner):
            yield doc
        case Indent(inner) | Group(inner):
            yield from _outermost(inner)
        case _:
            pass


def _ends_lines(doc: Doc) -> bool:
    """Does it hold a line end that no group inside it holds?"""
    match doc:
        case list():
            return any(map(_ends_lines, doc))
        case Indent(inner):
            return _ends_lines(inner)
        case Line() | Fill():
            return True
        case _:
            return False


def _breaking(doc: Doc, chosen: Group) -> Doc:
    """The document with a group broken, and with it those that hold it."""
    if doc is chosen:
        return Group(chosen.inner, broken=True)
    match doc:
        case list():
            parts = [_breaking(part, chosen) for part in doc]
            return doc if all(map(operator.is_, parts, doc)) else parts
        case Indent(inner) | Group(inner):
            changed = _breaking(inner, chosen)
            return (
                doc if changed is inner else Indent(changed) if isinstance(doc, Indent) else Group(changed, broken=True)
            )
        case _:
            return doc


class _Printer:
    def __init__(self, margin: int, width: int, step: int) -> None:
        self.width = width
        self.step = step
        self.margin = margin
        self.done: list[Row] = []
        self.code = ""
        self.comment: str | None = None
        self.start = True

    def run(self, doc: Doc) -> list[Row]:
        stack: list[tuple[int, bool, Doc]] = [(self.margin, False, doc)]
        while stack:
            margin, flat, item = stack.pop()
            match item:
                case str():
                    self.word(item, margin)
                case list():
                    stack.extend((margin, flat, part) for part in reversed(item))
                case Indent():
                    stack.append((margin + self.step, flat, item.inner))
                case Group():
                    fits = flat or (not item.broken and not holds_comment(item) and self.fits(item.inner, stack))
                    stack.append((margin, fits, item.inner))
                case Fill(parts, starts, at):
                    if at + 1 < len(parts):
                        stack.append((margin, flat, Fill(parts, starts, at + 1)))
                    stack.append((margin, flat, parts[at]))
                    if at:
                        same_line = flat or (at not in starts and self.fits([Line(), parts[at]], []))
                        stack.append((margin, same_line, Line()))
                case Comment():
                    self.note(item, margin)
                case Line() if flat:
                    self.word(item.flat, margin)
                case _:
                    self.end()
                    self.margin = margin
        self.end()
        return self.done

    def word(self, text: str, margin: int) -> None:
        if self.comment is not None:  # nothing stands behind a comment
            self.end()
            self.margin = margin
            text = text.lstrip()
        if self.start and text:
            self.code = " " * self.margin
            self.start = False
        self.code += text

    def note(self, comment: Comment, margin: int) -> None:
        if comment.own or self.comment is not None:
            if not self.start or self.comment is not None:
                self.end()
                self.margin = margin
            self.code = " " * self.margin
            self.start = False
        self.comment = comment.text

    def end(self) -> None:
        if not self.start or self.comment is not None:
            code = self.code if self.comment is not None and not self.code.strip() else self.code.rstrip()
            self.done.append(Row(code, self.comment))
        self.code, self.comment, self.start = "", None, True

    def fits(self, doc: Doc, rest: list[tuple[int, bool, Doc]]) -> bool:
        """Does it fit flat on this line, with what follows up to the next place where a line may end?"""
        left = self.width - (self.margin if self.start else len(self.code))
        stack: list[tuple[bool, Doc]] = [(True, doc)]
        place = len(rest)
        while left >= 0:
            if not stack:
                if place == 0:
                    return True
                place -= 1
                stack.append((rest[place][1], rest[place][2]))
                continue
            flat, item = stack.pop()
            match item:
                case str():
                    left -= len(item)
                case list():
                    stack.extend((flat, part) for part in reversed(item))
                case Indent() | Group():
                    stack.append((flat, item.inner))
                case Fill(parts, _, at):
                    for part in reversed(parts[at:]):
                        stack += [(flat, part), (flat, Line())]
                    stack.pop()
                case Line():
                    if not flat:
                        return True
                    left -= len(item.flat)
                case Comment():
                    return True
        return False


def holds_comment(doc: Doc) -> bool:
    """Does a comment inside force line ends?"""
    stack: list[Doc] = [doc]
    while stack:
        item = stack.pop()
        match item:
            case Comment():
                return True
            case list() | Fill(list()):
                stack.extend(item if isinstance(item, list) else item.parts)
            case Indent() | Group():
                stack.append(item.inner)
            case _:
                pass
    return False


def aligned(lines: list[Row]) -> list[str]:
    """The lines as text; comments behind neighbouring lines of one margin stand below each other."""
    out: list[str] = []
    k = 0
    while k < len(lines):
        run = [lines[k]]
        while k + len(run) < len(lines) and _neighbours(run[-1], lines[k + len(run)]):
            run.append(lines[k + len(run)])
        longest = max(len(r.code) for r in run)
        if longest - min(len(r.code) for r in run) > 40:
            longest = 0
        for row in run:
            if row.comment is None:
                out.append(row.code)
            elif not row.code.strip():
                out.append(row.code + row.comment)
            else:
                out.append(f"{row.code:<{longest}}  {row.comment}")
        k += len(run)
    return out


def _neighbours(one: Row, two: Row) -> bool:
    both = (
        one.comment is not None
        and two.comment is not None
        and one.code.strip()
        and two.code.strip()
        and "\n" not in one.code + two.code
    )
    return bool(both) and _margin(one) == _margin(two)


def _margin(row: Row) -> int:
    return len(row.code) - len(row.code.lstrip())
