"""Bodies of functions: definitions, updates, what lasts, draws, the value, declared derivatives."""

from __future__ import annotations

from dataclasses import dataclass, field

from lossdsl.checker import loops, reads, types
from lossdsl.checker.context import Context
from lossdsl.checker.values import Definition, DrawSpec, LastingSpec, Range, RecordValue, Scope, Several, Tensor, Value
from lossdsl.graph import nodes as n
from lossdsl.graph.nodes import Leaf, Node
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Label, Stop, suggest
from lossdsl.types.domains import ANY, INF, Interval, Kind

DISTRIBUTIONS: dict[str, tuple[tuple[str, float], ...]] = {
    "normal": (("mean", 0.0), ("std", 1.0)),
    "uniform": (("low", 0.0), ("high", 1.0)),
    "bernoulli": (("p", 0.5),),
    "gumbel": (("location", 0.0), ("scale", 1.0)),
    "exponential": (("rate", 1.0),),
}


@dataclass
class _Custom:
    """Stand-ins for the parameters of a definition with a declared derivative."""

    leaves: dict[str, tuple[Leaf, Tensor]] = field(default_factory=dict)


def body(ctx: Context, scope: Scope, function: ast.Function) -> tuple[Tensor, ...]:
    """The values of a function body; its names are already in the scope."""
    backward = next((s for s in function.body if isinstance(s, ast.Backward)), None)
    custom = None if backward is None else _stand_in(ctx, scope, function, backward)
    found = block(ctx, scope, function.body, function)
    if found is None:
        raise ctx.stop(
            "E051", f"{function.name} has no value", function.name_span, help="end its block with an expression"
        )
    if backward is not None and custom is not None:
        found = (_declared_derivative(ctx, scope, function, backward, custom, found),)
    return tuple(_shaped(ctx, scope, function, t) for t in found)


def block(
    ctx: Context, scope: Scope, statements: tuple[ast.Statement, ...], function: ast.Function | None
) -> tuple[Tensor, ...] | None:
    """Run statements in order; the value of the last value statement, if there is one."""
    value: tuple[Tensor, ...] | None = None
    place: ast.Value | None = None
    refused = False
    for statement in statements:
        try:
            found = _statement(ctx, scope, statement)
        except Stop:
            _poison(scope, statement)
            refused = True
            continue
        if isinstance(statement, ast.Value):
            if place is not None:
                ctx.report("E052", "a second value; only one can be the block's", statement.span, labels=[Label(place.span, "the first value")],
                           help="give the other a name, or combine them in one expression")  # fmt: skip
            value, place = found, statement
    if refused and value is None:
        raise Stop
    del function
    return value


def _poison(scope: Scope, statement: ast.Statement) -> None:
    """A name whose definition failed must not be reported as unknown later: its uses stop silently."""
    names: list[str] = []
    match statement:
        case ast.Definition():
            for target in statement.targets:
                base = target.base if isinstance(target, ast.Bracket) else target
                if isinstance(base, ast.Name):
                    names.append(base.id)
        case ast.Lasting() | ast.Draw():
            names.append(statement.name)
        case ast.Repeat() | ast.Scan():
            names += [c.name for c in statement.carried]
        case _:
            pass
    for name in names:
        scope.names.setdefault(name, _Poison())  # type: ignore[arg-type]


class _Poison:
    """Stands for a name whose definition was refused."""


def is_poison(found: object) -> bool:
    """Does a name stand for something whose definition was refused?"""
    return isinstance(found, _Poison)


def _statement(ctx: Context, scope: Scope, statement: ast.Statement) -> tuple[Tensor, ...] | None:
    ctx.tick(statement.span)
    match statement:
        case ast.Value():
            return _values(ctx, scope, statement)
        case ast.Definition():
            _definition(ctx, scope, statement)
        case ast.Update():
            _update(ctx, scope, statement)
        case ast.Lasting():
            _lasting(ctx, scope, statement)
        case ast.Draw():
            _draw(ctx, scope, statement)
        case ast.Repeat():
            loops.repeat(ctx, scope, statement)
        case ast.Scan():
            loops.scan(ctx, scope, statement)
        case ast.Ensures() | ast.Backward():
            if scope.in_loop:
                raise ctx.stop(
                    "E052",
                    "this belongs to the body of a function, not of a loop",
                    statement.span,
                    help="write it after the loop",
                )
    return None


