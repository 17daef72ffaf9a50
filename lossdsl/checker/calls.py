"""Calls: built-in functions, definitions with lifting, function arguments, solvers."""

from __future__ import annotations

from functools import cache

from lossdsl.checker import binders, lifting, types
from lossdsl.checker.context import Context, merge_axes
from lossdsl.checker.values import FunctionValue, Range, Scope, Tensor, Value
from lossdsl.graph.nodes import Dim
from lossdsl.ops.elementwise import ELEMENTWISE
from lossdsl.ops.solvers import SOLVERS
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Label, Stop, suggest
from lossdsl.syntax.mistakes import FOREIGN, METHODS
from lossdsl.types.domains import Kind
from lossdsl.types.sizes import Size

_OPERATORS = {
    "add",
    "sub",
    "mul",
    "div",
    "neg",
    "floordiv",
    "mod",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
    "and",
    "or",
    "not",
    "where",
    "cosine",
    "min",
    "max",
}
_FUNCTIONS = {name: name for name in ELEMENTWISE if name not in _OPERATORS}
SPECIAL = ("where", "min", "max", "cos", "concat", "stack")


@cache
def builtin_names() -> tuple[str, ...]:
    """Names that a program cannot declare anew."""
    return (*_FUNCTIONS, *SPECIAL, *SOLVERS, *binders.BINDERS)


def call(ctx: Context, scope: Scope, expr: ast.Call, default: ast.Expr | None) -> Value:
    """Any call."""
    from lossdsl.checker.expressions import tensor, where

    ctx.tick(expr.span)
    bracket = expr.function if isinstance(expr.function, ast.Bracket) else None
    head = bracket.base if bracket is not None else expr.function
    if not isinstance(head, ast.Name):
        if isinstance(expr.function, ast.Member) and expr.function.field in METHODS:
            method = expr.function.field
            raise ctx.stop("E009", f"tensors have no `.{method}()`", expr.function.span, help=METHODS[method])
        raise ctx.stop("E016", "only names can be called", expr.function.span, help=_as_function(expr.function))
    name = head.id
    binding = bracket is not None and all(isinstance(e, ast.Keyed) for e in bracket.entries) and bracket.guard is None
    local = scope.names.get(name)
    if isinstance(local, FunctionValue):
        return _no_default(ctx, _call_argument(ctx, scope, local, expr), default)
    if name in scope.module.broken and local is None:
        raise Stop  # its declaration was refused and reported
    found = scope.module.functions.get(name)
    if found is None and ctx.prelude is not None and scope.module is not ctx.prelude and (bracket is None or binding):
        found = ctx.prelude.functions.get(name)
        if name == "cos" and len(expr.arguments) == 1:
            found = None
    if found is not None:
        entries = bracket.entries if bracket is not None else ()
        return _no_default(ctx, lifting.call_function(ctx, scope, found, expr, entries), default)
    if binding and bracket is not None and name in binders.BINDERS and name not in _FUNCTIONS:
        entry = bracket.entries[0]
        raise ctx.stop(
            "E052", f"{name}[..] takes no `=`", entry.span,
            help=f"a variable with its range is written {name}[i: N](..), a condition behind a bar: {name}[i | i > 0](..)",
        )  # fmt: skip
    if bracket is not None and not binding:
        if name in binders.BINDERS:
            return binders.binder(ctx, scope, expr, bracket, name, default)
        if local is not None:
            raise ctx.stop(
                "E016", f"{name} is a tensor, not a function", head.span, help="two factors are multiplied with *"
            )
        raise _unknown(ctx, scope, head, [*binders.BINDERS, *scope.module.functions])
    if default is not None:
        raise ctx.stop(
            "E052", "`else` follows a binder or a read", default.span, help="a choice is written where(condition, a, b)"
        )
    if name == "where":
        return where(ctx, scope, expr)
    if local is not None:
        raise ctx.stop(
            "E016",
            f"{name} is a tensor, not a function",
            head.span,
            help="two factors are multiplied with *; an index stands in [ ]",
        )
    if name in ("concat", "stack"):
        return _join(ctx, scope, expr, name)
    if name in SOLVERS:
        return _solver(ctx, scope, expr, name)
    args = [tensor(ctx, scope, a.value) for a in expr.arguments]
    return _elementwise(ctx, scope, expr, head, name, args)


