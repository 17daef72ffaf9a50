"""Lark's parsing tables, kept between runs: building them takes longer than checking most programs.

They lie in a folder of the user's, under a name made of all that they depend on, with a checksum. Whatever is
wrong with that folder or a file in it, the tables are built anew; where it cannot be written, they are built
every time.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import lark
from lark import Lark

VARIABLE = "LOSSDSL_CACHE"
"""An environment variable: the folder to keep tables in; empty or 0 keeps none."""

_CHECKSUM = 32


def lark_parser(grammar: str, start: str, postlex: Any) -> Lark:
    """The LALR parser of a grammar, from the cache where it is there."""
    basis = repr((grammar, start, type(postlex).__qualname__, lark.__version__, sys.version))
    key = hashlib.sha256(basis.encode()).hexdigest()[:32]
    folder = cache_folder()
    file = None if folder is None else folder / f"tables-{key}"
    kept = None if file is None else _kept(file, postlex)
    if kept is not None:
        return kept
    made = Lark(
        grammar,
        parser="lalr",
        postlex=postlex,
        propagate_positions=True,
        maybe_placeholders=True,
        start=start,
    )
    if file is not None:
        _keep(file, made)
    return made


def cache_folder() -> Path | None:
    """Where tables are kept, or None where the user wants none kept or has no home."""
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen not in ("", "0") else None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    try:
        folder = Path(base).expanduser() / "lossdsl"
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None


def _kept(file: Path, postlex: Any) -> Lark | None:
    """The parser kept in a file that is whole and nobody else's."""
    try:
        with file.open("rb") as stream:
            if hasattr(os, "getuid") and os.fstat(stream.fileno()).st_uid != os.getuid():
                return None
            content = stream.read()
        if hashlib.sha256(content[_CHECKSUM:]).digest() != content[:_CHECKSUM]:
            return None
        found = Lark.load(io.BytesIO(content[_CHECKSUM:]))
    except Exception:  # a table that does not load is one to build
        return None
    return found if isinstance(found.options.postlex, type(postlex)) else None


def _keep(file: Path, parser: Lark) -> None:
    """Write the tables whole or not at all."""
    made: str | None = None
    try:
        stream = io.BytesIO()
        parser.save(stream)
        content = stream.getvalue()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "wb") as out:
            out.write(hashlib.sha256(content).digest() + content)
        Path(made).replace(file)
    except (OSError, ValueError, pickle.PicklingError, AttributeError, TypeError):
        if made is not None:
            with suppress(OSError):
                Path(made).unlink(missing_ok=True)
