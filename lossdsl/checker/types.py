"""Declared types: shapes to dims, domains to intervals, lengths to sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lossdsl.checker.context import Context
from lossdsl.checker.values import Range, Scope, Tensor
from lossdsl.graph.build import size_of
from lossdsl.graph.nodes import Dim, Node
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Stop, suggest
from lossdsl.types.domains import ANY, UNIT_INTERVAL, Interval, Kind
from lossdsl.types.sizes import Atom, Size, SizeTooLarge

KINDS = ("real", "int", "bool", "sign", "prob", "unit")
_FOREIGN_KINDS = {
    "tensor": "a tensor is declared by its elements and axes: real[N, D]",
    "array": "a tensor is declared by its elements and axes: real[N, D]",
    "ndarray": "a tensor is declared by its elements and axes: real[N, D]",
    "vector": "a tensor is declared by its elements and axes: real[D]",
    "matrix": "a tensor is declared by its elements and axes: real[N, D]",
    "float": "did you mean real?",
    "double": "did you mean real?",
    "number": "did you mean real?",
    "scalar": "did you mean real?",
    "long": "did you mean int?",
    "integer": "did you mean int?",
    "boolean": "did you mean bool?",
    "mask": "did you mean bool?",
    "str": "there is no text in a program; what is fixed beforehand is a hyperparameter",
    "callable": "a function handed in is written fn(real[N]) -> real[N]",
}
MAX_LENGTH = 2**40


@dataclass(frozen=True)
class Declared:
    """An array type with its domain worked out. facts: comparisons with other names, to be checked or assumed."""

    kind: Kind
    domain: Interval
    below: Size | None
    shape: str | None
    relations: tuple[tuple[str, Node], ...] = ()


def kind_help(word: str, records: Iterable[str]) -> str:
    """The type that was probably meant."""
    from lossdsl.checker.modules import building_blocks

    foreign = _FOREIGN_KINDS.get(word.lower().rstrip("0123456789"))
    near = suggest(word, [*KINDS, *records])
    home = building_blocks().get(word)
    if home is not None:
        return f"the standard library has it: use {home}: {word}"
    listed = "types are real, int, bool, sign, prob, unit, fn(..) -> .. and records"
    return foreign or (f"did you mean {near}?" if near else listed)


def is_axis_name(name: str) -> bool:
    """Capitalised names are axes."""
    return name[:1].isupper()


def size(ctx: Context, scope: Scope, expr: ast.Expr) -> Size:
    """A length: arithmetic on axes, whole hyperparameters and whole numbers."""
    from lossdsl.checker.expressions import tensor

    found = tensor(ctx, scope, expr)
    result = size_of(found.node)
    if result is None:
        static = ctx.graph.static(found.node) if found.node.kind is Kind.INT else None
        if static is not None:
            result = Size.of(int(static))
    if result is None and found.node.kind is Kind.INT and not found.node.dims:
        result = _opaque_size(ctx, found.node)
    if result is None:
        raise ctx.stop(
            "E029",
            "a length is made of axes, whole hyperparameters and whole numbers",
            expr.span,
            help="whole numbers are divided with //"
            if isinstance(expr, ast.Binary) and expr.op == "/"
            else "a whole hyperparameter is declared `k: int >= 1 = 10`"
            if found.node.kind is Kind.REAL
            else "a tensor is no length; declare it as a hyperparameter, after the `;`",
        )
    if result.constant is not None and not -MAX_LENGTH < result.constant < MAX_LENGTH:
        raise ctx.stop("E006", "this length is too large", expr.span, help="lengths go up to 2^40")
    return result


def _opaque_size(ctx: Context, node: Node) -> Size | None:
    """A length that hyperparameters decide, but not by sums and products (2^j, min(a, b)): known once they are."""
    from lossdsl.graph import nodes as n

    below = n.topological([node])
    if ctx.hypers is not None or not all(isinstance(x, n.Const | n.Hyper | n.Apply | n.SizeOf) for x in below):
        return None
    low = ctx.interval(node).low
    return Size.of(Atom(f"#{node.uid}", int(low) if math.isfinite(low) else 0))


def axis_dims(ctx: Context, scope: Scope, axes: tuple[ast.Axis, ...], declare: bool) -> tuple[Dim, ...]:
    """The dims of a shape; with `declare`, axis names not seen yet become axes of the scope."""
    dims: list[Dim] = []
    for axis in axes:
        dim = _axis_dim(ctx, scope, axis, declare)
        while dim in dims:
            dim = Dim(dim.size, dim.copy + 1)
        dims.append(dim)
        if axis.name is not None and declare:
            scope.axes.setdefault(axis.name, dim)
    return tuple(dims)


def _axis_dim(ctx: Context, scope: Scope, axis: ast.Axis, declare: bool) -> Dim:
    if isinstance(axis.size, ast.Name) and is_axis_name(axis.size.id):
        name = axis.size.id
        if name not in scope.axes:
            if not declare:
                near = suggest(name, scope.axes)
                raise ctx.stop("E020", f"there is no axis {name} here", axis.span,
                               help=f"did you mean {near}?" if near else "axes are declared by the shapes of parameters")  # fmt: skip
            least = 1 if axis.least is None else _least(ctx, scope, axis)
            fixed = ctx.sizes.get(name)
            scope.axes[name] = Dim(Size.of(fixed) if fixed is not None else Size.of(Atom(name, least)))
        return scope.axes[name]
    if isinstance(axis.size, ast.Name) and axis.size.id not in scope.names:
        raise ctx.stop("E020", f"an axis has a capitalised name, not {axis.size.id}", axis.span,
                       help=f"write {axis.size.id.upper() if len(axis.size.id) == 1 else axis.size.id.capitalize()}, a length, or declare the hyperparameter {axis.size.id}: int")  # fmt: skip
    found = size(ctx, scope, axis.size)
    if found.constant is not None and found.constant < 0:
        raise ctx.stop("E029", "an axis cannot have a negative length", axis.span, help="write a length of at least 0")
    for dim in scope.axes.values():
        if dim.size == found:
            return dim
    return Dim(found)


def _least(ctx: Context, scope: Scope, axis: ast.Axis) -> int:
    if axis.least is None:
        return 1
    found = size(ctx, scope, axis.least)
    if found.constant is None:
        raise ctx.stop(
            "E029",
            "the least length of an axis is a whole constant",
            axis.least.span,
            help="write [N >= 2]; a relation of two axes is written by arithmetic: [N, 2*N]",
        )
    return found.constant


def named_axes(types: list[ast.Type]) -> dict[str, ast.Axis]:
    """The names given to lengths that are written as arithmetic, as in `real[M = 2*N]`."""
    return {a.name: a for kind in types if isinstance(kind, ast.ArrayType) for a in kind.axes if a.name is not None}


def declare_named(ctx: Context, scope: Scope, types: list[ast.Type]) -> None:
    """Make those names known, once the axes and hyperparameters in their arithmetic are."""
    for name, axis in named_axes(types).items():
        scope.axes.setdefault(name, _axis_dim(ctx, scope, axis, declare=True))


def declare_axes(ctx: Context, scope: Scope, types: list[ast.Type], records: dict[str, ast.Record]) -> None:
    """Make the plain axis names of these shapes known first, so that `real[2*N]` may stand before `real[N]`."""
    named = named_axes(types)
    for kind in types:
        if isinstance(kind, ast.FunctionType):
            declare_axes(ctx, scope, [*kind.parameters, kind.result], records)
            continue
        axes = sorted(kind.axes, key=lambda a: a.least is None)
        for axis in axes:
            if (
                isinstance(axis.size, ast.Name)
                and is_axis_name(axis.size.id)
                and axis.name is None
                and axis.size.id not in named
            ):
                existing = scope.axes.get(axis.size.id)
                if existing is not None and axis.least is not None:
                    atom = existing.size.atom
                    least = _least(ctx, scope, axis)
                    if atom is not None and least != atom.least:
                        scope.axes[axis.size.id] = Dim(Size.of(Atom(atom.name, least)))
                    continue
                _axis_dim(ctx, scope, axis, declare=True)


def declare_arithmetic(ctx: Context, scope: Scope, types: list[ast.Type]) -> None:
    """Axis names that only stand in arithmetic, as in `real[2*N, D]` alone, are axes too; their length follows from the input's."""
    from lossdsl.checker.reads import walk

    for kind in types:
        if isinstance(kind, ast.ArrayType):
            for axis in kind.axes:
                for item in walk(axis.size):
                    if (
                        isinstance(item, ast.Name)
                        and is_axis_name(item.id)
                        and item.id not in scope.axes
                        and item.id not in _named(types)
                    ):
                        _axis_dim(ctx, scope, ast.Axis(item, span=item.span), declare=True)


