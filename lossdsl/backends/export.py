"""Exported programs: `export(loss, examples)` gives a `torch.export.ExportedProgram` whose axes stay dynamic where they can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lossdsl.graph import nodes as n
from lossdsl.types.domains import Kind

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from lossdsl.runtime.module import CompiledLoss


class Exportable(nn.Module):
    """The graph of a loss with plain tensors in its signature's order: inputs, params and state, draws.

    Returns the value, followed by the new states where there are any.
    """

    def __init__(self, graph_module: nn.Module) -> None:
        super().__init__()
        self.graph_module = graph_module

    def forward(self, tensors: dict[str, Tensor]) -> Any:
        results = self.graph_module(*tensors.values())
        return results[0] if len(results) == 1 else results


def export(loss: CompiledLoss, *, examples: Mapping[str, Tensor], target: str = "cpu") -> ExportedProgram:
    """Export a loss. examples: tensors for its inputs (`pi.chosen` for a record's field), params, state and draws.

    The program takes one mapping from these names to tensors. An axis that a loop runs over, or that the program fixes, is static.
    Raises ValueError for a loss that takes functions or that a solver outside of torch serves.
    """
    if loss.program.functions:
        raise ValueError(f"{loss.program.name} takes a function; a function cannot stand in an exported program")
    if any(isinstance(x, n.Solve) and x.op == "linear_assignment" for x in n.topological(loss.program.roots)):
        raise ValueError(f"{loss.program.name} uses linear_assignment, which runs outside of torch")
    specs = [
        *(i.leaf for i in loss.program.inputs),
        *(s.leaf for s in loss.program.lasting),
        *(d.leaf for d in loss.program.draws),
    ]
    leaves = {leaf.name: leaf for leaf in specs}
    tensors: dict[str, Tensor] = {}
    for _, name in loss.code.arguments:
        if name == "":
            tensors["like"] = torch.zeros((), device="cpu")
            continue
        kind = leaves[name].kind
        wanted = torch.float32 if kind is Kind.REAL else torch.int64 if kind is Kind.INT else torch.bool
        tensors[name] = examples[name].detach().to(wanted)
    dynamic = {
        name: {k: torch.export.Dim.AUTO for k, length in enumerate(tensor.shape) if length > 1}
        for name, tensor in tensors.items()
    }
    if target == "cpu":
        return torch.export.export(Exportable(loss.graph_module), (tensors,), dynamic_shapes=(dynamic,), strict=False)
    with FakeTensorMode() as mode:
        fake = {name: mode.from_tensor(tensor) for name, tensor in tensors.items()}
        moved = {name: torch.empty_like(tensor, device=target) for name, tensor in fake.items()}
    return torch.export.export(Exportable(loss.graph_module), (moved,), strict=False)
