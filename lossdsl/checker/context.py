"""What every part of the checker shares: the graph, the facts that hold here, and how to report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lossdsl.checker.values import LoadedModule, Program, Range, Scope, Tensor, Value
from lossdsl.graph import nodes as n
from lossdsl.graph.build import Graph, size_of
from lossdsl.graph.nodes import Dim, Node
from lossdsl.graph.ranges import NO_FACTS, Facts, Ranges
from lossdsl.ops.elementwise import ELEMENTWISE
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Diagnostics, Label, Stop
from lossdsl.syntax.source import Span
from lossdsl.types.domains import Interval, Kind
from lossdsl.types.sizes import Size

MAX_CALLS = 60
MAX_STEPS = 10_000


@dataclass
class Context:
    """State of one elaboration."""

    graph: Graph
    ranges: Ranges
    diagnostics: Diagnostics
    prelude: LoadedModule | None
    hypers: dict[str, float | int] | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    program: Program | None = None
    axioms: Facts = NO_FACTS
    facts: Facts = NO_FACTS
    conditions: tuple[Node, ...] = ()
    live: dict[Size, int] = field(default_factory=dict)
    calls: list[tuple[ast.Function, Span]] = field(default_factory=list)
    steps: int = 0
    _growing: dict[int, bool] = field(default_factory=dict)

    # ---- reporting ----

    def report(self, code: str, message: str, span: Span, **details: Any) -> None:
        notes = list(details.pop("notes", ()))
        if self.calls:
            function, at = self.calls[-1]
            notes.append(f"in {function.name}, called at {at.source.name}:{at.line}:{at.column}")
        self.diagnostics.report(code, message, span, notes=notes, **details)

    def stop(self, code: str, message: str, span: Span, **details: Any) -> Stop:
        self.report(code, message, span, **details)
        return Stop()

    def tick(self, span: Span) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise self.stop("E060", "this program unfolds to more work than a compiler should do", span,
                            help="calls inside calls multiply: give shared parts a name")  # fmt: skip

    def need_length(self, slack: Size, span: Span, message: str) -> None:
        """A length that must not be negative: refused now if it is, checked on the inputs if that is not yet known."""
        if self.ranges.nonnegative(slack):
            return
        if slack.constant is not None:
            self.report("E024", message, span, help="shorten what is read, or declare the axis longer: [N >= 2]")
        else:
            self.ranges.required.setdefault(slack, message)

    # ---- facts ----

    @contextmanager
    def assume(self, condition: Node, holds: bool = True) -> Iterator[None]:
        """Within this block the condition holds (or fails)."""
        before = self.facts, self.conditions
        self.facts = self.facts | self.ranges.facts_of(condition, holds)
        self.conditions = (*self.conditions, condition if holds else self.graph.apply("not", condition))
        try:
            yield
        finally:
            self.facts, self.conditions = before

    def interval(self, node: Node) -> Interval:
        return self.ranges.interval(node, self.facts | self.axioms)

    # ---- index variables ----

    @contextmanager
    def variables(self, scope: Scope, ranges: dict[str, Range]) -> Iterator[tuple[Scope, dict[str, Dim]]]:
        """A scope in which these names are index variables."""
        inner = scope.inner()
        dims: dict[str, Dim] = {}
        for name, found in ranges.items():
            span = scope.function.name_span if scope.function is not None else scope.module.tree.span
            self.need_length(found.size, span, f"{name} would run over {found.size}, which must not be negative")
            copy = self.live.get(found.size, 0)
            self.live[found.size] = copy + 1
            dim = Dim(found.size, copy, index=True, label=name)
            dims[name] = dim
            inner.names[name] = Tensor(self.graph.iota(dim))
            inner.variables[name] = found
        try:
            yield inner, dims
        finally:
            for found in ranges.values():
                self.live[found.size] -= 1

    def axis_for(self, scope: Scope, found: Range, taken: Iterable[Dim]) -> Dim:
        """The axis that a definition's variable becomes: the one it ranges over, or another of that length."""
        taken = set(taken)
        if found.axis is not None and found.axis not in taken and not found.axis.index:
            # c[j] = f(s[0, j]) is a vector over N, not over the second N of s: N, N
            first = (Dim(found.size, copy, label=found.axis.label) for copy in range(found.axis.copy))
            return next((d for d in first if d not in taken and d not in scope.reserved), found.axis)
        for dim in scope.axes.values():
            if dim.size == found.size and dim not in taken and not dim.index:
                return dim
        copy = 0
        while Dim(found.size, copy) in taken or Dim(found.size, copy) in scope.reserved:
            copy += 1
        return Dim(found.size, copy)

    def to_axes(
        self, scope: Scope, node: Node, dims: dict[str, Dim], ranges: dict[str, Range], rest: tuple[Dim, ...]
    ) -> Tensor:
        """A node over index variables as a tensor whose first axes these variables become."""
        axes: list[Dim] = []
        mapping: dict[Dim, Node] = {}
        for name, dim in dims.items():
            axis = self.axis_for(scope, ranges[name], [*axes, *rest])
            axes.append(axis)
            mapping[dim] = self.graph.iota(axis)
        return Tensor(self.graph.at(node, mapping), (*axes, *rest))

    # ---- element-wise operations ----

    def apply(self, op: str, *args: Tensor, span: Span) -> Tensor:
        """An element-wise operation, its arguments' domains checked."""
        self.tick(span)
        spec = ELEMENTWISE[op]
        nodes = [a.node for a in args]
        for k, requirement in enumerate(spec.domain):
            if requirement is not None:
                nodes[k] = self.require(nodes[k], requirement, op, span)
        if op == "pow":
            nodes[0] = self.require_power(nodes[0], nodes[1], span)
        if op in ("exp", "expm1", "sinh", "cosh") and self.conditions:
            nodes[0] = self.keep_finite(nodes[0])
        if op in ("floordiv", "mod"):
            for node in nodes:
                if node.kind is Kind.REAL:
                    raise self.stop("E032", f"{'//' if op == 'floordiv' else '%'} needs whole numbers", span,
                                    underline="a real number takes part", help="use floor(a / b)")  # fmt: skip
        node = self.graph.apply(op, *nodes)
        if node.span is None:
            node.span = span
        return Tensor(node, merge_axes(args))

    def require(self, node: Node, needed: Interval, op: str, span: Span) -> Node:
        """The node, made safe where only facts keep it inside the operation's domain."""
        if self.ranges.interval(node, self.axioms).within(needed):
            return node
        found = self.interval(node)
        if not found.within(needed):
            self.report(*_domain_finding(op, needed, found, node), span=span, **_domain_help(op, needed, node, span))
            return self.stand_in(node, needed)
        return self.guarded(node, lambda facts: self.ranges.interval(node, facts | self.axioms).within(needed), needed)

    def guarded(self, node: Node, enough: Any, needed: Interval) -> Node:
        """where(conditions that keep it inside, node, a harmless value)."""
        chosen = [c for c in reversed(self.conditions) if enough(self.ranges.facts_of(c))][:1] or list(self.conditions)
        safe = self.graph.const(_harmless(needed) if node.kind is Kind.REAL else int(_harmless(needed)))
        condition = chosen[0]
        for other in chosen[1:]:
            condition = self.graph.apply("and", condition, other)
        return self.graph.apply("where", condition, node, safe)

    def stand_in(self, node: Node, needed: Interval) -> Node:
        """For a node outside of a domain, after the report: one inside, so that nothing else is found for that reason."""
        low = 1.0 if needed.nonzero or (needed.low_open and needed.low == 0) else needed.low
        if math.isfinite(low):
            node = self.graph.apply("max", node, self.graph.const(low))
        return self.graph.apply("min", node, self.graph.const(needed.high)) if math.isfinite(needed.high) else node

    def keep_finite(self, node: Node) -> Node:
        """Inside a condition that bounds a growing function's argument, keep the branch not taken from overflowing."""
        loose, tight = self.ranges.interval(node, self.axioms), self.interval(node)
        if (tight.high < loose.high and loose.high > 80) or (tight.low > loose.low and loose.low < -80):
            return self.guarded(
                node,
                lambda facts: self.ranges.interval(node, facts | self.axioms).within(tight),
                Interval(tight.low, tight.high),
            )
        return node

    def protect(self, body: Node, condition: Node) -> Node:
        """A branch whose gradient cannot leak where its condition fails.

        There the gradient that arrives is 0, but 0 times an infinite derivative is nan. What the growing operations of the branch are made
        of therefore passes gradient only where the condition holds.
        """
        if not self._grows(body):
            return body
        memo: dict[int, Node] = {}

        def held(node: Node) -> Node:
            if id(node) not in memo:
                memo[id(node)] = self._held(node, condition, held)
            return memo[id(node)]

        return held(body)

    def _held(self, node: Node, condition: Node, held: Callable[[Node], Node]) -> Node:
        if isinstance(node, n.Const | n.Hyper | n.SizeOf | n.Iota) or node.kind is not Kind.REAL:
            return node
        if isinstance(node, n.Apply) and node.op == "stop":
            return node
        if isinstance(node, n.Apply) and self._grows(node):
            return self.graph.apply(node.op, *(held(a) for a in node.args))
        parts = [part for part in _conjuncts(condition) if part.dims <= node.dims]
        if not parts:
            return node
        fits = parts[0]
        for other in parts[1:]:
            fits = self.graph.apply("and", fits, other)
        return self.graph.apply("where", fits, node, self.graph.apply("stop", node))

    def _grows(self, node: Node) -> bool:
        """Does the branch, down to where it reads, hold an operation whose derivative may overflow?"""
        if id(node) not in self._growing:
            found = False
            if isinstance(node, n.Apply):
                found = any(self._grows(a) for a in node.args)
                if (
                    node.op == "mul"
                    and all(a.dims and a.kind is Kind.REAL for a in node.args)
                    and node.args[0] is not node.args[1]
                ):
                    found = True  # 0 times what the other factor holds there
                if node.op in ("mul", "div", "sub", "add") and any(self._infinite(a) for a in node.args):
                    found = True
                if node.op in ("exp", "expm1", "sinh", "cosh"):
                    reach = self.ranges.interval(node.args[0], self.axioms)
                    found = found or reach.high > 80 or (reach.low < -80 and node.op in ("sinh", "cosh"))
                elif node.op in ("pow", "tan"):
                    found = found or self.ranges.interval(node.args[-1], self.axioms).point != 2
                elif node.op in ("div", "log", "log1p", "lgamma", "digamma", "xlogy"):
                    below = self.ranges.interval(node.args[-1], self.axioms)
                    fixed = isinstance(node.args[-1], n.Hyper | n.SizeOf)
                    found = found or (not fixed and not (below.low > 1e-10 or below.high < -1e-10))
            self._growing[id(node)] = found
        return self._growing[id(node)]

    def _infinite(self, node: Node) -> bool:
        """Is infinity written somewhere below?"""
        key = -1 - id(node)
        if key not in self._growing:
            below = n.topological([node])
            self._growing[key] = any(isinstance(x, n.Const) and abs(float(x.value)) == float("inf") for x in below)
        return self._growing[key]

    def require_power(self, base: Node, exponent: Node, span: Span) -> Node:
        power = self.interval(exponent)
        whole = power.point is not None and math.isfinite(power.point) and power.point == int(power.point)
        if isinstance(exponent, n.Hyper | n.SizeOf) and exponent.kind is Kind.INT and power.low >= 0:
            whole = True
        if whole and power.low >= 0:
            return base
        if whole:
            return self.require(base, Interval(nonzero=True), "pow", span)
        if power.low >= 0:  # 0^0 is 1
            return self.require(base, Interval(0), "pow", span)
        return self.require(base, Interval(0, low_open=True), "pow", span)

    def index_inside(self, index: Node, length: Size, facts: Facts | None = None) -> bool:
        return self.ranges.inside(index, length, self.axioms if facts is None else facts | self.axioms)


