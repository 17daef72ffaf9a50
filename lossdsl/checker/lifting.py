"""Calls of definitions: how arguments bind to core axes, what comes along, and what must hold of each argument."""

from __future__ import annotations

from dataclasses import dataclass, field

from lossdsl.checker import types
from lossdsl.checker.context import MAX_CALLS, Context
from lossdsl.checker.values import FunctionValue, LoadedModule, RecordValue, Scope, Several, Tensor, Value
from lossdsl.graph.build import fresh_copy
from lossdsl.graph.nodes import Dim
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Label, Stop, suggest
from lossdsl.syntax.source import Span
from lossdsl.types.domains import Interval, Kind

_COMPARE = {">": "gt", ">=": "ge", "<": "lt", "<=": "le"}


@dataclass
class _Binding:
    """How a call's arguments meet the parameters' shapes. key: axis name and which time it stands in its shape."""

    axes: dict[tuple[str, int], Dim] = field(default_factory=dict)
    places: dict[tuple[str, int], Span] = field(default_factory=dict)
    extras: list[Dim] = field(default_factory=list)
    later: list[tuple[ast.Axis, Dim, Span]] = field(default_factory=list)


def call_function(
    ctx: Context, scope: Scope, found: tuple[LoadedModule, ast.Function], expr: ast.Call, entries: tuple[ast.Entry, ...]
) -> Value:
    """A `def` or `loss` applied to arguments: its core axes bind, the rest come along."""
    from lossdsl.checker import statements

    module, function = found
    if any(f is function for f, _ in ctx.calls) or (scope.function is function):
        raise ctx.stop(
            "E017", f"{function.name} calls itself", expr.span, help="repeat and scan are the loops of the language"
        )
    if len(ctx.calls) >= MAX_CALLS:
        raise ctx.stop(
            "E060", f"calls are nested more than {MAX_CALLS} deep", expr.span, help="write some of these functions out"
        )
    given, hyper = _match_arguments(ctx, scope, function, expr)
    named = _named_axes(ctx, scope, entries)
    binding, cores = _bind(ctx, function, given, named, module, expr.span)
    inner = Scope(module, function, prefix=_prefix(scope, function))
    renames = _separate(binding, given, cores)
    taken: dict[tuple[str, int], Dim] = {}
    for key, dim in binding.axes.items():
        taken[key] = renames.get(key, dim)
        if key[1] == 0:
            inner.axes[key[0]] = taken[key]
    inner.reserved = frozenset(binding.extras) | frozenset(
        d for v in given.values() for t in _tensors(v) for d in t.node.dims
    ) - frozenset(taken.values())
    for name, bound_value in given.items():
        inner.names[name] = _rebase(ctx, bound_value, cores[name], renames)
    # hyperparameters stand in lengths such as J + n_step, so they come before the arithmetic axes
    known = len(ctx.diagnostics.errors)
    _hypers(ctx, scope, inner, function, hyper, expr)
    _axes_from_bounds(ctx, inner, function, given, expr)
    _check_later(ctx, inner, binding, expr)
    _check_arguments(ctx, inner, function, given, expr)
    if len(ctx.diagnostics.errors) > known:
        raise Stop  # what the body says about such arguments would only repeat it
    ctx.calls.append((function, expr.span))
    before = ctx.live.copy()
    try:
        result = statements.body(ctx, inner, function)
    finally:
        ctx.calls.pop()
        ctx.live = before
    back = {renames[key]: binding.axes[key] for key in renames}
    lifted = tuple(dict.fromkeys(binding.extras))
    items = tuple(_lift_back(ctx, item, lifted, back) for item in result)
    return items[0] if len(items) == 1 else Several(items)


def _header(function: ast.Function) -> str:
    """How a function is called: its name with those of its parameters."""
    names = ", ".join(p.name for p in function.parameters)
    hypers = ", ".join(p.name for p in function.hyperparameters)
    return f"{function.name}({names}{'; ' + hypers if hypers else ''})"


def _prefix(scope: Scope, function: ast.Function) -> str:
    return f"{scope.prefix}{function.name}."


def _tensors(found: Value) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    return list(found.fields.values()) if isinstance(found, RecordValue) else []


