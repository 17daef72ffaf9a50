"""Nodes evaluated at points, by their definitions.

A node is evaluated at an environment, which holds a position for each of its free dims and, inside loops and declared
derivatives, what the leaves standing for carried values and arguments are bound to. Nothing is evaluated that is not asked
for: neither the branch that a `where` does not take, nor the body of a reduction where the guard fails, nor a read outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from lossdsl.graph import nodes as n
from lossdsl.graph.scopes import Declared, Env, Rounds, binds
from lossdsl.graph.tape import Tape, Traced, plain
from lossdsl.ops.axes import ALONG, REDUCTIONS
from lossdsl.ops.elementwise import ELEMENTWISE
from lossdsl.ops.solvers import SOLVERS
from lossdsl.types.domains import INF, Kind

if TYPE_CHECKING:
    from lossdsl.graph.nodes import Dim, Leaf, Node
    from lossdsl.graph.scalars import Floats, Multiprecision

Slots = tuple[int, ...]


class Evaluator:
    """Nodes of one graph at points, each evaluated once."""

    def __init__(
        self,
        roots: list[Node],
        leaves: Mapping[str, Any],
        sizes: Mapping[str, int],
        *,
        hypers: Mapping[str, float],
        functions: Mapping[str, Callable[..., Any]],
        math: Floats | Multiprecision,
        wrt: frozenset[str],
    ) -> None:
        self.leaves = leaves
        self.hypers = hypers
        order = n.topological(roots)
        given = {node.name: node.value for node in order if isinstance(node, n.Hyper) and node.value is not None}
        whole = {name: int(value) for name, value in {**given, **hypers}.items() if float(value).is_integer()}
        self.sizes = {**whole, **sizes}
        self.functions = functions
        self.math: Any = math
        self.wrt = wrt
        self.tape = Tape(math.number(0))
        self.sources: dict[tuple[str, tuple[int, ...]], Traced] = {}
        self.dims: list[Dim] = []
        self.lengths: list[int] = []
        self.own: dict[Node, tuple[Any, ...]] = {}
        """What a node is a function of: the slots of its dims, and the bound leaves below it."""
        self.named: dict[Node, Slots] = {}
        """The slots of the dims that a node itself names."""
        self._slots: dict[Dim, int] = {}
        self._points: dict[Slots, list[Env]] = {}
        self._memo: dict[tuple[Any, ...], Any] = {}
        self._groups: dict[tuple[Any, ...], Any] = {}
        self._shaped: set[Node] = set()
        self._rules: dict[type[Node], Callable[[Any, Env], Any]] = {
            n.Const: self._const, n.Hyper: self._hyper, n.SizeOf: self._size, n.Iota: self._iota, n.Leaf: self._leaf,
            n.Apply: self._apply, n.Reduce: self._reduce, n.Along: self._along, n.At: self._at, n.Concat: self._concat,
            n.Solve: self._solve, n.Scatter: self._scatter, n.Custom: self._custom, n.Result: self._result,
        }  # fmt: skip
        self._prepare(order)

    # ---- environments ----

    def _prepare(self, order: list[Node]) -> None:
        bound: set[Node] = set()
        for node in order:
            bound |= binds(node)
        free: dict[Node, frozenset[Node]] = {}
        for node in [*(bound - set(order)), *order]:
            below = frozenset((node,)) & bound
            free[node] = below.union(*(free[child] for child in node.children))
            if isinstance(node, n.Loop | n.Custom):
                outside = (
                    (node.count, *node.initial) if isinstance(node, n.Loop) else [argument for _, argument in node.wrt]
                )
                free[node] = (free[node] - binds(node)).union(*(free[x] for x in outside))
            dims = sorted(node.dims, key=lambda dim: dim.order)
            self.own[node] = (*self.slots_of(dims), *sorted(free[node], key=lambda leaf: leaf.uid))
            self.named[node] = self.slots_of(_names(node))

    def slots_of(self, dims: Sequence[Dim]) -> Slots:
        """The numbers by which environments know the dims."""
        found = []
        for dim in dims:
            if dim not in self._slots:
                self._slots[dim] = len(self.dims)
                self.dims.append(dim)
                self.lengths.append(dim.size.value(self.sizes))
            found.append(self._slots[dim])
        return tuple(found)

    def points(self, slots: Slots) -> list[Env]:
        """All positions along these dims, the last fastest."""
        if slots not in self._points:
            ranges = [range(self.lengths[slot]) for slot in slots]
            self._points[slots] = [dict(zip(slots, places, strict=True)) for places in product(*ranges)]
        return self._points[slots]

    def free_slots(self, node: Node) -> Slots:
        """The dims of a node as slots."""
        return tuple(key for key in self.own[node] if isinstance(key, int))

    def outer(self, node: Node, env: Env) -> Env:
        """What the bound leaves below a node are bound to, outside of it."""
        return {key: env[key] for key in self.own[node] if not isinstance(key, int)}

    def place(self, slots: Slots, env: Env) -> int:
        """Where the point of the environment stands in `points(slots)`."""
        place = 0
        for slot in slots:
            place = place * self.lengths[slot] + env[slot]
        return place

    # ---- evaluation ----

    def at(self, node: Node, env: Env) -> Any:
        """The node's value at a point: a number, `Traced` where the gradient needs it."""
        try:
            inner = {key: env[key] for key in self.own[node]}
        except KeyError as missing:
            key = missing.args[0]
            lacking = f"a position along {self.dims[key]}" if isinstance(key, int) else f"a value of {key.name}"
            raise RuntimeError(
                f"malformed graph: {type(node).__name__} #{node.uid} is read without {lacking}"
            ) from None
        point = (node, *inner.values())
        if point not in self._memo:
            self._memo[point] = self._typed(node, self._rules[type(node)](node, inner))
        return self._memo[point]

    def array(self, node: Node, slots: Slots, env: Env) -> Any:
        """Nested lists of the node's values along these dims."""
        if not slots:
            return self.at(node, env)
        return [self.array(node, slots[1:], {**env, slots[0]: place}) for place in range(self.lengths[slots[0]])]

    def _typed(self, node: Node, value: Any) -> Any:
        """The value as a number of the node's kind: True + True is 2, a real 3 is 3.0."""
        if node.kind is Kind.REAL:
            return self.math.number(value) if isinstance(value, int) else value
        value = plain(value)
        if node.kind is Kind.BOOL:
            return bool(value)
        return int(value) if isinstance(value, int) or -INF < value < INF else value

    def _const(self, node: n.Const, env: Env) -> Any:
        return self.math.number(node.value) if node.kind is Kind.REAL else node.value

    def _hyper(self, node: n.Hyper, env: Env) -> Any:
        value = self.hypers.get(node.name, node.value)
        if value is None:
            raise KeyError(f"no value for the hyperparameter {node.name}")
        return self.math.number(value) if node.kind is Kind.REAL else value

    def _size(self, node: n.SizeOf, env: Env) -> int:
        return node.size.value(self.sizes)

    def _iota(self, node: n.Iota, env: Env) -> Any:
        return env[self.named[node][0]]

    def _leaf(self, node: Leaf, env: Env) -> Any:
        if node in env:
            return env[node](env)
        if node.name not in self.leaves:
            raise KeyError(f"no value for {node.name}")
        value = self.leaves[node.name]
        if node not in self._shaped:
            _check_shape(node.name, value, [self.lengths[slot] for slot in self.named[node]])
            self._shaped.add(node)
        places = tuple([env[slot] for slot in self.named[node]])
        for place in places:
            value = value[place]
        if node.kind is not Kind.REAL:
            return value
        if node.name not in self.wrt:
            return self.math.number(value)
        if (node.name, places) not in self.sources:
            self.sources[node.name, places] = Traced(self.math.number(value))
        return self.sources[node.name, places]

    def _apply(self, node: n.Apply, env: Env) -> Any:
        if node.op == "where":
            return self.at(node.args[1] if plain(self.at(node.args[0], env)) else node.args[2], env)
        if node.op in ("and", "or"):
            first = bool(self.at(node.args[0], env))
            return bool(self.at(node.args[1], env)) if first == (node.op == "and") else first
        op = ELEMENTWISE[node.op]
        args = [self.at(arg, env) for arg in node.args]
        numbers = [plain(arg) for arg in args]
        value = self._typed(node, op.value(self.math, *numbers))
        if op.derivative is None or not _differentiable(node, args):
            return value
        return self.tape.weighted(value, args, op.derivative(self.math, value, *numbers))

    def _reduce(self, node: n.Reduce, env: Env) -> Any:
        op = REDUCTIONS[node.op]
        places: list[int] = []
        items: list[Any] = []
        for place, point in enumerate(self.points(self.named[node])):
            inner = {**env, **point}
            if node.guard is None or self.at(node.guard, inner):
                places.append(place)
                items.append(self.at(node.body, inner))
        if not items:
            if node.default is not None:
                return self.at(node.default, env)
            if op.empty is None:
                raise ValueError(f"{node.op} over nothing")
            return op.empty
        numbers = [plain(item) for item in items]
        value = op.value(self.math, numbers)
        if node.op in ("argmax", "argmin"):
            return places[value]
        value = self._typed(node, value)
        if op.weights is None or not _differentiable(node, items):
            return value
        return self.tape.weighted(value, items, op.weights(self.math, value, numbers))

    def _along(self, node: n.Along, env: Env) -> Any:
        slots = self.named[node]
        key = (node, *[env[k] for k in self.own[node] if k not in slots])
        if key not in self._groups:
            self._groups[key] = self._whole_axis(node, [{**env, **point} for point in self.points(slots)])
        return self._groups[key][self.place(slots, env)]

    def _whole_axis(self, node: n.Along, points: list[Env]) -> list[Any]:
        op, m = ALONG[node.op], self.math
        items = [self.at(node.body, point) for point in points]
        numbers = [plain(item) for item in items]
        values = [self._typed(node, value) for value in op.value(m, numbers)]
        pullback = op.pullback
        if pullback is None or not _differentiable(node, items):
            return values
        return self.tape.record(values, items, lambda gradients: pullback(m, values, numbers, gradients))

    def _at(self, node: n.At, env: Env) -> Any:
        inner = dict(env)
        for slot, (dim, index) in zip(self.named[node], node.mapping, strict=True):
            place = self.at(index, env)
            if not 0 <= place < self.lengths[slot]:
                if node.default is not None:
                    return self.at(node.default, env)
                raise IndexError(f"position {place} is outside {dim}, which has length {self.lengths[slot]}")
            inner[slot] = place
        return self.at(node.body, inner)

    def _concat(self, node: n.Concat, env: Env) -> Any:
        whole, *slots = self.named[node]
        place = env[whole]
        named = iter(slots)
        for part, dim in node.parts:
            slot = None if dim is None else next(named)
            length = 1 if slot is None else self.lengths[slot]
            if place < length:
                return self.at(part, env if slot is None else {**env, slot: place})
            place -= length
        raise IndexError(f"position {env[whole]} is behind the last part along {node.dim}")

    def _scatter(self, node: n.Scatter, env: Env) -> Any:
        row, *over = self.named[node]
        last: Env | None = None
        for point in self.points(tuple(over)):
            place = self.at(node.index, {**env, **point})
            if not 0 <= place < self.lengths[row]:
                raise IndexError(f"position {place} is outside {node.dim}, which has length {self.lengths[row]}")
            if place == env[row]:
                last = point
        return self.at(node.base, env) if last is None else self.at(node.value, {**env, **last})

    def _solve(self, node: n.Solve, env: Env) -> Any:
        batch: set[Any] = set()
        for arg, core in node.args:
            batch |= set(self.own[arg]) - set(self.slots_of(core))
        key = (node, *[env[k] for k in self.own[node] if k in batch])
        if key not in self._groups:
            args = [self.array(arg, self.slots_of(core), env) for arg, core in node.args]
            numbers = [stripped(arg) for arg in args]
            if node.op.startswith("fn:"):
                result = self.functions[node.op.removeprefix("fn:")](*numbers)
            else:
                result = SOLVERS[node.op].value(self.math, *numbers)
            self._groups[key] = (result, [element for arg in args for element in flat(arg)])
        value, elements = self._groups[key]
        for slot in self.named[node]:
            value = value[env[slot]]
        if not node.op.startswith("fn:") or node.kind is not Kind.REAL:
            return value
        value = self.math.number(value)
        if not _differentiable(node, elements):
            return value

        def pull(gradients: list[Any]) -> list[Any]:
            raise NotImplementedError(f"the gradient through the function {node.op.removeprefix('fn:')}")

        return self.tape.record([value], elements, pull)[0]

    def _result(self, node: n.Result, env: Env) -> Any:
        loop = node.loop
        key = (loop, *[env[k] for k in self.own[loop]])
        if key not in self._groups:
            self._groups[key] = Rounds(self, loop, self.outer(loop, env))
        rounds: Rounds = self._groups[key]
        after = rounds.count
        if loop.axis is not None:
            step = env[self.named[loop][0]]
            after = rounds.count - step if loop.backwards else step + 1
        return self.at(loop.carried[node.place], {**env, **rounds.scope(after)})

    def _custom(self, node: n.Custom, env: Env) -> Any:
        key = (node, *[env[k] for k in self.own[node] if not isinstance(k, int)])
        if key not in self._groups:
            self._groups[key] = Declared(self, node, self.outer(node, env))
        declared: Declared = self._groups[key]
        value = self._typed(node, plain(self.at(node.value, {**env, **declared.scope})))
        return declared.output(value, env) if node.kind is Kind.REAL else value

    def gradient(self, name: str, value: Any, places: tuple[int, ...]) -> Any:
        """The gradient of a leaf in the shape of its value."""
        if isinstance(value, Sequence):
            return [self.gradient(name, inner, (*places, k)) for k, inner in enumerate(value)]
        source = self.sources.get((name, places))
        return self.tape.zero if source is None or source.gradient is None else source.gradient