def _values(ctx: Context, scope: Scope, statement: ast.Value) -> tuple[Tensor, ...]:
    """The values of a block; a call with several hands them all on where it stands alone."""
    from lossdsl.checker.expressions import tensor, value

    if len(statement.values) == 1:
        _check_arrow(ctx, scope, statement.values[0])
        found = value(ctx, scope, statement.values[0])
        if isinstance(found, Several):
            return found.items
        if isinstance(found, Tensor):
            return (found,)
    return tuple(tensor(ctx, scope, e) for e in statement.values)


def _check_arrow(ctx: Context, scope: Scope, expr: ast.Expr) -> None:
    """`y <- x` reads as a comparison."""
    match expr:
        case ast.Binary("<", ast.Name(name), ast.Negative()) if "<-" in expr.span.text and name not in scope.names:
            scope.names[name] = _Poison()  # type: ignore[assignment]
            raise ctx.stop("E009", "`<-` defines nothing", expr.span, help=f"a definition is written {name} = ..")
        case _:
            pass


# ---- definitions ---------------------------------------------------------------------------


def _definition(ctx: Context, scope: Scope, statement: ast.Definition) -> None:
    from lossdsl.checker.expressions import value

    targets = statement.targets
    if len(targets) == 1 and len(statement.values) == 1:
        target = targets[0]
        if isinstance(target, ast.Bracket):
            _pointed(ctx, scope, target, statement.values[0])
            return
        found = value(ctx, scope, statement.values[0])
        if isinstance(found, Several):
            raise ctx.stop(
                "E040", f"this gives {len(found.items)} values", statement.span, help="name them all: a, b = f(x)"
            )
        _bind_name(ctx, scope, target, found)
        return
    values: list[Value] = []
    for expr in statement.values:
        found = value(ctx, scope, expr)
        values += found.items if isinstance(found, Several) else [found]
    if len(values) != len(targets):
        raise ctx.stop(
            "E040",
            f"{len(targets)} names for {len(values)} values",
            statement.span,
            help="give as many names as there are values",
        )
    for target, found in zip(targets, values, strict=True):
        _bind_name(ctx, scope, target, found)


def _bind_name(ctx: Context, scope: Scope, target: ast.Expr, found: Value) -> None:
    if not isinstance(target, ast.Name):
        raise ctx.stop(
            "E052",
            "the left side of a definition is a name, or a name with variables: y[i, j] = ..",
            target.span,
            help="an equality is no definition; a condition is written with ==",
        )
    _declare(ctx, scope, target)
    scope.names[target.id] = found
    if isinstance(found, Tensor):
        _remember(ctx, target.id, found, target)


def _remember(ctx: Context, name: str, found: Tensor, target: ast.Expr) -> None:
    if found.node.hint is None and not isinstance(found.node, Leaf | n.Const | n.Hyper | n.SizeOf | n.Iota):
        found.node.hint = name
        if isinstance(found.node, n.At) and found.node.body.hint is None and not isinstance(found.node.body, Leaf):
            found.node.body.hint = name
    if ctx.program is not None and not ctx.calls:
        ctx.program.definitions.append(Definition(name, found, target.span))


def _declare(ctx: Context, scope: Scope, target: ast.Name) -> None:
    name = target.id
    if types.is_axis_name(name):
        raise ctx.stop(
            "E011",
            f"capitalised names are axes; {name} cannot be defined",
            target.span,
            help=f"write {name.lower()} = ..",
        )
    if name in scope.names and name not in scope.carried and not is_poison(scope.names[name]):
        labels = [Label(scope.places[name], "first here")] if name in scope.places else []
        hint = (
            "a state is changed with :="
            if name in scope.states
            else "use another name; values do not change once defined"
        )
        raise ctx.stop("E011", f"{name} already stands for something", target.span, labels=labels, help=hint)
    scope.places[name] = target.span


