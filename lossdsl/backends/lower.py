"""Index graph to linear code: which layout every value has and which torch call computes it.

A value's layout is an order of its dims. Operands meet by `_align`: views only, no copies. Reductions of products become matrix
products (`contract`), reads become slices, windows or gathers (`access`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from lossdsl.backends import access, contract, nested
from lossdsl.backends.code import Arg, Block, Call, Code, HyperRef, Placed, Reg, prune, share
from lossdsl.backends.lengths import Lengths, UnknownSize
from lossdsl.checker.values import Program
from lossdsl.graph import nodes as n
from lossdsl.graph.build import ARITHMETIC, GraphTooLarge, Opaque, Renaming
from lossdsl.graph.nodes import Dim, Leaf, Node
from lossdsl.graph.ranges import Ranges
from lossdsl.graph.scalars import FLOATS
from lossdsl.ops.elementwise import ELEMENTWISE
from lossdsl.types.domains import Kind
from lossdsl.types.sizes import Size

_PYTHON = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
           "eq": "==", "ne": "!="}  # fmt: skip
_STANDARD = 1_000_000
"""Copies from here on are the standard dims of lowering."""
_SCALAR = {"neg": "neg", "pow": "**", "min": "builtins.min", "max": "builtins.max", "abs": "builtins.abs"} | {
    op: f"math.{op}" for op in ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "tan", "atan", "asin", "acos", "sinh", "cosh", "erf", "erfc")
}  # fmt: skip
"""Operations on hyperparameters that Python has."""
_TENSOR_ONLY = {"min": "minimum", "max": "maximum", "logaddexp": "logaddexp", "atan2": "atan2"}


class Lowering(Lengths):
    """State of lowering one program."""

    def __init__(self, program: Program, sizes: Mapping[str, int | HyperRef]) -> None:
        super().__init__()
        self.program = program
        self.graph = program.graph
        self.ranges: Ranges = program.ranges
        self.sizes = sizes
        self.blocks: list[tuple[Block, frozenset[int]]] = [(Block(), frozenset())]
        self.memo: list[dict[int, Placed]] = [{}]
        self.depends: dict[int, frozenset[int]] = {}
        self.count = 0
        self.occurrences: dict[int, tuple[Dim, ...]] = {}
        self.renaming = Renaming(program.graph)
        self.arguments: list[tuple[Reg, str]] = []
        self.functions: dict[str, Reg] = {}
        self.places: dict[str, Placed] = {}
        self.layouts: dict[Reg, tuple[Dim, ...]] = {}
        self.known: dict[Reg, tuple[float | int | bool, frozenset[str]]] = {}
        """Values of registers that hyperparameters alone decide, and which do."""
        self.reference: Reg | None = None

    # ---- instructions ----

    def reg(self, hint: str = "") -> Reg:
        self.count += 1
        return Reg(self.count, hint)

    def emit(self, target: str, *args: Arg, hint: str = "", at: int | None = None, **kwargs: Arg) -> Reg:
        out = self.reg(hint)
        block = self.blocks[self.level if at is None else at][0]
        block.instructions.append(Call(out, target, args, kwargs))
        return out

    level = 0

    @property
    def like(self) -> Reg:
        """A real tensor whose dtype and device new tensors take."""
        if self.reference is None:
            raise UnknownSize("dtype")
        return self.reference

    def number(self, value: Arg) -> Placed:
        """A 0-d tensor of the program's dtype."""
        out = self.emit("torch.full", (), value, dtype=self.dtype(), device=self.device())
        return Placed(out)

    def dtype(self) -> Arg:
        return self._attribute("dtype")

    def device(self) -> Arg:
        return self._attribute("device")

    def _attribute(self, name: str) -> Arg:
        key = f"__{name}"
        if key not in self.places:
            self.places[key] = Placed(self.emit("getattr", self.like, name, hint=name, at=0))
        return self.places[key].arg

    # ---- nodes ----

    def lower(self, node: Node) -> Placed:
        """The placed value of a node, made once, in the outermost block where it can be made."""
        level = self.home(node)
        for known in self.memo[: level + 1]:
            if id(node) in known:
                return known[id(node)]
        before, self.level = self.level, level
        try:
            placed = self._shared(node)
        finally:
            self.level = before
        self.memo[level][id(node)] = placed
        if isinstance(placed.arg, Reg):
            self.layouts.setdefault(placed.arg, placed.dims)
        return placed

    def _shared(self, node: Node) -> Placed:
        """Nodes that differ only in the names of their dims are one computation: lower the one over standard dims."""
        names = self._standard(node)
        if not names:
            return self._lower(node)
        try:
            standard = self.renaming.node(node, names)
        except (Opaque, GraphTooLarge):
            return self._lower(node)
        if standard is node:
            return self._lower(node)
        placed = self.lower(standard)
        back = {new: old for old, new in names.items()}
        return Placed(placed.arg, tuple(back.get(d, d) for d in placed.dims), placed.scalar)

    def _standard(self, node: Node) -> dict[Dim, Dim]:
        """The k-th free dim of a length gets the k-th standard name of that length."""
        if isinstance(node, n.Const | n.Hyper | n.SizeOf | Leaf | n.Result | n.Solve | n.Loop | n.Custom | n.Scatter):
            return {}
        counts: dict[Size, int] = {}
        names: dict[Dim, Dim] = {}
        for dim in self._occurrence(node):
            place = counts.get(dim.size, 0)
            counts[dim.size] = place + 1
            names[dim] = Dim(dim.size, _STANDARD + place, True, dim.label)
        return {} if all(old == new for old, new in names.items()) else names

    def _occurrence(self, node: Node) -> tuple[Dim, ...]:
        """Free dims in the order in which they first appear: the same order whatever they are called."""
        for item in n.topological([node]):
            if id(item) not in self.occurrences:
                found = dict.fromkeys(d for d in _appearing(item, self.occurrences) if d in item.dims)
                found.update(dict.fromkeys(sorted(item.dims, key=lambda d: d.order)))
                self.occurrences[id(item)] = tuple(found)
        return self.occurrences[id(node)]

    def home(self, node: Node) -> int:
        needed = self._depends(node)
        for level in range(len(self.blocks) - 1, 0, -1):
            if needed & self.blocks[level][1]:
                return level
        return 0

    def _depends(self, node: Node) -> frozenset[int]:
        """Leaves of loops and declared derivatives below a node that it does not bind."""
        if id(node) not in self.depends:
            for item in n.topological([node]):
                if id(item) in self.depends:
                    continue
                found = frozenset[int]().union(*(self.depends[id(c)] for c in item.children))
                match item:
                    case Leaf() if item.role in ("carry", "iter", "wrt", "gradient"):
                        found |= {id(item)}
                    case n.Loop():
                        found -= {id(item.counter), *map(id, item.carried)}
                    case n.Custom():
                        found -= {id(item.incoming), *(id(leaf) for leaf, _ in item.wrt)}
                    case _:
                        pass
                self.depends[id(item)] = found
        return self.depends[id(node)]

    def _lower(self, node: Node) -> Placed:
        match node:
            case n.Const():
                return Placed(node.value, scalar=True)
            case n.Hyper():
                assert node.value is not None
                return Placed(HyperRef(node.name, node.value), scalar=True)
            case n.SizeOf():
                return Placed(self.length(node.size), scalar=True)
            case n.Iota():
                return Placed(
                    self.emit("torch.arange", self.length(node.dim.size), device=self.device(), hint=str(node.dim)),
                    (node.dim,),
                )
            case Leaf():
                return self.places[node.name]
            case n.Apply():
                return self._apply(node)
            case n.Reduce():
                return contract.reduce(self, node)
            case n.Along():
                return self._along(node)
            case n.At():
                return access.at(self, node)
            case n.Concat():
                return self._concat(node)
            case n.Scatter():
                return self._scatter(node)
            case n.Solve():
                return self._solver(node)
            case n.Custom():
                return nested.custom(self, node)
            case n.Loop():
                raise AssertionError("loops are lowered through their results")
            case n.Result():
                return nested.result(self, node)
            case _:
                raise AssertionError(type(node))

    # ---- layouts ----

    def view(self, placed: Placed, dims: tuple[Dim, ...], keep_front: bool = False) -> Arg:
        """The value with its dims in this order and length-1 axes for those it lacks (leading ones are left to broadcasting)."""
        if placed.scalar:
            return placed.arg
        arg = placed.arg
        have = [d for d in dims if d in placed.dims]
        if tuple(have) != placed.dims:
            arg = self.emit(".permute", arg, *(placed.dims.index(d) for d in have))
        first = 0
        if not keep_front:
            while first < len(dims) and dims[first] not in have:
                first += 1
        if len(have) < len(dims) - first:
            for place, dim in enumerate(dims[first:]):
                if dim not in have:
                    arg = self.emit(".unsqueeze", arg, place)
        return arg

    def merge(self, items: Iterable[Placed]) -> tuple[Dim, ...]:
        """A common order of all dims; the operand with the most dims keeps its own."""
        operands = sorted((p.dims for p in items), key=len, reverse=True)
        order = list(operands[0]) if operands else []
        for dims in operands[1:]:
            place = 0
            for dim in dims:
                if dim in order:
                    place = order.index(dim) + 1
                else:
                    order.insert(place, dim)
                    place += 1
        return tuple(order)

    def expand(self, placed: Placed, dims: tuple[Dim, ...], kind: Kind = Kind.REAL) -> Arg:
        """The value as a tensor of the full shape."""
        shape = tuple(self.length(d.size) for d in dims)
        if placed.scalar:
            dtype = self.dtype() if kind is Kind.REAL else "torch.int64" if kind is Kind.INT else "torch.bool"
            return self.emit("torch.full", shape, placed.arg, dtype=dtype, device=self.device())
        if placed.dims == dims:
            return placed.arg
        arg = self.view(placed, dims)
        return self.emit(".expand", arg, shape) if set(placed.dims) != set(dims) else arg

    def axis(self, placed: Placed, dim: Dim) -> int:
        """The place of a dim, counted from the end (negative), which does not change under broadcasting."""
        return placed.dims.index(dim) - len(placed.dims)

    # ---- element-wise operations ----

    def real(self, placed: Placed, kind: Kind) -> Placed:
        """Whole numbers and truth values as reals of the program's dtype."""
        if placed.scalar or kind is Kind.REAL:
            return placed
        return Placed(self.emit(".to", placed.arg, self.dtype()), placed.dims)

    def _apply(self, node: n.Apply) -> Placed:
        op = node.op
        if op == "div":
            unit = self._normalized(node)
            if unit is not None:
                return unit
        args = [self.lower(a) for a in node.args]
        if all(a.scalar for a in args):
            return self._scalars(node, args)
        if op == "stop":
            return Placed(self.emit(".detach", args[0].arg, hint=node.hint or ""), args[0].dims)
        args = self._typed(node, args)
        dims = self.merge(args)
        views = [self.view(a, dims) for a in args]
        return Placed(self._call(node, op, args, views), dims)

    def _normalized(self, node: n.Apply) -> Placed | None:
        """X / max(norm(x), eps) in one call; eps is large enough that squares below it do not matter."""
        top, below = node.args
        if not (isinstance(below, n.Apply) and below.op == "max" and len(below.args) == 2):
            return None
        norm, eps = below.args
        if not isinstance(norm, n.Reduce):
            return None
        if norm.op != "norm" or not isinstance(eps, n.Const | n.Hyper) or eps.value is None or not eps.value >= 1e-15:
            return None
        place = self.graph.same_up_to_bound(norm.body, norm.bound, top)
        if place is None:
            return None
        body = self.lower(top)
        if body.scalar or place not in body.dims:
            return None
        out = self.emit(
            "F.normalize", body.arg, dim=self.axis(body, place), eps=self.lower(eps).arg, hint=node.hint or ""
        )
        return Placed(out, body.dims)

    def _typed(self, node: n.Apply, args: list[Placed]) -> list[Placed]:
        """Arguments in dtypes that torch combines as the language does."""
        kinds = [a.kind for a in node.args]
        op = node.op
        if op == "where":
            if args[0].scalar:
                args[0] = Placed(self.emit("torch.full", (), args[0].arg, dtype="torch.bool", device=self.device()))
            if node.kind is Kind.REAL:
                both = args[1].scalar and args[2].scalar
                args[1:] = [self.real(a, k) for a, k in zip(args[1:], kinds[1:], strict=True)]
                if both:
                    args[1] = self.number(args[1].arg)
            return args
        spec = ELEMENTWISE[op]
        if spec.kind == "bool":
            if op in ("lt", "le", "gt", "ge", "eq", "ne") and Kind.REAL in kinds:
                return [self.real(a, k) for a, k in zip(args, kinds, strict=True)]
            return args
        if node.kind is Kind.REAL:
            if op == "mul" and Kind.BOOL in kinds and Kind.REAL in kinds:
                return args
            return [self.real(a, k) for a, k in zip(args, kinds, strict=True)]
        if op in ARITHMETIC:
            return [
                Placed(self.emit(".to", a.arg, "torch.int64"), a.dims) if k is Kind.BOOL and not a.scalar else a
                for a, k in zip(args, kinds, strict=True)
            ]
        return args

    def _call(self, node: n.Apply, op: str, args: list[Placed], views: list[Arg]) -> Reg:
        hint = node.hint or ""
        if op in _TENSOR_ONLY and any(a.scalar for a in args):
            return self.emit(f"rt.{_TENSOR_ONLY[op]}", *views, hint=hint)
        if op == "clamp":
            if all(a.scalar for a in args[1:]):
                return self.emit("torch.clamp", *views, hint=hint)
            return self.emit("rt.clamp", *views, hint=hint)
        if op in ("sqrt", "asin", "acos", "entropy") and not self._away(node):
            return self.emit(f"rt.{op}", *views, hint=hint)
        if op == "pow" and not self._smooth_power(node):
            return self.emit("rt.power", *views, hint=hint)
        if op == "pow" and isinstance(node.args[1], n.Const) and node.args[1].value == 2:
            return self.emit("torch.square", views[0], hint=hint)
        if op == "xlogy":
            return self.emit("rt.xlogy", *views, hint=hint)
        template = ELEMENTWISE[op].torch
        if op in _PYTHON:
            return self.emit(_PYTHON[op] if op not in ("floordiv", "mod") else f"rt.{op}", *views, hint=hint)
        match op:
            case "neg":
                return self.emit("neg", *views, hint=hint)
            case "and":
                return self.emit("&", *views, hint=hint)
            case "or":
                return self.emit("|", *views, hint=hint)
            case "not":
                return self.emit("~", *views, hint=hint)
            case "softplus":
                return self.emit("neg", self.emit("F.logsigmoid", self.emit("neg", *views)), hint=hint)
            case _:
                return self.emit(template.split("(")[0] if "(" in template else template, *views, hint=hint)

    def _away(self, node: n.Apply) -> bool:
        """Is the argument known to keep away from where the derivative is infinite?"""
        spec = ELEMENTWISE[node.op]
        found = self.ranges.interval(node.args[0])
        if node.args[0].kind is not Kind.REAL:
            return True
        if spec.singular == 0.0:
            return found.low > 0
        return found.low > -1 and found.high < 1

    def _smooth_power(self, node: n.Apply) -> bool:
        exponent = self.ranges.interval(node.args[1]).point
        base = self.ranges.interval(node.args[0])
        if (
            exponent is not None
            and math.isfinite(exponent)
            and (exponent >= 1 or exponent == 0)
            and (exponent == int(exponent) or base.low >= 0)
        ):
            return True
        return base.low > 0

    def _scalars(self, node: n.Apply, args: list[Placed]) -> Placed:
        """Plain numbers stay plain numbers; what hyperparameters decide stays arithmetic on them where Python has the operation."""
        values = [a.arg for a in args]
        if node.op in ("stop",):
            return args[0]
        found = [self._known(v) for v in values]
        numbers = [f[0] for f in found if f is not None]
        if len(numbers) < len(values):
            return self._symbolic(node, values)
        names = frozenset[str]().union(*(f[1] for f in found if f is not None))
        result = ELEMENTWISE[node.op].value(FLOATS, *numbers)
        if isinstance(result, float) and node.kind is Kind.INT and math.isfinite(result):
            result = int(result)
        target = _PYTHON.get(node.op) or _SCALAR.get(node.op)
        if names and target is not None and math.isfinite(result):
            reg = self.emit(target, *values, hint=node.hint or "", at=0)
            self.known[reg] = result, names
            return Placed(reg, scalar=True)
        self.graph.baked |= names
        return Placed(result, scalar=True)

    def _known(self, value: Arg) -> tuple[float | int | bool, frozenset[str]] | None:
        """A plain number and the hyperparameters that it comes from; None if lengths or rounds decide it too."""
        match value:
            case HyperRef():
                return value.value, frozenset((value.name,))
            case Reg():
                return self.known.get(value)
            case _:
                return value, frozenset()

    def _symbolic(self, node: n.Apply, values: list[Arg]) -> Placed:
        hint = node.hint or ""
        op = node.op
        if op in _PYTHON:
            return Placed(self.emit(_PYTHON[op], *values, hint=hint), scalar=True)
        match op:
            case "neg":
                return Placed(self.emit("neg", *values, hint=hint), scalar=True)
            case "pow":
                return Placed(self.emit("**", *values, hint=hint), scalar=True)
            case "min" | "max":
                return Placed(self.emit(f"builtins.{op}", *values, hint=hint), scalar=True)
            case "clamp":
                return Placed(
                    self.emit("builtins.min", self.emit("builtins.max", *values[:2]), values[2], hint=hint), scalar=True
                )
            case "where" | "and" | "or" | "not" | "xlogy" | "reflect" | "sign" | "abs" | "relu":
                return Placed(self.emit(f"rt.scalar_{op}", *values, hint=hint), scalar=True)
            case _:
                real = self.emit("torch.full", (), values[0], dtype=self.dtype(), device=self.device())
                if len(values) > 1:
                    return Placed(self.emit(f"rt.{op}", real, *values[1:], hint=hint))
                copy = n.Apply(op, node.args, kind=node.kind)
                return Placed(self._call(copy, op, [Placed(real)], [real]))

    # ---- operations along axes ----

    def _along(self, node: n.Along) -> Placed:
        body = self.lower(node.body)
        if ELEMENTWISE_FREE.get(node.op) != "int" and node.kind is Kind.REAL:
            body = self.real(body, node.body.kind)
        missing = [d for d in node.along if d not in body.dims]
        if missing or body.scalar:
            dims = (*body.dims, *missing)
            body = Placed(self.expand(body, dims, node.body.kind), dims)
        hint = node.hint or ""
        if len(node.along) > 1:
            rest = tuple(d for d in body.dims if d not in node.along)
            order = (*rest, *node.along)
            flat = self.emit(".flatten", self.view(body, order), len(rest))
            done = self.emit(f"torch.{node.op}", flat, dim=-1)
            shape = tuple(self.length(d.size) for d in node.along)
            return Placed(self.emit(".unflatten", done, len(rest), shape, hint=hint), order)
        axis = self.axis(body, node.along[0])
        match node.op:
            case "sort":
                out = self.emit("getitem", self.emit("torch.sort", body.arg, dim=axis, stable=True), 0, hint=hint)
            case "argsort":
                out = self.emit("torch.argsort", body.arg, dim=axis, stable=True, hint=hint)
            case "rank":
                order_ = self.emit("torch.argsort", body.arg, dim=axis, stable=True)
                out = self.emit("torch.argsort", order_, dim=axis, stable=True, hint=hint)
            case "cummax":
                out = self.emit("getitem", self.emit("torch.cummax", body.arg, dim=axis), 0, hint=hint)
            case _:
                out = self.emit(f"torch.{node.op}", body.arg, dim=axis, hint=hint)
        return Placed(out, body.dims)

    def _concat(self, node: n.Concat) -> Placed:
        parts = [(self.lower(p), d, p.kind) for p, d in node.parts]
        rest = self.merge([Placed(p.arg, tuple(x for x in p.dims if x != d)) for p, d, _ in parts])
        args = []
        for placed, dim, kind in parts:
            item = self.real(placed, kind) if node.kind is Kind.REAL else placed
            if dim is None:
                args.append(self.emit("getitem", self.expand(item, rest, node.kind), _short((None,), pad=False)))
            else:
                args.append(self.expand(item, (dim, *rest), node.kind))
        return Placed(self.emit("torch.cat", args, dim=0, hint=node.hint or ""), (node.dim, *rest))

    def _scatter(self, node: n.Scatter) -> Placed:
        base, index, value = self.lower(node.base), self.lower(node.index), self.lower(node.value)
        rest = tuple(d for d in base.dims if d != node.dim)
        base_view = self.view(base, (node.dim, *rest))
        if index.scalar:
            index = Placed(self.emit("torch.full", (), index.arg, dtype="torch.int64", device=self.device()))
        over = tuple(index.dims)
        places = self.emit(".long", index.arg)
        rows = self.expand(value, (*over, *rest), node.kind)
        return Placed(self.emit("rt.put_rows", base_view, places, rows, hint=node.hint or ""), (node.dim, *rest))

    def _given_lengths(self, out: Reg, node: n.Solve) -> tuple[Arg, ...]:
        """The lengths that a function's result must have; an axis that nothing else tells is told by it."""
        lengths: list[Arg] = []
        for place, dim in enumerate(node.axes):
            try:
                lengths.append(self.length(dim.size))
            except UnknownSize as unknown:
                lengths.append(None)
                if dim.size.atom is not None and self.level == 0:
                    self.atoms[unknown.name] = Placed(self.read_length(out, place, unknown.name), scalar=True)
        return tuple(lengths)

    def _solver(self, node: n.Solve) -> Placed:
        args = [(self.lower(a), core) for a, core in node.args]
        batch = self.merge([Placed(p.arg, tuple(d for d in p.dims if d not in core)) for p, core in args])
        views = [self.expand(p, (*batch, *core), a.kind) for (p, core), (a, _) in zip(args, node.args, strict=True)]
        if node.op.startswith("fn:"):
            name = node.op[3:]
            if name not in self.functions:
                self.functions[name] = self.reg(name)
            out = self.emit("call", self.functions[name], *views)
            return Placed(
                self.emit("rt.checked", out, name, self._given_lengths(out, node), hint=node.hint or name), node.axes
            )
        return Placed(self.emit(f"rt.{node.op}", *views, hint=node.hint or ""), (*batch, *node.axes))


