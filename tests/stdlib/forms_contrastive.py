"""Contrastive and self-distilling losses in plain torch."""

import math

import torch
import torch.nn.functional as F
from references.base import unit

# ---- closed forms ----


def cosines(z, w):
    return unit(z) @ unit(w).T


def info_nce(x, tau=0.1):
    return F.cross_entropy(cosines(x["z"], x["w"]) / tau, torch.arange(len(x["z"])))


def info_nce_bank(x, tau=0.07):
    own = F.cosine_similarity(x["z"], x["w"])
    scores = torch.cat([own[:, None], cosines(x["z"], x["negatives"])], 1) / tau
    return F.cross_entropy(scores, torch.zeros(len(own), dtype=torch.int64))


def clip(x, tau=0.07):
    s, own = cosines(x["z"], x["w"]) / tau, torch.arange(len(x["z"]))
    return (F.cross_entropy(s, own) + F.cross_entropy(s.T, own)) / 2


def siglip(x, scale=10.0, bias=-10.0):
    s = scale * cosines(x["z"], x["w"]) + bias
    return -F.logsigmoid((2 * torch.eye(len(s)) - 1) * s).sum() / len(s)


def supcon(x, tau=0.07):
    s, labels = cosines(x["z"], x["z"]) / tau, x["labels"].tolist()
    values = []
    for i in range(len(s)):
        others = [j for j in range(len(s)) if j != i]
        log_p = {j: s[i, j] - torch.logsumexp(s[i, others], 0) for j in others}
        own = [-log_p[j] for j in others if labels[j] == labels[i]]
        values.append(torch.stack(own).mean() if own else 0 * s.sum())
    return torch.stack(values).mean()


def supcon_views(x, tau=0.07, base_tau=0.07):
    both = {"z": torch.cat([x["z"], x["w"]]), "labels": torch.cat([x["labels"], x["labels"]])}
    return tau / base_tau * supcon(both, tau)


def views(x, tau):
    """Scores of all 2N views, and whether two of them are of different rows."""
    v, n = torch.cat([x["z"], x["w"]]), len(x["z"])
    row = torch.arange(2 * n) % n
    return cosines(v, v) / tau, row[:, None] != row, (torch.arange(2 * n) + n) % (2 * n)


def nt_xent(x, tau=0.5):
    s, _, mate = views(x, tau)
    return F.cross_entropy(s.masked_fill(torch.eye(len(s), dtype=torch.bool), -math.inf), mate)


def dcl(x, tau=0.1):
    s, other, mate = views(x, tau)
    own = s.gather(1, mate[:, None])[:, 0]
    return (torch.logsumexp(s.masked_fill(~other, -math.inf), 1) - own).mean()


def debiased_nce(x, tau=0.5, prior=0.1):
    s, other, mate = views(x, tau)
    own, count = s.gather(1, mate[:, None])[:, 0].exp(), len(s) - 2
    ng = (-prior * count * own + (s.exp() * other).sum(1)) / (1 - prior)
    ng = ng.clamp(min=count * math.exp(-1 / tau))
    return -torch.log(own / (own + ng)).mean()


def spectral_contrastive(x):
    s = x["z"] @ x["w"].T
    n = len(s)
    return ((s**2).sum() - (s.diagonal() ** 2).sum()) / (n * (n - 1)) - 2 * s.diagonal().mean()


def alignment(x, alpha=2.0):
    return (unit(x["z"]) - unit(x["w"])).norm(dim=1).pow(alpha).mean()


def uniformity(x, t=2.0):
    return torch.pdist(unit(x["z"])).pow(2).mul(-t).exp().mean().log()


def koleo(x, eps=1e-8):
    u = unit(x["z"])
    nearest = [min((u[i] - u[j]).norm() for j in range(len(u)) if j != i) for i in range(len(u))]
    return -torch.log(torch.stack(nearest) + eps).mean()


