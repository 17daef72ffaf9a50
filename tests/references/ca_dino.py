"""Cluster-aware DINO and its second stage with a loss gate and label correction (arXiv:2304.05754)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Case, Draw, Hyper, Inputs, State, stateful, stateless, total, unit, whole


def ca_dino(inputs: Inputs, hyper: Hyper, state: State) -> tuple[Tensor, State]:
    student, teacher = inputs["student"], inputs["teacher"].detach()
    embedding, goal = unit(inputs["student_embedding"]), unit(inputs["teacher_embedding"]).detach()
    center, momentum = state["center"], hyper["momentum"]
    crosses, cosines = [], []
    for q in range(teacher.shape[0]):
        p = torch.softmax((teacher[q] - center) / hyper["tau_t"], dim=-1)
        for v in range(student.shape[0]):
            if v == q:
                continue
            log_q = torch.log_softmax(student[v] / hyper["tau_s"], dim=-1)
            crosses.append(-(p * log_q).sum(-1).mean())
            cosines.append((1 - (goal[q] * embedding[v]).sum(-1)).mean())
    value = torch.stack(crosses).mean() + hyper["lam"] * torch.stack(cosines).mean()
    return value, {"center": momentum * center + (1 - momentum) * teacher.mean(dim=(0, 1))}


def _margin_losses(cosine: Tensor, labels: Tensor, scale: float, margin: float) -> Tensor:
    losses = []
    for n, y in enumerate(labels.tolist()):
        c = cosine[n, y]
        if c.item() > math.cos(math.pi - margin):
            sine = (1 - c * c).clamp(0, 1).sqrt()
            phi = c * math.cos(margin) - sine * math.sin(margin)
        else:
            phi = c - margin * math.sin(math.pi - margin)
        scores = [scale * (phi if k == y else cosine[n, k]) for k in range(cosine.shape[1])]
        losses.append(torch.logsumexp(torch.stack(scores), 0) - scale * phi)
    return torch.stack(losses)


def aam_softmax(inputs: Inputs, hyper: Hyper) -> Tensor:
    cosine = unit(inputs["z"]) @ unit(inputs["prototypes"]).T
    return _margin_losses(cosine, inputs["labels"], hyper["scale"], hyper["margin"])


def mixture(x: Tensor, em_iters: int, floor: float) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Weights, means and variances of two Gaussians fitted to x by a fixed number of rounds."""

    def maximise(share: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        sizes = [r.sum() for r in share]
        means = [(r * x).sum() / n for r, n in zip(share, sizes, strict=True)]
        spreads = [(r * (x - mu) ** 2).sum() / n + floor for r, n, mu in zip(share, sizes, means, strict=True)]
        return [n / x.numel() for n in sizes], means, spreads

    upper = (x > x.mean()).to(x.dtype)
    fit = maximise([1 - upper, upper])
    for _ in range(em_iters):
        logs = [
            torch.log(w) - (x - mu) ** 2 / (2 * v) - torch.log(2 * math.pi * v) / 2
            for w, mu, v in zip(*fit, strict=True)
        ]
        posterior = torch.softmax(torch.stack(logs), 0)
        fit = maximise([posterior[0], posterior[1]])
    return fit


def _threshold(history: Tensor, em_iters: float, floor: float) -> Tensor:
    (w1, w2), (mu1, mu2), (v1, v2) = mixture(torch.log(history.detach()), int(em_iters), floor)
    gap = mu2 - mu1
    a = 1 / (2 * v2) - 1 / (2 * v1)
    b = -gap / v2
    c = gap**2 / (2 * v2) + torch.log(w1 / w2) - torch.log(v1 / v2) / 2
    square = b * b - 4 * a * c
    middle = (mu1 + mu2) / 2
    if square.item() < 0:
        return middle
    crossing = mu1 + 2 * c / (-b + square.sqrt())
    return crossing if mu1.item() < crossing.item() < mu2.item() else middle


def gate_threshold(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _threshold(inputs["history"], hyper["em_iters"], hyper["floor"])


def dlg_lc(inputs: Inputs, hyper: Hyper) -> Tensor:
    scale, labels = hyper["scale"], inputs["labels"]
    prototypes = unit(inputs["prototypes"])
    cosine = unit(inputs["z"]) @ prototypes.T
    clean = (scale * unit(inputs["w"]) @ prototypes.T).detach()
    losses = _margin_losses(cosine, labels, scale, hyper["margin"])
    gate = _threshold(inputs["history"], hyper["em_iters"], 1e-6).item()
    terms = []
    for n in range(labels.shape[0]):
        if torch.log(losses[n].detach()).item() <= gate:
            terms.append(losses[n])
        elif torch.softmax(clean[n], 0).max().item() > hyper["threshold"]:
            target = torch.softmax(clean[n] / hyper["sharpen"], 0)
            terms.append(-(target * torch.log_softmax(scale * cosine[n], 0)).sum())
        else:
            terms.append(0 * losses[n])
    return total(terms, losses) / len(terms)


def ca_dino_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper) -> Case:
        s, g, n, k, d = sizes
        draw = Draw(seed, dtype)
        inputs = {
            "student": draw.normal(s, n, k, scale=0.3),
            "teacher": draw.normal(g, n, k, scale=0.1),
            "student_embedding": draw.normal(s, n, d),
            "teacher_embedding": draw.normal(g, n, d),
        }
        state = {"center": draw.normal(k, scale=0.1)}
        return Case(name, inputs, hyper, state, tuple(inputs))

    return [
        case("two long and four short crops", 301, (6, 2, 3, 7, 5), {}),
        case("warm teacher", 302, (5, 3, 4, 8, 6), {"tau_t": 0.07, "lam": 0.3}),
        case("one long crop", 303, (3, 1, 5, 6, 4), {"momentum": 0.5, "tau_s": 0.5}),
        case("no consistency", 304, (4, 2, 6, 3, 9), {"lam": 0.0, "momentum": 1.0}),
        case("forgetful centre", 305, (7, 5, 2, 11, 3), {"momentum": 0.0, "tau_t": 0.2, "lam": 2.0}),
    ]


def _history(draw: Draw, size: int, low: float, high: float, spread: float) -> Tensor:
    """Positive losses in two clumps on the log scale."""
    center = torch.where(torch.arange(size) < 0.6 * size, low, high).to(draw.dtype)
    return torch.exp(center + draw.normal(size, scale=spread))


def _speakers(draw: Draw, n: int, d: int, c: int, noise: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two views of n utterances near their prototypes, a third of the labels wrong."""
    prototypes = draw.normal(c, d)
    truth = draw.integers(n, below=c)
    labels = torch.where(torch.arange(n) % 3 == 0, (truth + 1) % c, truth)
    z, w = (prototypes[truth] + draw.normal(n, d, scale=noise) for _ in range(2))
    return z, w, prototypes, labels


def dlg_lc_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, int, int, int], logs: tuple[float, float], hyper: Hyper) -> Case:
        n, d, c, m = sizes
        draw = Draw(seed, dtype)
        z, w, prototypes, labels = _speakers(draw, n, d, c, 0.8)
        history = _history(draw, m, *logs, 0.4)
        inputs = {"z": z, "w": w, "prototypes": prototypes, "labels": labels, "history": history}
        return Case(name, inputs, hyper, differentiable=("z", "w", "prototypes", "history"))

    return [
        case("defaults", 311, (9, 5, 4, 20), (-1.0, 2.5), {}),
        case("soft scores", 312, (12, 6, 3, 25), (-0.5, 0.8), {"scale": 4.0, "threshold": 0.6}),
        case("few rounds", 313, (8, 3, 6, 15), (0.0, 2.0), {"em_iters": 1, "margin": 0.5, "sharpen": 0.5}),
        case("all dropped", 314, (7, 4, 5, 30), (-14.0, -11.0), {"scale": 1.5, "threshold": 0.9}),
        case("all gated in", 315, (6, 8, 5, 11), (5.0, 9.0), {"margin": 0.0}),
    ]


def gate_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, m: int, clumps: tuple[float, float, float], hyper: Hyper) -> Case:
        draw = Draw(seed, dtype)
        return Case(name, {"history": _history(draw, m, *clumps)}, hyper)

    skewed = Draw(325, dtype).real([0.9, 1.0, 1.1, 1.2, 0.8, 1.05, 40.0])
    return [
        case("far apart", 321, 40, (-2.0, 2.0, 0.5), {}),
        case("overlapping", 322, 60, (-0.5, 0.7, 0.6), {"em_iters": 20}),
        case("hard split only", 323, 30, (0.0, 1.0, 0.5), {"em_iters": 0}),
        case("large floor", 324, 25, (-1.0, 2.0, 0.3), {"floor": 0.5, "em_iters": 7}),
        Case("one outlier", {"history": skewed}, {"em_iters": 0, "floor": 1e-3}),
        case("midpoint", 326, 50, (0.0, 0.3, 1.0), {"floor": 30.0, "em_iters": 2}),
    ]


def aam_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper) -> Case:
        n, d, c = sizes
        draw = Draw(seed, dtype)
        z, _, prototypes, labels = _speakers(draw, n, d, c, 0.7)
        inputs = {"z": z, "prototypes": prototypes, "labels": labels}
        return Case(name, inputs, hyper, differentiable=("z", "prototypes"))

    draw = Draw(335, dtype)
    opposite = {
        "z": draw.real([[1.0, 0.2, 0.0], [-1.0, -0.3, 0.4]]),
        "prototypes": draw.real([[-1.0, -0.1, 0.1], [1.1, 0.2, -0.5], [0.3, 1.0, 0.2], [0.0, -1.0, 2.0]]),
        "labels": whole([0, 1]),
    }
    return [
        case("defaults", 331, (7, 5, 4), {}),
        case("gentle", 332, (5, 8, 3), {"scale": 3.0, "margin": 0.5}),
        case("no margin", 333, (4, 3, 6), {"margin": 0.0, "scale": 10.0}),
        case("one sample", 334, (1, 4, 9), {"margin": 1.2}),
        Case("past the turning point", opposite, {"margin": 0.6}, differentiable=("z", "prototypes")),
    ]


AAM = {"scale": 32.0, "margin": 0.2}
REFERENCES = {
    "ca_dino": stateful(ca_dino, {"tau_s": 0.1, "tau_t": 0.04, "momentum": 0.9, "lam": 1.0}, ca_dino_cases),
    "dlg_lc": stateless(dlg_lc, {**AAM, "em_iters": 50, "threshold": 0.5, "sharpen": 0.1}, dlg_lc_cases),
    "gate_threshold": stateless(gate_threshold, {"em_iters": 50, "floor": 1e-6}, gate_cases),
    "aam_softmax": stateless(aam_softmax, AAM, aam_cases, per_sample=True),
}
