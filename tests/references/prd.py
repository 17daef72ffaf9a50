"""PRD: prototype-sample relation distillation for continual learning (arXiv:2303.14771)."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Case, Draw, Hyper, Inputs, stateless, unit, whole

OBJECTIVE = {"tau": 0.1, "base_tau": 0.07, "alpha": 2.0, "beta": 4.0}


def _supervised_contrast(z: Tensor, w: Tensor, labels: Tensor, tau: float, base_tau: float) -> Tensor:
    v, y = unit(torch.cat([z, w])), labels.tolist() * 2
    logits = v @ v.T / tau
    count = len(y)
    terms = []
    for a in range(count):
        others = [c for c in range(count) if c != a]
        normaliser = torch.logsumexp(torch.stack([logits[a, c] for c in others]), 0)
        positives = [b for b in others if y[b] == y[a]]
        terms.append(torch.stack([logits[a, b] - normaliser for b in positives]).mean())
    return -(tau / base_tau) * torch.stack(terms).mean()


def _prototype_fit(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    fixed, heads = unit(features.detach()), unit(prototypes)
    return torch.stack([1 - heads[y] @ fixed[i] for i, y in enumerate(labels.tolist() * 2)]).mean()


def _relation(new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor], distill_tau: float) -> Tensor:
    """Divergence from before to now; each pair holds features and prototypes."""
    features, kept = new
    old_features, kept_old = (tensor.detach() for tensor in old)
    terms = []
    for k in range(kept.shape[0]):
        now = torch.log_softmax(unit(features) @ unit(kept[k]) / distill_tau, 0)
        before = torch.log_softmax(unit(old_features) @ unit(kept_old[k]) / distill_tau, 0)
        terms.append((now.exp() * (now - before)).sum())
    return torch.stack(terms).sum()


def _task_relation(inputs: Inputs, distill_tau: float) -> Tensor:
    features: Tensor = inputs["features"]
    old_features = inputs["old_features"].detach()
    heads, old_heads = unit(inputs["kept"]), unit(inputs["kept_old"].detach())
    tasks = inputs["task"].tolist()
    terms = []
    for q in sorted(set(tasks)):
        members = torch.tensor([k for k, task in enumerate(tasks) if task == q])
        for i in range(features.shape[0]):
            now = torch.log_softmax(heads[members] @ features[i] / distill_tau, 0)
            before = torch.log_softmax(old_heads[members] @ old_features[i] / distill_tau, 0)
            terms.append((before.exp() * (before - now)).sum())
    return torch.stack(terms).sum() / features.shape[0]


def _learning(inputs: Inputs, hyper: Hyper) -> Tensor:
    """What the whole objectives share: the contrast and the weighted prototype fit."""
    z, w, labels = inputs["z"], inputs["w"], inputs["labels"]
    contrast = _supervised_contrast(z, w, labels, hyper["tau"], hyper["base_tau"])
    return contrast + hyper["alpha"] * _prototype_fit(inputs["features"], labels, inputs["prototypes"])


def prd_relation(inputs: Inputs, hyper: Hyper) -> Tensor:
    new, old = (inputs["features"], inputs["kept"]), (inputs["old_features"], inputs["kept_old"])
    return _relation(new, old, hyper["distill_tau"])


def prd_prototypes(inputs: Inputs, hyper: Hyper) -> Tensor:
    del hyper
    return _prototype_fit(inputs["features"], inputs["labels"], inputs["prototypes"])


def prd(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _learning(inputs, hyper) + hyper["beta"] * prd_relation(inputs, hyper)


def prd_code(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _learning(inputs, hyper) + hyper["beta"] * _task_relation(inputs, hyper["distill_tau"])


KEYS = ("z", "w", "labels", "features", "old_features", "prototypes", "kept", "kept_old")
RELATION = ("features", "old_features", "kept", "kept_old")


def _inputs(seed: int, dtype: torch.dtype, sizes: tuple[int, ...], drift: float, spread: float = 1.0) -> Inputs:
    n, d, c, e, p = sizes
    draw = Draw(seed, dtype)
    old_features, kept_old = draw.normal(2 * n, e, scale=spread), draw.normal(p, e)
    return {
        "z": draw.normal(n, d),
        "w": draw.normal(n, d),
        "labels": draw.integers(n, below=c),
        "features": old_features + draw.normal(2 * n, e, scale=drift * spread),
        "old_features": old_features,
        "prototypes": draw.normal(c, e),
        "kept": kept_old + draw.normal(p, e, scale=drift),
        "kept_old": kept_old,
    }


def prd_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], drift: float, hyper: Hyper) -> Case:
        inputs = _inputs(seed, dtype, sizes, drift)
        return Case(name, inputs, hyper, differentiable=tuple(key for key in KEYS if key != "labels"))

    return [
        case("defaults", 4601, (4, 6, 3, 5, 7), 0.3, {}),
        case("more classes than rows", 4602, (3, 8, 10, 4, 2), 0.5, {"tau": 0.5, "base_tau": 0.5}),
        case("one row", 4603, (1, 5, 3, 6, 4), 0.4, {"alpha": 0.5, "beta": 1.0, "distill_tau": 0.7}),
        case("one old prototype", 4604, (6, 3, 2, 7, 1), 0.2, {"alpha": 0.0, "tau": 0.2}),
        case("nothing drifted", 4605, (5, 7, 4, 3, 8), 0.0, {"beta": 10.0, "distill_tau": 0.3}),
    ]


def prd_code_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], tasks: list[int], hyper: Hyper) -> Case:
        drift = 0.0 if name == "nothing drifted" else 0.4
        inputs = {**_inputs(seed, dtype, sizes, drift, spread=2.0), "task": whole(tasks)}
        return Case(name, inputs, hyper, differentiable=tuple(key for key in KEYS if key != "labels"))

    return [
        case("defaults", 4611, (4, 6, 3, 5, 7), [0, 0, 0, 1, 1, 2, 2], {}),
        case("mingled tasks", 4612, (3, 8, 4, 7, 5), [2, 0, 2, 0, 5], {"distill_tau": 0.2, "beta": 1.0}),
        case("one task", 4613, (5, 2, 6, 3, 4), [0, 0, 0, 0], {"tau": 0.3, "alpha": 0.7}),
        case("one prototype a task", 4614, (1, 4, 5, 6, 3), [0, 1, 2], {"base_tau": 0.1}),
        case("nothing drifted", 4615, (6, 5, 2, 4, 8), [3, 3, 1, 1, 0, 0, 3, 1], {}),
    ]


def relation_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], drift: float, hyper: Hyper) -> Case:
        n, e, p = sizes
        inputs = _inputs(seed, dtype, (n, 1, 1, e, p), drift)
        return Case(name, {key: inputs[key] for key in RELATION}, hyper, differentiable=RELATION)

    return [
        case("defaults", 4621, (4, 5, 7), 0.3, {}),
        case("soft", 4622, (3, 8, 2), 0.6, {"distill_tau": 1.0}),
        case("one row", 4623, (1, 6, 5), 0.5, {"distill_tau": 0.4}),
        case("far away", 4624, (5, 3, 4), 3.0, {}),
    ]


def prototype_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...]) -> Case:
        n, c, e = sizes
        inputs = _inputs(seed, dtype, (n, 1, c, e, 1), 0.3)
        chosen = {key: inputs[key] for key in ("features", "labels", "prototypes")}
        return Case(name, chosen, differentiable=("features", "prototypes"))

    return [
        case("few classes", 4631, (5, 3, 6)),
        case("many classes", 4632, (4, 9, 3)),
        case("one row", 4633, (1, 4, 5)),
        case("one class", 4634, (3, 1, 7)),
    ]


REFERENCES = {
    "prd": stateless(prd, {**OBJECTIVE, "distill_tau": 0.1}, prd_cases),
    "prd_code": stateless(prd_code, {**OBJECTIVE, "distill_tau": 1.0}, prd_code_cases),
    "prd_relation": stateless(prd_relation, {"distill_tau": 0.1}, relation_cases),
    "prd_prototypes": stateless(prd_prototypes, {}, prototype_cases),
}
