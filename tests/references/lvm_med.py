"""LVM-Med: second-order graph matching between two views of a batch (arXiv:2306.11925)."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from .base import Case, Draw, Hyper, Inputs, stateless

MATCHING = {"lam": 80.0}


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of two vectors; a zero vector gives 0 and no gradient."""
    if not x.any() or not y.any():
        return 0 * (x @ y)
    long_x: Tensor = torch.linalg.vector_norm(x)
    long_y: Tensor = torch.linalg.vector_norm(y)
    return (x @ y) / (long_x.clamp(min=1e-8) * long_y.clamp(min=1e-8))


def _first_smallest(tensor: Tensor) -> int:
    values = tensor.tolist()
    return values.index(min(values))


def _local(q: Tensor, r: Tensor, grid_q: Tensor, grid_r: Tensor) -> Tensor:
    n, points, _ = q.shape
    rows = []
    for i in range(n):
        for a in range(n):
            terms = []
            for p in range(points):
                near = _first_smallest((grid_q[i, p] - grid_r[a]).square().sum(1))
                alike = _first_smallest((q[i, p] - r[a]).square().sum(1))
                terms.append(cosine(q[i, p], r[a, near]) + cosine(q[i, p], r[a, alike]))
            rows.append(torch.stack(terms).mean())
    return torch.stack(rows).reshape(n, n)


def local_affinity(inputs: Inputs, hyper: Hyper) -> Tensor:
    del hyper
    return _local(inputs["maps_z"], inputs["maps_w"], inputs["grid_z"], inputs["grid_w"])


def vertex_affinity(inputs: Inputs, hyper: Hyper) -> Tensor:
    z, w, alpha = inputs["z"], inputs["w"], hyper["alpha"]
    n = z.shape[0]
    whole = torch.stack([cosine(z[i], w[a]) for i in range(n) for a in range(n)]).reshape(n, n)
    there = _local(inputs["maps_z"], inputs["maps_w"], inputs["grid_z"], inputs["grid_w"])
    back = _local(inputs["maps_w"], inputs["maps_z"], inputs["grid_w"], inputs["grid_z"])
    return alpha * whole + (1 - alpha) * (there + back.T)


def edge_affinity(inputs: Inputs, hyper: Hyper) -> Tensor:
    del hyper
    z, w = inputs["z"], inputs["w"]
    n = z.shape[0]
    entries = [cosine(z[i] - z[j], w[a] - w[b]) for i in range(n) for j in range(n) for a in range(n) for b in range(n)]
    return torch.stack(entries).reshape(n, n, n, n)


def ranking(cv: Tensor, ce: Tensor, edges: Tensor) -> list[tuple[float, tuple[int, ...]]]:
    """Every assignment with its score, in lexicographic order."""
    n = cv.shape[0]
    weighted, everyone = edges * ce, torch.arange(n)
    scores = []
    for order in permutations(range(n)):
        to = torch.tensor(order)
        inner = weighted[everyone[:, None], everyone[None, :], to[:, None], to[None, :]].sum()
        scores.append((float(cv[everyone, to].sum() + inner), order))
    return scores


def solve(cv: Tensor, ce: Tensor, edges: Tensor) -> Tensor:
    """The best permutation matrix, the first one on ties."""
    _, order = max(ranking(cv, ce, edges), key=lambda entry: entry[0])
    matrix = torch.zeros_like(cv)
    for i, a in enumerate(order):
        matrix[i, a] = 1
    return matrix


class GraphMatching(torch.autograd.Function):
    """The solver, with the difference of two solutions as its slope."""

    @staticmethod
    def forward(ctx: Any, cv: Tensor, ce: Tensor, edges: Tensor, lam: float) -> Tensor:
        found = solve(cv, ce, edges)
        ctx.save_for_backward(cv, ce, edges, found)
        ctx.lam = lam
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        cv, ce, edges, found = ctx.saved_tensors
        other = solve(cv - ctx.lam * grads[0], ce, edges)
        pairs = torch.einsum("ia,jb->ijab", found, found) - torch.einsum("ia,jb->ijab", other, other)
        return (found - other) / ctx.lam, edges * pairs / ctx.lam, None, None


def _matching_loss(cv: Tensor, ce: Tensor, adj_z: Tensor, adj_w: Tensor, lam: float) -> Tensor:
    edges = torch.einsum("ij,ab->ijab", adj_z.to(cv.dtype), adj_w.to(cv.dtype))
    found: Tensor = GraphMatching.apply(cv, ce, edges, lam)  # type: ignore[no-untyped-call]
    wanted = torch.eye(cv.shape[0], dtype=cv.dtype)
    return (found * (1 - wanted) + wanted * (1 - found)).sum()


