"""Regret losses for agents that learn online (arXiv:2403.16843)."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Case, Draw, Hyper, Inputs, stateless, total


def _regret(policy: Tensor, losses: Tensor, *, dynamic: bool = False) -> Tensor:
    """Regret of each trajectory [G, N]."""
    rows = []
    for g in range(policy.shape[0]):
        row = []
        for j in range(policy.shape[1]):
            incurred = (policy[g, j] * losses[g, j]).sum()
            if dynamic:
                rival = torch.stack([losses[g, j, t].min() for t in range(losses.shape[2])]).sum()
            else:
                rival = torch.stack([losses[g, j, :, a].sum() for a in range(losses.shape[3])]).min()
            row.append(incurred - rival)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def regret(inputs: Inputs, hyper: Hyper) -> Tensor:
    del hyper
    return _regret(inputs["policy"], inputs["losses"])


def dynamic_regret(inputs: Inputs, hyper: Hyper) -> Tensor:
    del hyper
    return _regret(inputs["policy"], inputs["losses"], dynamic=True)


def regret_loss(inputs: Inputs, hyper: Hyper) -> Tensor:
    r = _regret(inputs["policy"], inputs["losses"])
    weights = torch.softmax(hyper["k"] * r, 1)
    return (weights * r.clamp(min=0) ** 2).sum(1).mean()


def regret_loss_power(inputs: Inputs, hyper: Hyper) -> Tensor:
    k, groups = hyper["k"], []
    for row in _regret(inputs["policy"], inputs["losses"]):
        positive = [r for r in row if r.item() > 0]
        upper, lower = total([r ** (k + 2) for r in positive], row), total([r**k for r in positive], row)
        groups.append(upper / lower if positive else 0 * row.sum())
    return torch.stack(groups).mean()


def regret_loss_ball(inputs: Inputs, hyper: Hyper) -> Tensor:
    policy, losses = inputs["policy"], inputs["losses"]
    gaps = []
    for g in range(policy.shape[0]):
        best = hyper["radius"] * torch.linalg.vector_norm(losses[g].sum(0))
        gaps.append((policy[g] * losses[g]).sum() + best)
    return torch.stack(gaps).square().mean()


def _played(seed: int, dtype: torch.dtype, sizes: tuple[int, int, int, int], bound: float = 1.0) -> Inputs:
    draw = Draw(seed, dtype)
    policy = torch.softmax(draw.normal(*sizes).to(torch.float64), -1).to(dtype)
    return {"policy": policy, "losses": draw.uniform(*sizes, low=-bound, high=bound)}


def _unbeaten(seed: int, dtype: torch.dtype, sizes: tuple[int, int, int, int]) -> Inputs:
    """The first group beats every fixed action: it follows the best one of each round."""
    inputs = _played(seed, dtype, sizes)
    best = inputs["losses"][0].argmin(-1)
    inputs["policy"][0] = 0.9 * torch.nn.functional.one_hot(best, sizes[3]).to(dtype) + 0.1 / sizes[3]
    return inputs


def _cases(seed: int, dtype: torch.dtype, hypers: list[Hyper]) -> list[Case]:
    every = [
        ("defaults", _played(seed, dtype, (2, 3, 6, 4))),
        ("long", _played(seed + 1, dtype, (3, 4, 15, 2), 2.0)),
        ("one trajectory", _played(seed + 2, dtype, (4, 1, 5, 3))),
        ("one group", _played(seed + 3, dtype, (1, 6, 4, 5), 0.3)),
        ("one round", _played(seed + 4, dtype, (5, 2, 1, 4))),
        ("no regret in a group", _unbeaten(seed + 5, dtype, (2, 4, 7, 3))),
    ]
    return [
        Case(name, inputs, hypers[i % len(hypers)], differentiable=("policy", "losses"))
        for i, (name, inputs) in enumerate(every)
    ]


def regret_loss_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _cases(4700, dtype, [{}, {"k": 3.0}, {"k": 0.0}, {"k": 12.0}])


def power_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _cases(4710, dtype, [{}, {"k": 3}, {"k": 2}, {"k": 6}])


def regret_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _cases(4720, dtype, [{}])


def dynamic_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _cases(4730, dtype, [{}])


def ball_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper) -> Case:
        g, t, d = sizes
        draw = Draw(seed, dtype)
        inputs = {"policy": draw.normal(g, t, d, scale=0.4), "losses": draw.uniform(g, t, d, low=-1.0)}
        return Case(name, inputs, hyper, differentiable=("policy", "losses"))

    return [
        case("defaults", 4741, (3, 6, 4), {}),
        case("wide ball", 4742, (2, 5, 3), {"radius": 3.5}),
        case("one group", 4743, (1, 8, 2), {"radius": 0.5}),
        case("one round", 4744, (4, 1, 5), {}),
    ]


REFERENCES = {
    "regret_loss": stateless(regret_loss, {"k": 1.0}, regret_loss_cases),
    "regret_loss_power": stateless(regret_loss_power, {"k": 1}, power_cases),
    "regret_loss_ball": stateless(regret_loss_ball, {"radius": 1.0}, ball_cases),
    "regret": stateless(regret, {}, regret_cases, per_sample=True),
    "dynamic_regret": stateless(dynamic_regret, {}, dynamic_cases, per_sample=True),
}
