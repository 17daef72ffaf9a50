"""EnsLoss: a random calibrated loss at every step, given by its derivatives (arXiv:2409.00908)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .base import Case, Draw, Hyper, Inputs, stateless, whole

DRAWN = {"lam": 0.0, "eps": 1e-6}


def _inverse_box_cox(v: float, lam: float) -> float:
    if lam == 0:
        return math.exp(v)
    base = max(0.0, 1 + lam * v)
    if base == 0:
        return 0.0 if lam > 0 else math.inf
    return math.exp(math.log(base) / lam)


def _margins(inputs: Inputs) -> Tensor:
    score: Tensor = inputs["score"]
    sign: Tensor = inputs["sign"]
    return score * sign.to(score.dtype)


def _derivatives(inputs: Inputs, hyper: Hyper) -> Tensor:
    margins = _margins(inputs).detach()
    drawn = sorted(-_inverse_box_cox(v, hyper["lam"]) for v in inputs["noise"].tolist())
    slopes = [max(value, -1.0) for value in drawn]
    g = torch.zeros_like(margins)
    for place, n in enumerate(sorted(range(len(slopes)), key=lambda n: margins[n].item())):
        u = margins[n].item()
        g[n] = (slopes[place] / u if u > 1 else slopes[place]) - hyper["eps"]
    return g


def ensloss_derivative(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _derivatives(inputs, hyper)


def ensloss(inputs: Inputs, hyper: Hyper) -> Tensor:
    return (_derivatives(inputs, hyper) * _margins(inputs)).mean()


def hinge(inputs: Inputs, hyper: Hyper) -> Tensor:
    del hyper
    return (1 - _margins(inputs)).clamp(min=0).mean()


def exponential(inputs: Inputs, hyper: Hyper) -> Tensor:
    del hyper
    return torch.exp(-_margins(inputs)).mean()


def logistic(inputs: Inputs, hyper: Hyper) -> Tensor:
    del hyper
    return softplus(-_margins(inputs)).mean()


def binary_focal(inputs: Inputs, hyper: Hyper) -> Tensor:
    u = _margins(inputs)
    return (softplus(-u) * torch.sigmoid(-u) ** hyper["gamma"]).mean()


def _drawn_cases(seed: int, dtype: torch.dtype, names: tuple[str, ...]) -> list[Case]:
    def case(name: str, step: int, n: int, scale: float, hyper: Hyper) -> Case:
        draw = Draw(seed + step, dtype)
        inputs = {
            "score": draw.normal(n, scale=scale),
            "sign": 2 * draw.integers(n, below=2) - 1,
            "noise": draw.normal(n),
        }
        if name.startswith("cut off"):
            inputs["noise"][:3] = draw.real([-2.5, 2.5, -1.75])
        return Case(name, inputs, hyper, differentiable=names)

    outer = {
        "score": Draw(0, dtype).real([1.0, -3.0, 2.0, 0.5]),
        "sign": whole([1, -1, 1, -1]),
        "noise": Draw(seed + 8, dtype).normal(4),
    }
    return [
        case("defaults", 0, 9, 2.0, {}),
        case("square root", 1, 12, 1.0, {"lam": 0.5}),
        case("negative", 2, 7, 3.0, {"lam": -0.7, "eps": 1e-3}),
        case("cut off at zero", 3, 8, 1.5, {"lam": 1.0}),
        case("cut off at infinity", 4, 10, 1.5, {"lam": -1.0}),
        case("large eps", 5, 6, 1.0, {"eps": 0.25}),
        case("one sample", 6, 1, 4.0, {"lam": 0.9}),
        Case("a margin of one", outer, {}, differentiable=names),
    ]


def ensloss_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _drawn_cases(8000, dtype, ("score", "noise"))


def derivative_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _drawn_cases(8020, dtype, ())


def _margin_cases(seed: int, dtype: torch.dtype, hypers: list[Hyper]) -> list[Case]:
    cases = []
    for step, (name, n, scale) in enumerate(
        [("close", 8, 0.7), ("spread", 11, 3.0), ("one sample", 1, 1.0), ("far", 5, 60.0), ("pair", 2, 2.0)]
    ):
        draw = Draw(seed + step, dtype)
        inputs = {"score": draw.normal(n, scale=scale), "sign": 2 * draw.integers(n, below=2) - 1}
        cases.append(Case(name, inputs, hypers[step % len(hypers)], differentiable=("score",)))
    return cases


def hinge_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _margin_cases(8040, dtype, [{}])


def exponential_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    cases = _margin_cases(8050, dtype, [{}])
    for case in cases:
        case.inputs["score"].clamp_(-15, 15)
    return cases


def logistic_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _margin_cases(8060, dtype, [{}])


def focal_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _margin_cases(8070, dtype, [{}, {"gamma": 0.0}, {"gamma": 0.5}, {"gamma": 5.0}])


REFERENCES = {
    "ensloss": stateless(ensloss, DRAWN, ensloss_cases),
    "ensloss_derivative": stateless(ensloss_derivative, DRAWN, derivative_cases, per_sample=True),
    "hinge": stateless(hinge, {}, hinge_cases),
    "exponential": stateless(exponential, {}, exponential_cases),
    "logistic": stateless(logistic, {}, logistic_cases),
    "binary_focal": stateless(binary_focal, {"gamma": 2.0}, focal_cases),
}
