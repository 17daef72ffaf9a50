"""The programs that the language was designed around: each compiles as it stands and computes what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import lossdsl

PREFERENCE = '''
"""Preference losses on sequence log-probabilities."""

record Policy[B]:
    chosen: real[B]        # log-probability of the preferred answer
    rejected: real[B]

loss dpo(pi: Policy[B], ref: Policy[B]; beta: real > 0 = 0.1):
    """Direct preference optimisation, arXiv:2305.18290."""
    margin = (pi.chosen - ref.chosen) - (pi.rejected - ref.rejected)
    mean[B](softplus(-beta * margin))
    ensures convex in pi, value >= 0

loss sft(pi: Policy[B]):
    -mean[B](pi.chosen)
    ensures affine in pi
'''
RPO = """
use preference: Policy, dpo, sft

loss rpo(pi: Policy[B], ref: Policy[B]; beta: real > 0 = 0.1, eta: real >= 0 = 0.005):
    dpo(pi, ref, beta=beta) + eta * beta * sft(pi)
    ensures convex in pi           # derived: a conic combination of convex terms
"""
CONTRASTIVE = """
loss info_nce(z: real[N, D], w: real[N, D]; tau: real > 0 = 0.1):
    s[i, j] = cos(z[i], w[j]) / tau
    mean[i](logsumexp[j](s[i, j]) - s[i, i])

loss supcon(z: real[N, D], labels: int[N]; tau: real > 0 = 0.07):
    s[i, j] = cos(z[i], z[j]) / tau
    mean[i](mean[p | p != i and labels[p] == labels[i]](
        logsumexp[a | a != i](s[i, a]) - s[i, p]
    ) else 0)
"""
TOKENS = """
loss cross_entropy(logits: real[C], labels: int < C):        # per sample: lifts over N, T, H, W ...
    logsumexp[C](logits) - logits[labels]

loss sft_tokens(logits: real[B, T, V], tokens: int[B, T] < V, mask: bool[B, T]):
    mean[b, t | mask[b, t]](cross_entropy(logits[b, t], tokens[b, t])) else 0
"""
DINO = """
loss dino(student: real[V, N, K], teacher: real[U, N, K];
          tau_s: real > 0 = 0.1, tau_t: real > 0 = 0.04, momentum: real in [0, 1] = 0.9):
    state center: real[K] = 0
    p = stop(softmax[K]((teacher - center) / tau_t))
    q = log_softmax[K](student / tau_s)
    value = mean[u: U, v: V, n | u != v](-dot(p[u, n], q[v, n])) else 0
    center := momentum * center + (1 - momentum) * mean[U, N](teacher)
    value
"""
OTHERS = """
def blur(x: real[H, W], g: real[S]):                 # a separable window, as a formula
    y[h, w] = sum[a, b](g[a] * g[b] * x[h + a, w + b])      # h ranges over H - S + 1
    y

loss hinge(score: real[N], sign: sign[N]):
    mean[N](relu(1 - sign * score))
    ensures convex in score, calibrated, lipschitz(1) in score