def _pointed(ctx: Context, scope: Scope, target: ast.Bracket, expr: ast.Expr) -> None:
    """`s[i, j] = e`."""
    if not isinstance(target.base, ast.Name) or target.guard is not None:
        raise ctx.stop(
            "E052",
            "the left side of a definition is a name with variables: y[i, j] = ..",
            target.span,
            help="a condition belongs to the right side: where(condition, a, b)",
        )
    found = pointed_value(ctx, scope, target, expr)
    _declare(ctx, scope, target.base)
    scope.names[target.base.id] = found
    _remember(ctx, target.base.id, found, target)


def pointed_value(
    ctx: Context, scope: Scope, target: ast.Bracket, expr: ast.Expr, given: dict[str, Range] | None = None
) -> Tensor:
    """The tensor over the variables of a left side."""
    from lossdsl.checker.expressions import tensor

    names: list[str] = []
    ranges: dict[str, Range] = {}
    for entry in target.entries:
        match entry:
            case ast.Index(ast.Name(name)) if not types.is_axis_name(name):
                names.append(name)
            case ast.Slice(ast.Name(name), stop, None) if stop is not None:
                names.append(name)
                ranges[name] = types.range_of(ctx, scope, stop)
            case _:
                raise ctx.stop(
                    "E052",
                    "on the left stand variables: y[i, j] or y[i: N]",
                    entry.span,
                    help="a single element cannot be set: y[i] = where(i == 0, a, b)",
                )
    for name in names:
        if name in scope.names and not is_poison(scope.names[name]):
            raise ctx.stop("E028", f"{name} already stands for something here", target.span, help="use another letter")
    if len(set(names)) < len(names):
        raise ctx.stop(
            "E028",
            "one variable stands twice on the left",
            target.span,
            help="a diagonal is read on the right: d[i] = s[i, i]",
        )
    ranges.update(given or {})
    missing = [v for v in names if v not in ranges]
    if missing:
        if ranges:
            with ctx.variables(scope, ranges) as (inner, _):
                told = reads.infer(ctx, inner, missing, [expr], target.span)
        else:
            told = reads.infer(ctx, scope, missing, [expr], target.span)
        ranges.update(told)
    ordered = {v: ranges[v] for v in names}
    with ctx.variables(scope, ordered) as (inner, dims):
        found = tensor(ctx, inner, expr)
        return ctx.to_axes(scope, found.node, dims, ordered, found.axes)


# ---- what lasts ----------------------------------------------------------------------------


def _lasting(ctx: Context, scope: Scope, statement: ast.Lasting) -> None:
    from lossdsl.checker.expressions import tensor

    leaf, declared_text = _lasting_leaf(ctx, scope, statement, statement.role)
    initial: Node | None = None
    law: str | None = None
    arguments: tuple[Node, ...] = ()
    if statement.initial is not None:
        found = tensor(ctx, scope, statement.initial)
        initial = found.node
        _check_initial(ctx, statement, initial, leaf)
    elif statement.distribution is not None:
        law, arguments = distribution(ctx, scope, statement.distribution)
        _check_law(ctx, statement, law, arguments, leaf)
    assert ctx.program is not None
    ctx.program.lasting.append(LastingSpec(statement.role, leaf.name, leaf, initial, declared_text, law, arguments))
    scope.names[statement.name] = Tensor(leaf, leaf.axes)
    scope.places[statement.name] = statement.span
    if statement.role == "state":
        scope.states[statement.name] = leaf.name


