"""Closed forms, in torch, of the margin, classification, regression, distillation and consistency losses.

A function has the name of its loss and takes inputs and hyperparameters by name. Losses of a single sample
are written for N of them; `header` is then the parameter list of the program that lifts the loss over N.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Row:
    """A loss and its closed form. hypers: the settings to compare under. fixed: inputs that get no gradient.

    bounded: at inputs of 1e4 its true value is a number in single precision.
    """

    family: str
    name: str
    form: Callable
    header: str
    hypers: tuple[dict, ...]
    fixed: tuple[str, ...]
    bounded: bool


ROWS: list[Row] = []


def of(family, header="", *hypers, fixed=(), bounded=True):
    """Registers a closed form; the defaults are compared too, unless the first setting stands for them."""

    def register(form):
        settings = hypers if hypers and hypers[0].pop("only", False) else ({}, *hypers)
        ROWS.append(Row(family, form.__name__, form, header, settings, fixed, bounded))
        return form

    return register


def margin(*hypers, bounded=True):
    """Registers a function of the margin."""

    def register(phi):
        def form(score, sign, **hyper):
            return phi(sign * score, **hyper).mean()

        form.__name__ = phi.__name__
        of("margin", "", *hypers, bounded=bounded)(form)
        return phi

    return register


# ---- margin --------------------------------------------------------------------------------


@margin()
def hinge(u):
    return (1 - u).relu()


@margin()
def squared_hinge(u):
    return (1 - u).relu() ** 2


@margin({"width": 0.4})
def smooth_hinge(u, width=1.0):
    gap = (1 - u).relu()
    return F.huber_loss(gap, torch.zeros_like(u), reduction="none", delta=width) / width


@margin()
def modified_huber(u):
    return torch.where(u < -1, -4 * u, (1 - u).relu() ** 2)


@margin()
def logistic(u):
    return F.softplus(-u)


@margin(bounded=False)
def exponential(u):
    return torch.exp(-u)


@margin()
def perceptron(u):
    return (-u).relu()


@margin()
def squared_margin(u):
    return (1 - u) ** 2


@margin()
def unhinged(u):
    return 1 - u


@margin()
def distance_weighted(u):
    return torch.where(u > 0.5, 0.25 / u.clamp(min=0.5), 1 - u)


@margin({"s": 0.5})
def ramp(u, s=-1.0):
    return (1 - u).relu() - (s - u).relu()


@margin()
def sigmoid_margin(u):
    return 1 / (1 + u.exp())


@margin()
def savage(u):
    return 1 / (1 + (2 * u).exp()) ** 2


@margin()
def tangent(u):
    return (2 * u.atan() - 1) ** 2


@margin({"gamma": 0.0}, {"gamma": 0.5})
def binary_focal(u, gamma=2.0):
    return (1 - u.sigmoid()) ** gamma * F.softplus(-u)


@of("margin", "", {"cost": 0.9})
def cost_sensitive_logistic(score, sign, cost=0.5):
    return ((0.5 + (cost - 0.5) * sign) * F.softplus(-sign * score)).mean()


# ---- classification ------------------------------------------------------------------------

LABELLED = "logits: real[N, C], labels: int[N] < C"
LABELLED_TWO = "logits: real[N, C >= 2], labels: int[N] < C"
BINARY = "logits: real[N], target: bool[N]"


def own(logits, labels):
    return logits.softmax(-1).gather(-1, labels[..., None])[..., 0]


def onehot(labels, like):
    return F.one_hot(labels, like.shape[-1])


@of("classification", LABELLED)
def cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")


@of("classification", "logits: real[N, C], prob: prob[N, C]")
def soft_cross_entropy(logits, prob):
    return F.cross_entropy(logits, prob, reduction="none")


@of("classification", "log_prob: real[N, C], labels: int[N] < C")
def nll(log_prob, labels):
    return F.nll_loss(log_prob, labels, reduction="none")


@of("classification", LABELLED, {"smoothing": 0.0}, {"smoothing": 1.0})
def smoothed_cross_entropy(logits, labels, smoothing=0.1):
    return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")


@of("classification", LABELLED + ", prior: real[C] in (0, 1]", {"tau": 0.3})
def adjusted_cross_entropy(logits, labels, prior, tau=1.0):
    return cross_entropy(logits + tau * prior.log(), labels)


@of("classification")
def weighted_cross_entropy(logits, labels, weight):
    each = weight[labels]
    return (each * cross_entropy(logits, labels)).sum() / each.sum()


@of("classification")
def masked_cross_entropy(logits, labels):
    kept = labels >= 0
    return F.cross_entropy(logits[kept], labels[kept]) if kept.any() else 0 * logits.sum()


@of("classification", LABELLED, {"gamma": 0.0}, {"gamma": 0.5})
def focal(logits, labels, gamma=2.0):
    return (1 - own(logits, labels)) ** gamma * cross_entropy(logits, labels)


@of("classification", LABELLED, {"eps": -1.0})
def poly(logits, labels, eps=1.0):
    return cross_entropy(logits, labels) + eps * (1 - own(logits, labels))


@of("classification", LABELLED)
def brier(logits, labels):
    return (logits.softmax(-1) - onehot(labels, logits)).square().sum(-1)


@of("classification", LABELLED, {"q": 1.0})
def generalized_cross_entropy(logits, labels, q=0.7):
    return (1 - own(logits, labels) ** q) / q


@of("classification", LABELLED, {"alpha": 2.0, "beta": 0.5, "log_zero": -2.0})
def symmetric_cross_entropy(logits, labels, alpha=0.1, beta=1.0, log_zero=-4.0):
    reverse = -log_zero * (logits.softmax(-1) * (1 - onehot(labels, logits))).sum(-1)
    return alpha * cross_entropy(logits, labels) + beta * reverse


@of("classification", LABELLED, {"beta": 0.7})
def confidence_penalty(logits, labels, beta=0.1):
    return cross_entropy(logits, labels) - beta * prediction_entropy(logits)


@of("classification", LABELLED, {"margin": 0.5, "p": 2})
def multi_margin(logits, labels, margin=1.0, p=1):
    return F.multi_margin_loss(logits, labels, p=p, margin=margin, reduction="none")


@of("classification", LABELLED_TWO, {"margin": 0.3})
def crammer_singer(logits, labels, margin=1.0):
    mine = onehot(labels, logits).bool()
    return (margin + logits.masked_fill(mine, -torch.inf).max(-1).values - logits[mine]).relu()


@of("classification", "logits: real[N], target: real[N] in [0, 1]", {"pos_weight": 3.0})
def binary_cross_entropy(logits, target, pos_weight=1.0):
    weight = torch.tensor(pos_weight, dtype=logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")


@of("classification", BINARY, {"gamma": 0.5, "alpha": 0.6})
def sigmoid_focal(logits, target, gamma=2.0, alpha=0.25):
    t, p = target.double(), logits.sigmoid()
    likelihood = p * t + (1 - p) * (1 - t)
    return (alpha * t + (1 - alpha) * (1 - t)) * (1 - likelihood) ** gamma * -likelihood.log()


@of("classification", BINARY, {"gamma_pos": 1.5, "gamma_neg": 2.0, "clip": 0.2})
def asymmetric(logits, target, gamma_pos=0.0, gamma_neg=4.0, clip=0.05):
    p = logits.sigmoid()
    shifted = (p - clip).clamp(min=0)
    return torch.where(target, -((1 - p) ** gamma_pos) * p.log(), -(shifted**gamma_neg) * (1 - shifted).log())


@of("classification", "logits: real[N, C], target: real[N, C] in [0, 1]")
def multilabel_soft_margin(logits, target):
    return F.multilabel_soft_margin_loss(logits, target, reduction="none")


@of("classification")
def sft_tokens(logits, tokens, mask):
    return masked_cross_entropy(logits.flatten(0, 1), torch.where(mask, tokens, -1).flatten())


@of("classification")
def next_token(logits, tokens, mask):
    return sft_tokens(logits[:, :-1], tokens[:, 1:], mask[:, 1:])


# ---- regression ----------------------------------------------------------------------------

PAIR = "prediction: real[N], target: real[N]"


@of("regression", PAIR)
def squared_error(prediction, target):
    return F.mse_loss(prediction, target, reduction="none")


@of("regression", PAIR)
def absolute_error(prediction, target):
    return F.l1_loss(prediction, target, reduction="none")


@of("regression", PAIR, {"delta": 0.3})
def huber(prediction, target, delta=1.0):
    return F.huber_loss(prediction, target, reduction="none", delta=delta)


@of("regression", PAIR, {"beta": 0.3})
def smooth_l1(prediction, target, beta=1.0):
    return F.smooth_l1_loss(prediction, target, reduction="none", beta=beta)


@of("regression", PAIR)
def log_cosh(prediction, target):
    return (prediction - target).cosh().log()


@of("regression", PAIR, {"eps": 0.5})
def charbonnier(prediction, target, eps=1e-3):
    return ((prediction - target) ** 2 + eps**2).sqrt()


@of("regression", PAIR, {"eps": 1.0})
def epsilon_insensitive(prediction, target, eps=0.1):
    return F.softshrink(prediction - target, eps).abs()


@of("regression", PAIR, {"eps": 1.0})
def squared_epsilon_insensitive(prediction, target, eps=0.1):
    return F.softshrink(prediction - target, eps) ** 2


@of("regression", "prediction: real[N] > -1, target: real[N] > -1")
def squared_log_error(prediction, target):
    return ((1 + prediction) / (1 + target)).log() ** 2


@of("regression", PAIR, {"q": 0.9})
def quantile(prediction, target, q=0.5):
    return q * (target - prediction).relu() + (1 - q) * (prediction - target).relu()


@of("regression", PAIR, {"q": 0.9})
def expectile(prediction, target, q=0.5):
    return q * (target - prediction).relu() ** 2 + (1 - q) * (prediction - target).relu() ** 2


@of("regression", PAIR, {"scale": 2.5})
def cauchy(prediction, target, scale=1.0):
    return scale**2 / 2 * (1 + ((prediction - target) / scale) ** 2).log()


@of("regression", PAIR, {"scale": 2.5})
def geman_mcclure(prediction, target, scale=1.0):
    square = (prediction - target) ** 2
    return square / 2 / (1 + square / scale**2)


@of("regression", PAIR, {"scale": 2.5})
def welsch(prediction, target, scale=1.0):
    return scale**2 / 2 * (1 - (-(((prediction - target) / scale) ** 2)).exp())


@of("regression", PAIR, {"scale": 1.0})
def tukey(prediction, target, scale=4.685):
    inside = ((prediction - target) / scale).clamp(-1, 1)
    return scale**2 / 6 * (1 - (1 - inside**2) ** 3)


@of("regression", PAIR, {"width": 1.0, "curvature": 0.5})
def wing(prediction, target, width=10.0, curvature=2.0):
    e = (prediction - target).abs()
    beyond = e - width + width * math.log(1 + width / curvature)
    return torch.where(e < width, width * (1 + e / curvature).log(), beyond)


@of("regression", "prediction: real[N], variance: real[N] > 0, target: real[N]")
def gaussian_nll(prediction, variance, target):
    return F.gaussian_nll_loss(prediction, target, variance, reduction="none")


@of("regression", "prediction: real[N], log_variance: real[N], target: real[N]", bounded=False)
def gaussian_log_nll(prediction, log_variance, target):
    normal = torch.distributions.Normal(prediction, (log_variance / 2).exp())
    return -normal.log_prob(target) - math.log(2 * math.pi) / 2


@of("regression", "prediction: real[N], scale: real[N] > 0, target: real[N]")
def laplace_nll(prediction, scale, target):
    return -torch.distributions.Laplace(prediction, scale).log_prob(target)


@of("regression", "log_rate: real[N], target: real[N] >= 0", bounded=False)
def poisson_nll(log_rate, target):
    return F.poisson_nll_loss(log_rate, target, reduction="none")


@of("regression")
def correlation_loss(prediction, target):
    return 1 - torch.corrcoef(torch.stack([prediction, target]))[0, 1]


# ---- distillation --------------------------------------------------------------------------

SCORES = "p: real[N, C], q: real[N, C]"
TWO = "student: real[N, C], teacher: real[N, C]"
FEATURES = "student: real[N, D], teacher: real[N, D]"
TEACHER = ("teacher",)


@of("distillation", "p: prob[N, C], q: prob[N, C]", bounded=False)
def kl_divergence(p, q):
    return (p * (p / q).log()).sum(-1)


@of("distillation", SCORES)
def kl_logits(p, q):
    return F.kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True).sum(-1)


@of("distillation", SCORES)
def jensen_shannon(p, q):
    return generalized_jsd(p, q)


@of("distillation", SCORES, {"beta": 0.2})
def generalized_jsd(p, q, beta=0.5):
    p, q = p.softmax(-1), q.softmax(-1)
    m = beta * p + (1 - beta) * q
    return beta * kl_divergence(p, m) + (1 - beta) * kl_divergence(q, m)


@of("distillation", TWO, {"tau": 1.0}, fixed=TEACHER)
def distill(student, teacher, tau=4.0):
    return tau**2 * kl_logits(teacher / tau, student / tau)


@of("distillation", TWO, {"tau": 1.0}, fixed=TEACHER)
def soft_target(student, teacher, tau=4.0):
    return tau**2 * soft_cross_entropy(student / tau, (teacher / tau).softmax(-1))


@of("distillation", TWO + ", labels: int[N] < C", {"tau": 2.0, "lam": 0.3}, fixed=TEACHER)
def labelled_distill(student, teacher, labels, tau=4.0, lam=0.9):
    return (1 - lam) * cross_entropy(student, labels) + lam * distill(student, teacher, tau)


@of("distillation", TWO, {"tau": 3.0}, fixed=TEACHER)
def reverse_distill(student, teacher, tau=1.0):
    return tau**2 * kl_logits(student / tau, teacher / tau)


@of("distillation", TWO, {"beta": 0.1}, fixed=TEACHER)
def jsd_distill(student, teacher, beta=0.5):
    return generalized_jsd(teacher, student, beta)


@of(
    "distillation",
    "student: real[N, C >= 2], teacher: real[N, C], labels: int[N] < C",
    {"tau": 1.0, "alpha": 2.0, "beta": 0.5},
    fixed=TEACHER,
)
def decoupled_distill(student, teacher, labels, tau=4.0, alpha=1.0, beta=8.0):
    mine = onehot(labels, student).bool()
    scores = student / tau, teacher / tau
    pair_s, pair_t = (torch.stack([x.softmax(-1)[mine], 1 - x.softmax(-1)[mine]], -1) for x in scores)
    rest_s, rest_t = (x[~mine].reshape(len(x), -1) for x in scores)
    return tau**2 * (alpha * kl_divergence(pair_t, pair_s) + beta * kl_logits(rest_t, rest_s))


@of("distillation", "", {"tau": 2.0}, fixed=TEACHER)
def token_distill(student, teacher, mask, tau=1.0):
    return distill(student, teacher, tau)[mask].mean()


@of("distillation", FEATURES, fixed=TEACHER)
def feature_distill(student, teacher):
    return F.mse_loss(student, teacher, reduction="none").mean(-1)


@of("distillation", FEATURES, fixed=TEACHER)
def cosine_distill(student, teacher):
    return 1 - F.cosine_similarity(student, teacher)


@of("distillation", "student: real[N, K, H, W], teacher: real[N, L, H, W]", fixed=TEACHER)
def attention_transfer(student, teacher):
    s, t = (F.normalize(x.square().mean(1).flatten(1)) for x in (student, teacher))
    return (s - t).square().mean(-1)


@of("distillation", fixed=TEACHER)
def relational_distance(student, teacher):
    off = ~torch.eye(len(student), dtype=torch.bool)
    s, t = ((x[:, None] - x[None])[off].square().sum(-1).sqrt() for x in (student, teacher))
    return F.smooth_l1_loss(s / s.mean(), t / t.mean())


@of("distillation", fixed=TEACHER)
def relational_angle(student, teacher):
    i, j, k = torch.cartesian_prod(*[torch.arange(len(student))] * 3).T
    apart = (i != j) & (j != k) & (k != i)
    i, j, k = i[apart], j[apart], k[apart]
    s, t = (F.cosine_similarity(x[i] - x[j], x[k] - x[j]) for x in (student, teacher))
    return F.smooth_l1_loss(s, t)


@of("distillation", fixed=TEACHER)
def similarity_preserving(student, teacher):
    s, t = (F.normalize(x @ x.T, dim=1) for x in (student, teacher))
    return (s - t).square().mean()


# ---- consistency ---------------------------------------------------------------------------

VIEWS = "z: real[N, C], w: real[N, C]"


def entropy(p):
    return torch.special.entr(p).sum(-1)


@of("consistency", "logits: real[N, C]")
def prediction_entropy(logits):
    return torch.distributions.Categorical(logits=logits).entropy()


@of("consistency")
def information_maximization(logits):
    return prediction_entropy(logits).mean() - entropy(logits.softmax(-1).mean(0))


@of(
    "consistency",
    "guide: real[N, C], logits: real[N, C]",
    {"only": True, "threshold": 0.4},
    {"threshold": 0.0},
    fixed=("guide",),
)
def pseudo_label(guide, logits, threshold=0.95):
    confidence, label = guide.softmax(-1).max(-1)
    return (confidence >= threshold) * cross_entropy(logits, label)


@of("consistency", "", {"threshold": 0.4}, fixed=("weak",))
def fixmatch(weak, strong, threshold=0.95):
    return pseudo_label(weak, strong, threshold).mean()


@of("consistency", "", {"threshold": 0.4})
def self_training(logits, threshold=0.95):
    return pseudo_label(logits.detach(), logits, threshold).mean()


@of("consistency", "", {"threshold": 0.4}, {"threshold": 0.2, "tau": 2.0}, fixed=("weak",))
def uda(weak, strong, threshold=0.8, tau=0.4):
    kept = weak.softmax(-1).max(-1).values >= threshold
    return (kept * soft_cross_entropy(strong, (weak / tau).softmax(-1))).mean()


@of("consistency", TWO, fixed=TEACHER)
def mean_teacher(student, teacher):
    return (student.softmax(-1) - teacher.softmax(-1)).square().mean(-1)


@of("consistency", "weak: real[N, C], strong: real[N, C]", {"tau": 1.0}, fixed=("weak",))
def sharpened_consistency(weak, strong, tau=0.5):
    power = weak.softmax(-1) ** (1 / tau)
    return (strong.softmax(-1) - power / power.sum(-1, keepdim=True)).square().mean(-1)


@of("consistency", "logits: real[N, C], perturbed: real[N, C]", fixed=("logits",))
def virtual_adversarial(logits, perturbed):
    return kl_logits(logits, perturbed)


@of("consistency", VIEWS)
def symmetric_kl(z, w):
    return ((z.softmax(-1) - w.softmax(-1)) * (z - w)).sum(-1) / 2


@of("consistency", "logits: real[N, V, C]")
def view_jsd(logits):
    p = logits.softmax(-1)
    return kl_divergence(p, p.mean(1, keepdim=True)).mean(-1)


@of("consistency", VIEWS)
def cosine_consistency(z, w):
    return 1 - F.cosine_similarity(z, w)
