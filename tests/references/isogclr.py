"""iSogCLR: contrastive learning with one temperature per image (arXiv:2305.11965)."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Case, Draw, Hyper, Inputs, State, stateful, stateless, unit, whole

MOMENTS = {"eta": 0.03, "tau_max": 1.0}


def _copy(state: State) -> State:
    return {name: buffer.detach().clone() for name, buffer in state.items()}


def _views(inputs: Inputs) -> tuple[Tensor, Tensor, int]:
    z, w = inputs["z"], inputs["w"]
    rows = unit(torch.cat([z, w]))
    return rows, rows @ rows.T, z.shape[0]


def isogclr(inputs: Inputs, hyper: Hyper, state: State) -> tuple[Tensor, State]:
    gamma, beta = hyper["gamma"], hyper["beta"]
    _, sim, n = _views(inputs)
    index, first_epoch = inputs["index"].tolist(), int(inputs["epoch"]) == 0
    fixed, pairs = sim.detach(), 2 * n - 2
    new, value = _copy(state), sim.new_zeros(())
    averages, slopes = [], []
    for i in range(2 * n):
        here = index[i % n]
        t = state["tau"][here]
        others = [j for j in range(2 * n) if j % n != i % n]
        weights = torch.stack([torch.exp(fixed[i, j] / t) for j in others])
        a = weights.sum() / pairs
        if not first_epoch:
            a = (1 - gamma) * state["s"][here] + gamma * a
        p = weights / (pairs * a)
        pull = torch.stack([p[o] * sim[i, j] for o, j in enumerate(others)]).sum()
        value = value + pull - sim[i, (i + n) % (2 * n)]
        averages.append(a)
        slopes.append(torch.log(a) + hyper["rho"] - pull.detach() / t)
    for k in range(n):
        m = index[k]
        slope = ((slopes[k] + slopes[k + n]) / 2).clamp(-hyper["clip"], hyper["clip"])
        new["s"][m] = (averages[k] + averages[k + n]) / 2
        new["u"][m] = (1 - beta) * state["u"][m] + beta * slope
        new["tau"][m] = (state["tau"][m] - hyper["eta"] * new["u"][m]).clamp(hyper["tau_min"], hyper["tau_max"])
    return value / n, new


def _side(delta: Tensor, index: list[int], hyper: Hyper, buffers: tuple[State, State], letter: str) -> Tensor:
    """One modality of the bimodal loss; writes that modality's buffers into the second state."""
    state, new = buffers
    s, b, u, tau = (f"{name}_{letter}" for name in ("s", "b", "u", "tau"))
    n, gamma, beta, clip = delta.shape[0], hyper["gamma"], hyper["beta"], hyper["clip"]
    value = delta.new_zeros(())
    for i, m in enumerate(index):
        t = state[tau][m]
        h = delta[i].detach() / t
        peak = torch.maximum(state[b][m], h.max())
        e = torch.exp(h - peak)
        mean = (1 - gamma) * state[s][m] * torch.exp(state[b][m] - peak) + gamma * e.sum() / (n - 1)
        p = e / ((n - 1) * (mean + hyper["eps"]))
        value = value + (p * delta[i]).sum() / n
        slope = torch.log(mean) + peak + hyper["rho"] - (p * h).sum()
        new[u][m] = (1 - beta) * state[u][m] + beta * slope.clamp(-clip, clip)
        new[tau][m] = (t - hyper["eta"] * new[u][m]).clamp(hyper["tau_min"], hyper["tau_max"])
        new[s][m], new[b][m] = mean, peak
    return value


def isogclr_bimodal(inputs: Inputs, hyper: Hyper, state: State) -> tuple[Tensor, State]:
    sim = unit(inputs["z"]) @ unit(inputs["w"]).T
    own = sim.diagonal()[:, None]
    index, new = inputs["index"].tolist(), _copy(state)
    images = _side(sim - own, index, hyper, (state, new), "z")
    texts = _side(sim.T - own, index, hyper, (state, new), "w")
    return images + texts, new


def rgcl(inputs: Inputs, hyper: Hyper) -> Tensor:
    _, sim, n = _views(inputs)
    losses = []
    for k in range(n):
        t, parts = inputs["tau"][k], []
        for i in (k, k + n):
            mate = (i + n) % (2 * n)
            others = [j for j in range(2 * n) if j % n != k]
            gaps = torch.stack([(sim[i, j] - sim[i, mate]) / t for j in others])
            parts.append(t * torch.log(torch.exp(gaps).sum() / (2 * n - 2)) + t * hyper["rho"])
        losses.append(parts[0] + parts[1])
    return torch.stack(losses)


