"""CodeGen2: next-token loss with a penalty on the normaliser, on two streams (arXiv:2305.02309)."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Case, Draw, Hyper, Inputs, stateless, total, whole


def _tokens_loss(logits: Tensor, tokens: Tensor, mask: Tensor, first: list[int], z_weight: float) -> Tensor:
    """Mean over the counted targets, those of row b at `first[b]` or later."""
    terms = []
    for b in range(tokens.shape[0]):
        for t in range(tokens.shape[1] - 1):
            if not bool(mask[b, t + 1]) or t + 1 < first[b]:
                continue
            normaliser = torch.logsumexp(logits[b, t], 0)
            terms.append(normaliser - logits[b, t, int(tokens[b, t + 1])] + z_weight * normaliser**2)
    return total(terms, logits) / max(1, len(terms)) + 0 * logits.sum()


def lm_z_loss(inputs: Inputs, hyper: Hyper) -> Tensor:
    logits, tokens, mask = inputs["logits"], inputs["tokens"], inputs["mask"]
    return _tokens_loss(logits, tokens, mask, [0] * tokens.shape[0], hyper["z_weight"])


def prefix_lm(inputs: Inputs, hyper: Hyper) -> Tensor:
    first = inputs["prefix"].tolist()
    return _tokens_loss(inputs["logits"], inputs["tokens"], inputs["mask"], first, hyper["z_weight"])


def codegen2(inputs: Inputs, hyper: Hyper) -> Tensor:
    def stream(name: str) -> Tensor:
        return lm_z_loss({key: inputs[f"{name}_{key}"] for key in ("logits", "tokens", "mask")}, hyper)

    return hyper["mix"] * stream("clm") + (1 - hyper["mix"]) * stream("infill")


def _stream(draw: Draw, b: int, t: int, v: int, *, as_bool: bool, scale: float = 1.0, chance: float = 0.7) -> Inputs:
    bits = draw.bits(b, t, chance=chance)
    return {
        "logits": draw.normal(b, t, v, scale=scale),
        "tokens": draw.integers(b, t, below=v),
        "mask": bits if as_bool else bits.long(),
    }


def lm_z_loss_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    draw = Draw(7201, dtype)
    names = ("logits",)
    loud = _stream(draw, 4, 7, 5, as_bool=False, scale=3.0)
    empty_row = _stream(draw, 3, 5, 4, as_bool=False)
    empty_row["mask"][1] = 0
    only_first = _stream(draw, 4, 3, 6, as_bool=True, chance=0.0)
    only_first["mask"][:, 0] = True
    return [
        Case("defaults", _stream(draw, 3, 6, 8, as_bool=True), differentiable=names),
        Case("strong penalty", loud, {"z_weight": 0.3}, differentiable=names),
        Case("no penalty", _stream(draw, 1, 9, 3, as_bool=True), {"z_weight": 0.0}, differentiable=names),
        Case("everything kept", _stream(draw, 5, 2, 7, as_bool=False, chance=1.0), differentiable=names),
        Case("a row without tokens", empty_row, {"z_weight": 0.01}, differentiable=names),
        Case("nothing counted", only_first, differentiable=names),
        Case("one position", _stream(draw, 2, 1, 4, as_bool=True, chance=1.0), differentiable=names),
    ]


def prefix_lm_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    draw = Draw(7202, dtype)
    loud = _stream(draw, 3, 8, 7, as_bool=False, scale=2.0)

    def case(name: str, stream: Inputs, prefix: list[int], hyper: Hyper) -> Case:
        return Case(name, {**stream, "prefix": whole(prefix)}, hyper, differentiable=("logits",))

    return [
        case("defaults", _stream(draw, 4, 6, 5, as_bool=True), [0, 1, 4, 6], {}),
        case("strong penalty", loud, [2, 7, 5], {"z_weight": 0.2}),
        case("one row", _stream(draw, 1, 5, 3, as_bool=True, chance=1.0), [3], {"z_weight": 0.0}),
        case("whole rows are prefix", _stream(draw, 2, 4, 6, as_bool=False), [4, 4], {}),
        case("no prefix", _stream(draw, 5, 3, 4, as_bool=False), [0, 1, 0, 1, 0], {"z_weight": 0.05}),
    ]


def codegen2_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    draw = Draw(7203, dtype)

    def case(name: str, clm: Inputs, infill: Inputs, hyper: Hyper) -> Case:
        inputs = {f"clm_{key}": value for key, value in clm.items()}
        inputs |= {f"infill_{key}": value for key, value in infill.items()}
        return Case(name, inputs, hyper, differentiable=("clm_logits", "infill_logits"))

    nothing = _stream(draw, 2, 5, 9, as_bool=False, chance=0.0)
    return [
        case(
            "defaults",
            _stream(draw, 3, 6, 5, as_bool=True),
            _stream(draw, 2, 8, 5, as_bool=False, chance=1.0),
            {},
        ),
        case(
            "mostly causal",
            _stream(draw, 4, 3, 7, as_bool=False),
            _stream(draw, 1, 5, 7, as_bool=True),
            {"mix": 0.9},
        ),
        case(
            "infill only",
            _stream(draw, 2, 7, 4, as_bool=True),
            _stream(draw, 5, 3, 4, as_bool=True),
            {"mix": 0.0},
        ),
        case(
            "strong penalty",
            _stream(draw, 1, 4, 6, as_bool=False),
            _stream(draw, 3, 9, 6, as_bool=False),
            {"mix": 0.3, "z_weight": 0.5},
        ),
        case("an empty stream", nothing, _stream(draw, 4, 6, 9, as_bool=True), {"z_weight": 0.0}),
    ]


PENALTY = {"z_weight": 1e-4}
REFERENCES = {
    "codegen2": stateless(codegen2, {"mix": 0.5, **PENALTY}, codegen2_cases),
    "lm_z_loss": stateless(lm_z_loss, PENALTY, lm_z_loss_cases),
    "prefix_lm": stateless(prefix_lm, PENALTY, prefix_lm_cases),
}
