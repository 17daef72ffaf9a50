"""Applying rewrite rules to a program's graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lossdsl.graph import nodes as n
from lossdsl.graph.build import Graph
from lossdsl.graph.nodes import Node
from lossdsl.graph.ranges import Ranges

if TYPE_CHECKING:
    from lossdsl.checker.values import Program

MAX_ROUNDS = 12


@dataclass(frozen=True)
class Rule:
    """One rewrite. apply(graph, ranges, node) gives the new node, or None where its pattern or side condition fails.

    example: a program on which it fires, for its property test and the docs.
    """

    name: str
    doc: str
    apply: Callable[[Graph, Ranges, Node], Node | None]
    example: str


def rewritten(program: Program, rules: Iterable[Rule] | None = None) -> Program:
    """The program with every rule applied until none fires."""
    from lossdsl.checker.values import Tensor
    from lossdsl.graph.rewrite.rules import RULES

    rewriter = Rewriter(program.graph, program.ranges, tuple(RULES if rules is None else rules))
    values = tuple(Tensor(rewriter.node(v.node), v.axes) for v in program.values)
    updates = {name: rewriter.node(node) for name, node in program.updates.items()}
    return replace(program, values=values, value=values[0] if values else None, updates=updates)


class Rewriter:
    """Rebuilds nodes bottom-up; what does not change keeps its identity."""

    def __init__(self, graph: Graph, ranges: Ranges, rules: tuple[Rule, ...]) -> None:
        self.graph = graph
        self.ranges = ranges
        self.rules = rules
        self.memo: dict[int, Node] = {}
        self.fired: list[str] = []

    def node(self, root: Node) -> Node:
        for item in n.topological([root]):
            if id(item) not in self.memo:
                self.memo[id(item)] = self._settle(self._rebuild(item), item)
        return self.memo[id(root)]

    def _settle(self, node: Node, original: Node) -> Node:
        for _ in range(MAX_ROUNDS):
            changed = self._once(node)
            if changed is None or changed is node:
                break
            # a rule may have made new inner nodes; they get their turn as well
            node = self.node(changed) if id(changed) not in self.memo and changed is not original else changed
        if node.hint is None:
            node.hint = original.hint
        if node.span is None:
            node.span = original.span
        return node

    def _once(self, node: Node) -> Node | None:
        for rule in self.rules:
            found = rule.apply(self.graph, self.ranges, node)
            if found is not None and found is not node:
                self.fired.append(rule.name)
                return found
        return None

    def _rebuild(self, node: Node) -> Node:
        g, memo = self.graph, self.memo

        def new(child: Node) -> Node:
            return memo[id(child)]

        if all(new(c) is c for c in node.children):
            return node
        match node:
            case n.Apply():
                return g.apply(node.op, *(new(a) for a in node.args))
            case n.Reduce():
                guard = None if node.guard is None else new(node.guard)
                return g.reduce(
                    node.op, node.bound, new(node.body), guard, None if node.default is None else new(node.default)
                )
            case n.Along():
                return g.along(node.op, node.along, new(node.body))
            case n.At():
                return g.at(
                    new(node.body),
                    {d: new(i) for d, i in node.mapping},
                    None if node.default is None else new(node.default),
                )
            case n.Concat():
                return g.concat(node.dim, [(new(p), d) for p, d in node.parts])
            case n.Solve():
                return g.solve(node.op, [(new(a), core) for a, core in node.args], node.axes, node.kind)
            case n.Scatter():
                return g.scatter(new(node.base), node.dim, new(node.index), new(node.value), node.over)
            case n.Custom():
                wrt = tuple((leaf, new(argument)) for leaf, argument in node.wrt)
                return g.custom(
                    new(node.value), wrt, node.incoming, tuple(None if x is None else new(x) for x in node.gradients)
                )
            case n.Loop():
                results = g.loop(
                    node.counter, new(node.count), node.carried, tuple(new(i) for i in node.initial), tuple(new(b) for b in node.body),
                    None if node.until is None else new(node.until), node.axis, node.backwards,
                )  # fmt: skip
                first = results[0]
                assert isinstance(first, n.Result)
                return first.loop
            case n.Result():
                loop = new(node.loop)
                assert isinstance(loop, n.Loop)
                return g.result(loop, node.place)
            case _:
                return node
