"""Losses of metric learning in plain torch."""

import math

import torch
import torch.nn.functional as F
from forms_contrastive import cosines
from references.base import unit

# ---- closed forms ----


def pair_contrastive(x, margin=1.0):
    d = (x["z"] - x["w"]).norm(dim=1)
    return 0.5 * torch.where(x["same"], d**2, (margin - d).clamp(min=0) ** 2).mean()


def triplet(x, margin=1.0):
    return F.triplet_margin_loss(x["anchor"], x["positive"], x["negative"], margin=margin, eps=0.0)


def n_pairs(x, lam=0.02):
    s = x["z"] @ x["w"].T
    norms = (x["z"] ** 2).sum(1).mean() + (x["w"] ** 2).sum(1).mean()
    return F.cross_entropy(s, torch.arange(len(s))) + 0.25 * lam * norms


def angular(x, degrees=45.0):
    a, p, slope = unit(x["z"]), unit(x["w"]), math.tan(math.radians(degrees)) ** 2
    values = []
    for i in range(len(a)):
        total = 1 + sum(
            torch.exp(4 * slope * (a[i] + p[i]) @ p[j] - 2 * (1 + slope) * a[i] @ p[i]) for j in range(len(a)) if j != i
        )
        values.append(torch.log(total))
    return torch.stack(values).mean()


def groups(x):
    """For every row its number, the other rows of its class and the rows of other classes."""
    labels = x["labels"].tolist()
    for i, own in enumerate(labels):
        same = [j for j, label in enumerate(labels) if label == own and j != i]
        yield i, same, [j for j, label in enumerate(labels) if label != own]


def mean(values, like, *, positive=False):
    kept = [v for v in values if v > 0] if positive else values
    return torch.stack(kept).mean() if kept else 0 * like.sum()


def gap(z, i, j):
    return (z[i] - z[j]).norm()


def batch_contrastive(x, margin=0.5, pull=0.0):
    u = unit(x["z"])
    near = [F.relu(gap(u, i, p) - pull) for i, same, _ in groups(x) for p in same]
    far = [F.relu(margin - gap(u, i, n)) for i, _, other in groups(x) for n in other]
    return mean(near, u, positive=True) + mean(far, u, positive=True)


def triplet_all(x, margin=0.2):
    z = x["z"]
    values = [F.relu(gap(z, i, p) - gap(z, i, n) + margin) for i, same, other in groups(x) for p in same for n in other]
    return mean(values, z, positive=True)


def triplet_hard(x, margin=0.2):
    z = x["z"]
    values = [
        F.relu(max(gap(z, i, p) for p in same) - min(gap(z, i, n) for n in other) + margin)
        for i, same, other in groups(x)
        if same and other
    ]
    return mean(values, z)


def triplet_semi_hard(x, margin=0.2):
    u = unit(x["z"])
    values = []
    for i, same, other in groups(x):
        for p in same if other else []:
            far = [gap(u, i, n) for n in other]
            beyond = [d for d in far if d > gap(u, i, p)]
            values.append(F.relu(gap(u, i, p) - (min(beyond) if beyond else max(far)) + margin))
    return mean(values, u)


def lifted_structure(x, margin=1.0):
    z, other = x["z"], {i: rest for i, _, rest in groups(x)}
    values = []
    for i, same, rest in groups(x):
        for j in same if rest else []:
            crowd = sum(torch.exp(margin - gap(z, k, n)) for k in (i, j) for n in other[k])
            values.append(F.relu(torch.log(crowd) + gap(z, i, j)) ** 2 / 2)
    return mean(values, z)


def multi_similarity(x, alpha=2.0, beta=50.0, margin=0.5):
    s = cosines(x["z"], x["z"])
    values = [
        torch.log(1 + torch.exp(-alpha * (s[i, same] - margin)).sum()) / alpha
        + torch.log(1 + torch.exp(beta * (s[i, other] - margin)).sum()) / beta
        for i, same, other in groups(x)
    ]
    return torch.stack(values).mean()


def circle(x, margin=0.25, gamma=80.0):
    s = cosines(x["z"], x["z"])
    values = []
    for i, same, other in groups(x):
        if same and other:
            p, n = s[i, same], s[i, other]
            pull = (1 + margin - p.detach()).clamp(min=0) * (p - (1 - margin))
            push = (n.detach() + margin).clamp(min=0) * (n - margin)
            values.append(torch.log(1 + torch.exp(-gamma * pull).sum() * torch.exp(gamma * push).sum()))
    return mean(values, s)


def proxy_nca(x, scale=1.0):
    d = scale * (unit(x["z"])[:, None] - unit(x["prototypes"])).pow(2).sum(-1)
    own = F.one_hot(x["labels"], d.shape[1]).bool()
    return (d[own] + torch.logsumexp((-d).masked_fill(own, -math.inf), 1)).mean()