def _conjuncts(condition: Node) -> list[Node]:
    if isinstance(condition, n.Apply) and condition.op == "and":
        return [*_conjuncts(condition.args[0]), *_conjuncts(condition.args[1])]
    return [condition]


def merge_axes(args: Iterable[Tensor]) -> tuple[Dim, ...]:
    """The axes of all arguments, in order of appearance."""
    return tuple(dict.fromkeys(d for a in args for d in a.axes))


def _harmless(needed: Interval) -> float:
    for value in (1.0, 0.0, 0.5, -1.0):
        if Interval(value, value).within(needed):
            return value
    return needed.low if abs(needed.low) < 1e300 else needed.high


_WORDS = {
    "log": "a logarithm", "log1p": "log1p", "sqrt": "a square root", "div": "a division", "pow": "a power", "asin": "asin", "acos": "acos",
    "lgamma": "lgamma", "digamma": "digamma", "floordiv": "//", "mod": "%", "xlogy": "xlogy", "entropy": "entropy",
}  # fmt: skip


def _domain_finding(op: str, needed: Interval, found: Interval, node: Node) -> tuple[str, str]:
    what = "the divisor" if op == "div" else "the exponent's base" if op == "pow" else "its argument"
    need = "!= 0" if needed.nonzero else str(needed)
    return "E030", f"{_WORDS.get(op, op)} needs {what} {need}, which is not known here"


