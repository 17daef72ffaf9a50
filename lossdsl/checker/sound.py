"""Which files were found sound, kept between runs with all that this depended on.

A file counts as sound again only if the compiler, the file, and every file that was looked for on its behalf
are as they were, those that were not there included.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lossdsl import kept

Looked = dict[str, str | None]
"""Absolute paths that were looked at, each with the state of the file, or None where there was none."""


def absolute(path: Path) -> str:
    """The path from the root; links are not followed, since names are looked for."""
    return os.path.abspath(path)  # noqa: PTH100


def state(path: Path, text: str) -> str:
    """What must be the same for a file to be the same."""
    return kept.digest(str(path.resolve()), text)


def recall(path: Path) -> dict[str, int] | None:
    """How many declarations of each kind a file has, if it is known to be sound."""
    data = kept.read(_name(path))
    if data is None:
        return None
    try:
        entry: dict[str, Any] = json.loads(data)
        looked: Looked = entry["looked"]
        counts: dict[str, int] = entry["counts"]
        fresh = entry["stamp"] == kept.stamp() and all(_now(Path(p)) == before for p, before in looked.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return counts if fresh and looked.get(absolute(path)) is not None else None


def remember(path: Path, looked: Looked, counts: dict[str, int]) -> None:
    """Keep that a file is sound."""
    if looked.get(absolute(path)) is None:
        return
    entry = {"stamp": kept.stamp(), "looked": looked, "counts": counts}
    kept.write(_name(path), json.dumps(entry).encode())


def _name(path: Path) -> str:
    return f"sound-{kept.digest(absolute(path))}"


def _now(path: Path) -> str | None:
    try:
        return state(path, path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")) if path.is_file() else None
    except (OSError, ValueError):
        return None
