"""Lark's parsing tables, kept between runs: building them takes longer than checking most programs."""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

import lark
from lark import Lark

from lossdsl import kept


def lark_parser(grammar: str, start: str, postlex: Any) -> Lark:
    """The LALR parser of a grammar, from what is kept where it is there."""
    kind = type(postlex)
    basis = (grammar, start, kind.__module__, kind.__qualname__, lark.__version__, sys.version)
    name = f"tables-{kept.digest(*basis)}"
    data = kept.read(name)
    found = None if data is None else _loaded(data, kind)
    if found is not None:
        return found
    made = Lark(
        grammar,
        parser="lalr",
        postlex=postlex,
        propagate_positions=True,
        maybe_placeholders=True,
        start=start,
    )
    stream = io.BytesIO()
    try:
        made.save(stream)
    except (pickle.PicklingError, AttributeError, TypeError):
        return made
    kept.write(name, stream.getvalue())
    return made


def _loaded(data: bytes, postlex: type) -> Lark | None:
    try:
        found = Lark.load(io.BytesIO(data))
    except Exception:  # tables that do not load are built
        return None
    return found if isinstance(found.options.postlex, postlex) else None
