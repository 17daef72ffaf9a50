"""What leaves stand for inside loops and declared derivatives, for the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lossdsl.graph import nodes as n
from lossdsl.graph.tape import Step, Traced, plain

if TYPE_CHECKING:
    from lossdsl.graph.evaluate import Evaluator
    from lossdsl.graph.nodes import Node

Env = dict[Any, Any]
"""Number of a dim -> position; bound leaf -> its `Binding`."""

Binding = Callable[[Env], Any]
"""The value of a leaf at a point."""


def binds(node: Node) -> frozenset[Node]:
    """The leaves that get their values from this node."""
    match node:
        case n.Loop():
            return frozenset((*node.carried, node.counter))
        case n.Custom():
            return frozenset((*(leaf for leaf, _ in node.wrt), node.incoming))
        case _:
            return frozenset()


class Rounds:
    """A loop: its carried values after each number of rounds, found when asked for."""

    def __init__(self, evaluator: Evaluator, loop: n.Loop, outer: Env) -> None:
        self.evaluator = evaluator
        self.loop = loop
        self.outer = outer
        if loop.axis is not None:
            self.count = evaluator.lengths[evaluator.named[loop][0]]
        else:
            self.count = int(evaluator.at(loop.count, outer))
        self.scopes: dict[int, Env] = {}
        self.progress: dict[tuple[int, ...], tuple[int, bool]] = {}
        """For each element of `until`: how many rounds it has been tested after, and whether it held after the last."""

    def scope(self, rounds: int) -> Env:
        """What the leaves stand for after so many rounds, which is what the next round starts from."""
        if rounds not in self.scopes:
            loop = self.loop
            scope: Env = {leaf: self._carried(k, rounds) for k, leaf in enumerate(loop.carried)}
            counter = self.count - 1 - rounds if loop.backwards else rounds
            scope[loop.counter] = lambda env: counter
            self.scopes[rounds] = {**self.outer, **scope}
        return self.scopes[rounds]

    def _carried(self, k: int, rounds: int) -> Binding:
        loop, evaluator = self.loop, self.evaluator

        def value(env: Env) -> Any:
            if rounds == 0:
                return evaluator.at(loop.initial[k], {**env, **self.outer})
            reached = rounds if loop.until is None else self._reached(loop.until, rounds, env)
            if reached < rounds:
                return evaluator.at(loop.carried[k], {**env, **self.scope(reached)})
            return evaluator.at(loop.body[k], {**env, **self.scope(rounds - 1)})

        return value

    def _reached(self, until: Node, limit: int, env: Env) -> int:
        """How many of the first `limit` rounds run at this element; `until` sees what the round has computed."""
        slots = self.evaluator.free_slots(until)
        if not env.keys() >= set(slots):
            raise RuntimeError("malformed graph: `until` varies along a dim that a carried value does not have")
        key = tuple([env[slot] for slot in slots])
        tested, held = self.progress.get(key, (0, False))
        while tested < limit and not held:
            held = bool(self.evaluator.at(until, {**env, **self.scope(tested)}))
            tested += 1
            self.progress[key] = (tested, held)
        return min(tested, limit)


class Declared:
    """A value with a declared gradient: all its elements are one step, whose pull evaluates the declared expressions."""

    def __init__(self, evaluator: Evaluator, node: n.Custom, outer: Env) -> None:
        self.evaluator = evaluator
        self.node = node
        self.scope: Env = dict(outer)
        for leaf, argument in node.wrt:
            self.scope[leaf] = self._argument(argument, outer)
        self.outputs: dict[tuple[int, ...], Traced] = {}
        self.targets: list[tuple[int, Env, Any]] = []
        """Which argument, where, and its value there, or the exception that evaluating it raised."""
        for k, (_, argument) in enumerate(node.wrt):
            if evaluator.wrt and node.gradients[k] is not None:
                self.targets += [(k, point, self._try(argument, point)) for point in self._points(argument)]
        traced = any(isinstance(value, Traced) for _, _, value in self.targets)
        self.step = Step([], [value for _, _, value in self.targets], self._pull) if traced else None
        if self.step is not None:
            evaluator.tape.steps.append(self.step)

    def _argument(self, argument: Node, outer: Env) -> Binding:
        return lambda env: plain(self.evaluator.at(argument, {**env, **outer}))

    def _points(self, argument: Node) -> list[Env]:
        return self.evaluator.points(self.evaluator.free_slots(argument))

    def _try(self, argument: Node, point: Env) -> Any:
        try:
            return self.evaluator.at(argument, {**self.scope, **point})
        except (IndexError, ValueError) as error:  # behind a guard: nobody may ever ask for the value here
            return error

    def output(self, value: Any, env: Env) -> Any:
        """The value at a point, on the tape where an argument is."""
        if self.step is None:
            return value
        output = Traced(value)
        self.step.outputs.append(output)
        self.outputs[tuple([env[slot] for slot in self.evaluator.free_slots(self.node)])] = output
        return output

    def _pull(self, arrived: list[Any]) -> list[Any]:
        evaluator, node = self.evaluator, self.node
        slots = evaluator.free_slots(node)
        incoming = dict(zip(self.outputs, arrived, strict=True))
        zero = evaluator.tape.zero
        scope = {**self.scope, node.incoming: lambda env: incoming.get(tuple([env[slot] for slot in slots]), zero)}
        amounts: list[Any] = []
        for k, point, value in self.targets:
            gradient = node.gradients[k]
            if gradient is None or not isinstance(value, Traced | Exception):
                amounts.append(None)
                continue
            shared = [place for place, slot in enumerate(slots) if slot in point]
            wanted = any(all(at[place] == point[slots[place]] for place in shared) for at in self.outputs)
            try:
                if isinstance(value, Exception):
                    raise value
                amounts.append(self._total(gradient, {**scope, **point}))
            except (IndexError, ValueError):
                if wanted:
                    raise
                amounts.append(None)
        return amounts

    def _total(self, gradient: Node, env: Env) -> Any:
        """The declared gradient at a point of the argument, summed over what the argument does not vary along."""
        rest = tuple(slot for slot in self.evaluator.free_slots(gradient) if slot not in env)
        total = self.evaluator.tape.zero
        for point in self.evaluator.points(rest):
            total = total + plain(self.evaluator.at(gradient, {**env, **point}))
        return total
