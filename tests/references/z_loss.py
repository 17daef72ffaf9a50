"""The Z-loss: a softplus of the target's standardised score (arXiv:1604.08859)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .base import Case, Draw, Hyper, Inputs, stateless

SHAPE = {"a": 1.0, "b": 0.0, "eps": 1e-12}


def _standardised(logits: Tensor, eps: float) -> Tensor:
    rows = []
    for row in logits:
        if bool((row == row[0]).all()):
            rows.append(0 * row)
            continue
        centred = row - row.mean()
        rows.append(centred / (centred.square().mean().sqrt() + eps))
    return torch.stack(rows)


def _price(z: Tensor, hyper: Hyper) -> Tensor:
    return (softplus(hyper["a"] * (hyper["b"] - z)) / hyper["a"]).mean()


def _from_statistics(target: Tensor, total: Tensor, square: Tensor, classes: float, hyper: Hyper) -> Tensor:
    scores = []
    for t, s, q in zip(target, total, square, strict=True):
        mu = s / classes
        variance = q / classes - mu * mu
        spread = variance.item() > 0
        scores.append((t - mu) / (variance.sqrt() + hyper["eps"]) if spread else 0 * (t + s + q))
    return _price(torch.stack(scores), hyper)


def z_loss(inputs: Inputs, hyper: Hyper) -> Tensor:
    z = _standardised(inputs["logits"], hyper["eps"])
    return _price(torch.stack([z[n, y] for n, y in enumerate(inputs["labels"].tolist())]), hyper)


def z_loss_scores(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _standardised(inputs["logits"], hyper["eps"])


def z_loss_spherical(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _from_statistics(inputs["target"], inputs["total"], inputs["square"], hyper["classes"], hyper)


def z_loss_factored(inputs: Inputs, hyper: Hyper) -> Tensor:
    hidden, w = inputs["hidden"], inputs["w"]
    gram, column = w.T @ w, w.sum(0)
    target = torch.stack([hidden[n] @ w[y] for n, y in enumerate(inputs["labels"].tolist())])
    total = torch.stack([row @ column for row in hidden])
    square = torch.stack([row @ gram @ row for row in hidden])
    return _from_statistics(target, total, square, w.shape[0], hyper)


def z_loss_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], scale: float, hyper: Hyper) -> Case:
        n, c = sizes
        draw = Draw(seed, dtype)
        logits = draw.normal(n, c, scale=scale)
        if name == "equal scores":
            logits[1] = 0.5
            logits[3] = 0.0
        inputs = {"logits": logits, "labels": draw.integers(n, below=c)}
        return Case(name, inputs, hyper, differentiable=("logits",))

    return [
        case("defaults", 5701, (5, 7), 1.0, {}),
        case("sharp", 5702, (4, 12), 3.0, {"a": 6.0, "b": 1.5}),
        case("soft", 5703, (8, 3), 0.1, {"a": 0.2, "b": -0.7}),
        case("one example", 5704, (1, 30), 10.0, {"b": 3.0}),
        case("equal scores", 5705, (6, 4), 1.0, {"a": 2.0, "b": 0.5}),
        case("one class", 5706, (3, 1), 1.0, {"b": 1.0}),
        case("large eps", 5707, (4, 5), 1.0, {"eps": 0.3}),
    ]


def scores_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return [
        Case(
            case.name,
            {"logits": case.inputs["logits"]},
            {key: value for key, value in case.hyper.items() if key == "eps"},
            differentiable=("logits",),
        )
        for case in z_loss_cases(dtype)
    ]


def spherical_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper) -> Case:
        n, classes = sizes
        draw = Draw(seed, torch.float64)
        logits = draw.normal(n, classes)
        if name == "equal scores":
            logits[1] = 0.25
        raw = {"target": logits[:, 0], "total": logits.sum(1), "square": (logits**2).sum(1)}
        inputs = {key: value.to(dtype).contiguous() for key, value in raw.items()}
        full = hyper if classes == 1000 else {**hyper, "classes": classes}
        return Case(name, inputs, full, differentiable=("target", "total", "square"))

    return [
        case("defaults", 5711, (5, 1000), {}),
        case("sharp", 5712, (3, 10), {"a": 5.0, "b": 1.0}),
        case("soft", 5713, (8, 4), {"a": 0.3, "b": -1.0}),
        case("equal scores", 5714, (4, 8), {"a": 2.0, "b": 0.4}),
    ]


def factored_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper) -> Case:
        n, c, d = sizes
        draw = Draw(seed, dtype)
        hidden = draw.normal(n, d)
        if name == "zero hidden row":
            hidden[2] = 0.0
        inputs = {"hidden": hidden, "w": draw.normal(c, d), "labels": draw.integers(n, below=c)}
        return Case(name, inputs, hyper, differentiable=("hidden", "w"))

    return [
        case("defaults", 5721, (4, 9, 5), {}),
        case("sharp", 5722, (6, 20, 3), {"a": 4.0, "b": 2.0}),
        case("few classes", 5723, (5, 3, 8), {"a": 0.5, "b": -0.3}),
        case("zero hidden row", 5724, (3, 6, 4), {"b": 0.2}),
    ]


REFERENCES = {
    "z_loss": stateless(z_loss, SHAPE, z_loss_cases),
    "z_loss_scores": stateless(z_loss_scores, {"eps": 1e-12}, scores_cases, per_sample=True),
    "z_loss_spherical": stateless(z_loss_spherical, {"classes": 1000, **SHAPE}, spherical_cases),
    "z_loss_factored": stateless(z_loss_factored, SHAPE, factored_cases),
}
