"""Every rewrite rule: it fires on its example, changes no value or gradient, and keeps float32 accurate at extreme inputs."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch

from lossdsl.checker.resolve import build, from_text
from lossdsl.graph.interpret import interpret
from lossdsl.graph.rewrite import RULES, Rule
from lossdsl.graph.rewrite.engine import Rewriter
from lossdsl.graph.scalars import Multiprecision
from lossdsl.runtime.build import compiled
from lossdsl.types.domains import Kind

EXTREMES = [1e4, -1e4, 1e-30, -1e-30, 0.0, 1.0, 1.0, -1.0, 88.0, -88.0, 1e-4, 3.0]
RULE_NAMES = [rule.name for rule in RULES]


def inputs_for(rule: Rule, dtype: torch.dtype, extreme: bool) -> dict[str, torch.Tensor]:
    """Inputs [N, 3] in their domains; the extreme ones hold large, tiny, equal and zero entries."""
    program = build(from_text(rule.example), {})
    generator = torch.Generator().manual_seed(1)
    made: dict[str, torch.Tensor] = {}
    for spec in program.inputs:
        leaf = spec.leaf
        if leaf.kind is Kind.INT:
            made[spec.name] = torch.tensor([0, 1, 2, 1])
            continue
        x = (
            torch.tensor(EXTREMES, dtype=dtype).reshape(4, 3)
            if extreme
            else torch.randn(4, 3, generator=generator, dtype=dtype)
        )
        if leaf.shape == "prob":
            x = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [1e-30, 1.0, 0.0]], dtype=dtype)
        elif leaf.domain.low == 0 and leaf.domain.high == 1:
            x = torch.tensor([0.0, 1.0, 0.5, 0.25] * 3, dtype=dtype).reshape(4, 3)
        elif leaf.domain.low == 0:
            x = x.abs() + 1e-30
        made[spec.name] = x
    return made


def oracle(rule: Rule, inputs: dict[str, torch.Tensor], wrt: list[str]) -> Any:
    program = build(from_text(rule.example), {})
    value = program.values[0]
    leaves = {
        k: [[mpmath.mpf(v) for v in row] for row in t.tolist()] if t.is_floating_point() else t.tolist()
        for k, t in inputs.items()
    }
    with mpmath.workdps(4500):
        return interpret([(value.node, value.axes)], leaves, {"N": 4, "C": 3}, math=Multiprecision(), wrt=wrt)


@pytest.mark.parametrize("rule", RULES, ids=RULE_NAMES)
def test_rule_fires_on_its_example(rule: Rule) -> None:
    program = build(from_text(rule.example), {})
    rewriter = Rewriter(program.graph, program.ranges, RULES)
    rewriter.node(program.values[0].node)
    assert rule.name in rewriter.fired


@pytest.mark.parametrize("rule", RULES, ids=RULE_NAMES)
def test_rule_keeps_value_and_gradient(rule: Rule) -> None:
    inputs = inputs_for(rule, torch.float64, extreme=False)
    found = []
    for rewrites in (True, False):
        leaves = {k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in inputs.items()}
        value = compiled(from_text(rule.example), {}, rewrites=rewrites)(**leaves)
        if value.requires_grad:
            value.sum().backward()
        gradients = [
            torch.zeros_like(v) if v.grad is None else v.grad for v in leaves.values() if v.is_floating_point()
        ]
        found.append((value.detach().double(), gradients))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-12, atol=1e-14)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=RULE_NAMES)
def test_rewritten_program_is_accurate_at_extremes(rule: Rule) -> None:
    inputs = inputs_for(rule, torch.float32, extreme=True)
    leaves = {k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in inputs.items()}
    value = compiled(from_text(rule.example), {})(**leaves)
    wrt = [k for k, v in leaves.items() if v.is_floating_point()]
    expected = oracle(rule, inputs, wrt)
    for got, want in zip(value.detach().flatten().tolist(), _flat(expected.values[0]), strict=True):
        _close(got, want, f"value of {rule.name}")
    if not value.requires_grad:
        return
    value.sum().backward()
    for name in wrt:
        gradient = leaves[name].grad
        assert gradient is not None
        for row, wanted in zip(gradient.tolist(), expected.gradients[name], strict=True):
            scale = max((abs(float(w)) for w in wanted if abs(w) < 3e38), default=0.0)
            for got, want in zip(row, wanted, strict=True):
                _close(got, want, f"gradient of {rule.name}", scale)


def _flat(items: Any) -> list[Any]:
    return [x for item in items for x in _flat(item)] if isinstance(items, list) else [items]


def _close(got: float, want: Any, what: str, scale: float = 0.0) -> None:
    """Within a few ulp of float32, for gradients of the row's largest; beyond its range, infinite or zero."""
    exact = float(want)
    if abs(exact) > 3e38:
        assert math.isinf(got) or abs(got) > 1e38, f"{what}: {got} for {exact}"
        return
    assert math.isfinite(got), f"{what}: {got} for {exact}"
    assert abs(got - exact) <= 1.2e-7 * (64 * abs(exact) + 4 * scale) + 1e-37, f"{what}: {got} for {exact}"
