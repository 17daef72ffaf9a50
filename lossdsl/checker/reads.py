"""Reading tensors at indices, and what that says of the variables' ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lossdsl.checker import types
from lossdsl.checker.context import Context, merge_axes
from lossdsl.checker.values import Range, Scope, Tensor
from lossdsl.graph import nodes as n
from lossdsl.graph.build import size_of
from lossdsl.graph.nodes import Dim, Node
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Label, Stop
from lossdsl.syntax.source import Span
from lossdsl.types.domains import Kind
from lossdsl.types.sizes import Size, SizeTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# ---- a read --------------------------------------------------------------------------------


def read(ctx: Context, scope: Scope, bracket: ast.Bracket, default: ast.Expr | None = None) -> Tensor:
    """`base[entries]`, or `base[entries] else default`."""
    from lossdsl.checker.expressions import tensor

    if bracket.guard is not None:
        raise ctx.stop(
            "E052",
            "a condition after `|` belongs to a binder such as sum[i | ..](..)",
            bracket.guard.span,
            help="choose with where(condition, x[i], 0), or guard the binder: sum[i | condition](x[i])",
        )
    base = tensor(ctx, scope, bracket.base)
    otherwise = None if default is None else tensor(ctx, scope, default)
    places = _places(ctx, scope, bracket, base)
    mapping: dict[Dim, Node] = {}
    axes: list[tuple[Dim, ...]] = [(d,) for d in base.axes]
    for place, entry in places:
        dim = base.axes[place]
        if isinstance(entry, ast.Slice):
            index, new = _slice(ctx, scope, entry, dim, [a for group in axes for a in group])
            axes[place] = (new,)
            mapping[dim] = index
            continue
        value = entry.value
        if isinstance(value, ast.Name) and scope.axes.get(value.id) == dim and value.id not in scope.names:
            continue  # the axis' own name keeps it
        found = tensor(ctx, scope, value)
        axes[place] = found.axes
        mapping[dim] = _index(ctx, found.node, dim, entry, default is not None)
    result_axes = tuple(dict.fromkeys(d for group in axes for d in group))
    if otherwise is not None:
        result_axes = merge_axes([Tensor(base.node, result_axes), otherwise])
    node = ctx.graph.at(base.node, mapping, None if otherwise is None else otherwise.node)
    return Tensor(node, result_axes)


def _places(
    ctx: Context, scope: Scope, bracket: ast.Bracket, base: Tensor
) -> list[tuple[int, ast.Index | ast.Slice | ast.Keyed]]:
    found: list[tuple[int, ast.Index | ast.Slice | ast.Keyed]] = []
    position = 0
    for entry in bracket.entries:
        if isinstance(entry, ast.Keyed):
            dim = scope.axes.get(entry.name)
            if dim is None or dim not in base.axes:
                raise ctx.stop("E026", f"there is no axis {entry.name} to read at", entry.span,
                               labels=[Label(bracket.base.span, f"has {types.shape_text(base)}")], help="name an axis of the tensor: logits[C = labels]")  # fmt: skip
            place = base.axes.index(dim)
        else:
            if position >= len(base.axes):
                raise ctx.stop(
                    "E022",
                    f"too many indices: this has {types.shape_text(base)}",
                    bracket.span,
                    underline=f"{len(bracket.entries)} indices",
                    help="a tensor is read with at most one index an axis" if base.axes else "a scalar takes no index",
                )
            place = position
            position += 1
        if any(place == p for p, _ in found):
            raise ctx.stop("E022", "this axis is read twice", entry.span, help="give one index for each axis")
        found.append((place, entry))
    return found


def _index(ctx: Context, index: Node, dim: Dim, entry: ast.Index | ast.Keyed, lenient: bool) -> Node:
    span = entry.span
    if index.kind is not Kind.INT:
        raise ctx.stop("E027", "an index is a whole number", span, underline=f"this is {index.kind}",
                       help=_whole_help(entry.value) if index.kind is Kind.REAL else "use where(..), or a guard: sum[i | ..](..)")  # fmt: skip
    if lenient or ctx.index_inside(index, dim.size):
        return index
    if ctx.index_inside(index, dim.size, ctx.facts):
        return ctx.graph.apply("clamp", index, ctx.graph.const(0), ctx.graph.size(dim.size - 1))
    leaf = index.body if isinstance(index, n.At) else index
    if isinstance(leaf, n.Leaf) and leaf.role == "input" and leaf.below is None:
        shape = f"[{', '.join(str(d.size) for d in leaf.axes)}]" if leaf.axes else ""
        hint = f"declare what it is below: `{leaf.name}: int{shape} < {dim.size}`"
    elif (
        isinstance(leaf, n.Leaf)
        and leaf.role == "input"
        and leaf.below is not None
        and ctx.ranges.nonnegative(dim.size - leaf.below)
    ):
        low = ctx.interval(index).low
        hint = f"{leaf.name} may be {low:g}: guard it, choose with where, or say what an outside read is: x[..] else 0"
    elif isinstance(entry.value, ast.Negative) and isinstance(index, n.Const):
        hint = f"indices count from 0; the last is {dim.size - 1}"
    elif isinstance(leaf, n.Leaf) and leaf.role == "input":
        hint = f"{leaf.name} is declared below {leaf.below}; two axes of one length share a name"
    else:
        hint = "shorten the variable's range, guard it, use clamp(..) or reflect(..), or say what an outside read is: x[..] else 0"
    ctx.report("E024", f"this index may lie outside the axis of length {dim.size}", span, help=hint)
    return index


def _whole_help(value: ast.Expr) -> str:
    divides = isinstance(value, ast.Binary) and value.op == "/"
    return "whole numbers are divided with //" if divides else "declare it int, or make it whole with floor or round"


def _slice(ctx: Context, scope: Scope, entry: ast.Slice, dim: Dim, taken: list[Dim]) -> tuple[Node, Dim]:
    step = 1
    if entry.step is not None:
        size = _whole(ctx, scope, entry.step)
        if size.constant is None or size.constant < 1:
            raise ctx.stop(
                "E027",
                "a slice's step is a positive whole constant",
                entry.step.span,
                help="steps go forwards, x[::2]; flip[N](x) turns an axis round",
            )
        step = size.constant
    start = Size.of(0) if entry.start is None else _end(ctx, scope, entry.start, dim)
    stop = dim.size if entry.stop is None else _end(ctx, scope, entry.stop, dim)
    for slack in (start, dim.size - stop, stop - start):
        ctx.need_length(slack, entry.span, f"the slice {start}:{stop} must lie inside the axis of length {dim.size}")
    length = (stop - start + (step - 1)) // step
    if length == dim.size:
        return ctx.graph.iota(dim), dim
    new = ctx.axis_for(scope, Range(length), taken)
    index = ctx.graph.apply("mul", ctx.graph.iota(new), ctx.graph.const(step)) if step != 1 else ctx.graph.iota(new)
    return ctx.graph.apply("add", index, ctx.graph.size(start)), new


def _end(ctx: Context, scope: Scope, expr: ast.Expr, dim: Dim) -> Size:
    size = _whole(ctx, scope, expr)
    return dim.size + size if size.constant is not None and size.constant < 0 else size


def _whole(ctx: Context, scope: Scope, expr: ast.Expr) -> Size:
    return types.size(ctx, scope, expr)


# ---- ranges of variables -------------------------------------------------------------------


@dataclass
class _Constraint:
    """range of `variable` <= size, told by the read at span; direct: read by the variable alone."""

    size: Size
    axis: Dim | None
    span: Span


def infer(ctx: Context, scope: Scope, names: list[str], exprs: list[ast.Expr | None], span: Span) -> dict[str, Range]:
    """The ranges of index variables from the reads in these expressions."""
    inner = _inner_variables(ctx, scope, [e for e in exprs if e is not None], names)
    everything = [*names, *inner]
    wanted = set(everything)
    told: dict[str, list[_Constraint]] = {name: [] for name in everything}
    pending: list[tuple[ast.Expr, Dim]] = []
    for expr in exprs:
        if expr is None:
            continue
        for value, dim, place in _reads(ctx, scope, expr, wanted):
            if isinstance(value, ast.Name) and value.id in wanted:
                told[value.id].append(_Constraint(dim.size, dim, place))
            else:
                pending.append((value, dim))
    known: dict[str, Range] = {name: given for name, given in inner.items() if given is not None}

    def settle(only_new: bool) -> None:
        for name in everything:
            if told[name] and inner.get(name) is None and not (only_new and name in known):
                if name in inner:
                    found = _quietly(ctx, lambda name=name: _settle(ctx, name, told[name]))  # type: ignore[misc]
                    if found is not None:
                        known[name] = found
                else:
                    known[name] = _settle(ctx, name, told[name])

    settle(only_new=True)
    for _ in range(len(everything) + 1):
        for value, dim in pending:
            _from_affine(ctx, scope, value, dim, wanted, known, told)
        settle(only_new=True)
    settle(only_new=False)  # shifted reads may shorten what direct reads told
    missing = [name for name in names if name not in known]
    if missing:
        _from_lenient(ctx, scope, exprs, set(missing), known)
        missing = [name for name in names if name not in known]
    if missing:
        name = missing[0]
        _check_bases(ctx, scope, exprs, name, wanted)
        raise ctx.stop("E023", f"nothing tells the range of {name}", span,
                       help=f"write it: [{name}: N], with an axis, a length or a whole hyperparameter")  # fmt: skip
    return {name: known[name] for name in names}


def _check_bases(ctx: Context, scope: Scope, exprs: Sequence[ast.Expr | None], name: str, wanted: set[str]) -> None:
    """Stop where what a variable reads is itself wrong: that is the mistake, not the range which it leaves open."""
    from lossdsl.checker.expressions import tensor

    for expr in exprs:
        called = set() if expr is None else {id(e.function) for e in walk(expr) if isinstance(e, ast.Call)}
        for item in () if expr is None else walk(expr):
            if not isinstance(item, ast.Bracket) or id(item) in called or _mentions(item.base, wanted):
                continue
            places = [k for k, e in enumerate(item.entries) if isinstance(e, ast.Index) and _mentions(e.value, {name})]
            if not places:
                continue
            axes = tensor(ctx, scope, item.base).axes
            if places[-1] >= len(axes):
                has = f"{len(axes)} ax{'i' if len(axes) == 1 else 'e'}s"
                raise ctx.stop(
                    "E022",
                    f"an index too many: {item.base.span.text} has {has}",
                    item.entries[places[-1]].span,
                    help="give at most one index for each axis",
                )


def _from_lenient(
    ctx: Context, scope: Scope, exprs: Sequence[ast.Expr | None], wanted: set[str], known: dict[str, Range]
) -> None:
    """A variable that only reads with an `else` tell of runs over the axis that they read: `x[t + 1] else 0` has t below T."""
    for expr in exprs:
        if expr is None:
            continue
        for value, dim, _ in _reads(ctx, scope, expr, wanted, with_else=True):
            parts = _affine(ctx, scope, value, wanted)
            if parts is not None and len(parts[0]) == 1 and set(parts[0].values()) == {1}:
                known.setdefault(next(iter(parts[0])), Range(dim.size, dim))


def _inner_variables(ctx: Context, scope: Scope, exprs: list[ast.Expr], names: list[str]) -> dict[str, Range | None]:
    """Variables that binders inside these expressions bind, with the ranges written there."""
    found: dict[str, Range | None] = {}
    for expr in exprs:
        for item in walk(expr):
            if not (isinstance(item, ast.Call) and isinstance(item.function, ast.Bracket)):
                continue
            for entry in item.function.entries:
                match entry:
                    case ast.Index(ast.Name(name)) if not types.is_axis_name(name):
                        if name not in names and name not in scope.names:
                            found.setdefault(name, None)
                    case ast.Slice(ast.Name(name), stop, None) if stop is not None and name not in names:
                        found[name] = _quietly(ctx, lambda stop=stop: types.range_of(ctx, scope, stop))  # type: ignore[misc]
                    case _:
                        pass
    return found


def _settle(ctx: Context, name: str, found: list[_Constraint]) -> Range:
    best = found[0]
    for other in found[1:]:
        try:
            least, most = (best.size - other.size).least, (other.size - best.size).least
        except SizeTooLarge:
            least = most = None
        if best.size == other.size or (most is not None and most >= 0):
            if best.axis is None and other.axis is not None and best.size == other.size:
                best = other
            continue
        if least is not None and least >= 0:
            best = other
            continue
        raise ctx.stop("E021", f"{name} runs over two axes without a common length", other.span, underline=f"here over {other.size}",
                       labels=[Label(best.span, f"here over {best.size}")],
                       help="two axes of one length share a name; use another variable for the other axis")  # fmt: skip
    return Range(best.size, best.axis)


def _from_affine(
    ctx: Context,
    scope: Scope,
    value: ast.Expr,
    dim: Dim,
    wanted: set[str],
    known: dict[str, Range],
    told: dict[str, list[_Constraint]],
) -> None:
    parts = _affine(ctx, scope, value, wanted)
    if parts is None:
        return
    coefficients, low, high = parts
    unknown = [v for v in coefficients if v not in known]
    for variable in unknown or list(coefficients):
        others = [v for v in coefficients if v != variable]
        if any(v not in known for v in others) or coefficients[variable] < 1:
            continue
        if unknown and others and any(coefficients[v] < 0 for v in others):
            continue
        bottom, top = low, high
        for other in others:
            reach = (known[other].size - 1) * coefficients[other]
            if coefficients[other] >= 0:
                top = top + reach
            else:
                bottom = bottom + reach
        if bottom.least is None or bottom.least < 0:
            continue
        size = (dim.size - 1 - top) // coefficients[variable] + 1
        if variable not in unknown and size == known[variable].size:
            continue
        if variable in unknown or _shorter(size, known[variable].size):
            axis = dim if size == dim.size else None
            constraint = _Constraint(size, axis, value.span)
            if all(c.size != size for c in told[variable]):
                told[variable].append(constraint)
    return


def _shorter(a: Size, b: Size) -> bool:
    least = (b - a).least
    return least is not None and least >= 0


def _affine(ctx: Context, scope: Scope, expr: ast.Expr, wanted: set[str]) -> tuple[dict[str, int], Size, Size] | None:
    """Expr as sum coefficient * variable + rest with rest between two lengths, or None."""
    match expr:
        case ast.Group():
            return _affine(ctx, scope, expr.inner, wanted)
        case ast.Name() if expr.id in wanted:
            return {expr.id: 1}, Size(()), Size(())
        case ast.Negative():
            inner = _affine(ctx, scope, expr.operand, wanted)
            return None if inner is None else ({v: -c for v, c in inner[0].items()}, -inner[2], -inner[1])
        case ast.Binary() if expr.op in ("+", "-"):
            left = _affine(ctx, scope, expr.left, wanted)
            right = _affine(ctx, scope, expr.right, wanted)
            if left is None or right is None:
                return None
            if expr.op == "-":
                right = {v: -c for v, c in right[0].items()}, -right[2], -right[1]
            both = dict(left[0])
            for v, c in right[0].items():
                both[v] = both.get(v, 0) + c
            return {v: c for v, c in both.items() if c}, left[1] + right[1], left[2] + right[2]
        case ast.Binary() if expr.op == "*":
            left = _affine(ctx, scope, expr.left, wanted)
            right = _affine(ctx, scope, expr.right, wanted)
            if left is None or right is None:
                return None
            for one, other in ((left, right), (right, left)):
                if not one[0] and one[1] == one[2] and one[1].constant is not None and one[1].constant >= 0:
                    factor = one[1].constant
                    return {v: c * factor for v, c in other[0].items()}, other[1] * factor, other[2] * factor
            return None
        case _:
            if _mentions(expr, wanted):
                return None
            return _bounded(ctx, scope, expr)


def _bounded(ctx: Context, scope: Scope, expr: ast.Expr) -> tuple[dict[str, int], Size, Size] | None:
    """A part without wanted variables: a length, or something between two lengths."""
    from lossdsl.checker.expressions import tensor

    found = _quietly(ctx, lambda: tensor(ctx, scope, expr))
    if found is None:
        return None
    size = size_of(found.node)
    if size is not None:
        return {}, size, size
    lows = ctx.ranges.bounds(found.node, ctx.facts | ctx.axioms, upper=False)
    highs = ctx.ranges.bounds(found.node, ctx.facts | ctx.axioms, upper=True)
    return ({}, lows[0], highs[0]) if lows and highs else None


def _mentions(expr: ast.Expr, names: set[str]) -> bool:
    return any(isinstance(e, ast.Name) and e.id in names for e in walk(expr))


def _quietly(ctx: Context, action: Callable[[], T]) -> T | None:
    """A trial elaboration: its findings are dropped, the real one reports them."""
    found = list(ctx.diagnostics.found)
    try:
        return action()
    except Stop:
        return None
    finally:
        ctx.diagnostics.found[:] = found


def _reads(
    ctx: Context, scope: Scope, expr: ast.Expr, wanted: set[str], with_else: bool = False
) -> Iterator[tuple[ast.Expr, Dim, Span]]:
    """(index expression, axis read, place) of every read whose index mentions a wanted variable."""
    from lossdsl.checker.expressions import tensor

    lenient = set() if with_else else {id(e.value) for e in walk(expr) if isinstance(e, ast.Otherwise)}
    called = {id(e.function) for e in walk(expr) if isinstance(e, ast.Call)}
    for item in walk(expr):
        if not isinstance(item, ast.Bracket) or id(item) in called or id(item) in lenient:
            continue
        if not any(isinstance(e, ast.Index | ast.Keyed) and _mentions(e.value, wanted) for e in item.entries):
            continue
        if _mentions(item.base, wanted):
            continue
        base = _quietly(ctx, lambda item=item: tensor(ctx, scope, item.base))  # type: ignore[misc]
        if base is None:
            continue
        position = 0
        for entry in item.entries:
            if isinstance(entry, ast.Keyed):
                dim = scope.axes.get(entry.name)
                if dim is not None and dim in base.axes and _mentions(entry.value, wanted):
                    yield entry.value, dim, entry.span
                continue
            if position < len(base.axes) and isinstance(entry, ast.Index) and _mentions(entry.value, wanted):
                yield entry.value, base.axes[position], entry.span
            position += 1


def walk(expr: ast.Expr) -> Iterator[ast.Expr]:
    """Every expression inside an expression, itself first."""
    stack: list[ast.Expr] = [expr]
    while stack:
        item = stack.pop()
        yield item
        match item:
            case ast.Member():
                stack.append(item.base)
            case ast.Group():
                stack.append(item.inner)
            case ast.Negative() | ast.Not():
                stack.append(item.operand)
            case ast.Binary():
                stack += [item.right, item.left]
            case ast.Bracket():
                if item.guard is not None:
                    stack.append(item.guard)
                for entry in reversed(item.entries):
                    match entry:
                        case ast.Index() | ast.Keyed():
                            stack.append(entry.value)
                        case ast.Slice():
                            stack += [e for e in (entry.start, entry.stop, entry.step) if e is not None]
                stack.append(item.base)
            case ast.Call():
                stack += [a.value for a in reversed(item.arguments)]
                stack.append(item.function)
            case ast.Otherwise():
                stack += [item.default, item.value]
            case _:
                pass
