"""What an operation declares: one place for everything that the project knows of it.

The checker reads kinds and domains, the range analysis reads `range`, the interpreter reads `value` and `derivative`,
the backends read `torch`, the property layer reads `monotone` and `curvature`, the docs read `doc` and `latex`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lossdsl.types.domains import Interval


class Math(Protocol):
    """Scalar functions that declarations may use; one implementation for floats, one for mpmath.

    Arithmetic and comparisons are written with Python's operators.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]: ...


Scalar = Any


@dataclass(frozen=True)
class Elementwise:
    """An operation on single elements.

    value(m, *args) is its definition; derivative(m, y, *args) gives the partial derivative for each argument from the
    result y and the arguments (None: the derivative is 0 everywhere). range maps the arguments' intervals to the result's.
    domain: what each argument has to lie in (None: anything). singular: the derivative is infinite at this boundary value
    of the first argument and counts as 0 there.
    kind: "real", "int", "bool", or "same" (the widest of the arguments').
    torch: the expression that computes it, with {0}, {1} for arguments; scalar_torch for the case that its second
    argument is a plain number.
    monotone, curvature: per argument "increasing", "decreasing", "constant" or None; "affine", "convex", "concave" or None
    (jointly in all arguments), each on the whole domain; a pair of functions of intervals where they depend on the region.
    """

    name: str
    arity: int
    doc: str
    latex: str
    value: Callable[..., Scalar]
    derivative: Callable[..., tuple[Scalar, ...]] | None
    range: Callable[..., Interval]
    torch: str
    kind: str = "real"
    domain: tuple[Interval | None, ...] = ()
    singular: float | None = None
    monotone: tuple[str | None, ...] = ()
    curvature: str | None = None
    region: Callable[..., tuple[tuple[str | None, ...], str | None]] | None = None


@dataclass(frozen=True)
class Reduction:
    """An operation that removes axes. empty: the value over nothing, None where there is none.

    value(m, items) is its definition on a list; weights(m, y, items) the partial derivatives (None: no gradient).
    """

    name: str
    doc: str
    latex: str
    value: Callable[[Math, list[Scalar]], Scalar]
    weights: Callable[[Math, Scalar, list[Scalar]], list[Scalar]] | None
    range: Callable[[Interval, bool], Interval]
    empty: Scalar | None
    kind: str = "same"
    monotone: str | None = None
    curvature: str | None = None


@dataclass(frozen=True)
class Along:
    """An operation that keeps its axis: value(m, items) gives a list of the same length.

    pullback(m, ys, items, gs): the gradient of the items from that of the results (None: no gradient).
    """

    name: str
    doc: str
    latex: str
    value: Callable[[Math, list[Scalar]], list[Scalar]]
    pullback: Callable[[Math, list[Scalar], list[Scalar], list[Scalar]], list[Scalar]] | None
    range: Callable[[Interval], Interval]
    kind: str = "real"
    joint: bool = False
    positions: bool = False


@dataclass(frozen=True)
class Solver:
    """An operation on whole arrays that the language cannot say.

    arguments: the core axes of each argument; result: those of the result. value(m, *arrays) works on nested lists.
    """

    name: str
    doc: str
    arguments: tuple[tuple[str, ...], ...]
    result: tuple[str, ...]
    below: str | None
    value: Callable[..., Any]
    runtime: str
