"""What values a node can take: real intervals (`Ranges.interval`) and bounds in terms of lengths (`Ranges.inside`).

Both know facts: truth values that hold where a node is evaluated (a guard, the condition of a `where`). The analysis is about the
real-valued program; it never claims more than the declared domains imply.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from lossdsl.graph import nodes as n
from lossdsl.graph.build import Graph, size_of
from lossdsl.graph.nodes import Node
from lossdsl.ops.axes import ALONG, REDUCTIONS
from lossdsl.ops.elementwise import ELEMENTWISE
from lossdsl.types import domains as dom
from lossdsl.types.domains import ANY, INF, NONNEGATIVE, TRUTH, Interval, Kind
from lossdsl.types.sizes import Size

Facts = frozenset[Node]
NO_FACTS: Facts = frozenset()

_NEGATION = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}
_MIRROR = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}
_MAX_BOUNDS = 6

MAX_REFINED = 40_000
"""Intervals that are refined by facts, of which choices among choices have exponentially many; beyond, facts are not used."""


class Ranges:
    """Range analysis over the nodes of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._intervals: dict[tuple[int, Facts], Interval] = {}
        self.required: dict[Size, str] = {}
        """Lengths that are not negative because every call is checked for it, each with what it is for."""
        self._bounds: dict[tuple[int, Facts, bool], tuple[Size, ...]] = {}

    # ---- facts ----

    def facts_of(self, condition: Node, holds: bool = True) -> Facts:
        """The comparisons that follow from a condition (or from its failing)."""
        if isinstance(condition, n.Apply):
            if condition.op == "not":
                return self.facts_of(condition.args[0], not holds)
            if condition.op == ("and" if holds else "or"):
                return self.facts_of(condition.args[0], holds) | self.facts_of(condition.args[1], holds)
            if condition.op in _NEGATION:
                if holds:
                    return frozenset((condition,))
                return frozenset((self.graph.apply(_NEGATION[condition.op], *condition.args),))
        return frozenset((condition,)) if holds else NO_FACTS

    # ---- real intervals ----

    def interval(self, node: Node, facts: Facts = NO_FACTS) -> Interval:
        """An interval that holds every value of the node where the facts hold."""
        if (id(node), NO_FACTS) not in self._intervals:  # else all below is known
            for item in n.topological([node]):
                if (id(item), NO_FACTS) not in self._intervals:
                    self._intervals[(id(item), NO_FACTS)] = self._interval(item, NO_FACTS)
        return self._get(node, facts)

    def _get(self, node: Node, facts: Facts) -> Interval:
        facts = self._relevant(node, facts) if len(self._intervals) <= MAX_REFINED else NO_FACTS
        key = (id(node), facts)
        if key not in self._intervals:
            self._intervals[key] = self._refine(node, self._interval(node, facts), facts)
        return self._intervals[key]

    def _relevant(self, node: Node, facts: Facts) -> Facts:
        """Facts can only matter below a node whose dims meet theirs; loops and solvers take none."""
        if not facts or isinstance(node, n.Const | n.SizeOf | n.Solve | n.Loop | n.Result | n.Custom):
            return NO_FACTS if not isinstance(node, n.Result) else facts
        return facts

    def _interval(self, node: Node, facts: Facts) -> Interval:
        match node:
            case n.Const():
                return dom.point(float(node.value))
            case n.Hyper():
                return node.domain
            case n.SizeOf():
                least = node.size.least
                return Interval(-INF if least is None else least, INF)
            case n.Iota():
                constant = node.dim.size.constant
                return Interval(0, INF if constant is None else max(constant - 1, 0))
            case n.Leaf():
                return TRUTH if node.kind is Kind.BOOL else node.domain
            case n.Apply():
                return self._apply(node, facts)
            case n.Reduce():
                return self._reduce(node, facts)
            case n.Along():
                return ALONG[node.op].range(self._get(node.body, facts))
            case n.At():
                inside = self._get(node.body, _anywhere(facts))
                return inside if node.default is None else inside.join(self._get(node.default, facts))
            case n.Concat():
                found = self._get(node.parts[0][0], facts)
                for part, _ in node.parts[1:]:
                    found = found.join(self._get(part, facts))
                return found
            case n.Scatter():
                return self._get(node.base, facts).join(self._get(node.value, facts))
            case n.Custom():
                return self._get(node.value, NO_FACTS)
            case n.Result():
                return node.loop.carried[node.place].domain
            case n.Solve():
                return NONNEGATIVE if node.kind is Kind.INT else ANY
            case _:
                return ANY

    def _apply(self, node: n.Apply, facts: Facts) -> Interval:
        op, args = node.op, node.args
        if _held(node) is not node:
            return self._get(_held(node), facts)
        if op == "where":
            if_true = self._get(args[1], facts | self.facts_of(args[0]))
            if_false = self._get(args[2], facts | self.facts_of(args[0], holds=False))
            return if_false if if_true.empty else if_true if if_false.empty else if_true.join(if_false)
        ranges = [self._get(a, facts) for a in args]
        if op == "mul" and args[0] is args[1]:
            return ELEMENTWISE["pow"].range(ranges[0], dom.point(2.0))
        if op == "sub" and (_is_variance(node) or self._jensen(node)):
            return NONNEGATIVE
        found = ELEMENTWISE[op].range(*ranges)
        if op == "div" and ranges[0].nonnegative and self._is_share(node, facts):
            found = found.meet(Interval(0, 1))
        if op == "mul" and args[0].kind is Kind.BOOL:
            found = found.join(dom.point(0.0)) if not found.within(NONNEGATIVE) else found
        return found

    def _jensen(self, node: n.Apply) -> bool:
        """logsumexp_d(x) and max_d(x) minus x read at any place, or minus its mean, are not negative."""
        top, below = node.args
        if not (isinstance(top, n.Reduce) and top.op in ("logsumexp", "max") and top.guard is None):
            return False
        body = top.body
        if below is body:
            return True
        if isinstance(below, n.Reduce):
            return (
                below.op in ("mean", "max", "min")
                and below.body is body
                and below.guard is None
                and set(below.bound) <= set(top.bound)
            )
        if not isinstance(below, n.At) or below.default is not None:
            return False
        if below.body is body and {d for d, _ in below.mapping} <= set(top.bound):
            return True
        # x[n, k] - the body may itself be a read, x[n]
        return len(top.bound) == 1 and any(
            self.graph.at(body, {top.bound[0]: index}) is below for _, index in below.mapping
        )

    def _is_share(self, node: n.Apply, facts: Facts) -> bool:
        """X over the sum or the largest of x's, or over something larger."""
        part, whole = map(_held, node.args)
        if isinstance(whole, n.Apply) and whole.op == "where" and whole.args[0] in facts:
            whole = _held(whole.args[1])
        if isinstance(whole, n.Apply) and whole.op == "max":
            return any(self._is_part(part, w) for w in whole.args)
        return self._is_part(part, whole)

    def _is_part(self, part: Node, whole: Node) -> bool:
        if not (isinstance(whole, n.Reduce) and whole.op in ("sum", "max") and whole.guard is None):
            return False
        if part is whole.body:
            return True
        return len(whole.bound) == 1 and any(
            self.graph.at(whole.body, {whole.bound[0]: self.graph.iota(d)}) is part
            for d in part.dims
            if d.size == whole.bound[0].size
        )

    def _reduce(self, node: n.Reduce, facts: Facts) -> Interval:
        inner = facts if node.guard is None else facts | self.facts_of(node.guard)
        body = self._get(node.body, inner)
        nonempty = all((d.size.least or 0) >= 1 for d in node.bound) and (node.guard is None or self.nonempty(node))
        if node.op == "sum" and self._is_distribution(node):
            return dom.point(1.0)
        if node.op == "sum" and isinstance(node.body, n.Apply) and node.body.op == "mul":
            for weight, value in (node.body.args, node.body.args[::-1]):
                if self._is_distribution(n.Reduce("sum", node.bound, weight, node.guard, None)):
                    return self._get(value, inner)
        found = REDUCTIONS[node.op].range(body, nonempty)
        if node.default is not None:
            found = found.join(self._get(node.default, facts))
        if node.op in ("argmax", "argmin") and len(node.bound) == 1:
            constant = node.bound[0].size.constant
            return Interval(0, INF if constant is None else constant - 1).join(
                found if node.default is not None else dom.point(0.0)
            )
        return found

    def _is_distribution(self, node: n.Reduce) -> bool:
        """A sum over all of the axis along which its body sums to 1."""
        if node.guard is not None or len(node.bound) != 1:
            return False
        (bound,) = node.bound
        inner = node.body
        read: dict[n.Dim, Node] = {bound: self.graph.iota(bound)}
        body: Node = inner
        if isinstance(inner, n.At) and inner.default is None:
            body = inner.body
            read.update(inner.mapping)
        if isinstance(body, n.Along) and body.op == "softmax" and len(body.along) == 1:
            last = body.along[0]
        elif isinstance(body, n.Leaf) and body.shape == "prob":
            last = body.axes[-1]
        else:
            return False
        along = read.pop(last, None)
        read.pop(bound, None)
        whole = isinstance(along, n.Iota) and along.dim == bound and bound.size == last.size
        return whole and all(bound not in index.dims for index in read.values())

    def nonempty(self, node: n.Reduce) -> bool:
        """Is the guard of a reduction sure to hold somewhere? (`j != i` is, on an axis of length 2 or more.)."""
        guard = node.guard
        if guard is None:
            return all((d.size.least or 0) >= 1 for d in node.bound)
        return self.guard_holds_somewhere(guard, node.bound)

    def guard_holds_somewhere(self, guard: Node, bound: tuple[n.Dim, ...], facts: Facts = NO_FACTS) -> bool:
        """Is there surely a position along the bound dims at which the guard holds?"""
        if facts and self._witness(guard, bound, facts):
            return True
        if not isinstance(guard, n.Apply) or any((d.size.least or 0) < 1 for d in bound):
            return False
        if guard.op == "or":
            return any(self.guard_holds_somewhere(side, bound, facts) for side in guard.args)
        if guard.op == "ne":
            for one, other in ((guard.args[0], guard.args[1]), (guard.args[1], guard.args[0])):
                if isinstance(one, n.Iota) and one.dim in bound and one.dim not in other.dims:
                    return (one.dim.size.least or 0) >= 2
        if guard.op in ("lt", "gt", "le", "ge") and all(isinstance(a, n.Iota) and a.dim in bound for a in guard.args):
            sizes = [a.dim.size for a in guard.args if isinstance(a, n.Iota)]
            return sizes[0] == sizes[1] and (sizes[0].least or 0) >= (2 if guard.op in ("lt", "gt") else 1)
        if guard.op in ("eq", "le", "ge"):
            return self._self_comparison(guard, bound)
        return False

    def _witness(self, guard: Node, bound: tuple[n.Dim, ...], facts: Facts) -> bool:
        """The guard at the place of another variable, for which it is known to hold (`p != i` when looking for an `a != i`)."""
        if len(bound) != 1 or not isinstance(guard, n.Apply):
            return False
        (dim,) = bound
        places = {d for fact in facts for d in fact.dims if d.size == dim.size and d != dim}
        moved = [self.graph.rename(guard, {dim: place}) for place in places]
        return any(m is not None and self.facts_of(m) <= facts for m in moved)

    def _self_comparison(self, guard: n.Apply, bound: tuple[n.Dim, ...]) -> bool:
        """labels[j] == labels[i] holds at j = i."""
        left, right = guard.args
        if not (isinstance(left, n.At) and isinstance(right, n.At) and left.body is right.body):
            return False
        if len(left.mapping) != 1 or len(right.mapping) != 1:
            return False
        ours = left.mapping[0][1], right.mapping[0][1]
        return all(isinstance(i, n.Iota) for i in ours) and any(isinstance(i, n.Iota) and i.dim in bound for i in ours)

    def _refine(self, node: Node, found: Interval, facts: Facts) -> Interval:
        for fact in facts:
            if not isinstance(fact, n.Apply) or fact.op not in _NEGATION:
                continue
            left, right = fact.args
            if isinstance(node, n.Apply) and node.op == "sub" and {left, right} == {*node.args}:
                found = found.meet(
                    self._compared(fact.op if left is node.args[0] else _MIRROR[fact.op], dom.point(0.0), node.kind)
                )
            if left is node:
                found = found.meet(self._compared(fact.op, self._get(right, NO_FACTS), node.kind))
            elif right is node:
                found = found.meet(self._compared(_MIRROR[fact.op], self._get(left, NO_FACTS), node.kind))
            elif isinstance(node, n.Apply) and node.op == "sub" and node.args in ((left, right), (right, left)):
                op = fact.op if node.args == (left, right) else _MIRROR[fact.op]
                found = found.meet(self._compared(op, dom.point(0.0), node.kind))
        return found

    def _compared(self, op: str, other: Interval, kind: Kind) -> Interval:
        whole = kind is Kind.INT
        match op:
            case "lt":
                if whole and math.isfinite(other.high):
                    return Interval(high=math.ceil(other.high) - 1)
                return Interval(high=other.high, high_open=True)
            case "le":
                return Interval(high=other.high, high_open=other.high_open)
            case "gt":
                if whole and math.isfinite(other.low):
                    return Interval(low=math.floor(other.low) + 1)
                return Interval(low=other.low, low_open=True)
            case "ge":
                return Interval(low=other.low, low_open=other.low_open)
            case "eq":
                return other
            case _:
                return Interval(nonzero=True) if other.point == 0 else ANY

    # ---- bounds in lengths ----

    def inside(self, index: Node, length: Size, facts: Facts = NO_FACTS) -> bool:
        """Is 0 <= index < length proved?"""
        low = any(self.nonnegative(b) for b in self.bounds(index, facts, upper=False))
        return low and any(self.nonnegative(length - 1 - b) for b in self.bounds(index, facts, upper=True))

    def nonnegative(self, size: Size) -> bool:
        """Is a length proved not to be negative, knowing what the inputs will be checked for?"""
        if size.least is not None and size.least >= 0:
            return True
        return any(rest.least is not None and rest.least >= 0 for rest in (size - known for known in self.required))

    def bounds(self, node: Node, facts: Facts, upper: bool) -> tuple[Size, ...]:
        """Lengths that the node never exceeds (upper) or never falls below."""
        if len(self._bounds) > MAX_REFINED:
            facts = NO_FACTS
        key = (id(node), facts, upper)
        if key not in self._bounds:
            self._bounds[key] = ()
            found = [*self._bounds_of(node, facts, upper), *self._bounds_from_facts(node, facts, upper)]
            self._bounds[key] = tuple(dict.fromkeys(found))[:_MAX_BOUNDS]
        return self._bounds[key]

    def _bounds_from_facts(self, node: Node, facts: Facts, upper: bool) -> list[Size]:
        found: list[Size] = []
        strict, loose = ("lt", "le") if upper else ("gt", "ge")
        step = (-1 if upper else 1) if node.kind is Kind.INT else 0
        for fact in facts:
            if not isinstance(fact, n.Apply) or fact.op not in _NEGATION:
                continue
            left, right = fact.args
            for op, one, other in ((fact.op, left, right), (_MIRROR[fact.op], right, left)):
                if one is node and op in (strict, loose, "eq") and other is not node:
                    shift = step if op == strict else 0
                    found += [b + shift for b in self.bounds(other, NO_FACTS, upper)]
                elif (
                    one is node and op == "ne" and node.kind is Kind.INT
                    and isinstance(other, n.Const) and other.value == 0 and not upper
                    and any((b.least if b.least is not None else -1) >= 0 for b in self._bounds_of(node, NO_FACTS, upper=False))
                ):  # fmt: skip
                    found.append(Size.of(1))
        return found

    def _bounds_of(self, node: Node, facts: Facts, upper: bool) -> list[Size]:
        size = size_of(node)
        if size is not None:
            return [size, *self._numeric(node, facts, upper)]
        match node:
            case n.Iota():
                return [node.dim.size - 1] if upper else [Size.of(0)]
            case n.Leaf():
                below = [node.below - 1] if upper and node.below is not None else []
                return below + self._numeric(node, facts, upper)
            case n.Apply():
                return self._bounds_of_apply(node, facts, upper)
            case n.Reduce() if node.op in ("argmax", "argmin") and len(node.bound) == 1:
                found = [node.bound[0].size - 1] if upper else [Size.of(0)]
                return (
                    found
                    if node.default is None
                    else self._common(found, self.bounds(node.default, facts, upper), upper)
                )
            case n.Reduce() if node.op in ("max", "min", "mean"):
                found = list(self.bounds(node.body, facts, upper))
                return (
                    found
                    if node.default is None
                    else self._common(found, self.bounds(node.default, facts, upper), upper)
                )
            case n.Along() if ALONG[node.op].positions:
                return [node.along[0].size - 1] if upper else [Size.of(0)]
            case n.Along() if node.op in ("sort", "cummax"):
                return list(self.bounds(node.body, facts, upper))
            case n.At():
                found = list(self.bounds(node.body, NO_FACTS, upper))
                return (
                    found
                    if node.default is None
                    else self._common(found, self.bounds(node.default, facts, upper), upper)
                )
            case n.Concat():
                found = list(self.bounds(node.parts[0][0], facts, upper))
                for part, _ in node.parts[1:]:
                    found = self._common(found, self.bounds(part, facts, upper), upper)
                return found
            case n.Solve() if node.kind is Kind.INT:
                core = node.args[0][1]
                return [core[-1].size - 1] if upper else [Size.of(0)]
            case _:
                return self._numeric(node, facts, upper)

    def _numeric(self, node: Node, facts: Facts, upper: bool) -> list[Size]:
        interval = self.interval(node, facts)
        end = interval.high if upper else interval.low
        if not math.isfinite(end) or abs(end) > 2**53:
            return []
        return [Size.of(math.ceil(end) if upper else math.floor(end))]

    def _bounds_of_apply(self, node: n.Apply, facts: Facts, upper: bool) -> list[Size]:
        args = node.args

        def of(arg: Node, side: bool) -> tuple[Size, ...]:
            return self.bounds(arg, facts, side)

        def pairs(f: Callable[[Size, Size], Size], a: tuple[Size, ...], b: tuple[Size, ...]) -> list[Size]:
            return [f(x, y) for x in a for y in b]

        match node.op:
            case "add":
                return pairs(lambda x, y: x + y, of(args[0], upper), of(args[1], upper))
            case "sub":
                return pairs(lambda x, y: x - y, of(args[0], upper), of(args[1], not upper))
            case "neg":
                return [-b for b in of(args[0], not upper)]
            case "mul":
                for constant, other in ((args[0], args[1]), (args[1], args[0])):
                    factor = size_of(constant)
                    if factor is not None and factor.constant is not None:
                        value = factor.constant
                        return [b * value for b in of(other, upper if value >= 0 else not upper)]
                return self._numeric(node, facts, upper)
            case "floordiv":
                divisor = size_of(args[1])
                if divisor is not None and divisor.constant is not None and divisor.constant > 0:
                    return [b // divisor.constant for b in of(args[0], upper)]
                return self._numeric(node, facts, upper)
            case "mod":
                return [b - 1 for b in of(args[1], True)] if upper else [Size.of(0)]
            case "reflect":
                return [b - 1 for b in of(args[1], True)] if upper else [Size.of(0)]
            case "floor" | "round" | "stop" | "ceil":
                return list(of(args[0], upper))
            case "min" | "max" if (node.op == "min") == upper:
                return [*of(args[0], upper), *of(args[1], upper)]
            case "min" | "max":
                return self._common(list(of(args[0], upper)), of(args[1], upper), upper)
            case "clamp":
                outer = args[2] if upper else args[1]
                inner = self._common(list(of(args[0], upper)), of(args[1], upper), upper) if upper else []
                return [*of(outer, upper), *inner]
            case "where":
                yes = self.bounds(args[1], facts | self.facts_of(args[0]), upper)
                no = self.bounds(args[2], facts | self.facts_of(args[0], holds=False), upper)
                return self._common(list(yes), no, upper)
            case _:
                return self._numeric(node, facts, upper)

    def _common(self, a: list[Size], b: tuple[Size, ...], upper: bool) -> list[Size]:
        """Bounds that hold for either of two values."""
        found = []
        for x in a:
            for y in b:
                if self.nonnegative(x - y):
                    found.append(x if upper else y)
                elif self.nonnegative(y - x):
                    found.append(y if upper else x)
        return found


def _anywhere(facts: Facts) -> Facts:
    """The facts that hold at every position."""
    return frozenset(f for f in facts if not f.dims) if facts else facts


def _held(node: Node) -> Node:
    """The value of where(c, x, stop(x)), which is x: it only decides where gradient flows."""
    if isinstance(node, n.Apply) and node.op == "where":
        stopped = node.args[2]
        if isinstance(stopped, n.Apply) and stopped.op == "stop" and stopped.args[0] is node.args[1]:
            return node.args[1]
    return node


def _is_variance(node: n.Apply) -> bool:
    """mean(x^2) - mean(x)^2 over the same dims."""
    left, right = node.args
    if not (isinstance(left, n.Reduce) and left.op == "mean" and left.guard is None):
        return False
    square = _squared(left.body)
    mean = _squared(right)
    return (
        square is not None
        and isinstance(mean, n.Reduce)
        and mean.op == "mean"
        and mean.guard is None
        and mean.body is square
        and set(mean.bound) == set(left.bound)
    )


def _squared(node: Node) -> Node | None:
    if isinstance(node, n.Apply):
        if node.op == "pow" and isinstance(node.args[1], n.Const) and node.args[1].value == 2:
            return node.args[0]
        if node.op == "mul" and node.args[0] is node.args[1]:
            return node.args[0]
    return None
