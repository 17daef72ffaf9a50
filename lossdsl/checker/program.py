"""From a parsed module to checked programs: `check_module` for diagnostics, `elaborate` for one loss with its values."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lossdsl.checker import promises, statements, types
from lossdsl.checker.calls import builtin_names
from lossdsl.checker.context import Context
from lossdsl.checker.values import (
    FunctionSpec,
    FunctionValue,
    HyperSpec,
    InputSpec,
    LoadedModule,
    Program,
    RecordValue,
    Scope,
    Tensor,
)
from lossdsl.graph.build import Graph, GraphTooLarge
from lossdsl.graph.ranges import Ranges
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Diagnostics, Label, Stop
from lossdsl.syntax.source import Span
from lossdsl.types.domains import Kind
from lossdsl.types.sizes import SizeTooLarge

_COMPARE = {">": "gt", ">=": "ge", "<": "lt", "<=": "le"}


def check_module(module: LoadedModule, prelude: LoadedModule | None, diagnostics: Diagnostics) -> list[Program]:
    """Check every function of a module by itself; the programs of those without errors.

    What is called is checked before what calls it: a refused function is reported once, its callers keep silent about it.
    """
    programs: dict[str, Program] = {}
    for record in module.tree.records:
        before = len(diagnostics.errors)
        _check_record(module, record, diagnostics)
        if len(diagnostics.errors) > before:
            module.broken.add(record.name)
    for function in _callees_first(module):
        before = len(diagnostics.errors)
        _check_name(module, function.name, function.name_span, diagnostics)
        program = elaborate(module, function, prelude, diagnostics)
        if program is not None and len(diagnostics.errors) == before:
            programs[function.name] = program
        else:
            module.broken.add(function.name)
    return [programs[f.name] for f in module.tree.functions if f.name in programs and programs[f.name].function is f]


def _callees_first(module: LoadedModule) -> list[ast.Function]:
    functions = {f.name: f for f in reversed(module.tree.functions)}
    mentions = {
        name: [w for w in dict.fromkeys(re.findall(r"\w+", f.span.text)) if w in functions]
        for name, f in functions.items()
    }
    ordered: dict[str, ast.Function] = {}
    seen: set[str] = set()
    stack = [(f.name, False) for f in reversed(module.tree.functions)]
    while stack:
        name, done = stack.pop()
        if done:
            ordered[name] = functions[name]
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            stack += [(w, False) for w in reversed(mentions[name]) if w not in seen]
    twice = [f for f in module.tree.functions if functions[f.name] is not f]
    return [*ordered.values(), *twice]


def elaborate(
    module: LoadedModule,
    function: ast.Function,
    prelude: LoadedModule | None,
    diagnostics: Diagnostics,
    hypers: Mapping[str, float | int] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Program | None:
    """The checked program of one function, or None after reporting. With `hypers`, every hyperparameter has a value."""
    graph = Graph()
    ranges = Ranges(graph)
    program = Program(function.name, module, function, graph, ranges)
    ctx = Context(
        graph, ranges, diagnostics, prelude, None if hypers is None else dict(hypers), dict(sizes or {}), program
    )
    try:
        with ast.deep_recursion():
            _run(ctx, module, function, program)
    except Stop:
        return None
    except SizeTooLarge:
        diagnostics.report(
            "E006",
            f"a length in {function.name} is too complicated",
            function.name_span,
            help="write shorter arithmetic of axes",
        )
        return None
    except (GraphTooLarge, RecursionError):
        diagnostics.report("E060", f"{function.name} unfolds to more than a compiler should handle", function.name_span,
                           help="calls inside calls multiply: give shared parts a name")  # fmt: skip
        return None
    return program


def _run(ctx: Context, module: LoadedModule, function: ast.Function, program: Program) -> None:
    scope = Scope(module, function)
    if any(isinstance(p.type, ast.ArrayType) and p.type.kind in module.broken for p in function.parameters):
        raise Stop  # the record's declaration was refused and reported
    _check_names(ctx, function)
    declared = _declare_axes(ctx, scope, module, function)
    for parameter in function.hyperparameters:
        _hyper(ctx, scope, parameter, program)
    types.declare_named(ctx, scope, declared)
    for parameter in function.parameters:
        _parameter(ctx, scope, module, parameter, program)
    found = statements.body(ctx, scope, function)
    if function.kind == "loss" and len(found) > 1:
        raise ctx.stop(
            "E052", f"a loss yields one value, {function.name} has {len(found)}", function.name_span,
            help="a decimal is written with a point: 0.5; several values can be yielded by a def",
        )  # fmt: skip
    program.values = found
    program.value = found[0]
    program.ensures = tuple(p for s in function.body if isinstance(s, ast.Ensures) for p in s.phrases)
    promises.check(ctx, scope, program)
    program.requirements = ctx.ranges.required
    program.axis_names = frozenset(scope.axes)
    if function.kind == "loss":
        for value in found:
            hidden = value.node.dims - set(value.axes)
            if hidden:
                raise ctx.stop(
                    "E050",
                    f"the value of {function.name} still depends on {', '.join(map(str, hidden))}",
                    function.name_span,
                    help="reduce it first, for example with mean[..](..)",
                )


def _check_names(ctx: Context, function: ast.Function) -> None:
    seen: dict[str, Span] = {}
    for parameter in (*function.parameters, *function.hyperparameters):
        if parameter.name in seen:
            ctx.report(
                "E011",
                f"{parameter.name} is declared twice",
                parameter.span,
                labels=[Label(seen[parameter.name], "first here")],
                help="rename one of them",
            )
        seen[parameter.name] = parameter.span
        if types.is_axis_name(parameter.name):
            ctx.report("E011", f"capitalised names are axes; {parameter.name} cannot be a parameter", parameter.span,
                       help=f"write {parameter.name.lower()}")  # fmt: skip


def _check_name(module: LoadedModule, name: str, span: Span, diagnostics: Diagnostics) -> None:
    if name in builtin_names() and not module.name.endswith("stdlib/prelude.loss"):
        diagnostics.report(
            "E011",
            f"{name} is an operation of the language and cannot be declared anew",
            span,
            help=f"call it my_{name}",
        )


def _check_record(module: LoadedModule, record: ast.Record, diagnostics: Diagnostics) -> None:
    graph = Graph()
    ctx = Context(graph, Ranges(graph), diagnostics, None)
    scope = Scope(module, None)
    seen: dict[str, Span] = {}
    for field in record.fields:
        if field.name in seen:
            diagnostics.report(
                "E011",
                f"{field.name} is declared twice",
                field.span,
                labels=[Label(seen[field.name], "first here")],
                help="rename one of them",
            )
        seen[field.name] = field.span
        try:
            if not isinstance(field.type, ast.ArrayType) or field.type.kind in module.records:
                raise ctx.stop(
                    "E012",
                    "a record's fields are tensors",
                    field.type.span,
                    help="list the tensors themselves: chosen: real[B]",
                )
            types.declare_axes(ctx, scope, [field.type], {})
            types.axis_dims(ctx, scope, field.type.axes, declare=True)
            types.kind_of(ctx, scope, field.type)
        except Stop:
            continue


def _record_fields(
    ctx: Context, module: LoadedModule, kind: ast.ArrayType, record: ast.Record
) -> list[tuple[ast.Field, ast.ArrayType]]:
    """The fields of a record type with its axes under the names given: `Policy[N]` has `chosen: real[N]`."""
    if kind.bounds:
        raise ctx.stop(
            "E012",
            "a record has no domain of its own; its fields have",
            kind.span,
            help="declare it at a field: chosen: real[B] <= 0",
        )
    if len(kind.axes) != len(record.axes):
        raise ctx.stop("E022", f"{record.name} has {len(record.axes)} {'axis' if len(record.axes) == 1 else 'axes'}", kind.span, labels=[Label(record.span, "declared here")],
                       help=f"write {record.name}[{', '.join(a.span.text for a in record.axes)}]")  # fmt: skip
    renamed = {a.size.id: b for a, b in zip(record.axes, kind.axes, strict=True) if isinstance(a.size, ast.Name)}
    out = []
    for field in record.fields:
        if not isinstance(field.type, ast.ArrayType):
            raise ctx.stop(
                "E012",
                "a record's fields are tensors",
                field.type.span,
                help="list the tensors themselves: chosen: real[B]",
            )
        axes = tuple(renamed.get(a.size.id, a) if isinstance(a.size, ast.Name) else a for a in field.type.axes)
        out.append(
            (field, ast.ArrayType(field.type.kind, axes, field.type.bounds, field.type.interval, span=field.type.span))
        )
    del module
    return out


def _declare_axes(ctx: Context, scope: Scope, module: LoadedModule, function: ast.Function) -> list[ast.Type]:
    """Axis names that the parameters' shapes and domains mention; the parameters' types, records taken apart."""
    declared: list[ast.Type] = []
    for parameter in function.parameters:
        kind = parameter.type
        record = module.records.get(kind.kind) if isinstance(kind, ast.ArrayType) else None
        if record is not None and isinstance(kind, ast.ArrayType):
            declared += [t for _, t in _record_fields(ctx, module, kind, record[1])]
        declared.append(kind)
    types.declare_axes(ctx, scope, declared, {})
    types.declare_arithmetic(ctx, scope, declared)
    bounds = [b.limit for t in declared if isinstance(t, ast.ArrayType) for b in t.bounds]
    bounds += [b.limit for p in function.hyperparameters if isinstance(p.type, ast.ArrayType) for b in p.type.bounds]
    from lossdsl.checker.reads import walk

    named = {*scope.axes, *types.named_axes(declared)}
    for limit in bounds:
        for item in walk(limit):
            if isinstance(item, ast.Name) and types.is_axis_name(item.id) and item.id not in named:
                types.axis_dims(ctx, scope, (ast.Axis(item, span=item.span),), declare=True)
    return declared


def _hyper(ctx: Context, scope: Scope, parameter: ast.Parameter, program: Program) -> None:
    from lossdsl.checker.expressions import tensor

    kind = parameter.type
    if not isinstance(kind, ast.ArrayType) or kind.axes or kind.kind not in ("real", "int", "bool", "prob", "sign"):
        raise ctx.stop("E012", f"the hyperparameter {parameter.name} is a scalar: real, int or bool", kind.span,
                       help="a tensor stands before the `;`")  # fmt: skip
    declared = types.kind_of(ctx, scope, kind)
    default: float | int | None = None
    if parameter.default is not None:
        _check_default(ctx, scope, parameter)
        node = tensor(ctx, scope, parameter.default).node
        static = ctx.graph.static(node, decides=False)
        if static is None and ctx.hypers is None:
            static = _from_defaults(ctx, node, program)
        if static is None:
            raise ctx.stop(
                "E033",
                f"the default of {parameter.name} is not a constant",
                parameter.default.span,
                help="a default is made of numbers and of hyperparameters declared before",
            )
        if declared.kind is Kind.INT and (isinstance(static, bool) or static != int(static)):
            raise ctx.stop(
                "E033",
                f"{parameter.name} is a whole number, its default is {static}",
                parameter.default.span,
                help="write a whole default, or declare it real",
            )
        default = int(static) if declared.kind is Kind.INT else static if declared.kind is Kind.BOOL else float(static)
        _check_value(ctx, parameter, declared, float(default), parameter.default.span, "the default")
    value: float | int | None = None
    if ctx.hypers is not None:
        value = ctx.hypers.get(parameter.name, default)
        if value is None:
            raise ctx.stop(
                "E042",
                f"{program.name} needs {parameter.name}, which has no default",
                parameter.span,
                help=f"give {parameter.name}=..",
            )
        _check_value(ctx, parameter, declared, float(value), parameter.span, "the value given")
        if declared.kind is Kind.INT:
            value = int(value)
    node = ctx.graph.hyper(parameter.name, value, declared.domain, declared.kind)
    node.hint = parameter.name
    scope.names[parameter.name] = Tensor(node)
    scope.places[parameter.name] = parameter.span
    for op, limit in declared.relations:
        ctx.axioms = ctx.axioms | {ctx.graph.apply(_COMPARE[op], node, limit)}
    program.hypers.append(HyperSpec(parameter.name, declared.kind, declared.domain, default, value, kind.span.text))


def _check_default(ctx: Context, scope: Scope, parameter: ast.Parameter) -> None:
    """Tensors and later hyperparameters are no part of a default."""
    from lossdsl.checker.reads import walk

    assert parameter.default is not None
    assert scope.function is not None
    tensors = {p.name for p in scope.function.parameters}
    later = {p.name for p in scope.function.hyperparameters} - set(scope.names)
    for item in walk(parameter.default):
        if isinstance(item, ast.Name) and item.id in tensors | later:
            what = "which is a tensor" if item.id in tensors else "which is declared after it"
            raise ctx.stop(
                "E033",
                f"the default of {parameter.name} depends on {item.id}, {what}",
                item.span,
                help="a default is made of numbers and of hyperparameters declared before",
            )


def _from_defaults(ctx: Context, node: object, program: Program) -> float | None:
    from lossdsl.graph import nodes as n

    if isinstance(node, n.Hyper):
        return next((h.default for h in program.hypers if h.name == node.name), None)
    del ctx
    return None


def _check_value(
    ctx: Context, parameter: ast.Parameter, declared: types.Declared, value: float, span: Span, what: str
) -> None:
    from lossdsl.types.domains import point

    if declared.kind is Kind.INT and value != int(value):
        raise ctx.stop(
            "E033", f"{what} of {parameter.name}, {value:g}, is not a whole number", span, help="give a whole number"
        )
    if not point(value).within(declared.domain):
        raise ctx.stop(
            "E033",
            f"{what} of {parameter.name}, {value:g}, lies outside its domain {declared.domain}",
            span,
            help=f"give a number {declared.domain}",
        )
    for op, limit in declared.relations:
        bound = ctx.graph.static(limit, decides=False)
        if (
            bound is not None
            and not {">": value > bound, ">=": value >= bound, "<": value < bound, "<=": value <= bound}[op]
        ):
            raise ctx.stop(
                "E033",
                f"{what} of {parameter.name}, {value:g}, must be {op} {limit.hint or ''} = {bound:g}",
                span,
                help="give a number that keeps to the declared bound",
            )


def _parameter(ctx: Context, scope: Scope, module: LoadedModule, parameter: ast.Parameter, program: Program) -> None:
    kind = parameter.type
    scope.places[parameter.name] = parameter.span
    if parameter.default is not None:
        ctx.report(
            "E012",
            f"the tensor {parameter.name} has no default",
            parameter.default.span,
            help="hyperparameters, after `;`, have defaults",
        )
    if isinstance(kind, ast.FunctionType):
        scope.names[parameter.name] = FunctionValue(parameter.name, kind)
        for item in (*kind.parameters, kind.result):
            if isinstance(item, ast.ArrayType):
                types.axis_dims(ctx, scope, item.axes, declare=True)
        program.functions.append(FunctionSpec(parameter.name, kind.span.text))
        return
    record = module.records.get(kind.kind)
    if record is not None:
        fields = {}
        for field, field_type in _record_fields(ctx, module, kind, record[1]):
            fields[field.name] = _input(ctx, scope, (parameter.name, field.name), field_type, program)
        scope.names[parameter.name] = RecordValue(record[1].name, fields)
        return
    if kind.kind not in types.KINDS:
        help_ = types.kind_help(kind.kind, module.records)
        raise ctx.stop("E012", f"there is no type {kind.kind}", kind.span, help=help_)
    scope.names[parameter.name] = _input(ctx, scope, (parameter.name,), kind, program)


def _input(ctx: Context, scope: Scope, path: tuple[str, ...], kind: ast.ArrayType, program: Program) -> Tensor:
    axes = types.axis_dims(ctx, scope, kind.axes, declare=True)
    declared = types.kind_of(ctx, scope, kind)
    if declared.shape in ("prob", "unit") and not axes:
        raise ctx.stop(
            "E012",
            f"{kind.kind} needs an axis to sum over",
            kind.span,
            help=f"write {kind.kind}[C], or real in [0, 1] for one number",
        )
    leaf = ctx.graph.leaf("input", ".".join(path), axes, declared.kind, declared.domain, declared.below, declared.shape)
    leaf.hint = "_".join(path)
    program.inputs.append(InputSpec(path, leaf, types.type_text(kind)))
    return Tensor(leaf, axes)
