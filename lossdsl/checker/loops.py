"""Bounded loops: `repeat` with carried values, `scan` along an axis."""

from __future__ import annotations

from dataclasses import dataclass

from lossdsl.checker import types
from lossdsl.checker.context import Context
from lossdsl.checker.values import Range, Scope, Tensor
from lossdsl.graph.nodes import Dim, Leaf, Node
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Stop
from lossdsl.types.domains import ANY, NONNEGATIVE, POSITIVE, UNIT_INTERVAL, Interval, Kind
from lossdsl.types.sizes import Size

MAX_UNROLLED = 64
_RANK = {Kind.BOOL: 0, Kind.INT: 1, Kind.REAL: 2}


class _ShapeChanges(Exception):  # noqa: N818 - control flow
    """A carried value leaves a round with other axes than it entered with."""


@dataclass
class _Carried:
    """What is assumed of a carried value while its loop is checked."""

    initial: Tensor
    dims: frozenset[Dim]
    axes: tuple[Dim, ...]
    kind: Kind
    domain: Interval


@dataclass
class _Round:
    """One elaborated round."""

    counter: Leaf
    leaves: tuple[Leaf, ...]
    results: tuple[Tensor, ...]
    until: Node | None


def repeat(ctx: Context, scope: Scope, loop: ast.Repeat) -> None:
    """`repeat l < n with x = x0 until c:`."""
    count = types.size(ctx, scope, loop.count)
    _fresh_variable(ctx, scope, loop.variable, loop)
    try:
        carried, found = _settle(ctx, scope, loop, loop.body, count, loop.until)
    except _ShapeChanges:
        _unroll(ctx, scope, loop, count)
        return
    results = ctx.graph.loop(
        found.counter,
        ctx.graph.size(count),
        found.leaves,
        tuple(c.initial.node for c in carried),
        tuple(t.node for t in found.results),
        found.until,
    )
    for item, assumed, node in zip(loop.carried, carried, results, strict=True):
        node.hint = node.hint or item.name
        scope.names[item.name] = Tensor(node, assumed.axes)


def scan(ctx: Context, scope: Scope, loop: ast.Scan) -> None:
    """`scan t: T backwards with a = 0:`."""
    found_range = types.range_of(ctx, scope, loop.axis)
    _fresh_variable(ctx, scope, loop.variable, loop)
    try:
        carried, found = _settle(ctx, scope, loop, loop.body, found_range.size, None)
    except _ShapeChanges:
        raise ctx.stop(
            "E055",
            "a value carried along a scan keeps its shape",
            loop.span,
            help="start with a tensor of that shape; the values of all steps are collected by themselves",
        ) from None
    taken = {d for c in carried for d in (*c.axes, *c.dims)}
    axis = ctx.axis_for(scope, Range(found_range.size, found_range.axis), taken)
    results = ctx.graph.loop(
        found.counter, ctx.graph.size(found_range.size), found.leaves, tuple(c.initial.node for c in carried),
        tuple(t.node for t in found.results), None, axis, loop.backwards,
    )  # fmt: skip
    for item, assumed, node in zip(loop.carried, carried, results, strict=True):
        node.hint = node.hint or item.name
        scope.names[item.name] = Tensor(node, (axis, *assumed.axes))


def _fresh_variable(ctx: Context, scope: Scope, name: str, loop: ast.Repeat | ast.Scan) -> None:
    if name in scope.names:
        raise ctx.stop("E028", f"{name} already stands for something here", loop.span, help="use another letter")
    if types.is_axis_name(name):
        raise ctx.stop("E028", "a loop's variable is lower case", loop.span, help=f"write {name.lower()}")
    names = [c.name for c in loop.carried]
    for item in loop.carried:
        if names.count(item.name) > 1:
            raise ctx.stop("E011", f"{item.name} is carried twice", item.span, help="carry it once")
        if item.name in scope.names and item.name not in scope.carried:
            raise ctx.stop(
                "E011",
                f"{item.name} already stands for something",
                item.span,
                help=f"carry it under a new name: with new_{item.name} = {item.name}",
            )


def _settle(
    ctx: Context,
    scope: Scope,
    loop: ast.Repeat | ast.Scan,
    body: tuple[ast.Statement, ...],
    count: Size,
    until: ast.Expr | None,
) -> tuple[list[_Carried], _Round]:
    """Find dims, kinds and domains of the carried values that one more round does not change."""
    from lossdsl.checker.expressions import tensor

    carried = []
    for item in loop.carried:
        initial = tensor(ctx, scope, item.value)
        carried.append(
            _Carried(initial, initial.node.dims, initial.axes, initial.node.kind, ctx.interval(initial.node))
        )
    before = list(ctx.diagnostics.found)
    for attempt in range(8):
        last = attempt == 7
        ctx.diagnostics.found[:] = before
        failed = False
        try:
            found = _one_round(ctx, scope, loop, body, count, carried, until)
        except Stop:
            if last or attempt == 0:
                raise
            failed = True
        if failed:
            carried = [_Carried(c.initial, c.dims, c.axes, c.kind, ANY) for c in carried]
            continue
        changed = _widen(ctx, carried, found, attempt)
        if not changed:
            return carried, found
    raise ctx.stop(
        "E055",
        "the shape of a carried value keeps growing",
        loop.span,
        help="give every carried value the axes that it has after a round already at the start",
    )