def _lasting_leaf(ctx: Context, scope: Scope, statement: ast.Lasting | ast.Draw, role: str) -> tuple[Leaf, str]:
    if scope.in_loop:
        raise ctx.stop(
            "E052", f"a {role} is declared outside of loops", statement.span, help="declare it above the loop"
        )
    if scope.function is not None and scope.function.kind == "def":
        raise ctx.stop(
            "E052",
            f"a {role} belongs to a loss, not to a def",
            statement.span,
            help=f"declare {statement.name} in the loss and hand it in",
        )
    if not isinstance(statement.type, ast.ArrayType):
        raise ctx.stop("E012", f"a {role} is a tensor", statement.span, help=f"write {role} {statement.name}: real[..]")
    _declare(ctx, scope, ast.Name(statement.name, span=statement.span))
    axes = types.axis_dims(ctx, scope, statement.type.axes, declare=True)
    declared = types.kind_of(ctx, scope, statement.type)
    assert ctx.program is not None
    taken = {s.name for s in ctx.program.lasting} | {d.name for d in ctx.program.draws}
    base = scope.prefix + statement.name
    name = base
    count = 2
    while name in taken:
        head, _, tail = base.rpartition(".")
        name = f"{head}_{count}.{tail}" if head else f"{base}_{count}"
        count += 1
    if declared.kind is Kind.BOOL and role == "param":
        raise ctx.stop(
            "E032",
            "a param is real",
            statement.span,
            help=f"write param {statement.name}: real[..], or declare a state",
        )
    leaf = ctx.graph.leaf(role, name, axes, declared.kind, declared.domain, declared.below, declared.shape)
    return leaf, statement.type.span.text


def _check_initial(ctx: Context, statement: ast.Lasting, initial: Node, leaf: Leaf) -> None:
    assert statement.initial is not None
    for item in n.topological([initial]):
        if isinstance(item, Leaf) and item.role in ("input", "state", "param", "draw"):
            raise ctx.stop("E053", f"the first value of {statement.name} cannot depend on {item.name}", statement.initial.span,
                           help="it is made before any input comes: use constants, hyperparameters and lengths")  # fmt: skip
    extra = initial.dims - frozenset(leaf.axes)
    if extra:
        raise ctx.stop("E050", f"the first value of {statement.name} has an axis that it has not", statement.initial.span,
                       underline=", ".join(str(d) for d in extra), help="reduce it first, or declare the axis")  # fmt: skip
    if leaf.kind is Kind.INT and initial.kind is Kind.REAL:
        raise ctx.stop(
            "E032",
            f"{statement.name} holds whole numbers",
            statement.initial.span,
            help="make it whole with floor or round, or declare it real",
        )
    if not ctx.interval(initial).within(leaf.domain):
        ctx.report(
            "E033",
            f"the first value of {statement.name} lies outside its domain {leaf.domain}",
            statement.initial.span,
            help="begin with a value inside, or declare a wider domain",
        )


def _fixed(node: Node) -> bool:
    """Is it made of constants and hyperparameters?"""
    return all(isinstance(item, n.Const | n.Hyper | n.Apply) for item in n.topological([node]))


def _check_law(
    ctx: Context, statement: ast.Lasting | ast.Draw, law: str, arguments: tuple[Node, ...], leaf: Leaf
) -> None:
    """A distribution's numbers are fixed when the loss is built, and what it yields lies in the declared domain."""
    for argument in arguments:
        if not _fixed(argument):
            raise ctx.stop(
                "E053",
                f"the distribution of {statement.name} depends on more than hyperparameters",
                statement.span,
                help=f"draw a standard variable and shift or scale it: {statement.name} * std + mean",
            )
    found = [ctx.interval(a) for a in arguments]
    match law:
        case "uniform":
            support = Interval(found[0].low, found[1].high)
        case "bernoulli":
            support = Interval(0, 1)
        case "exponential":
            support = Interval(0, INF)
        case _:
            support = ANY
    if leaf.kind is not Kind.REAL and law != "bernoulli":
        raise ctx.stop(
            "E033",
            f"{law} yields real numbers, {statement.name} holds {leaf.kind}",
            statement.span,
            help="declare it real, or use bernoulli for 0 and 1",
        )
    if leaf.shape in ("prob", "unit", "sign") or not support.within(leaf.domain):
        raise ctx.stop(
            "E033",
            f"{law} yields numbers {support}, which need not be {leaf.shape or leaf.domain}",
            statement.span,
            help="declare it real and transform it: exp(x), softmax[C](x), normalize(x)",
        )


