"""Expressions to nodes: `tensor(ctx, scope, expr)` and `value(ctx, scope, expr)`."""

from __future__ import annotations

import math

from lossdsl.checker import binders, calls, reads
from lossdsl.checker.context import Context, merge_axes
from lossdsl.checker.types import is_axis_name, shape_text
from lossdsl.checker.values import FunctionValue, RecordValue, Scope, Several, Tensor, Value
from lossdsl.graph import nodes as n
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Label, Stop, suggest
from lossdsl.syntax.mistakes import FOREIGN, METHODS
from lossdsl.syntax.source import Span
from lossdsl.types.domains import Kind

_BINARY = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod", "^": "pow", "<": "lt", "<=": "le", ">": "gt",
    ">=": "ge", "==": "eq", "!=": "ne", "and": "and", "or": "or",
}  # fmt: skip
CONSTANTS = {"pi": math.pi, "inf": math.inf}


def tensor(ctx: Context, scope: Scope, expr: ast.Expr) -> Tensor:
    """The tensor that an expression is."""
    found = value(ctx, scope, expr)
    match found:
        case Tensor():
            return found
        case RecordValue():
            raise ctx.stop("E032", f"a {found.type_name} stands where a tensor is needed", expr.span,
                           help=f"take a field: .{next(iter(found.fields))}")  # fmt: skip
        case FunctionValue():
            raise ctx.stop("E032", f"{found.name} is a function; call it", expr.span, help=f"write {found.name}(..)")
        case Several():
            raise ctx.stop(
                "E032",
                f"this gives {len(found.items)} values where one is needed",
                expr.span,
                help="take them apart: a, b = f(x)",
            )


def value(ctx: Context, scope: Scope, expr: ast.Expr) -> Value:
    """What an expression stands for."""
    match expr:
        case ast.Group():
            return value(ctx, scope, expr.inner)
        case ast.Number():
            return Tensor(number(ctx, expr))
        case ast.Name():
            return _name(ctx, scope, expr)
        case ast.Member():
            return _member(ctx, scope, expr)
        case ast.Negative():
            inner = tensor(ctx, scope, expr.operand)
            return ctx.apply("neg", inner, span=expr.span)
        case ast.Not():
            return ctx.apply("not", truth(ctx, scope, expr.operand), span=expr.span)
        case ast.Binary():
            return _binary(ctx, scope, expr)
        case ast.Bracket():
            return reads.read(ctx, scope, expr)
        case ast.Call():
            return calls.call(ctx, scope, expr, None)
        case ast.Otherwise():
            return _otherwise(ctx, scope, expr)


def number(ctx: Context, expr: ast.Number) -> n.Node:
    """The constant that a number is."""
    text = expr.text.replace("_", "")
    whole = not any(c in text for c in ".eE")
    if whole and len(text) <= 19 and int(text) < 2**62:
        return ctx.graph.const(int(text))
    parsed = math.inf if len(text) > 400 else float(text)
    if whole or not math.isfinite(parsed):
        raise ctx.stop(
            "E006",
            "this number is too large",
            expr.span,
            help="write it with an exponent: 1e30" if whole else "the largest is about 1.8e308",
        )
    return ctx.graph.const(parsed)


def truth(ctx: Context, scope: Scope, expr: ast.Expr) -> Tensor:
    """An expression that must be a truth value."""
    found = tensor(ctx, scope, expr)
    if found.node.kind is not Kind.BOOL:
        raise ctx.stop("E032", "a condition is needed here", expr.span, underline=f"this is {shape_text(found)}",
                       help="compare it: x > 0, m == 1")  # fmt: skip
    return found


def _name(ctx: Context, scope: Scope, expr: ast.Name) -> Value:
    name = expr.id
    if name in scope.names:
        found = scope.names[name]
        if not isinstance(found, Tensor | RecordValue | FunctionValue | Several):
            raise Stop  # its definition was refused and reported
        return found
    if name in scope.axes:
        return Tensor(ctx.graph.size(scope.axes[name].size))
    if name in CONSTANTS:
        return Tensor(ctx.graph.const(CONSTANTS[name]))
    if name in scope.module.broken:
        raise Stop  # its declaration was refused and reported
    known = [*scope.names, *scope.axes]
    near = suggest(name, known)
    if name in scope.module.functions or name in binders.BINDERS or name in calls.builtin_names():
        form = f"{name}[N](..)" if name in binders.BINDERS and name not in calls.SPECIAL else f"{name}(..)"
        raise ctx.stop("E010", f"{name} is a function; it needs arguments", expr.span, help=f"write {form}")
    if name in FOREIGN:
        raise ctx.stop("E009", f"there is no `{name}` in the language", expr.span, help=FOREIGN[name])
    if is_axis_name(name):
        raise ctx.stop("E020", f"there is no axis {name} here", expr.span,
                       help=f"did you mean {near}?" if near else f"axes here: {', '.join(scope.axes) or 'none'}")  # fmt: skip
    below = _declared_below(scope, name)
    if below is not None:
        raise ctx.stop(
            "E010", f"{name} is declared only below", expr.span,
            labels=[Label(below, "here")], help="what is declared first can be used later: change the order",
        )  # fmt: skip
    raise ctx.stop(
        "E010",
        f"there is nothing named {name} here",
        expr.span,
        help=f"did you mean {near}?" if near else _how_to_declare(name),
    )


def _declared_below(scope: Scope, name: str) -> Span | None:
    """Where a function declares a name that it has not reached yet."""
    if scope.function is None:
        return None
    for item in (*scope.function.hyperparameters, *scope.function.body):
        if isinstance(item, ast.Parameter | ast.Lasting | ast.Draw) and item.name == name:
            return item.span
        if isinstance(item, ast.Definition):
            for target in item.targets:
                base = target.base if isinstance(target, ast.Bracket) else target
                if isinstance(base, ast.Name) and base.id == name:
                    return target.span
    return None


