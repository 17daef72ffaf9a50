"""Files that ship with the package: the grammar and the standard library."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def _root() -> Path:
    """An installed wheel keeps them in `_data`; a checkout has them at its top."""
    installed = _PACKAGE / "_data"
    return installed if installed.is_dir() else _PACKAGE.parent


def grammar_text() -> str:
    """The text of the grammar."""
    return (_root() / "grammar" / "lossdsl.lark").read_text(encoding="utf-8")


def stdlib_root() -> Path:
    """The folder of the standard library's programs."""
    return _root() / "stdlib"