"""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def compare(value: torch.Tensor, expected: torch.Tensor, leaves: list[torch.Tensor]) -> None:
    """Values and gradients agree in double precision."""
    assert torch.allclose(value, expected, rtol=1e-11, atol=1e-13)
    ours = torch.autograd.grad(value.sum(), leaves, retain_graph=True)
    theirs = torch.autograd.grad(expected.sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def policies() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    pi = {"chosen": normal(7).requires_grad_(), "rejected": normal(7, seed=1).requires_grad_()}
    return pi, {"chosen": normal(7, seed=2), "rejected": normal(7, seed=3)}


def dpo_by_hand(pi: Any, ref: Any, beta: float) -> torch.Tensor:
    margin = (pi["chosen"] - pi["rejected"]) - (ref["chosen"] - ref["rejected"])
    return -F.logsigmoid(beta * margin).mean()


def test_dpo() -> None:
    pi, ref = policies()
    compare(lossdsl.compile(PREFERENCE, beta=0.3)(pi=pi, ref=ref), dpo_by_hand(pi, ref, 0.3), list(pi.values()))


def test_rpo_uses_another_file(tmp_path: Path) -> None:
    (tmp_path / "preference.loss").write_text(PREFERENCE)
    (tmp_path / "rpo.loss").write_text(RPO)
    pi, ref = policies()
    expected = dpo_by_hand(pi, ref, 0.1) - 0.005 * 0.1 * pi["chosen"].mean()
    compare(lossdsl.load(tmp_path / "rpo.loss")(pi=pi, ref=ref), expected, list(pi.values()))


def test_lone_expression_takes_its_inputs_from_the_calls() -> None:
    pi, ref = policies()
    own = lossdsl.compile("dpo(pi, ref) + beta*sft(pi)", beta=0.05)
    compare(own(pi=pi, ref=ref), dpo_by_hand(pi, ref, 0.1) - 0.05 * pi["chosen"].mean(), list(pi.values()))
    assert [i.name for i in own.signature.inputs] == ["pi.chosen", "pi.rejected", "ref.chosen", "ref.rejected"]


def test_info_nce() -> None:
    z, w = normal(6, 4).requires_grad_(), normal(6, 4, seed=1).requires_grad_()
    scores = F.normalize(z, dim=1) @ F.normalize(w, dim=1).T / 0.1
    compare(lossdsl.compile(CONTRASTIVE)(z=z, w=w), F.cross_entropy(scores, torch.arange(6)), [z, w])


def test_supcon_with_an_anchor_without_positives() -> None:
    z, labels = normal(6, 4).requires_grad_(), torch.tensor([0, 1, 0, 2, 1, 0])
    unit = F.normalize(z, dim=1)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(6):
        scores = [unit[i] @ unit[a] / 0.07 for a in range(6)]
        normalizer = torch.logsumexp(torch.stack([scores[a] for a in range(6) if a != i]), 0)
        positives = [p for p in range(6) if p != i and labels[p] == labels[i]]
        if positives:
            total = total + torch.stack([normalizer - scores[p] for p in positives]).mean()
    compare(lossdsl.compile(CONTRASTIVE, "supcon")(z=z, labels=labels), total / 6, [z])


def test_cross_entropy_lifts_over_any_axes() -> None:
    text = (
        TOKENS
        + "\nloss pixels(logits: real[N, H, W, C], labels: int[N, H, W] < C):\n    mean[N, H, W](cross_entropy(logits, labels))\n"
    )
    logits = normal(2, 3, 4, 5).requires_grad_()
    labels = torch.randint(0, 5, (2, 3, 4), generator=torch.Generator().manual_seed(0))
    expected = F.cross_entropy(logits.flatten(0, 2), labels.flatten())
    compare(lossdsl.compile(text, "pixels")(logits=logits, labels=labels), expected, [logits])


def test_sft_tokens_over_kept_tokens_and_over_none() -> None:
    loss = lossdsl.compile(TOKENS, "sft_tokens")
    logits, tokens = (
        normal(2, 5, 7).requires_grad_(),
        torch.randint(0, 7, (2, 5), generator=torch.Generator().manual_seed(1)),
    )
    mask = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 1, 0, 0]])
    nll = -logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    compare(loss(logits=logits, tokens=tokens, mask=mask), (nll * mask).sum() / mask.sum(), [logits])
    empty = loss(logits=logits, tokens=tokens, mask=torch.zeros(2, 5, dtype=torch.bool))
    assert empty == 0
    (gradient,) = torch.autograd.grad(empty, logits)
    assert torch.equal(gradient, torch.zeros_like(logits))


def test_dino_value_and_centre() -> None:
    loss = lossdsl.compile(DINO)
    student, teacher = normal(4, 3, 5).requires_grad_(), normal(2, 3, 5, seed=1)
    centre = torch.zeros(5, dtype=torch.float64)
    for _ in range(3):
        target = ((teacher - centre) / 0.04).softmax(-1)
        logits = (student / 0.1).log_softmax(-1)
        terms = [-(target[u] * logits[v]).sum(-1) for u in range(2) for v in range(4) if u != v]
        compare(loss(student=student, teacher=teacher), torch.stack(terms).mean(), [student])
        centre = 0.9 * centre + 0.1 * teacher.mean((0, 1))
        assert torch.allclose(loss.state_dict()["center"], centre, rtol=1e-12)


def test_blur_is_a_valid_separable_convolution() -> None:
    x, g = normal(6, 8).requires_grad_(), normal(3).requires_grad_()
    expected = F.conv2d(x[None, None], torch.outer(g, g)[None, None])[0, 0]
    compare(lossdsl.compile(OTHERS, "blur")(x=x, g=g), expected, [x, g])


def test_hinge_keeps_its_promises_in_the_program() -> None:
    score, sign = normal(9).requires_grad_(), normal(9, seed=2).sign()
    loss = lossdsl.compile(OTHERS, "hinge")
    compare(loss(score=score, sign=sign), F.relu(1 - sign * score).mean(), [score])


@pytest.mark.parametrize("text", [PREFERENCE, CONTRASTIVE, TOKENS, DINO, OTHERS])
def test_every_program_passes_the_checker(text: str) -> None:
    assert lossdsl.check(text) == []
