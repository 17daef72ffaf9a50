"""Coupling of a node along each axis of its inputs."""

from __future__ import annotations

from lossdsl.graph import nodes as n
from lossdsl.graph.nodes import Node
from lossdsl.types.coupling import Coupling, worst
from lossdsl.types.sizes import Size

Found = dict[Size, Coupling]


def couplings(root: Node) -> dict[str, Coupling]:
    """For each axis length of the inputs below a node, how its positions act together. An axis not listed has no part in it."""
    memo: dict[int, Found] = {}
    for node in n.topological([root]):
        memo[id(node)] = _of(node, memo)
    named = {size: c for size, c in memo[id(root)].items() if size.constant is None}
    return {str(size): c for size, c in sorted(named.items(), key=lambda t: str(t[0]))}


def _of(node: Node, memo: dict[int, Found]) -> Found:
    match node:
        case n.Leaf():
            found: Found = {}
            for dim in node.axes:
                found[dim.size] = Coupling.PAIRWISE if dim.size in found else Coupling.EACH
            return found
        case n.Apply():
            return _combine(node, [memo[id(c)] for c in node.children])
        case n.Reduce():
            return _reduce(node, memo)
        case n.At():
            return _at(node, memo)
        case n.Along() | n.Solve() | n.Loop() | n.Result() | n.Custom() | n.Scatter() | n.Concat():
            return _entangled(node, memo)
        case _:
            return {}


def _merge(parts: list[Found]) -> Found:
    out: Found = {}
    for part in parts:
        for size, coupling in part.items():
            out[size] = worst(out[size], coupling) if size in out else coupling
    return out


def _combine(node: n.Apply, parts: list[Found]) -> Found:
    """Element-wise: sums of sums stay sums; anything non-linear of a sum over positions entangles them."""
    out = _merge(parts)
    linear = node.op in ("add", "sub", "neg", "stop") or (
        node.op == "mul" and sum(bool(p) for p in parts) <= 1) or (node.op == "div" and not parts[1])  # fmt: skip
    for size in list(out):
        kinds = {p[size] for p in parts if size in p}
        if out[size] in (Coupling.SUM, Coupling.MEAN) and (not linear or (len(kinds) > 1 and Coupling.EACH in kinds)):
            out[size] = Coupling.GLOBAL
        if out[size] is Coupling.EACH and sum(d.size == size for d in node.dims) > 1:
            out[size] = Coupling.PAIRWISE
    return out


def _reduce(node: n.Reduce, memo: dict[int, Found]) -> Found:
    out = _merge([memo[id(c)] for c in node.children])
    for dim in node.bound:
        size = dim.size
        before = out.get(size)
        if before is None:
            continue
        if before in (Coupling.PAIRWISE, Coupling.GLOBAL):
            continue
        over_self = sum(d.size == size for d in (*node.dims, *node.bound))
        if over_self > 1:
            out[size] = Coupling.PAIRWISE
        elif node.op in ("sum", "mean") and before is Coupling.EACH:
            plain = node.guard is None or node.op == "sum"
            out[size] = (Coupling.SUM if node.op == "sum" else Coupling.MEAN) if plain else Coupling.GLOBAL
        else:
            out[size] = Coupling.GLOBAL
    for size, coupling in list(out.items()):
        if (
            coupling in (Coupling.SUM, Coupling.MEAN)
            and node.op not in ("sum", "mean")
            and all(d.size != size for d in node.bound)
        ):
            out[size] = Coupling.GLOBAL
    return out


def _at(node: n.At, memo: dict[int, Found]) -> Found:
    out = _merge([memo[id(c)] for c in node.children])
    for dim, index in node.mapping:
        if isinstance(index, n.Iota) and index.dim.size == dim.size and not any(
            d.size == dim.size for d in node.body.dims if d != dim
        ):  # fmt: skip
            continue
        if dim.size in out and out[dim.size] is Coupling.EACH:
            whole = isinstance(index, n.Iota | n.Const | n.SizeOf) or (
                isinstance(index, n.Apply) and index.op in ("add", "sub")
            )
            out[dim.size] = Coupling.GLOBAL if whole and not isinstance(index, n.Iota) else Coupling.PAIRWISE
    return out


def _entangled(node: Node, memo: dict[int, Found]) -> Found:
    out = _merge([memo[id(c)] for c in node.children])
    mixed: set[Size] = set()
    match node:
        case n.Along():
            mixed = {d.size for d in node.along}
        case n.Solve():
            mixed = {d.size for _, core in node.args for d in core}
        case n.Loop() | n.Result() | n.Custom() | n.Scatter():
            mixed = set(out)
        case n.Concat():
            mixed = {d.size for _, d in node.parts if d is not None}
        case _:
            pass
    return {
        size: Coupling.GLOBAL if size in mixed or c in (Coupling.SUM, Coupling.MEAN) else c for size, c in out.items()
    }
