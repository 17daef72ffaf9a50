"""Exported programs: other lengths than those traced, saved and loaded, and for an accelerator."""

from __future__ import annotations

import io

import pytest
import torch

import lossdsl
from lossdsl.backends.export import export
from lossdsl.checker.catalog import catalog
from lossdsl.cli.sample import examples

FEW = ["info_nce", "supcon", "cross_entropy", "hinge", "rpo"]
ALL = [e.name for e in catalog()]


def flat_run(loss: lossdsl.CompiledLoss, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return loss.graph_module(*(tensors[name] if name else torch.zeros(()) for _, name in loss.code.arguments))[0]


def round_trip(name: str) -> None:
    loss = lossdsl.load(name)
    tensors = examples(loss)
    program = export(loss, examples=tensors)
    stream = io.BytesIO()
    torch.export.save(program, stream)
    stream.seek(0)
    loaded = torch.export.load(stream).module()
    given = {name: tensors[name] for _, name in loss.code.arguments if name}
    if any(name == "" for _, name in loss.code.arguments):
        given["like"] = torch.zeros(())
    found = loaded(given)
    value = found[0] if isinstance(found, tuple | list) else found
    assert torch.allclose(value, flat_run(loss, tensors), rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", FEW)
def test_exported_program_survives_saving(name: str) -> None:
    round_trip(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_library_loss_exports(name: str) -> None:
    try:
        round_trip(name)
    except ValueError as error:
        pytest.skip(str(error))


def test_axes_stay_dynamic() -> None:
    loss = lossdsl.load("supcon")
    module = export(loss, examples={"z": torch.randn(5, 3), "labels": torch.tensor([0, 1, 0, 1, 2])}).module()
    z, labels = torch.randn(9, 4), torch.randint(0, 3, (9,))
    assert torch.allclose(module({"z": z, "labels": labels}), loss(z=z, labels=labels))


@pytest.mark.parametrize("name", FEW)
def test_programs_for_an_accelerator_run_on_it_throughout(name: str) -> None:
    loss = lossdsl.load(name)
    program = export(loss, examples=examples(loss), target="cuda")
    devices = {
        node.meta["val"].device.type for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)
    }
    assert devices == {"cuda"}


def test_functions_cannot_be_exported() -> None:
    loss = lossdsl.compile("loss f(x: real[N], net: fn(real[N]) -> real[N]):\n    mean[N](net(x))\n")
    with pytest.raises(ValueError, match="function"):
        export(loss, examples={"x": torch.randn(3)})