def _match_arguments(
    ctx: Context, scope: Scope, function: ast.Function, expr: ast.Call
) -> tuple[dict[str, Value], dict[str, tuple[Tensor, Span]]]:
    from lossdsl.checker.expressions import tensor, value

    names = [p.name for p in function.parameters]
    hypers = [p.name for p in function.hyperparameters]
    given: dict[str, Value] = {}
    hyper: dict[str, tuple[Tensor, Span]] = {}
    position = 0
    for argument in expr.arguments:
        if argument.name is None:
            if position >= len(names):
                hint = (
                    f"hyperparameters are given by keyword: {hypers[0]}=.." if hypers else f"it is {_header(function)}"
                )
                raise ctx.stop(
                    "E040", f"{function.name} takes {len(names)} tensors, more are given", argument.span, help=hint
                )
            name = names[position]
            position += 1
        else:
            name = argument.name
        if name in given or name in hyper:
            raise ctx.stop(
                "E041",
                f"{name} is given twice",
                argument.span,
                help="a tensor is given by position or by keyword, once",
            )
        if name in hypers:
            hyper[name] = (tensor(ctx, scope, argument.value), argument.span)
        elif name in names:
            given[name] = value(ctx, scope, argument.value)
        else:
            near = suggest(name, [*names, *hypers])
            raise ctx.stop("E041", f"{function.name} has no parameter {name}", argument.span,
                           help=f"did you mean {near}?" if near else f"it has {', '.join([*names, *hypers]) or 'none'}")  # fmt: skip
    missing = [m for m in names if m not in given]
    if missing:
        raise ctx.stop("E042", f"{function.name} needs {', '.join(missing)} too", expr.span,
                       help=f"it is {_header(function)}")  # fmt: skip
    return {name: given[name] for name in names}, hyper


def _named_axes(ctx: Context, scope: Scope, entries: tuple[ast.Entry, ...]) -> dict[str, Dim]:
    named: dict[str, Dim] = {}
    for entry in entries:
        found = types.range_of(ctx, scope, entry.value) if isinstance(entry, ast.Keyed) else None
        if not isinstance(entry, ast.Keyed) or found is None or found.axis is None:
            raise ctx.stop(
                "E020",
                "an axis binds to an axis of the argument",
                entry.span,
                help="write f[C = K](x) with K an axis of x",
            )
        named[entry.name] = found.axis
    return named


def _fields(
    ctx: Context, module: LoadedModule, parameter: ast.Parameter, found: Value, span: Span
) -> list[tuple[ast.ArrayType, Tensor, list[ast.Axis]]]:
    """The array types of a parameter beside the tensors given for them."""
    kind = parameter.type
    assert isinstance(kind, ast.ArrayType)
    record = module.records.get(kind.kind)
    if record is None:
        if not isinstance(found, Tensor):
            what = (
                f"a {found.type_name}"
                if isinstance(found, RecordValue)
                else "a function"
                if isinstance(found, FunctionValue)
                else "several values"
            )
            raise ctx.stop(
                "E032",
                f"{parameter.name} is a tensor, {what} is given",
                span,
                help="take a field of a record, or call the function",
            )
        return [(kind, found, list(kind.axes))]
    _, declared = record
    if not isinstance(found, RecordValue):
        raise ctx.stop(
            "E032",
            f"{parameter.name} is a {declared.name}, another thing is given",
            span,
            help=f"hand in a parameter declared {declared.name}, or take its fields as tensors",
        )
    missing = [f.name for f in declared.fields if f.name not in found.fields]
    if missing:
        raise ctx.stop(
            "E032",
            f"a {declared.name} has {', '.join(missing)}, the {found.type_name} given has not",
            span,
            help=f"hand in a {declared.name}",
        )
    renamed = {a.size.id: b for a, b in zip(declared.axes, kind.axes, strict=False) if isinstance(a.size, ast.Name)}
    out = []
    for item in declared.fields:
        assert isinstance(item.type, ast.ArrayType)
        axes = [renamed.get(a.size.id, a) if isinstance(a.size, ast.Name) else a for a in item.type.axes]
        out.append((item.type, found.fields[item.name], axes))
    return out


def _bind(
    ctx: Context,
    function: ast.Function,
    given: dict[str, Value],
    named: dict[str, Dim],
    module: LoadedModule,
    span: Span,
) -> tuple[_Binding, dict[str, list[dict[Dim, tuple[str, int]]]]]:
    binding = _Binding()
    cores: dict[str, list[dict[Dim, tuple[str, int]]]] = {}
    for parameter in function.parameters:
        found = given[parameter.name]
        cores[parameter.name] = []
        if isinstance(parameter.type, ast.FunctionType):
            continue
        for _, arg, axes in _fields(ctx, module, parameter, found, span):
            cores[parameter.name].append(_bind_axes(ctx, function, parameter, arg, axes, named, binding, span))
    return binding, cores


