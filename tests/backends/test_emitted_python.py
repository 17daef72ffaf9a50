"""Emitted Python: for every loss of the standard library it computes exactly what the compiled module does, with only torch."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lossdsl
from lossdsl.backends.python import emit_python
from lossdsl.checker.catalog import catalog
from lossdsl.cli import sample

NAMES = [entry.name for entry in catalog()]


def inputs_of(loss: lossdsl.CompiledLoss) -> dict[str, Any]:
    """Random inputs by parameter, records as mappings, drawn from the signature."""
    program = loss.program
    sizes = sample.axis_lengths(program, {k: int(v) for k, v in loss.recipe.options.items() if k[:1].isupper()})
    flat = sample.tensors(program, sizes, torch.Generator().manual_seed(3))
    probabilities = {i.name for i in program.inputs if i.leaf.shape == "prob"}
    found: dict[str, Any] = {}
    for name, plain in flat.items():
        tensor = plain.double() if plain.is_floating_point() else plain
        if name in probabilities:
            tensor = tensor / tensor.sum(-1, keepdim=True)
        head, _, part = name.partition(".")
        if part:
            found.setdefault(head, {})[part] = tensor
        else:
            found[head] = tensor
    return found


def needed_lengths(name: str) -> dict[str, int]:
    """Lengths that the class asks for: those of what lasts."""
    program = lossdsl.load(name).program
    atoms = {a.name for spec in program.lasting for d in spec.leaf.axes for a in d.size.atoms}
    if not atoms:
        return {}
    sizes = sample.axis_lengths(program, {})
    return {a: sizes[a] for a in sorted(atoms)}


def run(module: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    inputs = copy.deepcopy(inputs)
    leaves = [t for v in inputs.values() for t in (v.values() if isinstance(v, dict) else [v]) if t.is_floating_point()]
    for leaf in leaves:
        leaf.requires_grad_()
    value = module(**inputs)
    value = value[0] if isinstance(value, tuple) else value
    total = value.sum() if value.is_floating_point() else None
    if total is not None and total.requires_grad:
        total.backward()
    return value.detach(), [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]


def loaded(source: str) -> type[nn.Module]:
    """The class of an emitted file."""
    space: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(source, "<emitted>", "exec"), space)
    classes = [
        v for v in space.values() if isinstance(v, type) and issubclass(v, nn.Module) and v.__module__ == "emitted"
    ]
    return classes[-1]


@pytest.mark.parametrize("name", NAMES)
def test_emitted_module_equals_the_compiled_one(name: str) -> None:
    lengths = needed_lengths(name)
    loss = lossdsl.load(name, **lengths).double()
    if loss.program.functions:
        pytest.skip("takes a function")
    inputs = inputs_of(loss)
    emitted = loaded(emit_python(lossdsl.load(name)))(**lengths).double()
    emitted.load_state_dict(loss.state_dict())
    draws = {d.name: torch.randn([s.size.value(sample.axis_lengths(loss.program, lengths)) for s in d.leaf.axes], dtype=torch.float64)
             for d in loss.program.draws}  # fmt: skip
    for _ in range(2):
        ours, our_slopes = run(loss, inputs | draws)
        theirs, their_slopes = run(emitted, inputs | draws)
        assert torch.allclose(ours, theirs, rtol=1e-13, atol=0, equal_nan=True)
        for a, b in zip(our_slopes, their_slopes, strict=True):
            assert torch.allclose(
                a, b, rtol=1e-11, atol=1e-13, equal_nan=True
            )  # sums of gradients may come in another order
        for key, state in loss.state_dict().items():
            assert torch.allclose(state, emitted.state_dict()[key], rtol=1e-13, atol=0), key


HOSTILE = '''
loss lambda_(class_: real[N], exec: real[N]; import_: real > 0 = 1.0, type: real = 2.0):
    """A docstring with \\\\ and ' and " and {braces} and #{x}
    __import__('os').system('false')"""
    self = class_ * type
    torch = exec / import_
    mean[N](self * torch)
'''


def test_names_and_docstrings_cannot_break_out() -> None:
    loss = lossdsl.compile(HOSTILE)
    emitted = loaded(emit_python(loss))()
    x, y = torch.randn(4), torch.randn(4)
    names = list(emitted.forward.__annotations__)[:2]
    assert torch.equal(emitted(**dict(zip(names, (x, y), strict=True))), loss(class_=x, exec=y))


def test_hyperparameters_are_arguments_and_attributes() -> None:
    made = loaded(emit_python(lossdsl.load("info_nce")))
    z, w = torch.randn(5, 3), torch.randn(5, 3)
    assert torch.equal(made(tau=0.5)(z, w), lossdsl.load("info_nce", tau=0.5)(z, w))


def test_wrong_inputs_of_an_emitted_file_are_named() -> None:
    made = loaded(emit_python(lossdsl.load("info_nce")))()
    with pytest.raises(ValueError, match="w has N = 4, but z has N = 5"):
        made(torch.randn(5, 3), torch.randn(4, 3))
    sorted_ = loaded(emit_python(lossdsl.load("stop_regressing:hl_gauss_td")))()
    with pytest.raises(ValueError, match="actions"):
        sorted_(torch.randn(2, 3, 5), torch.tensor([0, 3]), torch.randn(2), torch.rand(2), torch.randn(2, 3, 5))


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lossdsl", "lark", "sympy", "pydantic", "scipy"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import torch
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"))
print(Supcon()(torch.eye(4, 3), torch.tensor([0, 1, 0, 1])).item())
"""


@pytest.mark.slow
def test_emitted_file_needs_only_torch(tmp_path: Path) -> None:
    (tmp_path / "supcon.py").write_text(emit_python(lossdsl.load("supcon")))
    (tmp_path / "main.py").write_text(BLOCKED)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "main.py"), str(tmp_path / "supcon.py")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(
        lossdsl.load("supcon")(torch.eye(4, 3), torch.tensor([0, 1, 0, 1])).item()
    )