def _as_function(function: ast.Expr) -> str | None:
    """How `x.mean()` and `torch.log(x)` are written."""
    if not isinstance(function, ast.Member):
        return "two factors are multiplied with *"
    name = function.field
    if name in binders.BINDERS:
        return f"there are no methods; write {name}[N](..)"
    return (
        f"there are no methods; write {name}(..)"
        if name in builtin_names()
        else "there are no methods, only functions: f(x)"
    )


def _no_default(ctx: Context, found: Value, default: ast.Expr | None) -> Value:
    if default is not None:
        raise ctx.stop("E052", "`else` follows a binder or a read", default.span, help="state it inside the definition")
    return found


def _elementwise(ctx: Context, scope: Scope, expr: ast.Call, head: ast.Name, name: str, args: list[Tensor]) -> Tensor:
    if any(a.name for a in expr.arguments) and (name in _FUNCTIONS or name in ("min", "max", "cos")):
        raise ctx.stop(
            "E041", f"{name} takes its arguments by position", expr.span, help=f"write {name}(..) without names"
        )
    if name in ("min", "max"):
        if len(args) < 2:
            raise ctx.stop(
                "E040", f"{name} of one value: over which axis?", expr.span, help=f"write {name}[N](x), or {name}(a, b)"
            )
        result = args[0]
        for other in args[1:]:
            result = ctx.apply(name, result, other, span=expr.span)
        return result
    if name == "cos" and len(args) == 1:
        return ctx.apply("cosine", args[0], span=expr.span)
    op = _FUNCTIONS.get(name)
    if op is None:
        if name in binders.BINDERS:
            raise ctx.stop(
                "E040",
                f"{name} needs to know over what",
                expr.span,
                help=f"write {name}[N](..) with an axis, or {name}[i](..) with a variable",
            )
        known = [*scope.module.functions, *_FUNCTIONS, *SPECIAL, *SOLVERS, *binders.BINDERS]
        if ctx.prelude is not None:
            known += list(ctx.prelude.functions)
        raise _unknown(ctx, scope, head, known)
    arity = ELEMENTWISE[op].arity
    if len(args) != arity:
        raise ctx.stop(
            "E040",
            f"{name} takes {arity} argument{'s' if arity > 1 else ''}, not {len(args)}",
            expr.span,
            help=f"{name}: {ELEMENTWISE[op].doc}",
        )
    return ctx.apply(op, *args, span=expr.span)


def _unknown(ctx: Context, scope: Scope, head: ast.Name, known: list[str]) -> Exception:
    from lossdsl.checker.modules import building_blocks

    if head.id in FOREIGN:
        return ctx.stop("E009", f"there is no `{head.id}` in the language", head.span, help=FOREIGN[head.id])
    near = suggest(head.id, known)
    home = building_blocks().get(head.id)
    if home is not None:
        hint = f"the standard library has it: use {home}: {head.id}"
    elif near:
        hint = f"did you mean {near}?"
    else:
        hint = "functions are listed in docs/operations.md"
    return ctx.stop("E010", f"there is no function {head.id}", head.span, help=hint)


# ---- joining -------------------------------------------------------------------------------


def _join(ctx: Context, scope: Scope, expr: ast.Call, name: str) -> Tensor:
    from lossdsl.checker.expressions import tensor

    if not expr.arguments or any(a.name for a in expr.arguments):
        raise ctx.stop("E040", f"{name} joins tensors given by position", expr.span, help=f"write {name}(x, y)")
    args = [tensor(ctx, scope, a.value) for a in expr.arguments]
    graph = ctx.graph
    if name == "stack":
        rest = merge_axes(args)
        new = ctx.axis_for(scope, Range(Size.of(len(args))), rest)
        return Tensor(graph.concat(new, [(a.node, None) for a in args]), (new, *rest))
    total = Size(())
    for argument, arg in zip(expr.arguments, args, strict=True):
        if not arg.axes:
            raise ctx.stop(
                "E022",
                "concat joins along the first axis; this is a scalar",
                argument.span,
                help="stack(a, b) makes a new axis",
            )
        total = total + arg.axes[0].size
    rest = merge_axes([Tensor(a.node, a.axes[1:]) for a in args])
    for argument, arg in zip(expr.arguments, args, strict=True):
        if arg.axes[0] in rest:
            raise ctx.stop("E025", f"{arg.axes[0]} is joined here but stands elsewhere in another part", argument.span,
                           labels=[Label(expr.span, "in this concat")], help="read it with index variables, or declare it under another axis name")  # fmt: skip
    new = ctx.axis_for(scope, Range(total), rest)
    parts = [(a.node, a.axes[0]) for a in args]
    return Tensor(graph.concat(new, parts), (new, *rest))


