"""Compares programs of the standard library with independent references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from references.base import Case, Reference
from torch import Tensor

import lossdsl

torch.set_num_threads(1)


def leaves(case: Case) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The case's inputs with fresh differentiable tensors, and these by name."""
    inputs = {k: dict(v) if isinstance(v, Mapping) else v for k, v in case.inputs.items()}
    found: dict[str, Tensor] = {}
    for name in case.differentiable:
        record, _, part = name.partition(".")
        holder, key = (inputs[record], part) if part else (inputs, record)
        holder[key] = found[name] = holder[key].detach().clone().requires_grad_()
    return inputs, found


def weighted(value: Tensor) -> Tensor:
    """The value as a scalar: its sum with fixed random weights."""
    generator = torch.Generator().manual_seed(11)
    weights = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return (value * weights.to(value.dtype)).sum() if value.dim() else value


def gradients(value: Tensor, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of the weighted value, zero where none flows."""
    if not found or not value.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in found.items()}
    got = torch.autograd.grad(weighted(value), list(found.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(found, got, strict=True))


def built(target: str, case: Case) -> lossdsl.CompiledLoss:
    """The program for a case, its buffers as the case has them."""
    module = lossdsl.load(target, **case.hyper, **case.sizes)
    if case.state:
        module.load_state_dict(case.state, strict=False)
    return module


def compare(target: str, reference: Reference, tolerance: float = 1e-9) -> None:
    """Value, gradients and new state agree with the reference in float64, in every case."""
    for case in reference.cases(torch.float64):
        inputs, found = leaves(case)
        expected, new_state = reference.function(inputs, case.hyper, case.state)
        slopes = gradients(expected, found)
        inputs, found = leaves(case)
        module = built(target, case)
        value = module(**inputs)
        where = f"{target}, case {case.name!r}"
        _close(value, expected, f"{where}: value", tolerance)
        for name, slope in gradients(value, found).items():
            _close(slope, slopes[name], f"{where}: gradient of {name}", tolerance)
        after = module.state_dict()
        for name, wanted in new_state.items():
            _close(after[name], wanted, f"{where}: state {name}", tolerance)


def finite(target: str, reference: Reference, *dtypes: torch.dtype) -> None:
    """Value and gradients are finite in lower precision, in every case."""
    for dtype in dtypes or (torch.float32, torch.bfloat16):
        for case in reference.cases(dtype):
            inputs, found = leaves(case)
            value = built(target, case)(**inputs)
            where = f"{target}, case {case.name!r}, {dtype}"
            assert torch.isfinite(value).all(), f"{where}: value {value}"
            for name, slope in gradients(value, found).items():
                assert torch.isfinite(slope).all(), f"{where}: gradient of {name}"


def _close(got: Tensor, wanted: Tensor, what: str, tolerance: float) -> None:
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(wanted.shape)}"
    got, wanted = got.detach().double(), wanted.detach().double()
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}\n{text}")
