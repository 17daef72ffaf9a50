"""What the standard library holds, read without checking it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lossdsl.checker.modules import PRELUDE
from lossdsl.resources import stdlib_root
from lossdsl.syntax.diagnostics import Diagnostics
from lossdsl.syntax.parser import parse
from lossdsl.syntax.source import Source

_FIELDS = ("title", "authors", "year", "arxiv", "tags", "source")


@dataclass(frozen=True)
class Entry:
    """One loss that can be loaded by name."""

    name: str
    summary: str
    family: str
    tags: tuple[str, ...]
    file: str
    provenance: dict[str, str]


def provenance(doc: str | None) -> dict[str, str]:
    """The `key: value` lines of a file's docstring."""
    found: dict[str, str] = {}
    for line in (doc or "").splitlines():
        match = re.match(r"\s*([a-z]+):\s*(.+)", line)
        if match and match.group(1) in _FIELDS:
            found[match.group(1)] = match.group(2).strip()
    return found


def summary(doc: str | None) -> str:
    """The first line of a docstring."""
    lines = [line.strip() for line in (doc or "").strip().splitlines()]
    return lines[0] if lines else ""


@cache
def catalog() -> tuple[Entry, ...]:
    """Every building block and every paper's losses; a paper's first loss is named by the file, others as `file:loss`."""
    root = stdlib_root()
    found: list[Entry] = []
    for path in sorted(root.glob("*.loss")):
        if path.stem != PRELUDE:
            found += _entries(path, root, paper=False)
    for path in sorted((root / "papers").glob("*.loss")):
        found += _entries(path, root, paper=True)
    return tuple(found)


def _entries(path: Path, root: Path, paper: bool) -> list[Entry]:
    tree = parse(Source(path.name, path.read_text(encoding="utf-8")), Diagnostics())
    if tree is None:
        return []
    known = provenance(tree.doc)
    tags = tuple(t.strip() for t in known.get("tags", "").split(",") if t.strip())
    family = "papers" if paper else path.stem
    if paper and "paper" not in tags:
        tags = (*tags, "paper")
    out = []
    for place, loss in enumerate(tree.losses):
        name = loss.name if not paper else path.stem if place == 0 else f"{path.stem}:{loss.name}"
        out.append(
            Entry(name, summary(loss.doc) or summary(tree.doc), family, tags, str(path.relative_to(root)), known)
        )
    return out