def _named(types: list[ast.Type]) -> set[str]:
    return {a.name for kind in types if isinstance(kind, ast.ArrayType) for a in kind.axes if a.name is not None}


def kind_of(ctx: Context, scope: Scope, declared: ast.ArrayType) -> Declared:
    """Kind and domain of an array type."""
    kind, domain, shape = _base(ctx, scope, declared)
    below: Size | None = None
    relations: list[tuple[str, Node]] = []
    whole = kind is Kind.INT
    if whole and declared.bounds and not any(b.op in (">", ">=") for b in declared.bounds):
        domain = Interval(0.0, domain.high)
    for bound in declared.bounds:
        if kind is Kind.BOOL:
            raise ctx.stop(
                "E032",
                "truth values have no bounds",
                bound.span,
                help="write bool[N]; for 0 and 1 as numbers int in [0, 1]",
            )
        from lossdsl.checker.expressions import tensor

        limit = tensor(ctx, scope, bound.limit)
        if limit.node.dims:
            raise ctx.stop(
                "E033",
                "a bound is a scalar",
                bound.limit.span,
                help="bounds are numbers, hyperparameters and axes; compare tensors in a formula",
            )
        interval = ctx.interval(limit.node)
        if whole and bound.op in ("<", "<="):
            length = size_of(limit.node)
            if length is not None and length.constant is None:
                below = length if bound.op == "<" else length + 1
        if interval.point is None:
            relations.append((bound.op, limit.node))
        domain = domain.meet(_half_line(bound.op, interval, whole))
    if domain.empty:
        raise ctx.stop(
            "E033",
            "no number satisfies this domain",
            declared.span,
            help="write the lower end first, and >= where an end belongs to it",
        )
    return Declared(kind, domain, below, shape, tuple(relations))