def _bind_axes(
    ctx: Context, function: ast.Function, parameter: ast.Parameter, arg: Tensor, axes: list[ast.Axis], named: dict[str, Dim],
    binding: _Binding, span: Span,
) -> dict[Dim, tuple[str, int]]:  # fmt: skip
    if len(arg.axes) < len(axes):
        raise ctx.stop("E022", f"{function.name} needs {parameter.span.text}: {_axes_text(axes)}, which has {len(axes)} axes", span,
                       underline=f"{types.shape_text(arg)} is given", help=f"hand in a tensor with {_axes_text(axes)} as its last axes")  # fmt: skip
    rest = list(arg.axes)
    chosen: list[Dim | None] = []
    for axis in axes:
        dim = named.get(axis.size.id) if isinstance(axis.size, ast.Name) else None
        if dim is not None and dim in rest:
            rest.remove(dim)
            chosen.append(dim)
        else:
            chosen.append(None)
    open_places = sum(c is None for c in chosen)
    tail = rest[len(rest) - open_places :] if open_places else []
    for dim in rest[: len(rest) - open_places]:
        if dim not in binding.extras:
            binding.extras.append(dim)
    core: dict[Dim, tuple[str, int]] = {}
    seen: dict[str, int] = {}
    for axis, choice in zip(axes, chosen, strict=True):
        dim = choice if choice is not None else tail.pop(0)
        name = axis.size.id if isinstance(axis.size, ast.Name) and types.is_axis_name(axis.size.id) else None
        if name is None:
            binding.later.append((axis, dim, span))
            key = (axis.name or f"={axis.span.text}", seen.get(axis.span.text, 0))
            seen[axis.span.text] = key[1] + 1
            core[dim] = key
            binding.axes.setdefault(key, dim)
            continue
        key = (name, seen.get(name, 0))
        seen[name] = key[1] + 1
        core[dim] = key
        first = binding.axes.get(key)
        if first is None:
            binding.axes[key] = dim
            binding.places[key] = span
            _check_least(ctx, axis, dim, span, name)
        elif first != dim:
            raise ctx.stop("E021", f"{function.name} needs one axis {name} in its arguments", span, underline=f"{name} would be {first} and {dim}",
                           help=f"{parameter.name} is declared {parameter.type.span.text}")  # fmt: skip
    return core


def _check_least(ctx: Context, axis: ast.Axis, dim: Dim, span: Span, name: str) -> None:
    wanted = 1
    if axis.least is not None and isinstance(axis.least, ast.Number) and axis.least.text.isdigit():
        wanted = int(axis.least.text)
    least = dim.size.least
    may_be_empty = any(atom.least < 1 for atom in dim.size.atoms)
    if least is None or (least < wanted and dim.size.constant is None and not may_be_empty):
        ctx.need_length(dim.size - wanted, span, f"{name} must be at least {wanted}")
    elif least < wanted:
        raise ctx.stop("E033", f"{name} must be at least {wanted} here", span, underline=f"{dim.size} may be {least}",
                       help="declare the axis longer: `[N >= 1]`, or allow the empty one there: `[N >= 0]`")  # fmt: skip


def _axes_text(axes: list[ast.Axis]) -> str:
    return "[" + ", ".join(a.span.text for a in axes) + "]"


def _separate(
    binding: _Binding, given: dict[str, Value], cores: dict[str, list[dict[Dim, tuple[str, int]]]]
) -> dict[tuple[str, int], Dim]:
    """Core axes that would be confused with each other or with what comes along get a dim of their own."""
    hidden: set[Dim] = set(binding.extras)
    for name, found in given.items():
        for tensor, core in zip(_tensors(found), cores[name], strict=False):
            hidden |= tensor.node.dims - set(core)
    taken = hidden | set(binding.axes.values())
    renames: dict[tuple[str, int], Dim] = {}
    used: set[Dim] = set()
    for key, dim in binding.axes.items():
        if dim in hidden or dim in used:
            new = fresh_copy(dim, taken)
            taken.add(new)
            renames[key] = new
        else:
            used.add(dim)
    return renames