def graph_matching_loss(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _matching_loss(inputs["cv"], inputs["ce"], inputs["adj_z"], inputs["adj_w"], hyper["lam"])


def lvm_med(inputs: Inputs, hyper: Hyper) -> Tensor:
    cv = vertex_affinity(inputs, hyper) + inputs["noise_v"].detach()
    ce = edge_affinity(inputs, hyper) + inputs["noise_e"].detach()
    return _matching_loss(cv, ce, inputs["adj_z"], inputs["adj_w"], hyper["lam"])


def _neighbours(draw: Draw, n: int, chance: float) -> Tensor:
    bits = draw.bits(n, n, chance=chance).long()
    return bits * (1 - torch.eye(n, dtype=torch.int64))


def _nodes(draw: Draw, n: int, d: int, noise: float) -> Inputs:
    z = draw.normal(n, d)
    return {"z": z, "w": z + draw.normal(n, d, scale=noise)}


def _maps(draw: Draw, n: int, p: int, k: int, noise: float) -> Inputs:
    maps, grid = draw.normal(n, p, k), draw.uniform(n, p, 2, high=8.0)
    return {
        "maps_z": maps,
        "maps_w": maps[:, draw.permutation(p)] + draw.normal(n, p, k, scale=noise),
        "grid_z": grid,
        "grid_w": grid[:, draw.permutation(p)] + draw.normal(n, p, 2),
    }


def lvm_med_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, int, int, int], noise: float, hyper: Hyper) -> Case:
        n, d, p, k = sizes
        draw = Draw(seed, dtype)
        nodes, maps = _nodes(draw, n, d, 0.5), _maps(draw, n, p, k, 0.5)
        edges = {"adj_z": _neighbours(draw, n, 0.5), "adj_w": _neighbours(draw, n, 0.5)}
        if name == "no edges":
            edges = {key: torch.zeros_like(adjacency) for key, adjacency in edges.items()}
        draws = {
            "noise_v": noise * draw.gumbel(n, n),
            "noise_e": noise * draw.gumbel(n, n, n, n),
        }
        inputs = {**nodes, **edges, **maps, **draws}
        return Case(name, inputs, hyper, differentiable=("z", "w", "maps_z", "maps_w"))

    return [
        case("defaults", 3301, (4, 6, 3, 5), 1.0, {}),
        case("small step", 3309, (5, 7, 4, 3), 1.0, {"lam": 0.8, "alpha": 0.3}),
        case("no noise", 3303, (4, 8, 5, 3), 0.0, {}),
        case("no edges", 3304, (5, 4, 3, 6), 1.0, {"lam": 2.0}),
        case("embeddings only", 3308, (3, 5, 4, 6), 0.7, {"alpha": 1.0, "lam": 1.5}),
    ]


def matching_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, n: int, chance: float, hyper: Hyper) -> Case:
        draw = Draw(seed, dtype)
        inputs = {
            "cv": draw.normal(n, n),
            "ce": draw.normal(n, n, n, n),
            "adj_z": _neighbours(draw, n, chance),
            "adj_w": _neighbours(draw, n, chance),
        }
        return Case(name, inputs, hyper, differentiable=("cv", "ce"))

    ones = torch.ones(4, 4, dtype=torch.int64) - torch.eye(4, dtype=torch.int64)
    tied = {
        "cv": Draw(0, dtype).real([[0.0, 1.0, 1.0, 0.0]] * 4),
        "ce": torch.zeros(4, 4, 4, 4, dtype=dtype),
        "adj_z": ones,
        "adj_w": ones.clone(),
    }
    solved = case("solved", 3317, 3, 0.5, {})
    solved.inputs["cv"] = solved.inputs["cv"] + 100 * torch.eye(3, dtype=dtype)
    return [
        case("defaults", 3311, 4, 0.5, {}),
        case("small step", 3312, 5, 0.4, {"lam": 0.6}),
        case("dense", 3313, 5, 1.0, {"lam": 1.5}),
        case("no edges", 3314, 4, 0.0, {"lam": 1.0}),
        case("two nodes", 3318, 2, 1.0, {"lam": 1.0}),
        case("one node", 3316, 1, 0.5, {}),
        solved,
        Case("ties", tied, {"lam": 4.0}, differentiable=("cv", "ce")),
    ]


def vertex_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper) -> Case:
        n, d, p, k = sizes
        draw = Draw(seed, dtype)
        inputs = {**_nodes(draw, n, d, 0.7), **_maps(draw, n, p, k, 0.5)}
        return Case(name, inputs, hyper, differentiable=("z", "w", "maps_z", "maps_w"))

    return [
        case("defaults", 3321, (4, 6, 3, 5), {}),
        case("maps only", 3322, (3, 7, 6, 4), {"alpha": 0.0}),
        case("embeddings only", 3323, (5, 3, 4, 6), {"alpha": 1.0}),
        case("one point", 3324, (3, 4, 1, 7), {"alpha": 0.4}),
    ]


def edge_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...]) -> Case:
        n, d = sizes
        return Case(name, _nodes(Draw(seed, dtype), n, d, 0.7), differentiable=("z", "w"))

    twins = case("twin nodes", 3334, (4, 5))
    twins.inputs["z"][2] = twins.inputs["z"][0]
    return [
        case("four nodes", 3331, (4, 6)),
        case("five nodes", 3332, (5, 3)),
        case("one node", 3333, (1, 4)),
        case("two nodes", 3335, (2, 7)),
        twins,
    ]


def local_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...]) -> Case:
        n, p, k = sizes
        return Case(name, _maps(Draw(seed, dtype), n, p, k, 0.5), differentiable=("maps_z", "maps_w"))

    tied = case("tied positions", 3344, (3, 4, 5))
    tied.inputs["grid_z"][:] = Draw(0, dtype).real([[0.0, 0.0], [1.0, 1.0], [0.0, 2.0], [3.0, 1.0]])
    tied.inputs["grid_w"][:] = Draw(0, dtype).real([[1.0, 0.0], [0.0, 1.0], [4.0, 1.0], [1.0, 2.0]])
    return [
        case("three images", 3341, (3, 4, 6)),
        case("five images", 3342, (5, 6, 3)),
        case("one point", 3343, (4, 1, 3)),
        tied,
    ]


REFERENCES = {
    "lvm_med": stateless(lvm_med, {"alpha": 0.8, **MATCHING}, lvm_med_cases),
    "graph_matching_loss": stateless(graph_matching_loss, MATCHING, matching_cases),
    "vertex_affinity": stateless(vertex_affinity, {"alpha": 0.8}, vertex_cases, per_sample=True),
    "edge_affinity": stateless(edge_affinity, {}, edge_cases, per_sample=True),
    "local_affinity": stateless(local_affinity, {}, local_cases, per_sample=True),
}
