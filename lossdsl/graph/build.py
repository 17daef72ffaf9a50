"""Making nodes: `Graph` hash-conses them, folds what is constant and pushes renamings inwards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from lossdsl.graph import nodes as n
from lossdsl.graph.nodes import Dim, Leaf, Node
from lossdsl.ops.axes import ALONG, REDUCTIONS
from lossdsl.ops.elementwise import ELEMENTWISE
from lossdsl.types.domains import ANY, Interval, Kind
from lossdsl.types.sizes import Atom, Size

N = TypeVar("N", bound=Node)
MAX_NODES = 200_000
_RANK = {Kind.BOOL: 0, Kind.INT: 1, Kind.REAL: 2}


class GraphTooLarge(Exception):  # noqa: N818 - reported as a diagnostic by the checker
    """The program unfolds to more nodes than a compiler should handle."""


class Graph:
    """One program's nodes. Two equal requests give one node."""

    def __init__(self, max_nodes: int = MAX_NODES) -> None:
        self._table: dict[tuple[Any, ...], Node] = {}
        self._max = max_nodes
        self._fresh = 0
        self._statics: dict[int, Static] = {}
        self.baked: set[str] = set()
        """Names of the hyperparameters whose values decided something while building."""

    def __len__(self) -> int:
        return len(self._table)

    def _intern(self, key: tuple[Any, ...], node: N) -> N:
        found = self._table.get(key)
        if found is not None:
            return cast(N, found)  # a key names the class of its node
        if len(self._table) >= self._max:
            raise GraphTooLarge
        node.uid = len(self._table)
        self._table[key] = node
        return node

    def fresh(self, base: str) -> str:
        """A name that no other leaf has."""
        self._fresh += 1
        return f"{base}.{self._fresh}"

    # ---- leaves ----

    def const(self, value: float | int | bool) -> Node:
        kind = Kind.BOOL if isinstance(value, bool) else Kind.INT if isinstance(value, int) else Kind.REAL
        return self._intern(("const", kind, repr(value)), n.Const(value, kind=kind))

    def hyper(self, name: str, value: float | int | None, domain: Interval, kind: Kind) -> Node:
        if kind is not Kind.REAL and value is not None:
            self.baked.add(name)  # whole numbers stand in lengths and counts
        return self._intern(("hyper", name), n.Hyper(name, value, domain, kind=kind))

    def size(self, size: Size) -> Node:
        if size.constant is not None:
            return self.const(size.constant)
        return self._intern(("size", size), n.SizeOf(size, kind=Kind.INT))

    def iota(self, dim: Dim) -> Node:
        return self._intern(("iota", dim), n.Iota(dim, kind=Kind.INT, dims=frozenset((dim,))))

    def leaf(
        self,
        role: str,
        name: str,
        axes: tuple[Dim, ...],
        kind: Kind = Kind.REAL,
        domain: Interval = ANY,
        below: Size | None = None,
        shape: str | None = None,
    ) -> Leaf:
        node = Leaf(role, name, axes, domain, below, shape, kind=kind, dims=frozenset(axes))
        return self._intern(("leaf", role, name, axes), node)

    # ---- element-wise ----

    def apply(self, op: str, *args: Node) -> Node:
        folded = self._fold(op, args)
        if folded is not None:
            return folded
        kind = _result_kind(ELEMENTWISE[op].kind, args if op != "where" else args[1:])
        if kind is Kind.BOOL and op in ARITHMETIC:
            kind = Kind.INT
        dims = frozenset[Dim]().union(*(a.dims for a in args))
        return self._intern((op, *map(id, args)), n.Apply(op, args, kind=kind, dims=dims))

    def _fold(self, op: str, args: tuple[Node, ...]) -> Node | None:
        if op == "where":
            if args[1] is args[2]:
                return args[1]
            decided = self.static(args[0])
            if decided is not None:
                return args[1] if decided else args[2]
            return None
        if op == "stop" and (args[0].kind is not Kind.REAL or isinstance(args[0], n.Const | n.Hyper)):
            return args[0]
        if op in ARITHMETIC and any(a.kind is Kind.BOOL for a in args):
            return None
        if op == "neg" and isinstance(args[0], n.Apply) and args[0].op == "neg":
            return args[0].args[0]
        if op in ("add", "sub") and _is_const(args[1], 0):
            return args[0]
        if op == "add" and _is_const(args[0], 0):
            return args[1]
        if op == "mul" and _is_const(args[1], 1):
            return args[0]
        if op == "mul" and _is_const(args[0], 1):
            return args[1]
        if op in ("and", "or"):
            for one, other in ((args[0], args[1]), (args[1], args[0])):
                if isinstance(one, n.Const):
                    return other if bool(one.value) == (op == "and") else one
        if all(isinstance(a, n.Const) for a in args):
            return self._fold_numbers(op, [a.value for a in args if isinstance(a, n.Const)])
        size = self._fold_sizes(op, args)
        return None if size is None else self.size(size)

    def _fold_numbers(self, op: str, values: list[Any]) -> Node | None:
        from lossdsl.graph.scalars import FLOATS

        if op == "pow" and any(abs(v) > 1024 for v in values):
            values = [float(v) for v in values]  # whole powers of this size would not fit anywhere
        try:
            result = ELEMENTWISE[op].value(FLOATS, *values)
        except (ArithmeticError, ValueError):
            return None
        if isinstance(result, float) and not math.isfinite(result):
            return None
        if isinstance(result, int) and not isinstance(result, bool) and abs(result) > 2**62:
            return None
        kind = ELEMENTWISE[op].kind
        if kind == "real":
            result = float(result)
        elif kind == "int":
            result = int(result)
        return self.const(result)

    def _fold_sizes(self, op: str, args: tuple[Node, ...]) -> Size | None:
        """Arithmetic of lengths stays a length."""
        return _length(op, args) if any(isinstance(a, n.SizeOf) for a in args) else None

    def static(self, node: Node, decides: bool = True) -> float | int | bool | None:
        """The value of a node that hyperparameters alone decide; where it decides something, they become part of the compiled program."""
        value, used = self._static_of(node)
        if value is not None and decides:
            self.baked |= used
        return value

    def _static_of(self, node: Node) -> Static:
        """A static value, if there is one, and the hyperparameters that it is made of; found once a node."""
        found = self._statics
        waiting = [node]
        while waiting:
            item = waiting[-1]
            below = item.args if isinstance(item, n.Apply) and not item.dims else ()
            unknown = [a for a in below if id(a) not in found]
            if unknown:
                waiting.extend(unknown)
                continue
            waiting.pop()
            if id(item) not in found:
                found[id(item)] = _static(item, [found[id(a)] for a in below])
        return found[id(node)]

    # ---- over axes ----

    def reduce(
        self, op: str, bound: Iterable[Dim], body: Node, guard: Node | None = None, default: Node | None = None
    ) -> Node:
        bound = tuple(bound)
        if isinstance(guard, n.Const) and guard.value:
            guard = None
        if guard is None:
            default = None
            gone = [d for d in bound if d not in body.dims]
            bound = tuple(d for d in bound if d in body.dims)
            if op in ("sum", "logsumexp"):
                for dim in gone:
                    count = self.size(dim.size)
                    body = (
                        self.apply("mul", count, body)
                        if op == "sum"
                        else self.apply("add", body, self.apply("log", count))
                    )
            elif op == "prod":
                for dim in gone:
                    body = self.apply("pow", body, self.size(dim.size))
            if not bound and op == "mean" and body.kind is not Kind.REAL:
                return self.apply("div", body, self.const(1))
            if not bound:
                return self.const(0) if op in ("argmax", "argmin") else body
            if isinstance(body, n.Reduce) and body.op == op and body.guard is None and op not in ("argmax", "argmin"):
                bound, body = bound + body.bound, body.body
        spec = REDUCTIONS[op]
        kind = _result_kind(spec.kind, (body,) if default is None else (body, default))
        if op in ("sum", "max", "min", "prod") and kind is Kind.BOOL:
            kind = Kind.INT
        free = body.dims | (guard.dims if guard else frozenset())
        dims = (free - frozenset(bound)) | (default.dims if default else frozenset())
        key = ("reduce", op, bound, id(body), id(guard), id(default))
        return self._intern(key, n.Reduce(op, bound, body, guard, default, kind=kind, dims=dims))

    def along(self, op: str, along: tuple[Dim, ...], body: Node) -> Node:
        kind = _result_kind(ALONG[op].kind, (body,))
        if op in ("cumsum", "cumprod") and kind is Kind.BOOL:
            kind = Kind.INT
        return self._intern(
            ("along", op, along, id(body)), n.Along(op, along, body, kind=kind, dims=body.dims | frozenset(along))
        )

    def concat(self, dim: Dim, parts: Iterable[tuple[Node, Dim | None]]) -> Node:
        parts = tuple(parts)
        rest = frozenset[Dim]().union(*(p.dims - {d} for p, d in parts))
        kind = _result_kind("same", tuple(p for p, _ in parts))
        key = ("concat", dim, tuple((id(p), d) for p, d in parts))
        return self._intern(key, n.Concat(dim, parts, kind=kind, dims=rest | {dim}))

    def solve(self, op: str, args: Iterable[tuple[Node, tuple[Dim, ...]]], axes: tuple[Dim, ...], kind: Kind) -> Node:
        args = tuple(args)
        batch = frozenset[Dim]().union(*(a.dims - frozenset(core) for a, core in args)) if args else frozenset()
        key = ("solve", op, tuple((id(a), core) for a, core in args), axes)
        return self._intern(key, n.Solve(op, args, axes, kind=kind, dims=batch | frozenset(axes)))

    def scatter(self, base: Node, dim: Dim, index: Node, value: Node, over: tuple[Dim, ...]) -> Node:
        dims = base.dims | (value.dims - frozenset(over)) | (index.dims - frozenset(over))
        key = ("scatter", id(base), dim, id(index), id(value), over)
        return self._intern(key, n.Scatter(base, dim, index, value, over, kind=base.kind, dims=dims))

    def custom(
        self, value: Node, wrt: tuple[tuple[Leaf, Node], ...], incoming: Leaf, gradients: tuple[Node | None, ...]
    ) -> Node:
        key = ("custom", id(value), tuple((id(a), id(b)) for a, b in wrt), id(incoming), tuple(map(id, gradients)))
        return self._intern(key, n.Custom(value, wrt, incoming, gradients, kind=value.kind, dims=value.dims))

    def loop(
        self,
        counter: Leaf,
        count: Node,
        carried: tuple[Leaf, ...],
        initial: tuple[Node, ...],
        body: tuple[Node, ...],
        until: Node | None = None,
        axis: Dim | None = None,
        backwards: bool = False,
    ) -> tuple[Node, ...]:
        key = ("loop", id(counter), id(count), tuple(map(id, carried + initial + body)), id(until), axis, backwards)
        loop = self._intern(key, n.Loop(counter, count, carried, initial, body, until, axis, backwards))
        return tuple(self.result(loop, k) for k in range(len(carried)))

    def result(self, loop: n.Loop, place: int) -> Node:
        """The place-th carried value of a loop."""
        leaf = loop.carried[place]
        extra = frozenset((loop.axis,)) if loop.axis is not None else frozenset()
        return self._intern(("result", id(loop), place), n.Result(loop, place, kind=leaf.kind, dims=leaf.dims | extra))

    # ---- reading at other positions ----

    def at(self, body: Node, mapping: Mapping[Dim, Node], default: Node | None = None) -> Node:
        kept = {d: i for d, i in mapping.items() if d in body.dims and not (isinstance(i, n.Iota) and i.dim == d)}
        if not kept:
            return body
        if isinstance(body, n.Iota) and default is None:
            return kept[body.dim]
        if default is None and isinstance(body, n.At) and body.default is None and not _windows_of_lookups(body, kept):
            inner = {d: self.at(i, kept) for d, i in body.mapping}
            covered = {d for d, _ in body.mapping}
            inner.update({d: i for d, i in kept.items() if d in body.body.dims and d not in covered})
            return self.at(body.body, inner)
        ordered = tuple(sorted(kept.items(), key=lambda t: t[0].order))
        dims = (body.dims - frozenset(kept)).union(*(i.dims for i in kept.values()))
        if default is not None:
            dims |= default.dims
        kind = _result_kind("same", (body,) if default is None else (body, default))
        key = ("at", id(body), tuple((d, id(i)) for d, i in ordered), id(default))
        return self._intern(key, n.At(body, ordered, default, kind=kind, dims=dims))

    def same_up_to_bound(self, body: Node, bound: tuple[Dim, ...], other: Node) -> Dim | None:
        """The dim of `other` that takes the place of the one bound dim in `body`, if that makes them the same."""
        if len(bound) != 1:
            return None
        (dim,) = bound
        for candidate in sorted(other.dims, key=lambda d: d.order):
            if candidate.size == dim.size and self.rename(body, {dim: candidate}) is other:
                return candidate
        return None

    def rename(self, node: Node, renames: Mapping[Dim, Dim]) -> Node | None:
        """The node over renamed dims, or None where it holds something that cannot be rebuilt (a loop, a solver)."""
        try:
            return Renaming(self).node(node, dict(renames))
        except Opaque:
            return None