def isogclr_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], epoch: int, hyper: Hyper, *, fresh: bool = False) -> Case:
        n, d, m = sizes
        draw = Draw(seed, dtype)
        inputs = {
            "z": draw.normal(n, d),
            "w": draw.normal(n, d),
            "index": draw.permutation(m)[:n],
            "epoch": whole(epoch),
        }
        state = {
            "s": draw.uniform(m, low=0.3, high=6.0),
            "u": draw.normal(m, scale=0.5),
            "tau": draw.uniform(m, low=0.08, high=0.9),
        }
        if fresh:
            start = {"s": 0.0, "u": 0.0, "tau": 0.1}
            state = {key: torch.full((m,), value, dtype=dtype) for key, value in start.items()}
        return Case(name, inputs, hyper, state, ("z", "w"), {"M": m})

    limits = {"beta": 0.1, "eta": 0.6, "tau_min": 0.2, "tau_max": 0.5}
    return [
        case("running", 1301, (4, 6, 11), 3, {}),
        case("first epoch", 1302, (5, 3, 8), 0, {}, fresh=True),
        case("first epoch ignores s", 1303, (3, 7, 10), 0, {"gamma": 0.3, "rho": 0.2}),
        case("unmet image after the first epoch", 1304, (6, 4, 9), 1, {}, fresh=True),
        case("tight clip", 1305, (4, 5, 50), 7, {"clip": 0.2, "beta": 0.9, "eta": 0.1}),
        case(
            "temperature limits",
            1306,
            (7, 2, 13),
            2,
            limits,
        ),
        case("no memory", 1307, (2, 5, 6), 4, {"gamma": 1.0, "beta": 1.0}),
    ]


def bimodal_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper, *, fresh: bool = False) -> Case:
        n, d, m = sizes
        draw = Draw(seed, dtype)
        inputs = {"z": draw.normal(n, d), "w": draw.normal(n, d), "index": draw.permutation(m)[:n]}
        state = {}
        for letter in "zw":
            state[f"s_{letter}"] = draw.uniform(m, low=0.2, high=2.0)
            state[f"b_{letter}"] = draw.uniform(m, low=0.0, high=8.0)
            state[f"u_{letter}"] = draw.normal(m, scale=0.5)
            state[f"tau_{letter}"] = draw.uniform(m, low=0.05, high=0.6)
        if fresh:
            state = {key: torch.full((m,), 0.01 if key.startswith("tau") else 0.0, dtype=dtype) for key in state}
        return Case(name, inputs, hyper, state, ("z", "w"), {"M": m})

    return [
        case("running", 1311, (4, 6, 9), {}),
        case("first step", 1312, (5, 3, 12), {}, fresh=True),
        case("small radius", 1313, (3, 8, 7), {"rho": 0.5, "gamma": 0.3, "beta": 0.4, "eta": 0.2}),
        case("tight clip", 1314, (6, 4, 10), {"clip": 0.1, "rho": 1.0, "eps": 0.01}),
        case("temperature limits", 1315, (2, 5, 30), {"eta": 0.5, "tau_min": 0.1, "tau_max": 0.3, "rho": 0.1}),
        case("no memory", 1316, (7, 2, 8), {"gamma": 1.0, "beta": 1.0, "eps": 0.0}),
    ]


def rgcl_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], low: float, hyper: Hyper) -> Case:
        n, d = sizes
        draw = Draw(seed, dtype)
        inputs = {"z": draw.normal(n, d), "w": draw.normal(n, d), "tau": draw.uniform(n, low=low, high=1.0)}
        return Case(name, inputs, hyper, differentiable=("z", "w", "tau"))

    return [
        case("defaults", 1321, (4, 6), 0.1, {}),
        case("wide", 1322, (5, 3), 0.3, {"rho": 2.0}),
        case("two images", 1323, (2, 7), 0.2, {"rho": 0.05}),
        case("many", 1324, (8, 5), 0.07, {"rho": 0.3}),
    ]


REFERENCES = {
    "isogclr": stateful(
        isogclr,
        {**MOMENTS, "gamma": 0.8, "rho": 0.4, "beta": 0.5, "tau_min": 0.05, "clip": 3.0},
        isogclr_cases,
    ),
    "isogclr_bimodal": stateful(
        isogclr_bimodal,
        {**MOMENTS, "gamma": 0.8, "rho": 6.0, "beta": 0.9, "tau_min": 0.005, "clip": 5.0, "eps": 1e-10},
        bimodal_cases,
    ),
    "rgcl": stateless(rgcl, {"rho": 0.4}, rgcl_cases, per_sample=True),
}
