"""RPO: preference loss plus the likelihood of the preferred answer (arXiv:2405.16436)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .base import Case, Draw, Hyper, Inputs, stateless, whole

WITH_RESPECT_TO = ("pi.chosen", "pi.rejected", "ref.chosen", "ref.rejected")


def _preference(inputs: Inputs, beta: float) -> Tensor:
    pi, ref = inputs["pi"], inputs["ref"]
    ours: Tensor = pi["chosen"] - pi["rejected"]
    theirs: Tensor = (ref["chosen"] - ref["rejected"]).detach()
    return softplus(-beta * (ours - theirs))


def rpo(inputs: Inputs, hyper: Hyper) -> Tensor:
    beta, eta = hyper["beta"], hyper["eta"]
    chosen: Tensor = inputs["pi"]["chosen"]
    return (_preference(inputs, beta) - eta * beta * chosen).mean()


def rpo_average(inputs: Inputs, hyper: Hyper) -> Tensor:
    chosen: Tensor = inputs["pi"]["chosen"]
    imitation: Tensor = -chosen / inputs["length"]
    return _preference(inputs, hyper["beta"]).mean() + hyper["eta"] * imitation.mean()


def _policies(draw: Draw, size: int, scale: float) -> Inputs:
    return {
        who: {field: -draw.uniform(size, low=0.1 * scale, high=2 * scale) for field in ("chosen", "rejected")}
        for who in ("pi", "ref")
    }


def _separated(draw: Draw, gap: float) -> Inputs:
    """Pairs whose margin is enormous, on both sides."""
    values = {"chosen": draw.real([-3.0, -gap]), "rejected": draw.real([-gap, -2.0])}
    return {"pi": values, "ref": {"chosen": draw.real([-4.0, -5.0]), "rejected": draw.real([-4.5, -6.0])}}


def rpo_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    draw = Draw(101, dtype)
    return [
        Case("defaults", _policies(draw, 5, 60.0), differentiable=WITH_RESPECT_TO),
        Case("gemma", _policies(draw, 8, 40.0), {"beta": 0.05}, differentiable=WITH_RESPECT_TO),
        Case("strong", _policies(draw, 3, 5.0), {"beta": 0.7, "eta": 0.4}, differentiable=WITH_RESPECT_TO),
        Case("plain dpo", _policies(draw, 4, 9.0), {"beta": 0.1, "eta": 0.0}, differentiable=WITH_RESPECT_TO),
        Case("one pair", _policies(draw, 1, 20.0), {"beta": 0.3, "eta": 1.5}, differentiable=WITH_RESPECT_TO),
        Case("huge margins", _separated(draw, 5e4), {"beta": 0.5}, differentiable=WITH_RESPECT_TO),
    ]


def rpo_average_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    draw = Draw(102, dtype)

    def case(name: str, size: int, scale: float, longest: int, hyper: Hyper) -> Case:
        inputs = {**_policies(draw, size, scale), "length": 1 + draw.integers(size, below=longest)}
        return Case(name, inputs, hyper, differentiable=WITH_RESPECT_TO)

    return [
        case("defaults", 6, 12.0, 40, {}),
        case("sharp", 9, 3.0, 10, {"beta": 2.0, "eta": 0.05}),
        case("plain dpo", 3, 8.0, 25, {"eta": 0.0}),
        case("single tokens", 5, 2.0, 1, {"beta": 0.1, "eta": 1.0}),
        Case(
            "huge margins",
            {**_separated(draw, 3e4), "length": whole([7, 1])},
            {},
            differentiable=WITH_RESPECT_TO,
        ),
    ]


REFERENCES = {
    "rpo": stateless(rpo, {"beta": 0.01, "eta": 0.005}, rpo_cases),
    "rpo_average": stateless(rpo_average, {"beta": 0.5, "eta": 0.2}, rpo_average_cases),
}