def _one_round(
    ctx: Context,
    scope: Scope,
    loop: ast.Repeat | ast.Scan,
    body: tuple[ast.Statement, ...],
    count: Size,
    carried: list[_Carried],
    until: ast.Expr | None,
) -> _Round:
    from lossdsl.checker import statements
    from lossdsl.checker.expressions import truth

    graph = ctx.graph
    counter = graph.leaf("iter", graph.fresh(loop.variable), (), Kind.INT, NONNEGATIVE, count)
    inner = scope.inner()
    inner.in_loop = True
    inner.names[loop.variable] = Tensor(counter)
    leaves = []
    for item, assumed in zip(loop.carried, carried, strict=True):
        hidden = tuple(sorted(assumed.dims - set(assumed.axes), key=lambda d: d.order))
        leaf = graph.leaf("carry", graph.fresh(item.name), (*hidden, *assumed.axes), assumed.kind, assumed.domain)
        leaves.append(leaf)
        inner.names[item.name] = Tensor(leaf, assumed.axes)
    inner.carried = inner.carried | {c.name for c in loop.carried}
    value = statements.block(ctx, inner, body, None)
    if value is not None:
        raise ctx.stop(
            "E052",
            "a loop has no value of its own; it changes its carried values",
            loop.span,
            help="assign a carried name: x = ..",
        )
    results = []
    for item, leaf in zip(loop.carried, leaves, strict=True):
        found = inner.names[item.name]
        if (
            isinstance(found, Tensor)
            and found.node is leaf
            and found.axes == leaf.axes
            and len(loop.carried) >= 1
            and not _assigned(body, item.name)
        ):
            raise ctx.stop(
                "E054",
                f"{item.name} is carried but never assigned in the loop",
                item.span,
                help=f"assign it: {item.name} = ..",
            )
        if not isinstance(found, Tensor):
            raise Stop
        results.append(found)
    condition = None if until is None else truth(ctx, inner, until).node
    return _Round(counter, tuple(leaves), tuple(results), condition)


def _assigned(body: tuple[ast.Statement, ...], name: str) -> bool:
    for statement in body:
        if isinstance(statement, ast.Definition):
            for target in statement.targets:
                base = target.base if isinstance(target, ast.Bracket) else target
                if isinstance(base, ast.Name) and base.id == name:
                    return True
        if isinstance(statement, ast.Repeat | ast.Scan) and any(c.name == name for c in statement.carried):
            return True
    return False


def _widen(ctx: Context, carried: list[_Carried], found: _Round, attempt: int) -> bool:
    changed = False
    for assumed, result in zip(carried, found.results, strict=True):
        fewer = set(assumed.axes) - set(result.axes)
        if fewer and set(result.axes) - set(assumed.axes):
            raise _ShapeChanges
        axes = tuple(dict.fromkeys((*assumed.axes, *result.axes)))
        dims = assumed.dims | result.node.dims
        if found.until is not None:
            dims |= found.until.dims
        kind = max(assumed.kind, result.node.kind, key=_RANK.__getitem__)
        interval = ctx.interval(result.node)
        domain = assumed.domain
        if not interval.within(domain):
            domain = _wider(domain, interval, attempt)
        if (axes, dims, kind, domain) != (assumed.axes, assumed.dims, assumed.kind, assumed.domain):
            assumed.axes, assumed.dims, assumed.kind, assumed.domain = axes, dims, kind, domain
            changed = True
    return changed


def _wider(a: Interval, b: Interval, attempt: int) -> Interval:
    joined = a.join(b)
    if attempt == 0:
        return joined
    candidates = (
        (UNIT_INTERVAL, POSITIVE, NONNEGATIVE) if attempt < 3 else (POSITIVE, NONNEGATIVE) if attempt < 5 else ()
    )
    for wide in candidates:
        if joined.within(wide):
            return wide
    return ANY


def _unroll(ctx: Context, scope: Scope, loop: ast.Repeat, count: Size) -> None:
    from lossdsl.checker import statements
    from lossdsl.checker.expressions import tensor

    rounds = count.constant
    if rounds is None:
        defaults = {
            s.name: int(s.default)
            for s in (ctx.program.hypers if ctx.program else [])
            if s.default is not None and s.kind is Kind.INT
        }
        if {a.name for a in count.atoms} <= set(defaults):
            rounds = count.value(defaults)
    if rounds is None:
        raise ctx.stop("E055", "a carried value changes its shape, so the number of rounds must be fixed by hyperparameters", loop.span,
                       underline=f"it is {count}", help="declare the count as a whole hyperparameter with a default")  # fmt: skip
    if rounds > MAX_UNROLLED:
        raise ctx.stop(
            "E055",
            f"a loop whose shapes change has at most {MAX_UNROLLED} rounds, not {rounds}",
            loop.span,
            help="let carried values keep their shape, then any count will do",
        )
    if loop.until is not None:
        raise ctx.stop(
            "E055",
            "a loop whose shapes change cannot stop early",
            loop.until.span,
            help="leave out until, or let carried values keep their shape",
        )
    if count.constant is None and ctx.program is not None:
        ctx.graph.baked |= {a.name for a in count.atoms}
    current = {item.name: tensor(ctx, scope, item.value) for item in loop.carried}
    for round_ in range(rounds):
        inner = scope.inner()
        inner.in_loop = True
        inner.names[loop.variable] = Tensor(ctx.graph.const(round_))
        inner.names.update(current)
        inner.carried = inner.carried | set(current)
        if statements.block(ctx, inner, loop.body, None) is not None:
            raise ctx.stop(
                "E052",
                "a loop has no value of its own; it changes its carried values",
                loop.span,
                help="assign a carried name: x = ..",
            )
        for name in current:
            found = inner.names[name]
            if not isinstance(found, Tensor):
                raise Stop
            current[name] = found
    scope.names.update(current)