ELEMENTWISE_FREE: dict[str, str] = {"argsort": "int", "rank": "int", "sort": "same", "cummax": "same"}


def _appearing(node: Node, known: dict[int, tuple[Dim, ...]]) -> Iterable[Dim]:
    match node:
        case Leaf():
            yield from node.axes
        case n.Iota():
            yield node.dim
        case n.At():
            mapping = dict(node.mapping)
            for dim in known[id(node.body)]:
                yield from known[id(mapping[dim])] if dim in mapping else (dim,)
        case n.Along():
            yield from node.along
            yield from known[id(node.body)]
        case _:
            for child in node.children:
                yield from known[id(child)]


def _short(places: tuple[Any, ...], pad: bool = True) -> tuple[Any, ...]:
    """Index tuple; trailing full slices say nothing."""
    items = list(places)
    while pad and items and items[-1] == slice(None):
        items.pop()
    return tuple(items)


def lower(program: Program, sizes: Mapping[str, int | HyperRef]) -> Code:
    """The linear code of a checked program whose hyperparameters have values."""
    state = Lowering(program, sizes)
    leaves: list[Leaf] = [i.leaf for i in program.inputs]
    leaves += [s.leaf for s in program.lasting]
    leaves += [d.leaf for d in program.draws]
    for leaf in leaves:
        reg = state.reg(leaf.hint or leaf.name.replace(".", "_"))
        state.arguments.append((reg, leaf.name))
        state.places[leaf.name] = Placed(reg, leaf.axes)
        if state.reference is None and leaf.kind is Kind.REAL and leaf.role in ("input", "param"):
            state.reference = reg
    for reg, name in state.arguments:
        if state.reference is None:
            leaf = next(x for x in leaves if x.name == name)
            if leaf.kind is Kind.REAL:
                state.reference = reg
    if state.reference is None:
        state.reference = state.reg("like")
        state.arguments.append((state.reference, ""))
    results: list[Arg] = []
    for value in program.values:
        placed = (
            state.real(state.lower(value.node), value.node.kind)
            if value.node.kind is Kind.BOOL
            else state.lower(value.node)
        )
        results.append(state.expand(placed, value.axes, value.node.kind))
    updates = []
    for name, node in program.updates.items():
        leaf = next(s.leaf for s in program.lasting if s.name == name)
        placed = state.lower(node)
        results.append(state.expand(placed, leaf.axes, leaf.kind))
        updates.append(name)
    block = state.blocks[0][0]
    prune(block, tuple(results))
    shared = share(block, tuple(results))
    functions = [(reg, name) for name, reg in state.functions.items()]
    return Code(state.arguments, functions, block, shared, tuple(updates), state.layouts)