def proxy_anchor(x, scale=32.0, margin=0.1):
    s, c = cosines(x["z"], x["prototypes"]), len(x["prototypes"])
    own = F.one_hot(x["labels"], c).bool()
    pull = torch.log(1 + (torch.exp(-scale * (s - margin)) * own).sum(0)).sum() / own.any(0).sum()
    return pull + torch.log(1 + (torch.exp(scale * (s + margin)) * ~own).sum(0)).sum() / c


def arcface(x, scale=64.0, margin=0.5):
    c = cosines(x["z"], x["prototypes"])
    own = c.gather(1, x["labels"][:, None])
    angle = torch.acos(own)
    moved = torch.where(angle + margin < math.pi, torch.cos(angle + margin), own - margin * math.sin(margin))
    return F.cross_entropy(scale * c.scatter(1, x["labels"][:, None], moved), x["labels"])


def cosface(x, scale=64.0, margin=0.35):
    c = cosines(x["z"], x["prototypes"])
    return F.cross_entropy(scale * (c - margin * F.one_hot(x["labels"], c.shape[1]).to(c)), x["labels"])


def sphereface(x, margin=4):
    c = cosines(x["z"], x["prototypes"])
    own = c.gather(1, x["labels"][:, None])
    k = torch.floor(margin * torch.acos(own) / math.pi)
    moved = (-1) ** k * torch.cos(margin * torch.acos(own)) - 2 * k
    return F.cross_entropy(x["z"].norm(dim=1, keepdim=True) * c.scatter(1, x["labels"][:, None], moved), x["labels"])


def soft_triple(x, scale=20.0, gamma=0.1, margin=0.01):
    s = torch.einsum("nd,ckd->nck", unit(x["z"]), unit(x["prototypes"]))
    mixed = (torch.softmax(s / gamma, -1) * s).sum(-1)
    return F.cross_entropy(scale * (mixed - margin * F.one_hot(x["labels"], mixed.shape[1]).to(s)), x["labels"])


# ---- inputs ----


def pair(draw, scale=1.0):
    return {"z": draw.normal(5, 4, scale=scale), "w": draw.normal(5, 4, scale=scale)}


def labelled(draw, scale=1.0):
    return {"z": draw.normal(9, 4, scale=scale), "labels": torch.tensor([0, 1, 0, 2, 1, 1, 3, 0, 2])}


def proxies(draw, scale=1.0):
    return {
        "z": draw.normal(6, 4, scale=scale),
        "prototypes": draw.normal(5, 4, scale=scale),
        "labels": draw.integers(6, below=4),
    }


def many_proxies(draw, scale=1.0):
    return {**proxies(draw, scale), "prototypes": draw.normal(5, 3, 4, scale=scale)}


def named(*names):
    return lambda draw, scale=1.0: {name: draw.normal(5, 4, scale=scale) for name in names}


def same_or_not(draw, scale=1.0):
    return {**pair(draw, scale), "same": draw.bits(5)}


# name: closed form, inputs, hyperparameters to try beside the defaults
LOSSES = {
    "pair_contrastive": (pair_contrastive, same_or_not, {"margin": 3.0}),
    "triplet": (triplet, named("anchor", "positive", "negative"), {"margin": 0.3}),
    "n_pairs": (n_pairs, pair, {"lam": 0.5}),
    "angular": (angular, pair, {"degrees": 30.0}),
    "batch_contrastive": (batch_contrastive, labelled, {"margin": 1.2, "pull": 0.6}),
    "triplet_all": (triplet_all, labelled, {"margin": 1.0}),
    "triplet_hard": (triplet_hard, labelled, {"margin": 1.0}),
    "triplet_semi_hard": (triplet_semi_hard, labelled, {"margin": 0.7}),
    "lifted_structure": (lifted_structure, labelled, {"margin": 2.0}),
    "multi_similarity": (multi_similarity, labelled, {"alpha": 5.0, "beta": 10.0, "margin": 0.1}),
    "circle": (circle, labelled, {"margin": 0.4, "gamma": 10.0}),
    "proxy_nca": (proxy_nca, proxies, {"scale": 3.0}),
    "proxy_anchor": (proxy_anchor, proxies, {"scale": 5.0, "margin": 0.3}),
    "arcface": (arcface, proxies, {"scale": 4.0, "margin": 1.0}),
    "cosface": (cosface, proxies, {"scale": 4.0, "margin": 0.1}),
    "sphereface": (sphereface, proxies, {"margin": 2}),
    "soft_triple": (soft_triple, many_proxies, {"scale": 3.0, "gamma": 0.5, "margin": 0.2}),
}
