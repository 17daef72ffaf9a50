"""The index graph: a hash-consed DAG over named index variables, without layout and without torch.

A node is a function of its free dims: an element for every choice of positions along them. Element-wise operations align
dims by identity, reductions bind them, `At` reads a node at other positions. Nodes are made by `graph.build.Graph` only, which
gives equal nodes one identity; compare them with `is`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lossdsl.syntax.source import Span
from lossdsl.types.domains import Interval, Kind
from lossdsl.types.sizes import Size


@dataclass(frozen=True)
class Dim:
    """A direction in which values vary.

    An axis of a tensor is its length and which of the axes with that length it is (copy 0, 1, ..); an index variable
    (index=True) is a fresh copy. label is only for printing.
    """

    size: Size
    copy: int = 0
    index: bool = False
    label: str = field(default="", compare=False)

    def __str__(self) -> str:
        if self.index:
            return self.label or f"i{self.copy}"
        return f"{self.size}" + (f"'{self.copy}" if self.copy else "")

    @property
    def order(self) -> tuple[bool, str, int]:
        """A total order for printing and layouts."""
        return (self.index, str(self.size), self.copy)


Dims = frozenset[Dim]


@dataclass(eq=False, slots=True, kw_only=True)
class Node:
    """Common part. uid: the order of creation. hint: a name from the program. span: where it was first written."""

    dims: Dims = frozenset()
    kind: Kind = Kind.REAL
    uid: int = 0
    hint: str | None = None
    span: Span | None = None

    @property
    def children(self) -> tuple[Node, ...]:
        """Nodes that this one is made of, in a fixed order."""
        return ()


@dataclass(eq=False, slots=True)
class Const(Node):
    """A number or a truth value."""

    value: float | int | bool


@dataclass(eq=False, slots=True)
class Hyper(Node):
    """A scalar hyperparameter; value is None while checking without values."""

    name: str
    value: float | int | None
    domain: Interval


@dataclass(eq=False, slots=True)
class SizeOf(Node):
    """A length as a whole number."""

    size: Size


@dataclass(eq=False, slots=True)
class Iota(Node):
    """The position along a dim."""

    dim: Dim


@dataclass(eq=False, slots=True)
class Leaf(Node):
    """A named array: role is input, state, param, draw, carry, iter, gradient. axes: its dims in their order.

    below: its whole numbers are less than this length. shape: the sum over the last axis is 1 (prob) or its norm is 1 (unit).
    """

    role: str
    name: str
    axes: tuple[Dim, ...]
    domain: Interval
    below: Size | None = None
    shape: str | None = None


@dataclass(eq=False, slots=True)
class Apply(Node):
    """An element-wise operation of `ops.elementwise`."""

    op: str
    args: tuple[Node, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        return self.args


@dataclass(eq=False, slots=True)
class Reduce(Node):
    """A reduction of `ops.axes` over bound dims, where the guard holds; default is the value over nothing."""

    op: str
    bound: tuple[Dim, ...]
    body: Node
    guard: Node | None
    default: Node | None

    @property
    def children(self) -> tuple[Node, ...]:
        return tuple(n for n in (self.body, self.guard, self.default) if n is not None)


@dataclass(eq=False, slots=True)
class Along(Node):
    """An operation that keeps its axes: `dims` still holds them."""

    op: str
    along: tuple[Dim, ...]
    body: Node

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.body,)


@dataclass(eq=False, slots=True)
class At(Node):
    """body with each mapped dim at the position that its index gives; default where a position is outside."""

    body: Node
    mapping: tuple[tuple[Dim, Node], ...]
    default: Node | None

    @property
    def children(self) -> tuple[Node, ...]:
        rest = () if self.default is None else (self.default,)
        return (self.body, *(index for _, index in self.mapping), *rest)


@dataclass(eq=False, slots=True)
class Concat(Node):
    """The parts one after the other along `dim`; each part has its own dim for it."""

    dim: Dim
    parts: tuple[tuple[Node, Dim | None], ...]

    @property
    def children(self) -> tuple[Node, ...]:
        return tuple(part for part, _ in self.parts)


@dataclass(eq=False, slots=True)
class Solve(Node):
    """A solver of `ops.solvers`, or a function argument (op "fn:NAME"): core dims of each argument, axes of the result."""

    op: str
    args: tuple[tuple[Node, tuple[Dim, ...]], ...]
    axes: tuple[Dim, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        return tuple(arg for arg, _ in self.args)


@dataclass(eq=False, slots=True)
class Scatter(Node):
    """base along `dim` with the rows at `index` replaced by `value`; index varies over `over` (bound here)."""

    base: Node
    dim: Dim
    index: Node
    value: Node
    over: tuple[Dim, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.base, self.index, self.value)


@dataclass(eq=False, slots=True)
class Custom(Node):
    """A value whose gradient is declared.

    For each leaf in `wrt`, standing for the argument beside it, `gradients` has the gradient as a function of the leaf `incoming`; `value` and
    `gradients` are expressed in the leaves.
    """

    value: Node
    wrt: tuple[tuple[Leaf, Node], ...]
    incoming: Leaf
    gradients: tuple[Node | None, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        inner = (self.value, *(g for g in self.gradients if g is not None))
        return (*inner, *(argument for _, argument in self.wrt))


@dataclass(eq=False, slots=True)
class Loop(Node):
    """A bounded loop.

    carried[k] starts as initial[k] and becomes body[k]; `until`, like `body`, is expressed in the leaves. `counter` counts rounds, or, where
    `axis` is given (a scan), holds the position along it, and results are stacked along it. Take results by `Result`.
    """

    counter: Leaf
    count: Node
    carried: tuple[Leaf, ...]
    initial: tuple[Node, ...]
    body: tuple[Node, ...]
    until: Node | None
    axis: Dim | None
    backwards: bool

    @property
    def children(self) -> tuple[Node, ...]:
        rest = () if self.until is None else (self.until,)
        return (self.count, *self.initial, *self.body, *rest)


@dataclass(eq=False, slots=True)
class Result(Node):
    """The k-th carried value of a loop."""

    loop: Loop
    place: int

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.loop,)


def topological(roots: list[Node]) -> list[Node]:
    """Every node below the roots, children first; iterative, so depth does not matter."""
    order: list[Node] = []
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        stack.append((node, True))
        stack.extend((child, False) for child in reversed(node.children) if id(child) not in seen)
    return order