def _how_to_declare(name: str) -> str:
    if len(name) == 1:
        return f"define it above, {name} = .., or bind it as an index variable: sum[{name}](..), y[{name}] = .."
    return f"declare it as a parameter, or define it above: {name} = .."


def _member(ctx: Context, scope: Scope, expr: ast.Member) -> Value:
    base = value(ctx, scope, expr.base)
    if not isinstance(base, RecordValue) and expr.field in METHODS:
        raise ctx.stop("E009", f"tensors have no `.{expr.field}`", expr.span, help=METHODS[expr.field])
    if not isinstance(base, RecordValue):
        raise ctx.stop(
            "E013",
            f"only records have fields; this is {_describe(base)}",
            expr.span,
            help="a field is taken of a record parameter: pi.chosen",
        )
    if expr.field not in base.fields:
        near = suggest(expr.field, base.fields)
        raise ctx.stop("E013", f"{base.type_name} has no field {expr.field}", expr.span,
                       help=f"did you mean {near}?" if near else f"its fields: {', '.join(base.fields)}")  # fmt: skip
    return base.fields[expr.field]


def _describe(found: Value) -> str:
    match found:
        case Tensor():
            return shape_text(found)
        case RecordValue():
            return f"a {found.type_name}"
        case FunctionValue():
            return "a function"
        case Several():
            return f"{len(found.items)} values"


def _binary(ctx: Context, scope: Scope, expr: ast.Binary) -> Tensor:
    op = _BINARY[expr.op]
    if op in ("and", "or"):
        left = truth(ctx, scope, expr.left)
        with ctx.assume(left.node, holds=op == "and"):
            right = truth(ctx, scope, expr.right)
        return ctx.apply(op, left, right, span=expr.span)
    left = tensor(ctx, scope, expr.left)
    right = tensor(ctx, scope, expr.right)
    _comparable(ctx, expr, left, right)
    _one_way(ctx, scope, expr, left, right)
    return ctx.apply(op, left, right, span=expr.span)


def _comparable(ctx: Context, expr: ast.Binary, left: Tensor, right: Tensor) -> None:
    """Two axes of one length under different names meet often by mistake: refuse what cannot be meant."""
    if expr.op in ("==", "!=") and (left.node.kind is Kind.BOOL) != (right.node.kind is Kind.BOOL):
        ctx.report("E032", "a truth value is compared with a number", expr.span, labels=[
            Label(expr.left.span, shape_text(left)), Label(expr.right.span, shape_text(right))], help="write the condition alone, or `not` it")  # fmt: skip


def _one_way(ctx: Context, scope: Scope, expr: ast.Binary, left: Tensor, right: Tensor) -> None:
    """A vector beside a matrix whose two axes are one (`real[N, N]`): along which of them is it meant?"""
    named = set(scope.axes.values())
    for matrix, vector, place in ((left, right, expr.right), (right, left, expr.left)):
        for dim in vector.axes:
            group = [d for d in matrix.axes if d.size == dim.size]
            shared = [d for d in vector.axes if d in group]
            if len(group) > len(shared) > 0 and any(d not in named for d in group):
                raise ctx.stop(
                    "E025",
                    f"{dim} stands {len(group)} times in the other operand; along which is this meant?",
                    place.span,
                    underline=f"this is {shape_text(vector)}",
                    labels=[Label(expr.left.span if place is expr.right else expr.right.span, shape_text(matrix))],
                    help="use index variables: s[i, j] + b[i]",
                )


def _otherwise(ctx: Context, scope: Scope, expr: ast.Otherwise) -> Tensor:
    inner = expr.value
    while isinstance(inner, ast.Group):
        inner = inner.inner
    if isinstance(inner, ast.Bracket):
        return reads.read(ctx, scope, inner, expr.default)
    if isinstance(inner, ast.Call):
        found = calls.call(ctx, scope, inner, expr.default)
        if isinstance(found, Tensor):
            return found
    raise ctx.stop("E052", "`else` follows a binder or a read: what it is over nothing, or outside", expr.span,
                   help="a choice is written where(condition, a, b)")  # fmt: skip


def where(ctx: Context, scope: Scope, call: ast.Call) -> Tensor:
    """`where(condition, a, b)`: each branch is checked knowing its condition; a condition decided now picks its branch."""
    if len(call.arguments) != 3 or any(a.name for a in call.arguments):
        raise ctx.stop(
            "E040",
            "where takes three arguments: where(condition, a, b)",
            call.span,
            help="a is the value where the condition holds, b elsewhere; the condition compares with ==",
        )
    condition_expr, yes, no = (a.value for a in call.arguments)
    condition = truth(ctx, scope, condition_expr)
    decided = ctx.graph.static(condition.node)
    if decided is not None:
        with ctx.assume(condition.node, holds=bool(decided)):
            return tensor(ctx, scope, yes if decided else no)
    with ctx.assume(condition.node):
        first = tensor(ctx, scope, yes)
    with ctx.assume(condition.node, holds=False):
        second = tensor(ctx, scope, no)
    if (first.node.kind is Kind.BOOL) != (second.node.kind is Kind.BOOL):
        raise ctx.stop("E032", "the two branches of where are of different kinds", call.span, labels=[
            Label(yes.span, shape_text(first)), Label(no.span, shape_text(second))], help="make both numbers, or both conditions")  # fmt: skip
    yes_node = ctx.protect(first.node, condition.node)
    no_node = ctx.protect(second.node, ctx.graph.apply("not", condition.node))
    node = ctx.graph.apply("where", condition.node, yes_node, no_node)
    return Tensor(node, merge_axes([condition, first, second]))
