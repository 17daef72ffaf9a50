"""The reference interpreter: the index graph evaluated by definition, an element at a time.

Slow and simple on purpose: it is what the backends are compared with, and it shares only the operation tables with them.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lossdsl.graph.evaluate import Evaluator, flat, stripped
from lossdsl.graph.nodes import Dim, Leaf, Node
from lossdsl.graph.scalars import FLOATS, Floats, Multiprecision
from lossdsl.graph.tape import Traced
from lossdsl.types.domains import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

DEPTH = 5_000_000
"""Calls may nest this deep: as deep as the graph, times the rounds of a loop."""


@dataclass(frozen=True)
class Outcome:
    """values: one for each root, nested lists in the order of its axes. gradients: by the leaf's name, shaped like it."""

    values: list[Any]
    gradients: dict[str, Any]


def interpret(
    graph_roots: list[tuple[Node, tuple[Dim, ...]]],
    leaves: Mapping[str, Any],
    sizes: Mapping[str, int],
    *,
    hypers: Mapping[str, float] | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    math: Floats | Multiprecision = FLOATS,
    wrt: Sequence[str] = (),
    seed: Any = None,
) -> Outcome:
    """Evaluate the roots, each over the axes beside it, and differentiate the first one with respect to the leaves `wrt`.

    seed: weights for the elements of the first root, shaped like it; all 1 if not given.
    """
    roots = [root for root, _ in graph_roots]
    evaluator = Evaluator(
        roots, leaves, sizes, hypers=hypers or {}, functions=functions or {}, math=math, wrt=frozenset(wrt)
    )
    with deep_recursion():
        values = [evaluator.array(root, evaluator.slots_of(axes), {}) for root, axes in graph_roots]
        if wrt:
            for element, weight in _pairs(values[0], seed):
                if isinstance(element, Traced):
                    element.add(math.number(weight))
            evaluator.tape.backward()
    whole = {leaf.name for leaf in evaluator.own if isinstance(leaf, Leaf) and leaf.kind is not Kind.REAL}
    gradients = {name: evaluator.gradient(name, leaves[name], ()) for name in wrt if name not in whole}
    return Outcome([stripped(value) for value in values], gradients)


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Room for calls between Python functions, which do not use the C stack."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _pairs(values: Any, seed: Any) -> list[tuple[Any, Any]]:
    """Each element with its weight."""
    elements = flat(values)
    weights = [1] * len(elements) if seed is None else flat(seed)
    return list(zip(elements, weights, strict=True))