def _half_line(op: str, limit: Interval, whole: bool) -> Interval:
    if whole:
        match op:
            case ">":
                return Interval(low=math.floor(limit.low) + 1) if math.isfinite(limit.low) else ANY
            case "<":
                return Interval(high=math.ceil(limit.high) - 1) if math.isfinite(limit.high) else ANY
            case _:
                pass
    match op:
        case ">":
            return Interval(low=limit.low, low_open=True) if math.isfinite(limit.low) else ANY
        case ">=":
            return Interval(low=limit.low, low_open=limit.low_open)
        case "<":
            return Interval(high=limit.high, high_open=True) if math.isfinite(limit.high) else ANY
        case _:
            return Interval(high=limit.high, high_open=limit.high_open)


def _base(ctx: Context, scope: Scope, declared: ast.ArrayType) -> tuple[Kind, Interval, str | None]:
    match declared.kind:
        case "real":
            return Kind.REAL, ANY, None
        case "int":
            return Kind.INT, ANY, None
        case "bool":
            return Kind.BOOL, UNIT_INTERVAL, None
        case "sign":
            return Kind.REAL, Interval(-1, 1, nonzero=True), "sign"
        case "prob":
            return Kind.REAL, UNIT_INTERVAL, "prob"
        case "unit":
            return Kind.REAL, Interval(-1, 1), "unit"
        case other:
            if other in scope.module.broken:
                raise Stop  # its declaration was refused and reported
            raise ctx.stop(
                "E012", f"there is no type {other}", declared.span, help=kind_help(other, scope.module.records)
            )


def type_text(kind: ast.ArrayType) -> str:
    """An array type as it would be written, with the axes that it has now."""
    domain = re.sub(r"^\w+(\s*\[[^\]]*\])?", "", kind.span.text)
    plain = (
        a.size.id if isinstance(a.size, ast.Name) and a.least is None and a.name is None else a.span.text
        for a in kind.axes
    )
    axes = ", ".join(plain)
    return f"{kind.kind}[{axes}]{domain}" if axes else kind.kind + domain


def shape_text(value: Tensor) -> str:
    """The type of a tensor as it would be written."""
    axes = ", ".join(d.label if d.index and d.label else str(d.size) for d in value.axes)
    return f"{value.node.kind}[{axes}]" if axes else f"{value.node.kind} (a scalar)"


def range_of(ctx: Context, scope: Scope, expr: ast.Expr) -> Range:
    """What stands behind the colon of `[i: N]`."""
    if isinstance(expr, ast.Name) and expr.id in scope.axes:
        dim = scope.axes[expr.id]
        return Range(dim.size, dim)
    if isinstance(expr, ast.Name) and is_axis_name(expr.id):
        near = suggest(expr.id, scope.axes)
        raise ctx.stop("E020", f"there is no axis {expr.id} here", expr.span,
                       help=f"did you mean {near}?" if near else f"axes here: {', '.join(scope.axes) or 'none'}")  # fmt: skip
    try:
        found = size(ctx, scope, expr)
    except SizeTooLarge:
        raise ctx.stop(
            "E006", "this length is too complicated", expr.span, help="write shorter arithmetic of axes"
        ) from None
    for dim in scope.axes.values():
        if dim.size == found:
            return Range(found, dim)
    return Range(found)


__all__ = ["Stop"]