def barlow_twins(x, lam=0.005, eps=1e-5):
    a, b = (F.batch_norm(v, None, None, training=True, eps=eps) for v in (x["z"], x["w"]))
    c = a.T @ b / len(a)
    on, square = (c.diagonal() - 1) ** 2, c**2
    return on.sum() + lam * (square.sum() - square.diagonal().sum())


def vicreg(x, lam=25.0, mu=25.0, nu=1.0, gamma=1.0, eps=1e-4):
    value = lam * F.mse_loss(x["z"], x["w"])
    for v in (x["z"], x["w"]):
        value = value + mu / 2 * F.relu(gamma - torch.sqrt(v.var(0) + eps)).mean()
        square = torch.cov(v.T) ** 2
        value = value + nu * (square.sum() - square.diagonal().sum()) / v.shape[1]
    return value


def byol(x):
    return (unit(x["student"]) - unit(x["teacher"].detach())).pow(2).sum(1).mean()


def simsiam(x):
    first = F.cosine_similarity(x["p"], x["w"].detach()).mean()
    return -(first + F.cosine_similarity(x["q"], x["z"].detach()).mean()) / 2


def balanced(score, eps, rounds):
    q = (score / eps).exp().T
    q = q / q.sum()
    for _ in range(rounds):
        q = q / q.sum(1, keepdim=True) / len(q)
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T.detach()


def swav(x, tau=0.1, eps=0.05, rounds=3):
    pairs = ((x["z"], x["w"]), (x["w"], x["z"]))
    return sum(F.cross_entropy(a / tau, balanced(b, eps, int(rounds))) for a, b in pairs) / 2


# ---- inputs ----


def pair(draw, scale=1.0):
    return {"z": draw.normal(5, 4, scale=scale), "w": draw.normal(5, 4, scale=scale)}


def labelled_pair(draw, scale=1.0):
    return {**pair(draw, scale), "labels": draw.integers(5, below=3)}


def bank(draw, scale=1.0):
    return {**pair(draw, scale), "negatives": draw.normal(7, 4, scale=scale)}


def rows(draw, scale=1.0):
    return {"z": draw.normal(6, 4, scale=scale)}


def labelled(draw, scale=1.0):
    return {"z": draw.normal(9, 4, scale=scale), "labels": torch.tensor([0, 1, 0, 2, 1, 1, 3, 0, 2])}


def named(*names):
    return lambda draw, scale=1.0: {name: draw.normal(5, 4, scale=scale) for name in names}


# name: closed form, inputs, hyperparameters to try beside the defaults
LOSSES = {
    "info_nce": (info_nce, pair, {"tau": 0.5}),
    "info_nce_bank": (info_nce_bank, bank, {"tau": 0.4}),
    "clip": (clip, pair, {"tau": 0.4}),
    "clip_trained": (clip, pair, {"tau": 0.3}),
    "siglip": (siglip, pair, {"scale": 3.0, "bias": -1.0}),
    "siglip_trained": (siglip, pair, {}),
    "supcon": (supcon, labelled, {"tau": 0.5}),
    "supcon_views": (supcon_views, labelled_pair, {"tau": 0.2, "base_tau": 0.1}),
    "nt_xent": (nt_xent, pair, {"tau": 0.1}),
    "dcl": (dcl, pair, {"tau": 0.4}),
    "debiased_nce": (debiased_nce, pair, {"tau": 0.9, "prior": 0.3}),
    "spectral_contrastive": (spectral_contrastive, pair, {}),
    "alignment": (alignment, pair, {"alpha": 1.0}),
    "uniformity": (uniformity, rows, {"t": 0.7}),
    "koleo": (koleo, rows, {"eps": 0.1}),
    "barlow_twins": (barlow_twins, pair, {"lam": 0.1, "eps": 0.01}),
    "vicreg": (vicreg, pair, {"lam": 1.0, "mu": 2.0, "nu": 3.0, "gamma": 1.5, "eps": 0.01}),
    "byol": (byol, named("student", "teacher"), {}),
    "simsiam": (simsiam, named("p", "q", "z", "w"), {}),
    "swav": (swav, pair, {"tau": 0.3, "eps": 0.2, "rounds": 5}),
}