# ---- solvers and function arguments --------------------------------------------------------


def _solver(ctx: Context, scope: Scope, expr: ast.Call, name: str) -> Tensor:
    from lossdsl.checker.expressions import tensor

    spec = SOLVERS[name]
    if len(expr.arguments) != len(spec.arguments) or any(a.name for a in expr.arguments):
        raise ctx.stop(
            "E040",
            f"{name} takes {len(spec.arguments)} arguments by position",
            expr.span,
            help=f"{name}({', '.join('[' + ', '.join(a) + ']' for a in spec.arguments)}): {spec.doc}",
        )
    bound: dict[str, Dim] = {}
    args = []
    extras: list[Dim] = []
    for argument, axes in zip(expr.arguments, spec.arguments, strict=True):
        arg = tensor(ctx, scope, argument.value)
        if len(arg.axes) < len(axes):
            raise ctx.stop(
                "E022",
                f"{name} needs [{', '.join(axes)}] here",
                argument.span,
                underline=f"this is {types.shape_text(arg)}",
                help="further axes may stand before these, no fewer",
            )
        core = arg.axes[len(arg.axes) - len(axes) :]
        for axis, dim in zip(axes, core, strict=True):
            first = bound.setdefault(axis, dim)
            if first.size != dim.size:
                raise ctx.stop(
                    "E021",
                    f"{name} needs one length for {axis}",
                    argument.span,
                    underline=f"{first.size} and {dim.size}",
                    help="hand in tensors that share this axis",
                )
        extras += arg.axes[: len(arg.axes) - len(axes)]
        args.append((arg.node, core))
    result = tuple(bound[a] for a in spec.result)
    node = ctx.graph.solve(name, args, result, Kind.INT)
    return Tensor(node, (*dict.fromkeys(extras), *result))


def _call_argument(ctx: Context, scope: Scope, function: FunctionValue, expr: ast.Call) -> Tensor:
    from lossdsl.checker.expressions import tensor

    declared = function.type
    if len(expr.arguments) != len(declared.parameters) or any(a.name for a in expr.arguments):
        raise ctx.stop(
            "E040",
            f"{function.name} takes {len(declared.parameters)} argument{'' if len(declared.parameters) == 1 else 's'} by position",
            expr.span,
            help=f"it is declared {declared.span.text}",
        )
    args = []
    for argument, parameter in zip(expr.arguments, declared.parameters, strict=True):
        arg = tensor(ctx, scope, argument.value)
        if not isinstance(parameter, ast.ArrayType):
            raise ctx.stop(
                "E012", "a function argument takes tensors", parameter.span, help="write fn(real[N]) -> real[N]"
            )
        wanted = types.axis_dims(ctx, scope, parameter.axes, declare=False)
        if tuple(d.size for d in arg.axes) != tuple(d.size for d in wanted) or arg.node.dims - set(arg.axes):
            raise ctx.stop(
                "E021",
                f"{function.name} takes {parameter.span.text}",
                argument.span,
                underline=f"this is {types.shape_text(arg)}",
                help="hand in a tensor with these axes, in this order",
            )
        args.append((arg.node, arg.axes))
    if not isinstance(declared.result, ast.ArrayType):
        raise ctx.stop(
            "E012", "a function argument gives a tensor", declared.result.span, help="write fn(real[N]) -> real[N]"
        )
    axes = types.axis_dims(ctx, scope, declared.result.axes, declare=False)
    kind = types.kind_of(ctx, scope, declared.result).kind
    return Tensor(ctx.graph.solve(f"fn:{function.name}", args, axes, kind), axes)
