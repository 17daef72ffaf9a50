"""Metrix: mixup for metric learning (arXiv:2106.04990)."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Case, Draw, Hyper, Inputs, stateless, unit, whole

Triple = tuple[int, int, int]


def _groups(labels: list[int], a: int) -> tuple[list[int], list[int]]:
    """The other rows of the anchor's class, and the rows of other classes."""
    same = [p for p, label in enumerate(labels) if label == labels[a] and p != a]
    return same, [n for n, label in enumerate(labels) if label != labels[a]]


def mean_of_positive(values: list[Tensor], like: Tensor) -> Tensor:
    """The mean of the values above zero, 0 where there is none."""
    kept = [value for value in values if value.item() > 0]
    return torch.stack(kept).mean() if kept else 0 * like.sum()


def _distance(u: Tensor, v: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(u - v)
    return distance


def _clean(e: Tensor, labels: list[int], margin: float) -> Tensor:
    pulls, pushes = [], []
    for a in range(len(labels)):
        same, other = _groups(labels, a)
        pulls += [_distance(e[a], e[p]) for p in same]
        pushes += [(margin - _distance(e[a], e[n])).clamp(min=0) for n in other]
    return mean_of_positive(pulls, e) + mean_of_positive(pushes, e)


def _mixed(e: Tensor, mixtures: list[Triple], mix: Tensor, margin: float) -> Tensor:
    """Mixed part over (anchor, first, second), the mixture being of the last two."""
    pulls, pushes = [], []
    for a, first, second in mixtures:
        t = _distance(e[a], unit(mix * e[first] + (1 - mix) * e[second]))
        pulls.append(mix * t)
        pushes.append((1 - mix) * (margin - t).clamp(min=0))
    return mean_of_positive(pulls, e) + mean_of_positive(pushes, e)


def _triples(labels: list[int]) -> list[Triple]:
    found = []
    for a in range(len(labels)):
        same, other = _groups(labels, a)
        found += [(a, p, n) for p in same for n in other]
    return found


def metrix_contrastive(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _clean(unit(inputs["z"]), inputs["labels"].tolist(), hyper["margin"])


def _with_mixtures(inputs: Inputs, hyper: Hyper, mixtures: list[Triple]) -> Tensor:
    e, labels, margin = unit(inputs["z"]), inputs["labels"].tolist(), hyper["margin"]
    return _clean(e, labels, margin) + hyper["lam"] * _mixed(e, mixtures, inputs["mix"], margin)


def metrix(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _with_mixtures(inputs, hyper, _triples(inputs["labels"].tolist()))


def metrix_first_positive(inputs: Inputs, hyper: Hyper) -> Tensor:
    labels = inputs["labels"].tolist()
    mixtures = [(a, min(_groups(labels, a)[0]), n) for a, _, n in _triples(labels)]
    return _with_mixtures(inputs, hyper, mixtures)


def metrix_anchor_negative(inputs: Inputs, hyper: Hyper) -> Tensor:
    labels = inputs["labels"].tolist()
    mixtures = []
    for a in range(len(labels)):
        same, other = _groups(labels, a)
        if not same:
            mixtures += [(a, a, n) for n in other]
    return _with_mixtures(inputs, hyper, mixtures)


def _log_one_plus(exponents: list[Tensor], weights: list[Tensor], like: Tensor) -> Tensor:
    """log(1 + sum of weight times exp(exponent)), weights of zero left out."""
    terms = [like.new_zeros(())]
    terms += [torch.log(w) + e for e, w in zip(exponents, weights, strict=True) if w.item() > 0]
    return torch.logsumexp(torch.stack(terms), 0)


def metrix_multi_similarity(inputs: Inputs, hyper: Hyper) -> Tensor:
    e, labels, mix = unit(inputs["z"]), inputs["labels"].tolist(), inputs["mix"]
    beta, gamma, margin = hyper["beta"], hyper["gamma"], hyper["margin"]

    def pull(similarities: list[Tensor], weight: Tensor) -> Tensor:
        exponents = [-beta * (s - margin) for s in similarities]
        return _log_one_plus(exponents, [weight] * len(exponents), e) / beta

    def push(similarities: list[Tensor], weight: Tensor) -> Tensor:
        exponents = [gamma * (s - margin) for s in similarities]
        return _log_one_plus(exponents, [weight] * len(exponents), e) / gamma

    one = e.new_ones(())
    clean, mixed = [], []
    for a in range(len(labels)):
        same, other = _groups(labels, a)
        clean.append(pull([e[a] @ e[p] for p in same], one) + push([e[a] @ e[n] for n in other], one))
        blends = [e[a] @ unit(mix * e[p] + (1 - mix) * e[n]) for p in same for n in other]
        mixed.append(pull(blends, mix) + push(blends, 1 - mix))
    return torch.stack(clean).mean() + hyper["lam"] * torch.stack(mixed).mean()


def utilization(inputs: Inputs, hyper: Hyper) -> Tensor:
    del hyper
    queries, stored = unit(inputs["z"]), unit(inputs["w"])
    return torch.stack([((stored - query) ** 2).sum(1).min() for query in queries]).mean()


# Labels of the batches below; every batch has its own number of rows.
SEVERAL = [0, 2, 1, 0, 1, 1, 3, 2, 0]
PAIRS = [1, 0, 2, 1, 0, 2, 3]
SINGLES = [4, 2, 5, 0, 1]
ONE_CLASS = [1, 1, 1, 1]


def _cases(
    seed: int,
    dtype: torch.dtype,
    hypers: list[Hyper],
    *,
    mixes: tuple[float, ...] = (),
    pure: float = 0.0,
) -> list[Case]:
    """The shared batches; `mixes` holds the coefficients, if the loss takes one, `pure` the last batch's."""
    batches = [
        ("several a class", SEVERAL, 5),
        ("pairs", PAIRS, 4),
        ("singles", SINGLES, 8),
        ("one class", ONE_CLASS, 6),
    ]
    batches += [("crowded", SEVERAL[::-1], 3), ("duplicates", [0, 1, 1, 2, 0, 0], 4), ("pure", PAIRS, 3)]
    cases = []
    for number, (name, labels, d) in enumerate(batches):
        draw = Draw(seed + number, dtype)
        z = draw.normal(len(labels), d)
        if name == "crowded":
            z = z * 0.4 + 1.0
        if name == "duplicates":
            z[4] = z[0]
            z[5] = z[2]
        inputs: Inputs = {"z": z, "labels": whole(labels)}
        names = ["z"]
        if mixes:
            inputs["mix"] = draw.real(mixes[number % len(mixes)])
            if name == "pure":
                inputs["mix"] = draw.real(pure)
            else:
                names.append("mix")
        hyper = hypers[number % len(hypers)]
        cases.append(Case(name, inputs, hyper, differentiable=tuple(names), sizes={"C": 7 + number}))
    return cases


def metrix_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    hypers: list[Hyper] = [{}, {"margin": 1.2}, {"lam": 1.0}, {"lam": 0.0}, {}]
    return _cases(6100, dtype, hypers, mixes=(0.37, 0.62, 0.85))


def contrastive_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _cases(6110, dtype, [{}, {"margin": 1.3}, {"margin": 1.9}])


def first_positive_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    hypers: list[Hyper] = [{}, {"margin": 1.5, "lam": 0.9}, {"lam": 0.2}]
    return _cases(6120, dtype, hypers, mixes=(0.41, 0.73))


def anchor_negative_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    hypers: list[Hyper] = [{"margin": 1.1}, {}, {"margin": 1.6, "lam": 2.0}, {}]
    return _cases(6130, dtype, hypers, mixes=(0.66, 0.28, 0.91))


def multi_similarity_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    hypers: list[Hyper] = [{}, {"beta": 2.0, "gamma": 5.0, "margin": 0.3}, {"lam": 1.5}, {"gamma": 400.0}]
    return _cases(6140, dtype, hypers, mixes=(0.55, 0.23, 0.8), pure=1.0)


def utilization_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...]) -> Case:
        q, m, d = sizes
        draw = Draw(seed, dtype)
        inputs = {"z": draw.normal(q, d), "w": draw.normal(m, d)}
        return Case(name, inputs, differentiable=("z", "w"))

    return [
        case("few queries", 6151, (4, 9, 5)),
        case("many queries", 6152, (12, 6, 3)),
        case("one stored", 6153, (5, 1, 7)),
        case("one query", 6154, (1, 8, 2)),
    ]


CONTRASTIVE = {"lam": 0.4, "margin": 0.5}
REFERENCES = {
    "metrix": stateless(metrix, CONTRASTIVE, metrix_cases),
    "metrix_contrastive": stateless(metrix_contrastive, {"margin": 0.5}, contrastive_cases),
    "metrix_first_positive": stateless(metrix_first_positive, CONTRASTIVE, first_positive_cases),
    "metrix_anchor_negative": stateless(metrix_anchor_negative, {"lam": 0.3, "margin": 0.5}, anchor_negative_cases),
    "metrix_multi_similarity": stateless(
        metrix_multi_similarity,
        {"beta": 18.0, "gamma": 75.0, "margin": 0.77, "lam": 0.4},
        multi_similarity_cases,
    ),
    "utilization": stateless(utilization, {}, utilization_cases),
}
