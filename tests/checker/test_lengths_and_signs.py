"""Lengths from hyperparameters, and signs of differences, are known to the checker."""

import pytest

import lossdsl


def codes(source):
    return [finding.code for finding in lossdsl.check(source)]


def test_arithmetic_on_whole_hyperparameters_is_a_length():
    assert (
        codes(
            "def mean_around(x: real[N]; reach: int >= 0 = 1):\n"
            "    p[l: N + 2 * reach] = x[l - reach] else 0\n"
            "    y[l] = mean[a: 2 * reach + 1](p[l + a])\n"
            "    y\n\n"
            "loss f(x: real[N]; reach: int >= 0 = 1) -> real[N]:\n"
            "    mean_around(x, reach=reach)\n"
        )
        == []
    )


def test_an_axis_that_may_be_empty_still_needs_an_else():
    assert codes("def f(x: real[N]; k: int >= 0 = 1):\n    y[a: k] = x[0]\n    mean[a: k](y[a])\n") == ["E031"]


@pytest.mark.parametrize("op", [">=", "<=", ">", "<"])
def test_a_guard_compares_a_bare_variable(op):
    assert codes(f"loss f(x: real[N]; r: int >= 0 = 1):\n    sum[i | i {op} r](x[i])\n") == []


def test_an_axis_has_a_least_length_only():
    assert codes("loss f(x: real[N > 2]):\n    mean[N](x)\n") == ["E004"]


def test_a_difference_of_compared_hyperparameters_has_a_sign():
    source = "loss f(x: real[N] in [0, 1]; lo: real > 0 = 1, hi: real {} = 2):\n    mean[N](1 / (lo + (hi - lo) * x))\n"
    assert codes(source.format("> lo")) == []
    assert codes(source.format("> 0")) == ["E030"]
