"""Trees of sound texts. Those of library files are kept between runs: most programs use the same few."""

from __future__ import annotations

import pickle

from lossdsl import kept
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Diagnostics
from lossdsl.syntax.source import Source

LIBRARY = "stdlib/"
"""How names of library modules begin."""


def sound_tree(name: str, text: str) -> ast.Module | None:
    """The tree of a text without mistakes; None for one with mistakes."""
    key = f"tree-{kept.digest(kept.stamp(), name, text)}" if name.startswith(LIBRARY) else None
    known = None if key is None else kept.read(key)
    tree = None if known is None else _loaded(known)
    if tree is not None:
        return tree
    from lossdsl.syntax.parser import parse

    diagnostics = Diagnostics()
    tree = parse(Source(name, text), diagnostics)
    if tree is None or diagnostics.found:
        return None
    if key is not None:
        kept.write(key, pickle.dumps(tree, pickle.HIGHEST_PROTOCOL))
    return tree


def _loaded(data: bytes) -> ast.Module | None:
    try:
        found = pickle.loads(data)
    except Exception:  # a tree that does not load is parsed
        return None
    return found if isinstance(found, ast.Module) else None
