"""Compiled losses under torch's function transforms: func.grad, vmap, hessian, functional_call, make_fx, torch.compile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import lossdsl

STRAIGHT_THROUGH = """
def straight_through(hard: real[N], soft: real[N]):
    hard
    backward g:
        soft: g

loss f(x: real[N]; scale: real > 0 = 2.0):
    mean[N](scale * straight_through(round(x) * 1.0, x)^2)
"""
PROTOTYPES = """
loss prototypes(z: real[N, D], labels: int[N] < C):
    param w: real[C, D] ~ normal(0, 1)
    s[i, c] = cos(z[i], w[c])
    mean[i](logsumexp[c](s[i, c]) - s[i, labels[i]])
"""
LABELS = torch.tensor([0, 1, 0, 1, 2, 2])


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """torch.compile counts recompilations of one function, and all losses share theirs."""
    torch._dynamo.reset()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope(x: Tensor) -> Tensor:
    return 4 * x.round() / x.numel()


def test_declared_derivatives_are_used_by_every_transform() -> None:
    loss = lossdsl.compile(STRAIGHT_THROUGH, "f")
    x = normal(3, 5)

    def run(row: Tensor) -> Any:
        return loss(x=row)

    wanted = torch.stack([slope(row) for row in x])
    assert torch.allclose(torch.func.grad(run)(x[0]), wanted[0])
    assert torch.allclose(torch.vmap(torch.func.grad(run))(x), wanted)
    assert torch.allclose(torch.vmap(run)(x), 2 * x.round().square().mean(1))
    leaf = x[0].clone().requires_grad_()
    torch.compile(loss, backend="eager", fullgraph=True)(x=leaf).backward()
    assert torch.allclose(leaf.grad, wanted[0])


def test_vmap_and_hessian() -> None:
    loss = lossdsl.load("supcon")
    z = normal(2, 6, 3)

    def run(rows: Tensor) -> Any:
        return loss(z=rows, labels=LABELS)

    assert torch.allclose(torch.vmap(run)(z), torch.stack([run(rows) for rows in z]))
    assert torch.func.hessian(run)(z[0]).shape == (6, 3, 6, 3)


def test_functional_call_takes_other_params() -> None:
    loss = lossdsl.compile(PROTOTYPES, C=4, D=3)
    inputs = {"z": normal(6, 3), "labels": LABELS}
    w = normal(4, 3, seed=1)

    def run(w: Tensor) -> Any:
        return torch.func.functional_call(loss, {"w": w}, (), inputs)

    leaf = w.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(run(leaf), leaf)
    assert torch.allclose(torch.func.grad(run)(w), wanted)
    assert wanted.abs().sum() > 0


def test_make_fx_traces_the_loss() -> None:
    loss = lossdsl.load("info_nce")

    def run(z: Tensor, w: Tensor) -> Any:
        return loss(z=z, w=w)

    z, w = normal(5, 3), normal(5, 3, seed=1)
    traced = make_fx(run, tracing_mode="symbolic")(z, w)
    assert torch.allclose(traced(z, w), run(z, w))


@pytest.mark.parametrize(
    ("name", "sizes", "inputs"),
    [
        ("moco", {"Q": 8, "D": 3}, {"z": normal(6, 3), "w": normal(6, 3, seed=1)}),
        ("isogclr", {"M": 9}, {"z": normal(6, 3), "w": normal(6, 3, seed=1), "index": torch.arange(6), "epoch": 1}),
        ("cross_entropy", {}, {"logits": normal(6, 3), "labels": LABELS}),  # a loss of one sample, lifted
        ("dpo", {}, {p: {"chosen": normal(4, seed=k), "rejected": normal(4)} for k, p in enumerate(("pi", "ref"))}),
        ("groco:group_order", {}, {"pos": normal(2, 3).sort().values, "neg": normal(2, 4).sort().values}),
    ],
)
def test_torch_compile_follows_the_very_first_call(name: str, sizes: dict[str, int], inputs: dict[str, Any]) -> None:
    plain, loss = lossdsl.load(name, **sizes), lossdsl.load(name, **sizes)
    if sizes:
        loss.load_state_dict(plain.state_dict())
        plain.load_state_dict(loss.state_dict())
    fast = torch.compile(loss, backend="eager", fullgraph=True)
    for _ in range(2):
        assert torch.allclose(fast(**inputs), plain(**inputs))
    for key, state in plain.state_dict().items():
        assert torch.allclose(loss.state_dict()[key], state), key


def test_sizes_known_only_at_the_first_call_compile_too() -> None:
    loss = lossdsl.load("moco", Q=8)
    value = torch.compile(loss, backend="eager", fullgraph=True)(z=normal(6, 3), w=normal(6, 3, seed=1))
    assert torch.isfinite(value)
    assert loss.state_dict()["queue"].shape == (8, 3)