def _rebase(
    ctx: Context, found: Value, cores: list[dict[Dim, tuple[str, int]]], renames: dict[tuple[str, int], Dim]
) -> Value:
    """An argument as the function sees it: its core axes only, renamed where needed."""

    def one(tensor: Tensor, core: dict[Dim, tuple[str, int]]) -> Tensor:
        mapping = {dim: ctx.graph.iota(renames[key]) for dim, key in core.items() if key in renames}
        axes = tuple(renames.get(core[d], d) for d in tensor.axes if d in core)
        ordered = tuple(renames.get(key, dim) for dim, key in core.items())
        assert set(axes) == set(ordered)
        return Tensor(ctx.graph.at(tensor.node, mapping), ordered)

    match found:
        case Tensor():
            return one(found, cores[0]) if cores else found
        case RecordValue():
            return RecordValue(
                found.type_name,
                {name: one(t, core) for (name, t), core in zip(found.fields.items(), cores, strict=False)},
            )
        case _:
            return found


def _hypers(
    ctx: Context,
    scope: Scope,
    inner: Scope,
    function: ast.Function,
    given: dict[str, tuple[Tensor, Span]],
    expr: ast.Call,
) -> None:
    from lossdsl.checker.expressions import tensor

    for parameter in function.hyperparameters:
        if parameter.name in given:
            found, span = given[parameter.name]
        elif parameter.default is not None:
            found, span = tensor(ctx, inner, parameter.default), expr.span
        else:
            raise ctx.stop(
                "E042",
                f"{function.name} needs {parameter.name}, which has no default",
                expr.span,
                help=f"give {parameter.name}=..",
            )
        inner.names[parameter.name] = Tensor(found.node)
        inner.reserved = inner.reserved | found.node.dims
        assert isinstance(parameter.type, ast.ArrayType)
        _check_domain(ctx, inner, parameter, parameter.type, found, span)


def _check_later(ctx: Context, inner: Scope, binding: _Binding, expr: ast.Call) -> None:
    """Axes whose length is written as arithmetic: solve for the axis names that nothing else tells, compare the rest."""
    for axis, dim, span in binding.later:
        _solve_axis(inner, axis, dim)
        wanted = types.size(ctx, inner, axis.size)
        if wanted != dim.size:
            raise ctx.stop("E021", f"this axis must have length {axis.size.span.text} = {wanted}", span, underline=f"{dim.size} is given",
                           labels=[Label(axis.span, "declared here")], help="hand in a tensor of that length, or declare the parameter otherwise")  # fmt: skip
    del expr


