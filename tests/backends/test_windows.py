"""Weighted windows are computed as written, whatever their length, stride, border and place."""

import pytest
import torch

import lossdsl
from lossdsl.runtime.functions import window_sum


@pytest.mark.parametrize("length", [1, 2, 5, 40])
@pytest.mark.parametrize(("start", "step"), [(0, 1), (3, 1), (1, 2), (0, 3)])
def test_window_sums_equal_their_definition(length, start, step):
    x = torch.randn(2, 130, dtype=torch.float64, requires_grad=True)
    g = torch.randn(length, dtype=torch.float64, requires_grad=True)
    count = (130 - start - length) // step + 1
    wanted = (x[:, start:].unfold(-1, length, step)[:, :count] * g).sum(-1)
    got = window_sum(x, g, start, step, count)
    torch.testing.assert_close(got, wanted)
    weights = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad((got * weights).sum(), (x, g)),
        torch.autograd.grad((wanted * weights).sum(), (x, g)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_windows_of_mirrored_values_look_each_value_up_once():
    loss = lossdsl.compile(
        "loss f(x: real[N], g: real[S]) -> real[N + 3 - S]:\n"
        "    p[l: N + 2] = x[reflect(l - 1, N)]\n"
        "    y[l] = sum[a](g[a] * p[l + a])\n"
        "    y\n"
    )
    assert "window_sum" in loss.graph_module.code
    x, g = torch.randn(6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    padded = torch.cat([x[1:2], x, x[4:5]])
    torch.testing.assert_close(loss(x=x, g=g), padded.unfold(0, 3, 1) @ g)


def test_a_loop_may_hold_names_that_differ_in_case_or_not_at_all():
    loss = lossdsl.compile(
        "loss f(x: real[H, W], e: real[M]):\n"
        "    repeat j < M with y = x, w = W, total = 0:\n"
        "        total = total + where(j == M - 1, e[j], 1) * sum[h, v | v < w](y[h, v])\n"
        "        y, w = 2 * y, w // 2\n"
        "    total\n"
    )
    x, e = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    wanted = x.sum() + 2 * x[:, :2].sum() + e[2] * 4 * x[:, :1].sum()
    torch.testing.assert_close(loss(x=x, e=e), wanted)
