"""What the tests of the references share: running a case, its gradients, changing some of its arguments."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import Case, Hyper, Inputs, Reference, State

SLUGS = [
    info.name
    for info in pkgutil.iter_modules([str(Path(__file__).parent)])
    if info.name not in {"base", "checks"} and not info.name.startswith("test_")
]


def load(slug: str) -> dict[str, Reference]:
    """The references of one paper."""
    module = importlib.import_module(f".{slug}", __package__)
    references: dict[str, Reference] = module.REFERENCES
    return references


def cases_of(slug: str, loss: str) -> dict[str, Case]:
    """The float64 cases of a loss by name."""
    return {case.name: case for case in load(slug)[loss].cases()}


def field(inputs: Inputs, name: str) -> Any:
    """An input, or a field of a record named with a dot."""
    value: Any = inputs
    for part in name.split("."):
        value = value[part]
    return value


def with_inputs(inputs: Inputs, **changes: Any) -> Inputs:
    """The inputs with some of them replaced; "__" stands for the dot of a record's field."""
    result = {name: dict(value) if isinstance(value, dict) else value for name, value in inputs.items()}
    for name, value in changes.items():
        record, _, part = name.partition("__")
        if part:
            result[record][part] = value
        else:
            result[record] = value
    return result


def changed(case: Case, hyper: Hyper | None = None, **inputs: Any) -> Case:
    """The case with other inputs and further hyperparameters."""
    return replace(case, inputs=with_inputs(case.inputs, **inputs), hyper={**case.hyper, **(hyper or {})})


def value(slug: str, loss: str, case: Case) -> Tensor:
    """The value of a loss at a case."""
    return load(slug)[loss].function(case.inputs, case.hyper, case.state)[0]


def new_state(slug: str, loss: str, case: Case) -> State:
    """The buffers after a call."""
    return load(slug)[loss].function(case.inputs, case.hyper, case.state)[1]


def weights_like(tensor: Tensor) -> Tensor:
    """Fixed random weights that turn a tensor into a scalar."""
    generator = torch.Generator().manual_seed(11)
    drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    return drawn.to(tensor.dtype) if tensor.dim() else torch.ones_like(tensor)


def value_and_gradients(
    slug: str, loss: str, case: Case, names: tuple[str, ...] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The value, and the gradients of its weighted sum in the named inputs (else all differentiable ones)."""
    names = case.differentiable if names is None else names
    leaves = {name: field(case.inputs, name).clone().requires_grad_() for name in names}
    inputs = with_inputs(case.inputs, **{name.replace(".", "__"): leaf for name, leaf in leaves.items()})
    result, _ = load(slug)[loss].function(inputs, case.hyper, case.state)
    if not result.requires_grad:
        return result, {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    scalar = (result * weights_like(result)).sum()
    found = torch.autograd.grad(scalar, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return result.detach(), dict(zip(leaves, found, strict=True))


def close(one: Tensor | float, other: Tensor | float, tolerance: float = 1e-10) -> None:
    """Both are the same up to a relative and absolute error."""
    torch.testing.assert_close(
        torch.as_tensor(one, dtype=torch.float64),
        torch.as_tensor(other, dtype=torch.float64),
        rtol=tolerance,
        atol=tolerance,
    )
