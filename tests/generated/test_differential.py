"""Generated programs: the interpreter, the compiled graph with and without rewrites, and the formatter agree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings

import lossdsl
from lossdsl.checker.resolve import build, from_text
from lossdsl.graph.interpret import interpret
from lossdsl.runtime.build import compiled
from tests.generated.programs import programs

SIZES = {"N": 4, "C": 3, "D": 2, "M": 5}
SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck))


def example_inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    n, c, d, m = (SIZES[a] for a in "NCDM")
    return {
        "x": normal(n, c), "y": normal(n, d), "w": normal(c), "u": normal(m, d), "p": normal(n, c).abs() + 0.1,
        "q": normal(n, c).softmax(-1), "s": normal(), "k": torch.randint(0, c, (n,), generator=g),
        "m": torch.rand(n, c, generator=g) < 0.6,
    }  # fmt: skip


def run(loss: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    leaves = {k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in inputs.items()}
    value = loss(**leaves)
    if value.requires_grad:
        value.backward()
    real = {k: v for k, v in leaves.items() if v.is_floating_point()}
    return value.detach(), {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in real.items()}


def agree(a: torch.Tensor, b: torch.Tensor, what: str) -> None:
    assert torch.allclose(a, b, rtol=1e-8, atol=1e-9, equal_nan=True), f"{what}: {a} and {b}"


def differs_from_interpreter(text: str) -> None:
    note(text)
    resolved = from_text(text)
    program = build(resolved, {})
    inputs = example_inputs()
    oracle = interpret(
        [(program.values[0].node, ())], {k: v.tolist() for k, v in inputs.items()}, SIZES,
        wrt=[k for k, v in inputs.items() if v.is_floating_point()],
    )  # fmt: skip
    expected = torch.tensor(oracle.values[0], dtype=torch.float64)
    for rewrites in (True, False):
        value, gradients = run(compiled(from_text(text), {}, rewrites=rewrites), inputs)
        agree(value.double(), expected, f"value, rewrites {rewrites}")
        for name, gradient in gradients.items():
            agree(
                gradient,
                torch.tensor(oracle.gradients[name], dtype=torch.float64),
                f"gradient of {name}, rewrites {rewrites}",
            )


@given(programs())
@settings(SETTINGS, max_examples=60)
def test_compiled_programs_agree_with_the_interpreter(text: str) -> None:
    differs_from_interpreter(text)


@pytest.mark.slow
@given(programs(depth=6))
@settings(SETTINGS, max_examples=600)
def test_deeper_programs_agree_with_the_interpreter(text: str) -> None:
    differs_from_interpreter(text)


@given(programs())
@settings(SETTINGS, max_examples=60)
def test_formatting_keeps_meaning_and_is_stable(text: str) -> None:
    once = lossdsl.format(text)
    assert lossdsl.format(once) == once
    assert lossdsl.check(once) == []