def _solve_axis(inner: Scope, axis: ast.Axis, dim: Dim) -> None:
    match axis.size:
        case ast.Binary("*", ast.Number(text), ast.Name(name)) if (
            text.isdigit() and int(text) > 0 and name not in inner.axes and types.is_axis_name(name)
        ):
            whole = int(text)
            if all(c % whole == 0 for _, c in dim.size.terms):
                inner.axes[name] = Dim(dim.size // whole)
        case _:
            pass


def _axes_from_bounds(
    ctx: Context, inner: Scope, function: ast.Function, given: dict[str, Value], expr: ast.Call
) -> None:
    """An axis that only `int < C` mentions gets the least length that is known to bound what is given."""
    for parameter in function.parameters:
        if isinstance(parameter.type, ast.FunctionType):
            continue
        kinds = _fields(ctx, inner.module, parameter, given[parameter.name], expr.span)
        for (kind, _, _), found in zip(kinds, _tensors(inner.names[parameter.name]), strict=False):
            for bound in kind.bounds:
                limit = bound.limit
                if (
                    bound.op != "<"
                    or not isinstance(limit, ast.Name)
                    or not types.is_axis_name(limit.id)
                    or limit.id in inner.axes
                ):
                    continue
                above = ctx.ranges.bounds(found.node, ctx.facts | ctx.axioms, upper=True)
                if not above:
                    raise ctx.stop("E033", f"{parameter.name} must be less than some {limit.id}, and nothing bounds what is given", expr.span,
                                   help=f"declare it: `int < {limit.id}`")  # fmt: skip
                inner.axes[limit.id] = Dim(above[0] + 1)


def _check_arguments(
    ctx: Context, inner: Scope, function: ast.Function, given: dict[str, Value], expr: ast.Call
) -> None:
    for parameter in function.parameters:
        if isinstance(parameter.type, ast.FunctionType):
            if not isinstance(given[parameter.name], FunctionValue):
                raise ctx.stop(
                    "E032",
                    f"{parameter.name} is a function",
                    expr.span,
                    help=f"hand in a parameter declared {parameter.type.span.text}",
                )
            continue
        for (kind, _, _), tensor in zip(
            _fields(ctx, inner.module, parameter, given[parameter.name], expr.span),
            _tensors(inner.names[parameter.name]),
            strict=False,
        ):
            _check_domain(ctx, inner, parameter, kind, tensor, expr.span)


def _check_domain(
    ctx: Context, inner: Scope, parameter: ast.Parameter, kind: ast.ArrayType, found: Tensor, span: Span
) -> None:
    declared = types.kind_of(ctx, inner, kind)
    node = found.node
    if declared.kind is Kind.BOOL and node.kind is not Kind.BOOL:
        raise ctx.stop(
            "E032",
            f"{parameter.name} is a truth value",
            span,
            underline=f"{types.shape_text(found)} is given",
            help="compare it: x > 0",
        )
    if declared.kind is Kind.INT and node.kind is Kind.REAL:
        raise ctx.stop(
            "E032",
            f"{parameter.name} is a whole number",
            span,
            underline=f"{types.shape_text(found)} is given",
            help=f"declare what is given: {types.type_text(kind)}, or make it whole with floor or round",
        )
    if declared.below is not None:
        upper = ctx.ranges.bounds(node, ctx.facts | ctx.axioms, upper=True)
        if not any(
            (declared.below - 1 - b).least is not None and ((declared.below - 1 - b).least or 0) >= 0 for b in upper
        ):
            ctx.report(
                "E033",
                f"{parameter.name} must be less than {declared.below}, which is not known here",
                span,
                underline=f"this is {ctx.interval(node)}",
                labels=[Label(parameter.span, "declared here")],
                help=f"declare what is given: `int < {declared.below}`",
            )
            return
    related = {op for op, limit in declared.relations if _related(ctx, node, op, limit)}
    wanted = declared.domain
    interval = ctx.interval(node)
    if not interval.within(wanted):
        ctx.report("E033", f"{parameter.name} must be {wanted}, which is not known here", span, underline=f"this is {interval}",
                   labels=[Label(parameter.span, "declared here")], help=_domain_cure(parameter, kind))  # fmt: skip
        return
    for op, limit in declared.relations:
        if op in related or _is_length(limit):
            continue
        ctx.report("E033", f"{parameter.name} must be {op} {limit.hint or 'its bound'}, which is not known here", span,
                   labels=[Label(parameter.span, "declared here")], help="declare the same bound for what is given")  # fmt: skip


def _domain_cure(parameter: ast.Parameter, kind: ast.ArrayType) -> str:
    declare = f"declare what is given: {parameter.type.span.text}"
    match kind.kind:
        case "unit":
            return f"{declare}, or hand in normalize(..)"
        case "sign":
            return f"{declare}; from a truth value m it is 2*m - 1"
        case "prob":
            return f"{declare}, or hand in softmax[C](..)"
    return f"{declare}, or clamp it"


def _is_length(limit: object) -> bool:
    from lossdsl.graph.build import size_of
    from lossdsl.graph.nodes import Node

    return isinstance(limit, Node) and size_of(limit) is not None


def _related(ctx: Context, node: object, op: str, limit: object) -> bool:
    from lossdsl.graph.nodes import Node

    assert isinstance(node, Node)
    assert isinstance(limit, Node)
    if node is limit:
        return op in ("<=", ">=")
    if ctx.graph.apply(_COMPARE[op], node, limit) in ctx.facts | ctx.axioms:
        return True
    difference = ctx.interval(ctx.graph.apply("sub", node, limit))
    wanted = {
        ">": Interval(0, low_open=True),
        ">=": Interval(0),
        "<": Interval(high=0, high_open=True),
        "<=": Interval(high=0),
    }[op]
    return difference.within(wanted)


def _lift_back(ctx: Context, found: Tensor, lifted: tuple[Dim, ...], back: dict[Dim, Dim]) -> Tensor:
    """The result in the caller's terms: lifted axes first, separated axes under their old dims where free."""
    axes = list(found.axes)
    mapping = {}
    for new, old in back.items():
        if new in axes and old not in axes and old not in found.node.dims and old not in lifted:
            axes[axes.index(new)] = old
            mapping[new] = ctx.graph.iota(old)
    node = ctx.graph.at(found.node, mapping)
    lead = tuple(d for d in lifted if d not in axes)
    return Tensor(node, (*lead, *axes))