def distribution(ctx: Context, scope: Scope, law: ast.Distribution) -> tuple[str, tuple[Node, ...]]:
    """A distribution's name and the nodes of its arguments."""
    from lossdsl.checker.expressions import tensor

    if law.name not in DISTRIBUTIONS:
        near = suggest(law.name, DISTRIBUTIONS)
        raise ctx.stop("E010", f"there is no distribution {law.name}", law.span,
                       help=f"did you mean {near}?" if near else f"there are {', '.join(DISTRIBUTIONS)}")  # fmt: skip
    parameters = DISTRIBUTIONS[law.name]
    values: dict[str, Node] = {}
    for place, argument in enumerate(law.arguments):
        if argument.name is None and place >= len(parameters):
            raise ctx.stop(
                "E040",
                f"{law.name} takes {len(parameters)} numbers",
                argument.span,
                help=f"write {law.name}({', '.join(p for p, _ in parameters)})",
            )
        name = argument.name or parameters[place][0]
        if name not in dict(parameters):
            raise ctx.stop(
                "E041", f"{law.name} has no {name}", argument.span, help=f"it has {', '.join(p for p, _ in parameters)}"
            )
        found = tensor(ctx, scope, argument.value)
        needed = {
            "std": Interval(0),
            "scale": Interval(0),
            "rate": Interval(0, INF, low_open=True),
            "p": Interval(0, 1),
        }.get(name, ANY)
        if _fixed(found.node) and not ctx.interval(found.node).within(needed):
            ctx.report(
                "E033",
                f"{name} of {law.name} must be {needed}, which is not known here",
                argument.span,
                help=f"declare what is given: real {needed}, or keep it inside with clamp or max",
            )
        values[name] = found.node
    return law.name, tuple(values.get(name, ctx.graph.const(default)) for name, default in parameters)


def _draw(ctx: Context, scope: Scope, statement: ast.Draw) -> None:
    leaf, text = _lasting_leaf(
        ctx, scope, ast.Draw(statement.name, statement.type, statement.distribution, span=statement.span), "draw"
    )
    law, arguments = distribution(ctx, scope, statement.distribution)
    _check_law(ctx, statement, law, arguments, leaf)
    assert ctx.program is not None
    ctx.program.draws.append(DrawSpec(leaf.name, leaf, law, arguments, text))
    scope.names[statement.name] = Tensor(leaf, leaf.axes)


def _update(ctx: Context, scope: Scope, statement: ast.Update) -> None:
    from lossdsl.checker.expressions import tensor

    target = statement.target
    base = target.base if isinstance(target, ast.Bracket) else target
    if not isinstance(base, ast.Name):
        raise ctx.stop(
            "E053",
            ":= changes a state",
            target.span,
            help="on its left stands the name of a state, or a state read at an index: queue[k] := row",
        )
    if is_poison(scope.names.get(base.id)):
        raise Stop  # its declaration was refused and reported
    if base.id not in scope.states:
        declared = base.id in scope.names
        raise ctx.stop("E053", f"{base.id} is not a state", base.span,
                       help=f"a value is defined with =, only a state is changed: state {base.id}: real = 0" if declared
                       else f"declare it first: state {base.id}: real = 0")  # fmt: skip
    if scope.in_loop:
        raise ctx.stop(
            "E052",
            "a state is changed outside of loops",
            statement.span,
            help="carry the value through the loop and update after it",
        )
    current = scope.names[base.id]
    assert isinstance(current, Tensor)
    new = tensor(ctx, scope, statement.value)
    value = ctx.graph.apply("stop", new.node) if new.node.kind is Kind.REAL else new.node
    if isinstance(target, ast.Bracket):
        value = _indexed_update(ctx, scope, target, current, Tensor(value, new.axes), statement)
    extra = value.dims - frozenset(current.axes)
    if extra:
        raise ctx.stop("E050", f"{base.id} has no axis {', '.join(str(d) for d in extra)}, which the new value has", statement.value.span,
                       help="reduce it first, for example with mean[..](..)")  # fmt: skip
    full = scope.states[base.id]
    assert ctx.program is not None
    leaf = next(s.leaf for s in ctx.program.lasting if s.name == full)
    if leaf.kind is Kind.INT and value.kind is Kind.REAL:
        raise ctx.stop(
            "E032",
            f"{base.id} holds whole numbers",
            statement.value.span,
            help="make it whole with floor or round, or declare the state real",
        )
    if not ctx.interval(value).within(leaf.domain):
        ctx.report(
            "E033",
            f"the new value of {base.id} must be {leaf.domain}, which is not known here",
            statement.value.span,
            help="keep it inside with clamp, max or min, or declare a wider domain",
        )
    ctx.program.updates[full] = value
    scope.names[base.id] = Tensor(value, current.axes)