def _names(node: Node) -> tuple[Dim, ...]:
    match node:
        case n.Iota():
            return (node.dim,)
        case n.Leaf() | n.Solve():
            return node.axes
        case n.Reduce():
            return node.bound
        case n.Along():
            return node.along
        case n.At():
            return tuple(dim for dim, _ in node.mapping)
        case n.Concat():
            return (node.dim, *(dim for _, dim in node.parts if dim is not None))
        case n.Scatter():
            return (node.dim, *node.over)
        case n.Loop():
            return () if node.axis is None else (node.axis,)
        case _:
            return ()


def _differentiable(node: Node, args: Sequence[Any]) -> bool:
    return node.kind is Kind.REAL and any(isinstance(arg, Traced) for arg in args)


def _check_shape(name: str, value: Any, lengths: list[int]) -> None:
    if not lengths:
        if isinstance(value, Sequence):
            raise ValueError(f"{name} has more axes than declared")
        return
    if not isinstance(value, Sequence) or len(value) != lengths[0]:
        found = len(value) if isinstance(value, Sequence) else "a number"
        raise ValueError(f"{name} should have length {lengths[0]} here, not {found}")
    for inner in value:
        _check_shape(name, inner, lengths[1:])


def stripped(value: Any) -> Any:
    """Nested lists of the numbers themselves."""
    return [stripped(inner) for inner in value] if isinstance(value, list) else plain(value)


def flat(value: Any) -> list[Any]:
    """The elements of nested lists, in order."""
    return [element for inner in value for element in flat(inner)] if isinstance(value, list | tuple) else [value]
