"""The syntax tree as indented text: one line a node, its plain fields beside its name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lossdsl.syntax.ast import Node

STEP = "  "


def show_tree(node: Node) -> list[str]:
    """Lines for a node and everything below it."""
    out: list[str] = []
    stack: list[tuple[str, Any, int]] = [("", node, 0)]
    while stack:
        label, item, depth = stack.pop()
        plain: list[str] = []
        inner: list[tuple[str, Any, int]] = []
        for field in fields(item):
            value = getattr(item, field.name)
            if field.name in ("span", "name_span", "source") or value in (None, False, (), frozenset()):
                continue
            if isinstance(value, Node):
                inner.append((field.name, value, depth + 1))
            elif isinstance(value, tuple) and all(isinstance(v, Node) for v in value):
                inner.extend((field.name, v, depth + 1) for v in value)
            else:
                plain.append(_plain(field.name, value))
        head = f"{label}: " if label else ""
        tail = f" {' '.join(plain)}" if plain else ""
        out.append(f"{STEP * depth}{head}{type(item).__name__}{tail}")
        stack.extend(reversed(inner))
    return out


def _plain(name: str, value: Any) -> str:
    if isinstance(value, str) and name == "doc":
        first = value.strip().splitlines()
        return f'doc="{first[0] if first else ""}"'
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return name
    if isinstance(value, tuple | frozenset):
        return ".".join(map(str, value))
    return f"{name}={value}"