def _domain_help(op: str, needed: Interval, node: Node, span: Span) -> dict[str, Any]:
    name = node.name if isinstance(node, n.Leaf | n.Hyper) else None
    wanted = "> 0" if needed.nonzero else str(needed)
    declare = f"declare `{name}: real {wanted}`, or " if name else ""
    if op == "div" and isinstance(node, n.SizeOf):
        return {"help": "it is 0 for the shortest axis; declare the axis longer: [N >= 2]"}
    ways = {
        "log": f"{declare}write log(max(x, 1e-12)), log1p(x), or where(x > 0, log(x), 0)",
        "log1p": f"{declare}keep its argument above -1: log1p(max(x, -1 + 1e-7))",
        "sqrt": f"{declare}write sqrt(max(x, 0)) or abs(x)",
        "div": f"{declare}add a positive constant, divide by max(x, 1e-12), or use where(x != 0, a / x, 0)",
        "pow": f"{declare}use a whole constant exponent, abs(x), or max(x, 0) as the base",
        "asin": "write asin(clamp(x, -1, 1))",
        "acos": "write acos(clamp(x, -1, 1))",
    }
    return {"help": ways.get(op, f"{declare}keep it inside with clamp, max or where")}


__all__ = ["MAX_CALLS", "Context", "Label", "Stop", "Value", "merge_axes", "size_of"]
