"""Value functions by classification: HL-Gauss, two-hot and C51 targets (arXiv:2403.03950)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Case, Draw, Hyper, Inputs, stateless

RANGE = {"v_min": -10.0, "v_max": 10.0}
GAUSS = {**RANGE, "sigma_ratio": 0.75}
TRANSITION = ("logits", "reward", "discount", "next_logits")


def histogram(y: Tensor, bins: int, hyper: Hyper) -> Tensor:
    """Mass that a Gaussian around the scalar y puts into each bin, renormalised to the range."""
    width = (hyper["v_max"] - hyper["v_min"]) / bins
    sigma = hyper["sigma_ratio"] * width
    edges = [hyper["v_min"] + k * width for k in range(bins + 1)]
    c = [torch.erf((edge - y) / (math.sqrt(2) * sigma)) for edge in edges]
    return torch.stack([(c[i + 1] - c[i]) / (c[bins] - c[0]) for i in range(bins)])


def hat(y: Tensor, bins: int, hyper: Hyper) -> Tensor:
    """Mass of the scalar y on its two neighbouring locations, the ends of the range being locations."""
    step = (hyper["v_max"] - hyper["v_min"]) / (bins - 1)
    y = y.clamp(hyper["v_min"], hyper["v_max"])
    return torch.stack([(1 - (y - (hyper["v_min"] + i * step)).abs() / step).clamp(min=0) for i in range(bins)])


def _cross(logits: Tensor, targets: list[Tensor]) -> Tensor:
    return -(torch.stack(targets) * torch.log_softmax(logits, -1)).sum(-1).mean()


def _expectation(logits: Tensor, places: list[float]) -> Tensor:
    return torch.softmax(logits, -1) @ torch.tensor(places, dtype=logits.dtype)


def _centres(bins: int, hyper: Hyper) -> list[float]:
    width = (hyper["v_max"] - hyper["v_min"]) / bins
    return [hyper["v_min"] + (i + 0.5) * width for i in range(bins)]


def _taken(inputs: Inputs) -> Tensor:
    logits, actions = inputs["logits"], inputs["actions"].tolist()
    return torch.stack([logits[n, a] for n, a in enumerate(actions)])


def hl_gauss(inputs: Inputs, hyper: Hyper) -> Tensor:
    logits = inputs["logits"]
    return _cross(logits, [histogram(y, logits.shape[1], hyper) for y in inputs["target"]])


def two_hot(inputs: Inputs, hyper: Hyper) -> Tensor:
    logits = inputs["logits"]
    return _cross(logits, [hat(y, logits.shape[1], hyper) for y in inputs["target"]])


def hl_gauss_td(inputs: Inputs, hyper: Hyper) -> Tensor:
    taken, following = _taken(inputs), inputs["next_logits"].detach()
    bins = taken.shape[1]
    best = _expectation(following, _centres(bins, hyper)).max(dim=1).values
    y = inputs["reward"].detach() + inputs["discount"].detach() * best
    return _cross(taken, [histogram(value, bins, hyper) for value in y])


def c51(inputs: Inputs, hyper: Hyper) -> Tensor:
    taken, following = _taken(inputs), inputs["next_logits"].detach()
    reward, discount = inputs["reward"].detach(), inputs["discount"].detach()
    bins = taken.shape[1]
    step = (hyper["v_max"] - hyper["v_min"]) / (bins - 1)
    places = [hyper["v_min"] + i * step for i in range(bins)]
    targets = []
    for n in range(taken.shape[0]):
        best = int(_expectation(following[n], places).argmax())
        mass = torch.softmax(following[n, best], 0)
        moved = [hat(reward[n] + discount[n] * places[j], bins, hyper) for j in range(bins)]
        targets.append(torch.stack([mass[j] * moved[j] for j in range(bins)]).sum(0))
    return _cross(taken, targets)


def hl_gauss_cql(inputs: Inputs, hyper: Hyper) -> Tensor:
    logits, actions = inputs["logits"], inputs["actions"].tolist()
    q = _expectation(logits, _centres(logits.shape[2], hyper))
    gaps = [torch.logsumexp(q[n], 0) - q[n, a] for n, a in enumerate(actions)]
    return hyper["alpha"] * torch.stack(gaps).mean() + hl_gauss_td(inputs, hyper)


def _transition_cases(seed: int, dtype: torch.dtype, extra: Hyper | None = None) -> list[Case]:
    draw = Draw(seed, dtype)

    def case(name: str, sizes: tuple[int, ...], reward: float, hyper: Hyper) -> Case:
        n, a, m = sizes
        discount = torch.where(torch.arange(n) % 3 == 1, 0.0, 0.99).to(dtype)
        inputs = {
            "logits": draw.normal(n, a, m),
            "actions": draw.integers(n, below=a),
            "reward": draw.uniform(n, low=-reward, high=reward),
            "discount": discount,
            "next_logits": draw.normal(n, a, m, scale=1.5),
        }
        return Case(name, inputs, hyper, differentiable=TRANSITION)

    wide = {"v_min": -40.0, "v_max": 40.0}
    return [
        case("atari", (4, 3, 51), 1.0, {}),
        case("chess", (5, 2, 16), 0.2, {"v_min": 0.0, "v_max": 1.0, **(extra or {})}),
        case("one action", (6, 1, 9), 3.0, wide),
        case("two bins", (3, 4, 2), 0.3, {"v_min": -2.0, "v_max": 1.0}),
        case("outside the range", (7, 5, 8), 1.2, {"v_min": -1.0, "v_max": 1.0}),
    ]


def hl_gauss_td_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _transition_cases(2101, dtype, {"sigma_ratio": 2.0})


def c51_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return [
        Case(case.name, case.inputs, case.hyper, differentiable=("logits",)) for case in _transition_cases(2102, dtype)
    ]


def hl_gauss_cql_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _transition_cases(2103, dtype, {"alpha": 1.5, "sigma_ratio": 1.2})


def _scalar_cases(seed: int, dtype: torch.dtype, extra: Hyper | None = None) -> list[Case]:
    draw = Draw(seed, dtype)

    def case(name: str, sizes: tuple[int, ...], low: float, high: float, hyper: Hyper) -> Case:
        n, m = sizes
        inputs = {"logits": draw.normal(n, m), "target": draw.uniform(n, low=low, high=high)}
        return Case(name, inputs, hyper, differentiable=("logits",))

    unit_range = {"v_min": 0.0, "v_max": 1.0}
    ends = {"logits": draw.normal(4, 7), "target": draw.real([-3.0, 3.0, 0.5, -1.5])}
    return [
        case("atari", (5, 51), -9.0, 9.0, {}),
        case("chess", (3, 128), 0.1, 0.9, unit_range),
        case("few bins", (8, 4), -1.0, 2.0, {"v_min": -1.0, "v_max": 2.0, **(extra or {})}),
        case("outside the range", (6, 11), -1.3, 1.4, {"v_min": -1.0, "v_max": 1.0}),
        Case("ends and inner edges", ends, {"v_min": -3.0, "v_max": 3.0}, differentiable=("logits",)),
    ]


def hl_gauss_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _scalar_cases(2111, dtype, {"sigma_ratio": 0.2})


def two_hot_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _scalar_cases(2112, dtype)


REFERENCES = {
    "hl_gauss_td": stateless(hl_gauss_td, GAUSS, hl_gauss_td_cases),
    "hl_gauss": stateless(hl_gauss, GAUSS, hl_gauss_cases),
    "two_hot": stateless(two_hot, RANGE, two_hot_cases),
    "c51": stateless(c51, RANGE, c51_cases),
    "hl_gauss_cql": stateless(hl_gauss_cql, {**GAUSS, "alpha": 0.1}, hl_gauss_cql_cases),
}