def _indexed_update(
    ctx: Context, scope: Scope, target: ast.Bracket, current: Tensor, new: Tensor, statement: ast.Update
) -> Node:
    from lossdsl.checker.expressions import tensor

    if len(target.entries) != 1 or not isinstance(target.entries[0], ast.Index) or not current.axes:
        raise ctx.stop(
            "E053",
            "an update at an index takes one index, for the state's first axis",
            target.span,
            help="write queue[k] := row, with row over the other axes",
        )
    index = tensor(ctx, scope, target.entries[0].value)
    dim, *rest = current.axes
    if index.node.kind is not Kind.INT:
        raise ctx.stop("E027", "an index is a whole number", target.entries[0].span, help="floor(x) is whole")
    if not ctx.index_inside(index.node, dim.size, ctx.facts):
        ctx.report(
            "E024",
            f"this index may lie outside the axis of length {dim.size}",
            target.entries[0].span,
            help=f"keep it inside: {target.entries[0].span.text} % {dim.size}",
        )
    allowed = set(index.axes) | set(rest)
    extra = new.node.dims - allowed
    if extra:
        raise ctx.stop(
            "E050",
            f"the rows of {current.node.hint or 'the state'} have no axis {', '.join(str(d) for d in extra)}",
            statement.value.span,
            help="the new value has the axes of the index, then the rest of the state's",
        )
    return ctx.graph.scatter(current.node, dim, index.node, new.node, index.axes)


# ---- declared derivatives ------------------------------------------------------------------


def _stand_in(ctx: Context, scope: Scope, function: ast.Function, backward: ast.Backward) -> _Custom:
    if function.kind != "def":
        raise ctx.stop(
            "E052",
            "a derivative is declared in a def",
            backward.span,
            help="put the formula into a def of its own and call it",
        )
    custom = _Custom()
    for parameter in function.parameters:
        found = scope.names.get(parameter.name)
        if isinstance(found, RecordValue):
            raise ctx.stop(
                "E052",
                "a def with a declared derivative takes tensors, not records",
                parameter.span,
                help="hand in the fields",
            )
        if not isinstance(found, Tensor):
            continue
        hidden = tuple(sorted(found.node.dims - set(found.axes), key=lambda d: d.order))
        leaf = ctx.graph.leaf("wrt", ctx.graph.fresh(parameter.name), (*hidden, *found.axes), found.node.kind,
                              ctx.ranges.interval(found.node, ctx.axioms))  # fmt: skip
        custom.leaves[parameter.name] = (leaf, found)
        scope.names[parameter.name] = Tensor(leaf, found.axes)
    return custom


def _declared_derivative(
    ctx: Context,
    scope: Scope,
    function: ast.Function,
    backward: ast.Backward,
    custom: _Custom,
    found: tuple[Tensor, ...],
) -> Tensor:
    from lossdsl.checker.expressions import tensor

    if len(found) != 1:
        raise ctx.stop(
            "E052",
            "a def with a declared derivative has one value",
            function.name_span,
            help="yield one tensor; stack joins several",
        )
    (value,) = found
    hidden = tuple(sorted(value.node.dims - set(value.axes), key=lambda d: d.order))
    incoming = ctx.graph.leaf("gradient", ctx.graph.fresh(backward.gradient), (*hidden, *value.axes))
    inner = scope.inner()
    inner.names[backward.gradient] = Tensor(incoming, value.axes)
    gradients: dict[str, Node] = {}
    for item in backward.items:
        if isinstance(item, ast.Definition):
            _definition(ctx, inner, item)
            continue
        base = item.target.base if isinstance(item.target, ast.Bracket) else item.target
        name = base.id if isinstance(base, ast.Name) else ""
        if name not in custom.leaves:
            near = suggest(name, custom.leaves)
            raise ctx.stop("E010", f"{function.name} has no tensor parameter {name or 'like this'}", item.target.span,
                           help=f"did you mean {near}?" if near else f"it has {', '.join(custom.leaves)}")  # fmt: skip
        if name in gradients:
            raise ctx.stop(
                "E011", f"the gradient of {name} is given twice", item.target.span, help="add both in one line"
            )
        _, argument = custom.leaves[name]
        if isinstance(item.target, ast.Bracket):
            gradients[name] = _pointed_gradient(ctx, inner, item, argument)
        else:
            gradients[name] = tensor(ctx, inner, item.value).node
        wrong = gradients[name].dims - argument.node.dims - frozenset(argument.axes) - frozenset(incoming.axes)
        if wrong:
            raise ctx.stop(
                "E050",
                f"the gradient of {name} has an axis that {name} has not",
                item.value.span,
                underline=", ".join(map(str, wrong)),
                help="sum over it: sum[..](..)",
            )
    wrt = tuple((leaf, argument.node) for leaf, argument in custom.leaves.values())
    node = ctx.graph.custom(value.node, wrt, incoming, tuple(gradients.get(name) for name in custom.leaves))
    node.hint = node.hint or function.name
    return Tensor(node, value.axes)


