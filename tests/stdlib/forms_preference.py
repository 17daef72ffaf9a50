"""Preference losses in plain torch."""

import torch
import torch.nn.functional as F

# ---- closed forms ----


def gain(x):
    return (x["pi"]["chosen"] - x["pi"]["rejected"]) - (x["ref"]["chosen"] - x["ref"]["rejected"]).detach()


def log_odds(x):
    return x - torch.log1p(-x.exp())


def averages(x):
    return (x["pi"][k] / x["length"][k] for k in ("chosen", "rejected"))


def imitation(x):
    return -x["pi"]["chosen"].mean()


def cdpo(x, beta=0.1, noise=0.1):
    m = beta * gain(x)
    return -((1 - noise) * F.logsigmoid(m) + noise * F.logsigmoid(-m)).mean()


def robust_dpo(x, beta=0.1, noise=0.1):
    m = beta * gain(x)
    return (-(1 - noise) * F.logsigmoid(m) + noise * F.logsigmoid(-m)).mean() / (1 - 2 * noise)


def dpo_positive(x, beta=0.1, lam=50.0):
    fall = (x["ref"]["chosen"].detach() - x["pi"]["chosen"]).clamp(min=0)
    return -F.logsigmoid(beta * (gain(x) - lam * fall)).mean()


def sppo(x, beta=0.001):
    up = x["pi"]["chosen"] - x["ref"]["chosen"].detach() - 0.5 / beta
    down = x["pi"]["rejected"] - x["ref"]["rejected"].detach() + 0.5 / beta
    return (up**2 + down**2).mean()


def kto(x, beta=0.1, lam_desirable=1.0, lam_undesirable=1.0):
    r = beta * (x["policy"] - x["ref"].detach() - x["kl"].detach())
    value = torch.where(
        x["desirable"], lam_desirable * (1 - torch.sigmoid(r)), lam_undesirable * (1 - torch.sigmoid(-r))
    )
    return value.mean()


def kto_pairs(x, beta=0.1):
    chosen, rejected = (x["pi"][k] - x["ref"][k].detach() for k in ("chosen", "rejected"))
    chosen_kl, rejected_kl = (r.detach().mean().clamp(min=0) for r in (chosen, rejected))
    up, down = (
        1 - torch.sigmoid(beta * (chosen - rejected_kl)),
        1 - torch.sigmoid(beta * (chosen_kl - rejected)),
    )
    return torch.cat([up, down]).mean()


def simpo(x, beta=2.0, margin=1.0):
    chosen, rejected = averages(x)
    return -F.logsigmoid(beta * chosen - beta * rejected - margin).mean()


def orpo(x, lam=0.1):
    chosen, rejected = averages(x)
    return -chosen.mean() - lam * F.logsigmoid(log_odds(chosen) - log_odds(rejected)).mean()


def plackett_luce(x):
    score = x["score"]
    rest = [torch.logsumexp(score[:, k:], 1) - score[:, k] for k in range(score.shape[1])]
    return torch.stack(rest).sum(0).mean()


def sequence_logprob(x):
    picked = torch.log_softmax(x["logits"], -1).gather(-1, x["tokens"][..., None])[..., 0]
    return (picked * x["mask"]).sum(1)


# ---- inputs ----


def policy(draw, size, scale):
    return {part: -draw.uniform(size, low=0.05, high=1.0) * scale for part in ("chosen", "rejected")}


def policies(draw, scale=20.0):
    return {"pi": policy(draw, 6, scale), "ref": policy(draw, 6, scale)}


def alone(draw, scale=20.0):
    return {"pi": policy(draw, 6, scale)}


def with_lengths(draw, scale=20.0):
    length = {part: 1 + draw.integers(6, below=20) for part in ("chosen", "rejected")}
    return {"pi": policy(draw, 6, scale), "length": length}


def rewards(draw, scale=1.0):
    return {"chosen": draw.normal(5, scale=scale), "rejected": draw.normal(5, scale=scale)}


def graded(draw, scale=1.0):
    return {**rewards(draw, scale), "margin": draw.uniform(5)}


def unpaired(draw, scale=20.0):
    return {
        "policy": -draw.uniform(6) * scale,
        "ref": -draw.uniform(6) * scale,
        "desirable": draw.bits(6),
        "kl": draw.uniform(1)[0] * scale / 10,
    }


def ranked(draw, scale=1.0):
    return {"score": draw.normal(4, 5, scale=scale)}


def tokens(draw, scale=1.0):
    return {
        "logits": draw.normal(3, 4, 7, scale=scale),
        "tokens": draw.integers(3, 4, below=7),
        "mask": draw.bits(3, 4, chance=0.7),
    }


# name: closed form, inputs, hyperparameters to try beside the defaults
LOSSES = {
    "dpo": (lambda x, beta=0.1: -F.logsigmoid(beta * gain(x)).mean(), policies, {"beta": 0.5}),
    "sft": (imitation, alone, {}),
    "sft_per_token": (
        lambda x: -(x["pi"]["chosen"] / x["length"]).mean(),
        lambda draw, scale=20.0: {**alone(draw, scale), "length": 1 + draw.integers(6, below=9)},
        {},
    ),
    "cdpo": (cdpo, policies, {"beta": 0.3, "noise": 0.4}),
    "robust_dpo": (robust_dpo, policies, {"beta": 0.3, "noise": 0.4}),
    "ipo": (
        lambda x, beta=0.1: ((gain(x) - 1 / (2 * beta)) ** 2).mean(),
        policies,
        {"beta": 0.7},
    ),
    "hinge_dpo": (lambda x, beta=0.1: F.relu(1 - beta * gain(x)).mean(), policies, {"beta": 0.03}),
    "dpo_positive": (dpo_positive, policies, {"beta": 0.05, "lam": 0.2}),
    "sppo": (sppo, policies, {"beta": 0.2}),
    "kto": (kto, unpaired, {"beta": 0.4, "lam_desirable": 0.5, "lam_undesirable": 1.3}),
    "kto_pairs": (kto_pairs, policies, {"beta": 0.4}),
    "cpo": (
        lambda x, beta=0.1, lam=1.0: (
            -F.logsigmoid(beta * (x["pi"]["chosen"] - x["pi"]["rejected"])).mean() + lam * imitation(x)
        ),
        alone,
        {"beta": 0.5, "lam": 0.2},
    ),
    "slic": (
        lambda x, margin=1.0, lam=0.1: (
            F.relu(margin - x["pi"]["chosen"] + x["pi"]["rejected"]).mean() + lam * imitation(x)
        ),
        alone,
        {"margin": 3.0, "lam": 0.0},
    ),
    "simpo": (simpo, with_lengths, {"beta": 2.5, "margin": 0.3}),
    "orpo": (orpo, with_lengths, {"lam": 0.7}),
    "bradley_terry": (
        lambda x, margin=0.0: -F.logsigmoid(x["chosen"] - x["rejected"] - margin).mean(),
        rewards,
        {"margin": 0.5},
    ),
    "bradley_terry_graded": (
        lambda x: -F.logsigmoid(x["chosen"] - x["rejected"] - x["margin"]).mean(),
        graded,
        {},
    ),
    "plackett_luce": (plackett_luce, ranked, {}),
    "sequence_logprob": (sequence_logprob, tokens, {}),
}
