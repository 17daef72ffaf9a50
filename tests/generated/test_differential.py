"""Generated programs: the interpreter, the compiled graph with and without rewrites, and the formatter agree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings

import lossdsl
from lossdsl.backends.export import export
from lossdsl.backends.python import emit_python
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
    modules = {f"rewrites {r}": compiled(from_text(text), {}, rewrites=r) for r in (True, False)}
    modules["emitted Python"] = emitted(modules["rewrites True"])
    for what, module in modules.items():
        value, gradients = run(module, inputs)
        agree(value.double(), expected, f"value, {what}")
        for name, gradient in gradients.items():
            wanted = torch.tensor(oracle.gradients[name], dtype=torch.float64)
            agree(gradient, wanted, f"gradient of {name}, {what}")


def emitted(loss: Any) -> Any:
    """The module of the emitted Python."""
    space: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(emit_python(loss), "<emitted>", "exec"), space)
    return [v for v in space.values() if isinstance(v, type) and v.__module__ == "emitted"][-1]()


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


@pytest.mark.slow
@given(programs(depth=3))
@settings(SETTINGS, max_examples=12)
def test_exported_programs_agree(text: str) -> None:
    note(text)
    loss = lossdsl.compile(text)
    inputs = {k: v.float() if v.is_floating_point() else v for k, v in example_inputs().items()}
    given_ = {name: inputs[name] for _, name in loss.code.arguments if name}
    found = export(loss, examples=given_).module()(given_)
    assert torch.allclose(found, loss(**inputs), rtol=1e-5, atol=1e-6, equal_nan=True)