def _pointed_gradient(ctx: Context, scope: Scope, item: ast.Derivative, argument: Tensor) -> Node:
    assert isinstance(item.target, ast.Bracket)
    if len(item.target.entries) != len(argument.axes):
        raise ctx.stop(
            "E022",
            f"this has {len(argument.axes)} axes",
            item.target.span,
            help="give one variable for each of its axes",
        )
    given: dict[str, Range] = {}
    for entry, dim in zip(item.target.entries, argument.axes, strict=True):
        if isinstance(entry, ast.Index) and isinstance(entry.value, ast.Name):
            given[entry.value.id] = Range(dim.size, dim)
    found = pointed_value(ctx, scope, item.target, item.value, given)
    mapping = {mine: ctx.graph.iota(dim) for mine, dim in zip(found.axes, argument.axes, strict=False)}
    return ctx.graph.at(found.node, mapping)


def _shaped(ctx: Context, scope: Scope, function: ast.Function, found: Tensor) -> Tensor:
    """The value in the shape that the header declares."""
    if function.result is None:
        if function.kind == "loss" and found.axes:
            raise ctx.stop("E050", f"a loss yields a scalar; this has {types.shape_text(found)}", function.name_span,
                           help=f"reduce it, mean[..](..), or declare it: -> {types.shape_text(found)}")  # fmt: skip
        return found
    if not isinstance(function.result, ast.ArrayType):
        raise ctx.stop("E012", "a function yields a tensor", function.result.span, help="write -> real[..]")
    wanted = types.axis_dims(ctx, scope, function.result.axes, declare=False)
    declared = types.kind_of(ctx, scope, function.result)
    if set(found.axes) != set(wanted):
        renamed = _by_length(ctx, found, wanted)
        if renamed is None:
            raise ctx.stop(
                "E050",
                f"{function.name} declares {function.result.span.text} but yields {types.shape_text(found)}",
                function.result.span,
                help=f"declare it: -> {types.shape_text(found).removesuffix(' (a scalar)')}, or change the value",
            )
        found = renamed
    if declared.kind is Kind.INT and found.node.kind is Kind.REAL:
        raise ctx.stop(
            "E050",
            f"{function.name} declares whole numbers but yields real ones",
            function.result.span,
            help="make it whole with floor or round, or declare it real",
        )
    if not ctx.interval(found.node).within(declared.domain):
        ctx.report(
            "E033",
            f"the value of {function.name} must be {declared.domain}, which is not known here",
            function.result.span,
            help="keep it inside with clamp, max or min, or declare a wider domain",
        )
    return Tensor(found.node, wanted)


def _by_length(ctx: Context, found: Tensor, wanted: tuple[n.Dim, ...]) -> Tensor | None:
    """Axes that differ only in which of several with one length they are."""
    if [d.size for d in found.axes] != [d.size for d in wanted]:
        return None
    mapping = {mine: ctx.graph.iota(dim) for mine, dim in zip(found.axes, wanted, strict=True)}
    return Tensor(ctx.graph.at(found.node, mapping), wanted)
