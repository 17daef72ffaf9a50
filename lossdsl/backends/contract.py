"""Reductions: guards and empty sets, sums of products as matrix products, weighted windows as convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lossdsl.backends.code import Arg, Placed
from lossdsl.graph import nodes as n
from lossdsl.graph.nodes import Dim, Node
from lossdsl.types.domains import Kind

if TYPE_CHECKING:
    from lossdsl.backends.lower import Lowering


def reduce(low: Lowering, node: n.Reduce) -> Placed:
    """One reduction."""
    if node.op in ("sum", "mean") and node.guard is None and node.body.kind is Kind.REAL:
        product = _product(low, node, node.body, node.bound)
        if product is not None:
            return _divided(low, node, product) if node.op == "mean" else product
    if node.guard is None:
        return _plain(low, node)
    return _guarded(low, node)


def _divided(low: Lowering, node: n.Reduce, total: Placed) -> Placed:
    count: Arg = 1
    for dim in node.bound:
        length = low.length(dim.size)
        count = length if count == 1 else low.scalar("*", count, length)
    return Placed(low.emit("/", total.arg, count, hint=node.hint or ""), total.dims)


# ---- without a guard -----------------------------------------------------------------------


def _tensor(low: Lowering, placed: Placed, dims: tuple[Dim, ...], kind: Kind) -> Placed:
    """A tensor that has all these dims."""
    missing = tuple(d for d in dims if d not in placed.dims)
    if not missing and not placed.scalar:
        return placed
    order = (*placed.dims, *missing)
    return Placed(low.expand(placed, order, kind), order)


def _plain(low: Lowering, node: n.Reduce) -> Placed:
    body = low.lower(node.body)
    if node.op in ("mean", "logsumexp"):
        body = low.real(body, node.body.kind)
    body = _tensor(low, body, node.bound, node.body.kind)
    return _call(low, node.op, body, node.bound, node.body.kind, node.hint or "")


def _call(low: Lowering, op: str, body: Placed, bound: tuple[Dim, ...], kind: Kind, hint: str) -> Placed:
    rest = tuple(d for d in body.dims if d not in bound)
    axes = tuple(low.axis(body, d) for d in bound)
    dim: Arg = axes[0] if len(axes) == 1 else axes
    match op:
        case "sum" | "mean" | "logsumexp":
            return Placed(low.emit(f"torch.{op}", body.arg, dim=dim, hint=hint), rest)
        case "any" | "all":
            return Placed(low.emit(f"torch.{op}", body.arg, dim=dim, hint=hint), rest)
        case "norm":
            return Placed(low.emit("rt.norm", body.arg, dim, hint=hint), rest)
        case "prod":
            arg = body.arg
            for axis in sorted(axes):
                arg = low.emit("torch.prod", arg, dim=axis)
                axes = tuple(a + 1 if a < axis else a for a in axes)
            return Placed(arg, rest)
        case "argmax" | "argmin":
            if kind is Kind.BOOL:
                body = Placed(low.emit(".to", body.arg, "torch.int64"), body.dims)
            return Placed(low.emit(f"rt.{op}", body.arg, dim, hint=hint), rest)
        case _:
            arg = body.arg
            if kind is Kind.BOOL:
                arg = low.emit(".to", arg, "torch.int64")
            if len(bound) > 1:
                arg = low.emit(".flatten", low.view(Placed(arg, body.dims), (*rest, *bound)), len(rest))
                dim = -1
            return Placed(low.emit("getitem", low.emit(f"torch.{op}", arg, dim=dim), 0, hint=hint), rest)


# ---- with a guard --------------------------------------------------------------------------


def _guarded(low: Lowering, node: n.Reduce) -> Placed:
    assert node.guard is not None
    guard = low.lower(node.guard)
    if guard.scalar:
        guard = Placed(low.emit("torch.full", (), guard.arg, dtype="torch.bool", device=low.device()))
    hint = node.hint or ""
    if node.op in ("any", "all"):
        joined = low.graph.apply("and", node.guard, node.body) if node.op == "any" else (
            low.graph.apply("or", low.graph.apply("not", node.guard), node.body))  # fmt: skip
        body = _tensor(low, _boolean(low, low.lower(joined)), node.bound, Kind.BOOL)
        found = _call(low, node.op, body, node.bound, Kind.BOOL, hint)
        return found if node.default is None else _or_default(low, node, guard, found)
    if node.op in ("sum", "mean"):
        total = _masked_sum(low, node, guard)
        if node.op == "sum":
            return total if node.default is None else _or_default(low, node, guard, total)
        count = _count(low, node, guard)
        if node.default is None:
            dims = low.merge([total, count])
            return Placed(low.emit("/", low.view(total, dims), low.view(count, dims), hint=hint), dims)
        safe = Placed(low.emit("torch.clamp", count.arg, min=1), count.dims)
        dims = low.merge([total, safe])
        mean = Placed(low.emit("/", low.view(total, dims), low.view(safe, dims), hint=hint), dims)
        return _choose(low, node, Placed(low.emit(">", count.arg, 0), count.dims), mean)
    return _filled(low, node, guard, hint)


def _boolean(low: Lowering, placed: Placed) -> Placed:
    if placed.scalar:
        return Placed(low.emit("torch.full", (), placed.arg, dtype="torch.bool", device=low.device()))
    return placed


def _masked_sum(low: Lowering, node: n.Reduce, guard: Placed) -> Placed:
    body_dims = node.body.dims
    guard_dims = frozenset(guard.dims)
    blown_up = len(body_dims | guard_dims) > max(len(body_dims), len(guard_dims)) and body_dims & guard_dims
    if blown_up and node.body.kind is Kind.REAL and set(node.bound) <= (body_dims | guard_dims):
        product = _einsum(low, [low.real(guard, Kind.BOOL), low.lower(node.body)], node.bound)
        if product is not None:
            return product
    body = low.lower(node.body)
    if node.op == "mean" or node.kind is Kind.REAL:
        body = low.real(body, node.body.kind)
    elif node.body.kind is Kind.BOOL and not body.scalar:
        body = Placed(low.emit(".to", body.arg, "torch.int64"), body.dims)
    if (body.scalar and body.arg in (1, True)) or (body.scalar and node.kind is not Kind.REAL):
        full = _tensor(low, guard, node.bound, Kind.BOOL)
        number = low.emit(".to", full.arg, low.dtype() if node.kind is Kind.REAL else "torch.int64")
        total = _call(low, "sum", Placed(number, full.dims), node.bound, node.kind, "")
        return total if body.arg in (1, True) else Placed(low.emit("*", total.arg, body.arg), total.dims)
    dims = low.merge([guard, body])
    zero: Arg = 0.0 if node.kind is Kind.REAL else 0
    if body.scalar:
        body = low.number(body.arg)
    masked = Placed(low.emit("torch.where", low.view(guard, dims), low.view(body, dims), zero), dims)
    masked = _tensor(low, masked, node.bound, node.kind)
    return _call(low, "sum", masked, node.bound, node.kind, node.hint or "" if node.op == "sum" else "")


def _count(low: Lowering, node: n.Reduce, guard: Placed) -> Placed:
    full = _tensor(low, guard, tuple(d for d in node.bound if d in guard.dims), Kind.BOOL)
    bound = tuple(d for d in node.bound if d in full.dims)
    count = _call(low, "sum", full, bound, Kind.BOOL, "") if bound else Placed(low.emit(".long", full.arg), full.dims)
    rest = [d for d in node.bound if d not in bound]
    arg = count.arg
    for dim in rest:
        arg = low.emit("*", arg, low.length(dim.size))
    return Placed(arg, count.dims)


def _some(low: Lowering, node: n.Reduce, guard: Placed) -> Placed:
    """Does the guard hold anywhere along the bound dims?"""
    bound = tuple(d for d in node.bound if d in guard.dims)
    return _call(low, "any", guard, bound, Kind.BOOL, "") if bound else guard


def _or_default(low: Lowering, node: n.Reduce, guard: Placed, found: Placed) -> Placed:
    return _choose(low, node, _some(low, node, guard), found)


def _choose(low: Lowering, node: n.Reduce, some: Placed, found: Placed) -> Placed:
    assert node.default is not None
    default = low.lower(node.default)
    if node.kind is Kind.REAL:
        found = low.real(found, node.body.kind if node.op not in ("mean", "logsumexp", "sum") else Kind.REAL)
        default = low.real(default, node.default.kind)
    dims = low.merge([some, found, default])
    views = [low.view(p, dims) for p in (some, found, default)]
    return Placed(low.emit("torch.where", *views, hint=node.hint or ""), dims)


_FILL = {"max": "lowest", "min": "highest", "argmax": "lowest", "argmin": "highest", "logsumexp": "lowest"}


def _filled(low: Lowering, node: n.Reduce, guard: Placed, hint: str) -> Placed:
    """max, min, logsumexp, prod and places: what the guard excludes is replaced by a value that never wins."""
    body = low.lower(node.body)
    kind = node.body.kind
    if node.op == "logsumexp":
        body, kind = low.real(body, kind), Kind.REAL
    if kind is Kind.BOOL and not body.scalar:
        body = Placed(low.emit(".to", body.arg, "torch.int64"), body.dims)
        kind = Kind.INT
    if body.scalar:
        body = Placed(
            low.emit(
                "torch.full",
                (),
                body.arg,
                dtype=low.dtype() if kind is Kind.REAL else "torch.int64",
                device=low.device(),
            )
        )
    some = None if node.default is None else _some(low, node, guard)
    dims = low.merge([guard, body])
    mask = low.view(guard, dims)
    if node.op == "prod":
        fill: Arg = 1
    elif kind is Kind.REAL:
        fill = -float("inf") if _FILL[node.op] == "lowest" else float("inf")
    else:
        fill = -(2**62) if _FILL[node.op] == "lowest" else 2**62
    filled = Placed(low.emit("torch.where", mask, low.view(body, dims), fill), dims)
    if some is not None and node.op != "prod":
        # nothing there: keep every row finite, the default replaces it below
        all_dims = low.merge([filled, Placed(some.arg, some.dims)])
        filled = Placed(low.emit("torch.where", low.view(some, all_dims), low.view(filled, all_dims), 0), all_dims)
    filled = _tensor(low, filled, node.bound, kind)
    if some is not None and any((d.size.least or 0) < 1 for d in node.bound):
        filled = Placed(
            low.emit("rt.never_empty", filled.arg, tuple(low.axis(filled, d) for d in node.bound)), filled.dims
        )
    found = _call(low, node.op, filled, node.bound, kind, hint)
    if node.default is None:
        return found
    assert some is not None
    return _choose_typed(low, node, some, found, kind)


def _choose_typed(low: Lowering, node: n.Reduce, some: Placed, found: Placed, kind: Kind) -> Placed:
    assert node.default is not None
    default = low.lower(node.default)
    if node.kind is Kind.REAL:
        found = low.real(found, kind if node.op != "logsumexp" else Kind.REAL)
        default = low.real(default, node.default.kind)
    dims = low.merge([some, found, default])
    views = [low.view(p, dims) for p in (some, found, default)]
    return Placed(low.emit("torch.where", *views, hint=node.hint or ""), dims)


# ---- products ------------------------------------------------------------------------------


def _factors(node: Node) -> list[Node]:
    if isinstance(node, n.Apply) and node.op == "mul":
        return [*_factors(node.args[0]), *_factors(node.args[1])]
    return [node]


def _product(low: Lowering, node: n.Reduce, body: Node, bound: tuple[Dim, ...]) -> Placed | None:
    """Sum over bound of a product: factors that do not vary along them go outside, the rest is a contraction."""
    sign = 1
    while isinstance(body, n.Apply) and body.op == "neg":
        body, sign = body.args[0], -sign
    factors = _factors(body)
    outside = [f for f in factors if not f.dims & set(bound)]
    inside = [f for f in factors if f.dims & set(bound)]
    if sign == 1 and not outside and len(inside) < 2:
        return None
    if not inside:
        return None
    union = frozenset[Dim]().union(*(f.dims for f in inside))
    if set(bound) - union:
        return None
    total: Placed | None = None
    if len(inside) > 1:
        total = _window_sum(low, inside, bound)
        if total is None and len(union) > max(len(f.dims) for f in inside):
            total = _einsum(low, [low.real(low.lower(f), f.kind) for f in inside], bound)
    if total is None:
        if not outside and sign == 1:
            return None
        rest = inside[0]
        for factor in inside[1:]:
            rest = low.graph.apply("mul", rest, factor)
        inner = low.graph.reduce("sum", bound, rest)
        total = low.real(low.lower(inner), inner.kind)
    for factor in outside:
        placed = low.real(low.lower(factor), factor.kind) if factor.kind is not Kind.BOOL else low.lower(factor)
        dims = low.merge([total, placed])
        total = Placed(low.emit("*", low.view(total, dims), low.view(placed, dims)), dims)
    if sign < 0:
        total = Placed(low.emit("neg", total.arg, hint=node.hint or ""), total.dims)
    return total


def _einsum(low: Lowering, factors: list[Placed], bound: tuple[Dim, ...]) -> Placed | None:
    if any(f.scalar for f in factors):
        return None
    if len(factors) == 2 and len(bound) == 1:
        matrix = _matmul(low, factors[0], factors[1], bound[0])
        if matrix is not None:
            return matrix
    order = low.merge(factors)
    letters = {dim: chr(ord("a") + k) for k, dim in enumerate(order)}
    if len(order) > 26:
        return None
    out = tuple(d for d in order if d not in bound)
    inputs = ",".join("".join(letters[d] for d in f.dims) for f in factors)
    equation = f"{inputs}->{''.join(letters[d] for d in out)}"
    return Placed(low.emit("torch.einsum", equation, *(f.arg for f in factors)), out)


def _matmul(low: Lowering, a: Placed, b: Placed, bound: Dim) -> Placed | None:
    """[.., i, k] x [.., j, k]: a matrix product with the common dims as batch."""
    if bound not in a.dims or bound not in b.dims:
        return None
    batch = [d for d in a.dims if d in b.dims and d != bound]
    left = [d for d in a.dims if d not in b.dims]
    right = [d for d in b.dims if d not in a.dims]
    if len(left) != 1 or len(right) > 1 or (not right and batch):
        if len(right) == 1 and not left and not batch:
            return _matmul(low, b, a, bound)
        return None
    first = low.view(a, (*batch, *left, bound), keep_front=True)
    if not right:
        return Placed(low.emit("torch.matmul", first, b.arg), tuple(left))
    second = low.view(b, (*batch, bound, *right), keep_front=True)
    return Placed(low.emit("torch.matmul", first, second), (*batch, *left, *right))


def _window_sum(low: Lowering, factors: list[Node], bound: tuple[Dim, ...]) -> Placed | None:
    """sum_a g[a] * x[h + a] (one or two window variables) without making the windows, one axis at a time where the weights separate."""
    from lossdsl.backends.access import affine

    reads = [f for f in factors if isinstance(f, n.At) and f.default is None and _is_windowed(f, bound)]
    if len(reads) != 1:
        return None
    (read,) = reads
    weights = [f for f in factors if f is not read]
    if any(w.dims - set(bound) for w in weights) or any(len(w.dims) != 1 for w in weights):
        return None
    if {d for w in weights for d in w.dims} != set(bound) or len(weights) != len(bound):
        return None
    mapping = dict(read.mapping)
    body: Placed = low.real(low.lower(read.body), read.body.kind)
    plain: dict[Dim, Node] = {}
    for axis, index in mapping.items():
        form = affine(index)
        window = [d for d in (form.parts if form else {}) if d in bound]
        if not window:
            plain[axis] = index
            continue
        assert form is not None
        (variable,) = window
        place = next(d for d in form.parts if d not in bound)
        weight = low.lower(next(w for w in weights if variable in w.dims))
        start = low.length(form.shift)
        arg = low.emit("rt.window_sum", low.view(body, (*(d for d in body.dims if d != axis), axis)), weight.arg, start,
                       form.parts[place], low.length(place.size))  # fmt: skip
        body = Placed(arg, (*(d for d in body.dims if d != axis), place))
    if plain:
        from lossdsl.backends.access import _read

        body = _read(low, body, plain, read)
    return body


def _is_windowed(read: n.At, bound: tuple[Dim, ...]) -> bool:
    from lossdsl.backends.access import affine

    found: set[Dim] = set()
    for axis, index in read.mapping:
        inside = index.dims & set(bound)
        if not inside:
            continue
        form = affine(index)
        if form is None or len(inside) != 1 or len(form.parts) != 2:
            return False
        (variable,) = inside
        place = next(d for d in form.parts if d not in bound)
        if form.parts[variable] != 1 or form.parts[place] < 1 or form.shift.least is None or form.shift.least < 0:
            return False
        if place in read.body.dims and place != axis:
            return False
        found.add(variable)
    return found == set(bound) and not (set(bound) & (read.body.dims - {d for d, _ in read.mapping}))