class Opaque(Exception):  # noqa: N818 - control flow
    """Something in the node (a loop, a solver) cannot be rebuilt over other dims."""


class Renaming:
    """Capture-avoiding renaming of free dims."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.memo: dict[tuple[int, tuple[tuple[Dim, Dim], ...]], Node] = {}

    def node(self, node: Node, renames: dict[Dim, Dim]) -> Node:
        live = {d: e for d, e in renames.items() if d in node.dims and d != e}
        if not live:
            return node
        key = (id(node), tuple(sorted(live.items(), key=lambda t: t[0].order)))
        if key not in self.memo:
            result = self._rebuild(node, live)
            if result.hint is None:
                result.hint = node.hint
            if result.span is None:
                result.span = node.span
            self.memo[key] = result
        return self.memo[key]

    def _rebuild(self, node: Node, live: dict[Dim, Dim]) -> Node:
        g = self.graph
        match node:
            case n.Iota():
                return g.iota(live[node.dim])
            case n.Apply():
                return g.apply(node.op, *(self.node(a, live) for a in node.args))
            case n.Reduce():
                bound, inner = self._bind(node.bound, live, node.body, node.guard)
                guard = None if node.guard is None else self.node(node.guard, inner)
                default = None if node.default is None else self.node(node.default, live)
                return g.reduce(node.op, bound, self.node(node.body, inner), guard, default)
            case n.Along():
                return g.along(node.op, tuple(live.get(d, d) for d in node.along), self.node(node.body, live))
            case n.At():
                mapping = {d: self.node(i, live) for d, i in node.mapping}
                covered = {d for d, _ in node.mapping}
                mapping.update({d: g.iota(e) for d, e in live.items() if d in node.body.dims and d not in covered})
                default = None if node.default is None else self.node(node.default, live)
                return g.at(node.body, mapping, default)
            case n.Concat():
                parts = []
                for part, dim in node.parts:
                    bound, inner = self._bind((dim,), live, part) if dim is not None else ((None,), live)
                    parts.append((self.node(part, inner), bound[0]))
                return g.concat(live.get(node.dim, node.dim), parts)
            case Leaf():
                return g.at(node, {d: g.iota(e) for d, e in live.items()})
            case _:
                raise Opaque

    def _bind(
        self, bound: tuple[Dim, ...], live: dict[Dim, Dim], *inside: Node | None
    ) -> tuple[tuple[Any, ...], dict[Dim, Dim]]:
        """Bound dims hide renamings of themselves and step aside where a renaming would be captured."""
        inner = {d: e for d, e in live.items() if d not in bound}
        taken = set(inner.values())
        clashing = [d for d in bound if d in taken]
        if clashing:
            free = set().union(*(x.dims for x in inside if x is not None)) | taken
            for dim in clashing:
                new = fresh_copy(dim, free)
                free.add(new)
                inner[dim] = new
        return tuple(inner.get(d, d) if d in clashing else d for d in bound), inner


def fresh_copy(dim: Dim, taken: Iterable[Dim]) -> Dim:
    """A dim like this one that is not among the taken ones."""
    taken = set(taken)
    copy = dim.copy + 1
    while Dim(dim.size, copy, dim.index) in taken:
        copy += 1
    return Dim(dim.size, copy, dim.index, dim.label)


def _windows_of_lookups(body: n.At, mapping: Mapping[Dim, Node]) -> bool:
    """Windows over positions that are looked up: it is cheaper to look each position up once first."""
    looked_up = {d for _, index in body.mapping if not _is_affine(index) for d in index.dims}
    return any(d in looked_up and len(index.dims) > 1 and _is_affine(index) for d, index in mapping.items())


def _is_affine(index: Node) -> bool:
    if isinstance(index, n.Apply):
        return index.op in ("add", "sub", "mul", "neg") and all(_is_affine(a) for a in index.args)
    return isinstance(index, n.Iota) or size_of(index) is not None


def size_of(node: Node) -> Size | None:
    """The length that a node is, if it is one."""
    if isinstance(node, n.SizeOf):
        return node.size
    if isinstance(node, n.Const) and node.kind is Kind.INT:
        return Size.of(int(node.value))
    if isinstance(node, n.Hyper) and node.kind is Kind.INT:
        if node.value is not None:
            return Size.of(int(node.value))
        low = node.domain.low
        return Size.of(Atom(node.name, int(low) if math.isfinite(low) else 0))
    if isinstance(node, n.Apply) and node.kind is Kind.INT and not node.dims:
        return _length(node.op, node.args)
    return None


def _length(op: str, args: Iterable[Node]) -> Size | None:
    """The length that an operation on lengths gives."""
    if op not in ("add", "sub", "mul", "floordiv", "neg"):
        return None
    sizes = [size_of(a) for a in args]
    if any(s is None for s in sizes):
        return None
    first, *rest = [s for s in sizes if s is not None]
    match op:
        case "add":
            return first + rest[0]
        case "sub":
            return first - rest[0]
        case "mul":
            return first * rest[0]
        case "neg":
            return -first
        case _:
            divisor = rest[0].constant
            return first // divisor if divisor is not None and divisor > 0 else None


def _is_const(node: Node, value: float) -> bool:
    return isinstance(node, n.Const) and node.kind is not Kind.BOOL and node.value == value and node.kind is Kind.INT


Static = tuple[float | int | bool | None, frozenset[str]]


def _static(node: Node, args: list[Static]) -> Static:
    """The static value of a node from those of its arguments."""
    from lossdsl.graph.scalars import FLOATS

    match node:
        case n.Const():
            return node.value, frozenset()
        case n.Hyper():
            return node.value, frozenset((node.name,))
        case n.Apply() if args and all(value is not None for value, _ in args):
            used = frozenset[str]().union(*(names for _, names in args))
            try:
                return ELEMENTWISE[node.op].value(FLOATS, *(value for value, _ in args)), used
            except (ArithmeticError, ValueError):
                return None, used
        case _:
            return None, frozenset()


def _result_kind(declared: str, args: tuple[Node, ...]) -> Kind:
    match declared:
        case "real":
            return Kind.REAL
        case "int":
            return Kind.INT
        case "bool":
            return Kind.BOOL
        case _:
            return max((a.kind for a in args), key=_RANK.__getitem__)


ARITHMETIC = frozenset(("add", "sub", "mul", "neg", "abs", "min", "max", "clamp"))
"""Operations that make whole numbers of truth values."""
