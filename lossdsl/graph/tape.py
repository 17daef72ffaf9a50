"""Reverse mode over scalars: what the interpreter records and how gradients travel back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Pull = Callable[[list[Any]], Sequence[Any]]


class Traced:
    """A number that depends on something whose gradient is asked for."""

    __slots__ = ("gradient", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.gradient: Any = None
        """What has arrived so far; None: nothing, which is not the same as 0 (nothing is not multiplied by infinity)."""

    def add(self, amount: Any) -> None:
        """One more contribution to the gradient."""
        self.gradient = amount if self.gradient is None else self.gradient + amount


def plain(value: Any) -> Any:
    """The number itself."""
    return value.value if isinstance(value, Traced) else value


@dataclass(slots=True)
class Step:
    """Outputs made from inputs. pull: from the outputs' gradients what each input gets (None: nothing)."""

    outputs: list[Traced]
    inputs: Sequence[Any]
    pull: Pull


class Tape:
    """Steps in the order in which they were made: the inputs of a step stand before it, users of its outputs after it."""

    def __init__(self, zero: Any) -> None:
        self.zero = zero
        self.steps: list[Step] = []

    def record(self, values: Sequence[Any], inputs: Sequence[Any], pull: Pull) -> list[Traced]:
        """The values as outputs of a new step."""
        outputs = [Traced(value) for value in values]
        self.steps.append(Step(outputs, inputs, pull))
        return outputs

    def weighted(self, value: Any, inputs: Sequence[Any], partials: Sequence[Any]) -> Traced:
        """A value with its partial derivatives; where one is 0 nothing flows, not even an infinite gradient times 0."""

        def pull(gradients: list[Any]) -> list[Any]:
            return [None if partial == 0 else gradients[0] * partial for partial in partials]

        return self.record([value], inputs, pull)[0]

    def backward(self) -> None:
        """Carry the gradients that stand at the last values back to the first ones."""
        for place in reversed(range(len(self.steps))):  # pulling may record further steps, which nothing leads to
            step = self.steps[place]
            if all(output.gradient is None for output in step.outputs):
                continue
            arrived = [self.zero if output.gradient is None else output.gradient for output in step.outputs]
            for target, amount in zip(step.inputs, step.pull(arrived), strict=True):
                if amount is not None and isinstance(target, Traced):
                    target.add(amount)
