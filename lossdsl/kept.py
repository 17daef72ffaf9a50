"""What is kept between runs to save time: parsing tables, trees of library files, and which files are sound.

Each lies in a folder of the user's, under a name made of what it depends on, with a checksum. Whatever is
wrong with the folder or a file in it, the work is done anew; where it cannot be written, it always is.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

VARIABLE = "LOSSDSL_CACHE"
"""An environment variable: the folder to keep things in; empty or 0 keeps none."""

MAX_FILES = 1000
_CHECKSUM = 32
_PACKAGE = Path(__file__).resolve().parent


def folder() -> Path | None:
    """Where things are kept, or None where the user wants none kept or has no home."""
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
        found = Path(base).expanduser() / "lossdsl"
    except RuntimeError:
        return None
    return found if found.is_absolute() else None


def digest(*parts: str | bytes) -> str:
    """A name for what depends on these."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(f"{len(data)} ".encode() + data)
    return total.hexdigest()[:40]


@cache
def stamp() -> str:
    """Changes with the interpreter and with every edit of this package."""
    found = [sys.version]
    for place, _, files in os.walk(_PACKAGE):
        for name in sorted(files):
            if name.endswith((".py", ".lark")):
                about = Path(place, name).stat()
                found.append(f"{place}/{name} {about.st_size} {about.st_mtime_ns}")
    return digest(*sorted(found))


def read(name: str) -> bytes | None:
    """What is kept under a name, if it is whole and nobody else's."""
    place = folder()
    if place is None:
        return None
    try:
        with (place / name).open("rb") as stream:
            if hasattr(os, "getuid") and os.fstat(stream.fileno()).st_uid != os.getuid():
                return None
            content = stream.read()
    except (OSError, ValueError):
        return None
    data = content[_CHECKSUM:]
    return data if hashlib.sha256(data).digest() == content[:_CHECKSUM] else None


def write(name: str, data: bytes) -> None:
    """Keep something under a name: whole or not at all."""
    place = folder()
    if place is None:
        return
    made: Path | None = None
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(place / f"{name}.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        made = place / f"{name}.{os.getpid()}"
        with os.fdopen(handle, "wb") as out:
            out.write(hashlib.sha256(data).digest() + data)
        made.replace(place / name)
        _prune(place)
    except (OSError, ValueError):
        if made is not None:
            with suppress(OSError):
                made.unlink(missing_ok=True)


def _prune(place: Path) -> None:
    """Forget the oldest half once there are too many."""
    if len(os.listdir(place)) <= MAX_FILES:  # noqa: PTH208 - only their number is asked for
        return
    files = sorted((f for f in place.iterdir() if f.is_file()), key=lambda f: f.stat().st_mtime_ns)
    for file in files[: len(files) - MAX_FILES // 2]:
        with suppress(OSError):
            file.unlink()
