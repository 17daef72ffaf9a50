"""What a reference is: a function in plain torch, its default hyperparameters and its cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

Inputs = dict[str, Any]
Hyper = dict[str, float]
State = dict[str, Tensor]
Function = Callable[[Inputs, Hyper, State], tuple[Tensor, State]]


@dataclass(frozen=True)
class Case:
    """One set of arguments.

    `hyper` holds only what differs from the defaults, `state` what the buffers hold before the call,
    `differentiable` the inputs whose gradients are compared (a field of a record as "pi.chosen"; inputs
    behind a stop-gradient are listed too, their gradient is zero), `sizes` the lengths of axes that no
    input shows.
    """

    name: str
    inputs: Inputs
    hyper: Hyper = field(default_factory=dict)
    state: State = field(default_factory=dict)
    differentiable: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)


class Cases(Protocol):
    """Makes the cases of a loss, the same ones every time."""

    def __call__(self, dtype: torch.dtype = torch.float64) -> list[Case]: ...


@dataclass(frozen=True)
class Reference:
    """A loss: its function, defaults and cases; `per_sample` where the value is no scalar but a tensor."""

    function: Function
    defaults: Hyper
    cases: Cases
    per_sample: bool = False


def stateful(function: Function, defaults: Hyper, cases: Cases, *, per_sample: bool = False) -> Reference:
    """A reference whose function gets every hyperparameter, the missing ones from the defaults."""

    def complete(inputs: Inputs, hyper: Hyper, state: State) -> tuple[Tensor, State]:
        return function(inputs, {**defaults, **hyper}, state)

    return Reference(complete, defaults, cases, per_sample)


def stateless(
    value: Callable[[Inputs, Hyper], Tensor], defaults: Hyper, cases: Cases, *, per_sample: bool = False
) -> Reference:
    """A reference without buffers."""

    def function(inputs: Inputs, hyper: Hyper, state: State) -> tuple[Tensor, State]:
        del state
        return value(inputs, hyper), {}

    return stateful(function, defaults, cases, per_sample=per_sample)


class Draw:
    """Seeded random tensors: drawn in float64 and rounded, so that every precision sees the same case."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=self.generator, dtype=torch.float64) * scale).to(self.dtype)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        unit = torch.rand(*shape, generator=self.generator, dtype=torch.float64)
        return (low + (high - low) * unit).to(self.dtype)

    def gumbel(self, *shape: int) -> Tensor:
        unit = torch.rand(*shape, generator=self.generator, dtype=torch.float64)
        return (-torch.log(-torch.log(unit.clamp(1e-9, 1 - 1e-9)))).to(self.dtype)

    def integers(self, *shape: int, below: int) -> Tensor:
        return torch.randint(below, shape, generator=self.generator)

    def bits(self, *shape: int, chance: float = 0.5) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64) < chance

    def permutation(self, length: int) -> Tensor:
        return torch.randperm(length, generator=self.generator)

    def real(self, values: float | Sequence[Any]) -> Tensor:
        return torch.tensor(values, dtype=self.dtype)


def unit(vectors: Tensor, eps: float = 1e-12) -> Tensor:
    """Vectors along the last axis over their Euclidean norm, or over eps where that is larger."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.clamp(min=eps)


def whole(values: int | Sequence[Any]) -> Tensor:
    """Whole numbers as a tensor."""
    return torch.tensor(values, dtype=torch.int64)


def total(terms: list[Tensor], like: Tensor) -> Tensor:
    """The sum of a list of scalars, zero for an empty one."""
    return torch.stack(terms).sum() if terms else like.new_zeros(())
