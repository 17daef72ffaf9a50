"""Reads: `At` nodes as views where the index is affine, as gathers elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lossdsl.backends.code import Arg, Placed
from lossdsl.graph import nodes as n
from lossdsl.graph.build import size_of
from lossdsl.graph.nodes import Dim, Node
from lossdsl.types.domains import Kind
from lossdsl.types.sizes import Size

if TYPE_CHECKING:
    from lossdsl.backends.lower import Lowering


@dataclass
class Affine:
    """sum of coefficient * position along dim, plus a length."""

    parts: dict[Dim, int] = field(default_factory=dict)
    shift: Size = field(default_factory=lambda: Size(()))

    def ends(self) -> tuple[Size, Size]:
        """The smallest and the largest value."""
        low = high = self.shift
        for dim, coefficient in self.parts.items():
            reach = (dim.size - 1) * coefficient
            if coefficient >= 0:
                high = high + reach
            else:
                low = low + reach
        return low, high


def affine(node: Node) -> Affine | None:
    """The index as an affine form in positions, or None."""
    size = size_of(node)
    if size is not None:
        return Affine({}, size)
    if isinstance(node, n.Iota):
        return Affine({node.dim: 1})
    if not isinstance(node, n.Apply):
        return None
    if node.op in ("add", "sub"):
        left, right = affine(node.args[0]), affine(node.args[1])
        if left is None or right is None:
            return None
        sign = 1 if node.op == "add" else -1
        parts = dict(left.parts)
        for dim, coefficient in right.parts.items():
            parts[dim] = parts.get(dim, 0) + sign * coefficient
        return Affine({d: c for d, c in parts.items() if c}, left.shift + right.shift * sign)
    if node.op == "neg":
        inner = affine(node.args[0])
        return None if inner is None else Affine({d: -c for d, c in inner.parts.items()}, -inner.shift)
    if node.op == "mul":
        for one, other in ((node.args[0], node.args[1]), (node.args[1], node.args[0])):
            factor = size_of(one)
            if factor is not None and factor.constant is not None:
                inner = affine(other)
                if inner is not None:
                    return Affine(
                        {d: c * factor.constant for d, c in inner.parts.items()}, inner.shift * factor.constant
                    )
    return None


def at(low: Lowering, node: n.At) -> Placed:
    """A read as views and at most one gather."""
    body = low.lower(node.body)
    mapping = dict(node.mapping)
    if body.scalar:
        return body
    if node.default is not None:
        padded = _pad(low, node, body, mapping)
        if padded is None:
            return _outside(low, node, body, mapping)
        body, mapping = padded
    return _read(low, body, mapping, node)


def _read(low: Lowering, body: Placed, mapping: dict[Dim, Node], node: Node) -> Placed:
    gathers: dict[Dim, Node] = {}
    used = {d for index in mapping.values() for d in index.dims}
    # positions first, so that a view never takes the name of a dim still to be mapped
    hidden = {d: Dim(d.size, 10_000 + k, True, d.label) for k, d in enumerate(mapping) if d in used or d in body.dims}
    body = Placed(body.arg, tuple(hidden.get(d, d) for d in body.dims))
    for dim, index in mapping.items():
        inner = hidden.get(dim, dim)
        if inner not in body.dims:
            continue
        form = affine(index)
        viewed = None if form is None else _view(low, body, inner, form, index)
        if viewed is None:
            gathers[inner] = index
        else:
            body = viewed
    if gathers:
        body = _gather(low, body, gathers, node)
    return Placed(body.arg, body.dims)


def _view(low: Lowering, body: Placed, dim: Dim, form: Affine, index: Node) -> Placed | None:
    axis = low.axis(body, dim)
    place = body.dims.index(dim)
    if not form.parts:
        return Placed(
            low.emit(".select", body.arg, axis, low.length(form.shift)), (*body.dims[:place], *body.dims[place + 1 :])
        )
    if len(form.parts) == 1:
        ((new, step),) = form.parts.items()
        if new in body.dims:
            return (
                _diagonal(low, body, dim, new)
                if step == 1 and form.shift == Size(()) and new.size == dim.size
                else None
            )
        sliced = _slice(low, body.arg, place, dim, new, step, form.shift)
        return None if sliced is None else Placed(sliced, (*body.dims[:place], new, *body.dims[place + 1 :]))
    if len(form.parts) == 2 and not any(d in body.dims for d in form.parts):
        return _window(low, body, dim, form)
    return None


def _slice(low: Lowering, arg: Arg, place: int, dim: Dim, new: Dim, step: int, shift: Size) -> Arg | None:
    if step == 1 and shift == Size(()) and new.size == dim.size:
        return arg
    if step < 0:
        if step != -1:
            return None
        flipped = low.emit("torch.flip", arg, (place,))
        return _slice(low, flipped, place, dim, new, 1, dim.size - 1 - shift)
    start = low.length(shift)
    stop = low.length(shift + (new.size - 1) * step + 1)
    whole_end = shift + (new.size - 1) * step + 1 == dim.size
    piece = slice(start if shift != Size(()) else None, None if whole_end else stop, step if step != 1 else None)
    return low.emit("getitem", arg, (*(slice(None) for _ in range(place)), piece))


def _diagonal(low: Lowering, body: Placed, dim: Dim, other: Dim) -> Placed:
    first, second = body.dims.index(other), body.dims.index(dim)
    rest = tuple(d for d in body.dims if d not in (dim, other))
    return Placed(low.emit("torch.diagonal", body.arg, dim1=first, dim2=second), (*rest, other))


def _window(low: Lowering, body: Placed, dim: Dim, form: Affine) -> Placed | None:
    """x[s*h + a + c] as `unfold`: windows of the second variable at strides of the first."""
    (first, step), (second, inner) = form.parts.items()
    if (step == 1 and inner != 1) or (inner == 1 and step == 1 and _size_order(second.size) > _size_order(first.size)):
        (first, step), (second, inner) = (second, inner), (first, step)
    if inner != 1 or step < 1:
        return None
    place = body.dims.index(dim)
    start = form.shift
    needed = start + (first.size - 1) * step + second.size
    arg = body.arg
    if start != Size(()) or needed != dim.size:
        stop = None if needed == dim.size else low.length(needed)
        begin = None if start == Size(()) else low.length(start)
        arg = low.emit("getitem", arg, (*(slice(None) for _ in range(place)), slice(begin, stop)))
    windows = low.emit(".unfold", arg, place, low.length(second.size), step)
    return Placed(windows, (*body.dims[:place], first, *body.dims[place + 1 :], second))


def _size_order(size: Size) -> float:
    """Windows are short: constants before lengths."""
    return size.constant if size.constant is not None else float("inf")


def _gather(low: Lowering, body: Placed, gathers: dict[Dim, Node], node: Node) -> Placed:
    indices = {dim: _index(low, index) for dim, index in gathers.items()}
    index_dims = low.merge(indices.values())
    rest = tuple(d for d in body.dims if d not in gathers)
    shared = tuple(d for d in rest if d in index_dims)
    hint = node.hint or ""
    if len(gathers) == 1:
        ((dim, index),) = indices.items()
        if set(index_dims) <= set(rest) and index_dims:
            return _along(low, body, dim, index, hint)
        if not shared and index_dims:
            return _select(low, body, dim, index, hint)
    order = (*shared, *gathers, *(d for d in rest if d not in shared))
    arg = low.view(body, order)
    target = (*shared, *(d for d in index_dims if d not in shared))
    places: list[Arg] = []
    for dim in shared:
        positions = Placed(low.emit("torch.arange", low.length(dim.size), device=low.device()), (dim,))
        places.append(low.view(positions, target, keep_front=True))
    places += [low.view(indices[dim], target) for dim in gathers]
    out = low.emit("getitem", arg, tuple(places), hint=hint)
    return Placed(out, (*target, *order[len(shared) + len(gathers) :]))


def _index(low: Lowering, index: Node) -> Placed:
    placed = low.lower(index)
    if placed.scalar:
        return Placed(low.emit("torch.full", (), placed.arg, dtype="torch.int64", device=low.device()))
    return Placed(low.emit(".long", placed.arg), placed.dims)


def _along(low: Lowering, body: Placed, dim: Dim, index: Placed, hint: str) -> Placed:
    """The index varies only over dims that the body has: take along the axis."""
    place = body.dims.index(dim)
    dims = tuple(d for d in body.dims if d != dim)
    view = low.view(index, (*dims[:place], dim, *dims[place:]), keep_front=True)
    taken = low.emit("torch.take_along_dim", body.arg, view, place)
    return Placed(low.emit(".squeeze", taken, place, hint=hint), dims)


def _select(low: Lowering, body: Placed, dim: Dim, index: Placed, hint: str) -> Placed:
    """The index varies over new dims only: select rows."""
    place = body.dims.index(dim)
    flat = index.arg if len(index.dims) == 1 else low.emit(".flatten", index.arg)
    out = low.emit("torch.index_select", body.arg, place, flat, hint=hint if len(index.dims) == 1 else "")
    if len(index.dims) != 1:
        out = low.emit(".unflatten", out, place, tuple(low.length(d.size) for d in index.dims), hint=hint)
    return Placed(out, (*body.dims[:place], *index.dims, *body.dims[place + 1 :]))


# ---- reads that may lie outside --------------------------------------------------------------


def _pad(low: Lowering, node: n.At, body: Placed, mapping: dict[Dim, Node]) -> tuple[Placed, dict[Dim, Node]] | None:
    """A constant outside value and affine indices: pad, then read inside."""
    if not isinstance(node.default, n.Const | n.Hyper) or node.body.kind is not Kind.REAL:
        return None
    amounts: dict[Dim, tuple[Size, Size]] = {}
    for dim, index in mapping.items():
        form = affine(index)
        if form is None or any(c < 0 for c in form.parts.values()):
            return None
        least, most = form.ends()
        before, after = -least, most - (dim.size - 1)
        sizes = []
        for extra in (before, after):
            if extra.constant is not None:
                sizes.append(Size.of(max(extra.constant, 0)))
            elif extra.least is not None and extra.least >= 0:
                sizes.append(extra)
            else:
                return None
        amounts[dim] = (sizes[0], sizes[1])
    pads: list[Arg] = []
    for dim in reversed(body.dims):
        before, after = amounts.get(dim, (Size(()), Size(())))
        pads += [low.length(before), low.length(after)]
    while len(pads) > 2 and pads[-1] == 0 and pads[-2] == 0:
        pads = pads[:-2]
    value = low.lower(node.default).arg
    arg = low.emit("F.pad", body.arg, tuple(pads), value=value)
    dims = []
    shifted: dict[Dim, Node] = {}
    for dim in body.dims:
        if dim not in amounts:
            dims.append(dim)
            continue
        before, after = amounts[dim]
        grown = Dim(dim.size + before + after, dim.copy, dim.index, dim.label)
        dims.append(grown)
        shifted[grown] = low.graph.apply("add", mapping[dim], low.graph.size(before))
    return Placed(arg, tuple(dims)), shifted


def _outside(low: Lowering, node: n.At, body: Placed, mapping: dict[Dim, Node]) -> Placed:
    """Read at clamped positions, then put the default where the position was outside."""
    graph = low.graph
    inside: Node | None = None
    safe: dict[Dim, Node] = {}
    for dim, index in mapping.items():
        last = graph.size(dim.size - 1)
        safe[dim] = graph.apply("clamp", index, graph.const(0), last)
        fits = graph.apply("and", graph.apply("ge", index, graph.const(0)), graph.apply("le", index, last))
        inside = fits if inside is None else graph.apply("and", inside, fits)
    assert inside is not None
    assert node.default is not None
    value = _read(low, body, safe, node)
    condition, default = low.lower(inside), low.lower(node.default)
    if condition.scalar:
        condition = Placed(low.emit("torch.full", (), condition.arg, dtype="torch.bool", device=low.device()))
    if node.kind is Kind.REAL:
        value, default = low.real(value, node.body.kind), low.real(default, node.default.kind)
    dims = low.merge([condition, value, default])
    views = [low.view(p, dims) for p in (condition, value, default)]
    return Placed(low.emit("torch.where", *views, hint=node.hint or ""), dims)
