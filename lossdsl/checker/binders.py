"""Binders: `op[axes or variables | guard](body) else e`, for reductions and for operations that keep their axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lossdsl.checker import reads, types
from lossdsl.checker.context import Context, merge_axes
from lossdsl.checker.values import Range, Scope, Tensor
from lossdsl.graph import nodes as n
from lossdsl.graph.nodes import Dim, Node
from lossdsl.ops.axes import ALONG, REDUCTIONS
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Label
from lossdsl.types.domains import Kind

if TYPE_CHECKING:
    from lossdsl.syntax.source import Span

COMPOSED = ("count", "var", "std", "norm")
KEEPING = (*ALONG, "flip", "top")
BINDERS = tuple(dict.fromkeys((*REDUCTIONS, *COMPOSED, *KEEPING)))
NEEDS_SOMETHING = ("mean", "max", "min", "logsumexp", "argmax", "argmin", "var", "std")


@dataclass
class _Bound:
    """What stands between the brackets, worked out."""

    scope: Scope
    axes: list[tuple[Dim, Span]]
    variables: dict[str, Dim]
    ranges: dict[str, Range]

    @property
    def dims(self) -> tuple[Dim, ...]:
        return (*(d for d, _ in self.axes), *self.variables.values())


def binder(
    ctx: Context, scope: Scope, call: ast.Call, bracket: ast.Bracket, name: str, default: ast.Expr | None
) -> Tensor:
    """One binder call."""
    from lossdsl.checker.expressions import tensor, truth

    body_expr = _body(ctx, call, name)
    axes, wanted, given = _entries(ctx, scope, bracket, name)
    keeping = name in KEEPING
    # a keeping operation over a variable of the surroundings works at its place
    outer = [v for v in wanted if keeping and v in scope.variables]
    new = [v for v in wanted if v not in outer]
    for variable in new:
        if variable in scope.names:
            raise ctx.stop(
                "E028", f"{variable} already stands for something here", bracket.span, help="use another letter"
            )
    missing = [v for v in new if v not in given]
    ranges = dict(given)
    if missing:
        trial = scope.inner()
        ranges.update(_infer(ctx, trial, missing, given, [bracket.guard, body_expr], bracket.span))
    ranges = {v: ranges[v] for v in new}
    with ctx.variables(scope, ranges) as (inner, dims):
        bound = _Bound(inner, axes, dims, ranges)
        guard = None if bracket.guard is None else truth(ctx, inner, bracket.guard)
        if guard is None:
            body = tensor(ctx, inner, body_expr)
        else:
            with ctx.assume(guard.node):
                body = tensor(ctx, inner, body_expr)
            body = Tensor(ctx.protect(body.node, guard.node), body.axes)
        _check_axes(ctx, scope, bound, body, guard, bracket, name)
        otherwise = None if default is None else tensor(ctx, scope, default)
        if keeping:
            places = tuple(d for d, _ in axes) + tuple(dims.values()) + tuple(_outer_dim(ctx, scope, v) for v in outer)
            return _keep(ctx, scope, name, places, bound, body, guard, otherwise, call)
        return _reduce(ctx, name, bound, body, guard, otherwise, call, default)


def _infer(
    ctx: Context, scope: Scope, missing: list[str], given: dict[str, Range], exprs: list[ast.Expr | None], span: Span
) -> dict[str, Range]:
    if not given:
        return reads.infer(ctx, scope, missing, exprs, span)
    with ctx.variables(scope, given) as (inner, _):
        return reads.infer(ctx, inner, missing, exprs, span)


def _body(ctx: Context, call: ast.Call, name: str) -> ast.Expr:
    named = [a for a in call.arguments if a.name is not None and not (name == "top" and a.name == "k")]
    plain = [a for a in call.arguments if a.name is None]
    if len(plain) != 1 or named:
        raise ctx.stop(
            "E040",
            f"{name}[..](..) takes one argument",
            call.span,
            underline=f"{len(call.arguments)} given",
            help="k is given by keyword: top[K](x, k=10)"
            if name == "top"
            else f"combine what is meant first: {name}[..](x + y)",
        )
    return plain[0].value


def _entries(
    ctx: Context, scope: Scope, bracket: ast.Bracket, name: str
) -> tuple[list[tuple[Dim, Span]], list[str], dict[str, Range]]:
    axes: list[tuple[Dim, Span]] = []
    wanted: list[str] = []
    given: dict[str, Range] = {}
    for entry in bracket.entries:
        match entry:
            case ast.Index(ast.Name() as item):
                if item.id in scope.axes:
                    axes.append((scope.axes[item.id], entry.span))
                elif types.is_axis_name(item.id):
                    types.range_of(ctx, scope, item)  # reports the unknown axis
                else:
                    wanted.append(item.id)
            case ast.Slice(start, stop, None) if isinstance(start, ast.Name) and stop is not None:
                wanted.append(start.id)
                given[start.id] = types.range_of(ctx, scope, stop)
            case _:
                raise ctx.stop(
                    "E052",
                    f"{name}[..] takes axes (N), variables (i) or variables with a range (i: N)",
                    entry.span,
                    help=f"write {name}[N](..) with an axis of the body, or {name}[i: N](..)",
                )
    double = [w for k, w in enumerate(wanted) if w in wanted[:k]]
    if double or len({d for d, _ in axes}) < len(axes):
        raise ctx.stop(
            "E028",
            "this is bound twice",
            bracket.span,
            help="each axis and each variable stands once between the brackets: sum[i, j](..)",
        )
    return axes, wanted, given


def _outer_dim(ctx: Context, scope: Scope, variable: str) -> Dim:
    found = scope.names[variable]
    assert isinstance(found, Tensor)
    assert isinstance(found.node, n.Iota)
    return found.node.dim


def _check_axes(
    ctx: Context, scope: Scope, bound: _Bound, body: Tensor, guard: Tensor | None, bracket: ast.Bracket, name: str
) -> None:
    visible = merge_axes([body] if guard is None else [body, guard])
    for dim, span in bound.axes:
        # f(x: real[A, B]) may be called with x: real[N, N]; there A and B still tell the axes apart
        nameless = [d for d in visible if d.size == dim.size and d not in scope.axes.values()]
        if nameless and dim in visible:
            raise ctx.stop("E025", f"{dim} stands twice in this shape; which one?", span,
                           labels=[Label(bracket.span, f"over {types.shape_text(body)}")], help="use index variables: sum[i](x[i, j])")  # fmt: skip
        if dim not in visible:
            raise ctx.stop("E026", f"there is no axis {_axis_word(scope, dim)} to {name} over", span,
                           underline=f"the body is {types.shape_text(body)}", help=_axes_help(scope, visible))  # fmt: skip


def _axis_word(scope: Scope, dim: Dim) -> str:
    return next((name for name, d in scope.axes.items() if d == dim), str(dim))


def _axes_help(scope: Scope, visible: tuple[Dim, ...]) -> str:
    if not visible:
        return "the body is a scalar here; drop the binder"
    names = [_axis_word(scope, d) for d in visible]
    return f"it has {', '.join(names)}"


def _condition_over(ctx: Context, bound: _Bound, guard: Node | None, lenient: bool, call: ast.Call) -> Node | None:
    """A guard that also says that the axes are not empty, where they may be.

    A length that is only known to be long enough once the inputs come (H - S + 1) is checked then, unless there is an `else`.
    """
    for dim in bound.dims:
        least = dim.size.least
        if least is not None and least >= 1:
            continue
        if not lenient and not any(atom.least < 1 for atom in dim.size.atoms):
            ctx.need_length(dim.size - 1, call.span, f"this runs over {dim.size}, which must be at least 1")
            continue
        some = ctx.graph.apply("gt", ctx.graph.size(dim.size), ctx.graph.const(0))
        guard = some if guard is None else ctx.graph.apply("and", guard, some)
    return guard


def _reduce(
    ctx: Context,
    name: str,
    bound: _Bound,
    body: Tensor,
    guard: Tensor | None,
    otherwise: Tensor | None,
    call: ast.Call,
    default: ast.Expr | None,
) -> Tensor:
    graph = ctx.graph
    condition = None if guard is None else guard.node
    axes = tuple(d for d in merge_axes([body] if guard is None else [body, guard]) if d not in bound.dims)
    if otherwise is not None:
        axes = tuple(dict.fromkeys((*axes, *otherwise.axes)))
    if name in NEEDS_SOMETHING:
        condition = _condition_over(ctx, bound, condition, otherwise is not None, call)
        if (
            condition is not None
            and otherwise is None
            and not ctx.ranges.guard_holds_somewhere(condition, bound.dims, ctx.facts)
        ):
            what = "the guard may hold nowhere" if guard is not None else "this axis may be empty"
            ctx.report(
                "E031",
                f"this {name} may run over nothing: {what}",
                call.span,
                help=f"say what it is then: {name}[..](..) else 0",
            )
            otherwise = Tensor(graph.const(0))
    elif default is not None and name not in ("sum", "prod", "count", "any", "all", "norm"):
        pass
    if name in ("any", "all") and body.node.kind is not Kind.BOOL:
        raise ctx.stop(
            "E032",
            f"{name} needs conditions",
            call.span,
            underline=f"this is {types.shape_text(body)}",
            help="compare it: x > 0",
        )
    if name == "count" and body.node.kind is not Kind.BOOL:
        raise ctx.stop(
            "E032",
            "count needs conditions",
            call.span,
            underline=f"this is {types.shape_text(body)}",
            help=f"count[..]({_text(call)} > 0)",
        )
    if name in ("argmax", "argmin") and len(bound.dims) != 1:
        raise ctx.stop(
            "E040", f"{name} runs over one axis", call.span, help=f"name one, {name}[N](x); the others come along"
        )
    fallback = None if otherwise is None else otherwise.node
    node = _composed(ctx, name, bound.dims, body.node, condition, fallback)
    if node.span is None:
        node.span = call.span
    return Tensor(node, axes)


def _text(call: ast.Call) -> str:
    return call.arguments[0].value.span.text if call.arguments else "x"


def _composed(
    ctx: Context, name: str, dims: tuple[Dim, ...], body: Node, guard: Node | None, default: Node | None
) -> Node:
    graph = ctx.graph
    match name:
        case "count":
            return graph.reduce("sum", dims, body, guard, default)
        case "var" | "std":
            middle = graph.reduce("mean", dims, body, guard, graph.const(0) if default is not None else None)
            square = graph.apply("pow", graph.apply("sub", body, middle), graph.const(2))
            if default is None:
                spread = graph.reduce("mean", dims, square, guard)
                return spread if name == "var" else graph.apply("sqrt", spread)
            if name == "var":
                return graph.reduce("mean", dims, square, guard, default)
            some = graph.reduce("any", dims, graph.const(True) if guard is None else guard, guard)
            spread = graph.reduce("mean", dims, square, guard, graph.const(0))
            return graph.apply("where", some, graph.apply("sqrt", spread), default)
        case "norm":
            return graph.apply(
                "sqrt", graph.reduce("sum", dims, graph.apply("pow", body, graph.const(2)), guard, default)
            )
        case _:
            return graph.reduce(name, dims, body, guard, default)


def _keep(
    ctx: Context,
    scope: Scope,
    name: str,
    places: tuple[Dim, ...],
    bound: _Bound,
    body: Tensor,
    guard: Tensor | None,
    otherwise: Tensor | None,
    call: ast.Call,
) -> Tensor:
    graph = ctx.graph
    node = body.node
    axes = merge_axes([body] if guard is None else [body, guard])
    if name not in ("softmax", "log_softmax"):
        if len(places) != 1:
            raise ctx.stop(
                "E040", f"{name} runs along one axis", call.span, help=f"name one, {name}[N](x); the others come along"
            )
        if guard is not None:
            raise ctx.stop(
                "E052", f"{name} takes no condition", call.span, help="replace what it should not see: where(c, x, inf)"
            )
    match name:
        case "flip":
            (dim,) = places
            last = graph.size(dim.size - 1)
            node = graph.at(node, {dim: graph.apply("sub", last, graph.iota(dim))})
        case "top":
            return _top(ctx, scope, places[0], body, call)
        case "softmax" | "log_softmax" if guard is not None:
            node = _guarded_softmax(ctx, name, places, node, guard.node, otherwise, call)
        case _:
            node = graph.along(name, places, node)
    if bound.variables:
        rest = tuple(a for a in axes if a not in bound.variables.values())
        return ctx.to_axes(scope, node, bound.variables, bound.ranges, rest)
    return Tensor(node, axes)


def _guarded_softmax(
    ctx: Context, name: str, places: tuple[Dim, ...], body: Node, guard: Node, otherwise: Tensor | None, call: ast.Call
) -> Node:
    graph = ctx.graph
    if name == "log_softmax":
        raise ctx.stop("E052", "log_softmax takes no condition: it would be minus infinity where it fails", call.span,
                       help="subtract the guarded logsumexp yourself")  # fmt: skip
    if otherwise is None and not ctx.ranges.guard_holds_somewhere(guard, places, ctx.facts):
        ctx.report(
            "E031",
            f"this {name} may run over nothing: the guard may hold nowhere",
            call.span,
            help=f"say what it is then: {name}[..](..) else 0",
        )
    total = graph.reduce("logsumexp", places, body, guard, graph.const(0))
    share = graph.apply("exp", graph.apply("where", guard, graph.apply("sub", body, total), graph.const(0)))
    inside = graph.apply("where", guard, share, graph.const(0))
    if otherwise is None:
        return inside
    some = graph.reduce("any", places, guard)
    return graph.apply("where", some, inside, otherwise.node)


def _top(ctx: Context, scope: Scope, dim: Dim, body: Tensor, call: ast.Call) -> Tensor:
    given = [a for a in call.arguments if a.name == "k"]
    if len(given) != 1:
        raise ctx.stop(
            "E042",
            "top needs k: top[K](x, k = 10)",
            call.span,
            help="give it by keyword, a whole number, hyperparameter or length",
        )
    k = types.size(ctx, scope, given[0].value)
    ctx.need_length(dim.size - k, given[0].span, f"top needs an axis of at least {k}, this one has {dim.size}")
    graph = ctx.graph
    ordered = graph.along("sort", (dim,), body.node)
    new = ctx.axis_for(scope, Range(k), [a for a in body.axes if a != dim])
    index = graph.apply("sub", graph.size(dim.size - 1), graph.iota(new))
    node = graph.at(ordered, {dim: index})
    return Tensor(node, tuple(new if a == dim else a for a in body.axes))
