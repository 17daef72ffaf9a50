"""GroCo: learning by sorting similarities in groups (arXiv:2301.02009)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Case, Draw, Hyper, Inputs, stateless, unit


def soft_sort(x: Tensor, steepness: float) -> Tensor:
    """Relaxed permutations of an odd-even network, for rows [B, n]: entry [b, input, rank], ascending."""
    b, n = x.shape
    values = list(x.T[:, :, None])
    columns = list(torch.eye(n, dtype=x.dtype)[:, None, :].expand(n, b, n))
    for layer in range(n):
        for i in range(layer % 2, n - 1, 2):
            alpha = 0.5 + torch.atan(steepness * (values[i + 1] - values[i])) / math.pi
            for pair in (values, columns):
                low, high = pair[i], pair[i + 1]
                pair[i] = alpha * low + (1 - alpha) * high
                pair[i + 1] = (1 - alpha) * low + alpha * high
    return torch.stack(columns, dim=2)


def _entropy(p: Tensor, target: Tensor) -> Tensor:
    hit, miss = torch.log(p).clamp(min=-100), torch.log(1 - p).clamp(min=-100)
    return -(target * hit + (1 - target) * miss)


def _group_order(pos: Tensor, neg: Tensor, steepness: float) -> Tensor:
    k, p = neg.shape[1], pos.shape[1]
    ranks = soft_sort(torch.cat([neg, pos], 1), steepness)
    low, high = ranks[:, :, :k].sum(2).clamp(0, 1), ranks[:, :, k:].sum(2).clamp(0, 1)
    wanted = torch.tensor([0.0] * k + [1.0] * p, dtype=pos.dtype)
    return (_entropy(high, wanted).mean() + _entropy(low, 1 - wanted).mean()) / 2


def group_order(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _group_order(inputs["pos"], inputs["neg"], hyper["steepness"])


def groco(inputs: Inputs, hyper: Hyper) -> Tensor:
    views, n_pos, topk = inputs["views"], int(hyper["n_pos"]), int(hyper["topk"])
    v_count, n, _ = views.shape
    ours = unit(views, 1e-8)
    theirs = ours.detach()
    losses = []
    for v in range(v_count):
        pos, neg = [], []
        for b in range(n):
            near = [ours[v, b] @ theirs[q, b] for q in range(n_pos) if q != v]
            far = [ours[v, b] @ theirs[v, c] for c in range(n) if c != b]
            pos.append(torch.stack(near).sort().values)
            neg.append(torch.stack(far).sort().values[-topk:])
        losses.append(_group_order(torch.stack(pos), torch.stack(neg), hyper["steepness"]))
    return torch.stack(losses).mean()


def groco_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper) -> Case:
        v, n, d = sizes
        return Case(name, {"views": Draw(seed, dtype).normal(v, n, d)}, hyper, differentiable=("views",))

    zero = Draw(405, dtype).normal(3, 5, 4)
    zero[1, 2] = 0.0
    return [
        case("two views", 401, (2, 12, 5), {}),
        case("every view full size", 402, (4, 6, 3), {"n_pos": 4, "topk": 5}),
        case("small crops", 403, (5, 7, 8), {"n_pos": 2, "topk": 4, "steepness": 4.0}),
        case("hardest negative only", 404, (3, 4, 6), {"n_pos": 3, "topk": 1, "steepness": 0.3}),
        Case("zero projection", {"views": zero}, {"n_pos": 2, "topk": 3}),
    ]


def group_order_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper) -> Case:
        b, p, k = sizes
        draw = Draw(seed, dtype)
        inputs = {
            "pos": draw.uniform(b, p, low=-0.2, high=1.0).sort(1).values,
            "neg": draw.uniform(b, k, low=-1.0, high=0.6).sort(1).values,
        }
        return Case(name, inputs, hyper, differentiable=("pos", "neg"))

    return [
        case("defaults", 411, (4, 1, 10), {}),
        case("steep", 412, (3, 2, 5), {"steepness": 20.0}),
        case("flat", 413, (5, 4, 3), {"steepness": 0.2}),
        case("one negative", 414, (6, 3, 1), {"steepness": 2.5}),
        case("one anchor", 415, (1, 2, 4), {}),
    ]


REFERENCES = {
    "groco": stateless(groco, {"n_pos": 2, "topk": 10, "steepness": 1.0}, groco_cases),
    "group_order": stateless(group_order, {"steepness": 1.0}, group_order_cases),
}
