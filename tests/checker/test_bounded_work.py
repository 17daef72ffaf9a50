"""Programs whose parts are shared many times over take no longer than they are long."""

import time

import pytest

import lossdsl

ROUNDS = 60
CHAINS = {
    "hyperparameters": ("a", "x: real[N]; a: real > 0 = 1", "{p} + {p} * 0.1", "where({l} > 1, 1, 2) * mean[N](x)"),
    "choices of hyperparameters": ("a", "x: real[N]; a: real > 0 = 1", "where({p} > 1, {p} / 2, {p} + 0.1)", "{l} * mean[N](x)"),
    "tensors": ("x", "x: real[N]", "{p} * {p} / (1 + {p}^2)", "mean[N]({l})"),
    "choices": ("x", "x: real[N]", "where({p} > 0, {p} - 1, {p} + 1)", "mean[N]({l})"),
    "domains": ("x", "x: real[N] > 0", "log(1 + {p}) + sqrt({p})", "mean[N]({l})"),
    "guards": ("m", "x: real[N], m: bool[N]", "{p} and ({p} or {p})", "mean[n | {l}[n]](x[n]) else 0"),
    "guards with comparisons": ("m", "x: real[N], m: bool[N]", "({p} and x > 0) or ({p} and x < 0)", "sum[n | {l}[n]](x[n])"),
    "whole numbers": ("k", "x: real[N], k: int[N] < N", "({p} + {p}) % N", "mean[n](x[{l}[n]])"),
    "lengths": ("a", "x: real[N]; a: int >= 1 = 1", "{p} + {p} // 2", "mean[N](x) / {l}"),
    "reads": ("x", "x: real[N]", "PAIRS", "mean[N]({l})"),
    "sums": ("x", "x: real[N]", "{p} - sum[N]({p})", "mean[N]({l})"),
    "maxima": ("x", "x: real[N]", "max({p}, -{p})", "mean[N]({l})"),
    "held back": ("x", "x: real[N]", "stop({p}) + {p}", "mean[N]({l})"),
}  # fmt: skip


def program(first, parameters, step, last):
    lines, previous = [], first
    for k in range(ROUNDS):
        if step == "PAIRS":
            lines.append(f"v{k}[i] = {previous}[i] + {previous}[N - 1 - i]")
        else:
            lines.append(f"v{k} = {step.format(p=previous)}")
        previous = f"v{k}"
    body = "".join(f"    {line}\n" for line in [*lines, last.format(l=previous)])
    return f"loss l({parameters}):\n{body}"


@pytest.mark.parametrize("kind", CHAINS)
def test_checking(kind):
    source = program(*CHAINS[kind])
    start = time.process_time()
    lossdsl.check(source)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("kind", CHAINS)
def test_compiling(kind):
    source = program(*CHAINS[kind])
    if any(d.severity == "error" for d in lossdsl.check(source)):
        pytest.skip("refused")
    start = time.process_time()
    lossdsl.compile(source)
    assert time.process_time() - start < 10
