"""The layers of the types of a program's names, for people and tools: shape, kind, domain, coupling."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lossdsl.checker.values import Program, Tensor
from lossdsl.graph.coupling import couplings
from lossdsl.graph.nodes import Leaf, Node
from lossdsl.types.domains import ANY, Kind


@dataclass(frozen=True)
class Typed:
    """One name. line: where it is defined; coupling: along each axis, how positions act together in it."""

    name: str
    role: str
    kind: str
    shape: tuple[str, ...]
    domain: str
    coupling: dict[str, str]
    line: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain data for tools."""
        return {
            "name": self.name,
            "role": self.role,
            "kind": self.kind,
            "shape": list(self.shape),
            "domain": self.domain,
            "coupling": dict(self.coupling),
            "line": self.line,
        }


def definitions(program: Program) -> list[Typed]:
    """Every name of a program in order: inputs, what lasts, draws, definitions, and its value."""
    out = [_typed(program, i.name, "input", Tensor(i.leaf, i.leaf.axes), None) for i in program.inputs]
    out += [_typed(program, s.name, s.role, Tensor(s.leaf, s.leaf.axes), None) for s in program.lasting]
    out += [_typed(program, d.name, "draw", Tensor(d.leaf, d.leaf.axes), None) for d in program.draws]
    for item in program.definitions:
        out.append(_typed(program, item.name, "definition", item.value, item.span.line))
    several = len(program.values) > 1
    for k, value in enumerate(program.values):
        out.append(_typed(program, f"value {k + 1}" if several else "value", "value", value, None))
    return out


def _typed(program: Program, name: str, role: str, value: Tensor, line: int | None) -> Typed:
    node = value.node
    found = {} if role in ("input", "param", "state", "draw") else couplings(node)
    return Typed(
        name,
        role,
        str(node.kind),
        tuple(str(d.size) for d in value.axes),
        _domain(program, node),
        {axis: how.value for axis, how in found.items()},
        line,
    )


def _domain(program: Program, node: Node) -> str:
    if node.kind is Kind.BOOL:
        return "true or false"
    if isinstance(node, Leaf):
        if node.shape is not None:
            return {"sign": "-1 or 1", "prob": "sums to 1", "unit": "norm 1"}[node.shape]
        if node.below is not None:
            least = 0 if node.domain.low == -math.inf else int(node.domain.low)
            return f"in [{least}, {node.below})"
    found = program.ranges.interval(node)
    return "any whole number" if node.kind is Kind.INT and found == ANY else str(found)


def type_rows(entries: Iterable[dict[str, Any]]) -> list[Sequence[str]]:
    """Rows for a table of what `Typed.to_json` gave."""
    rows: list[Sequence[str]] = []
    for entry in entries:
        shape = f"{entry['kind']}[{', '.join(entry['shape'])}]" if entry["shape"] else entry["kind"]
        coupling = "; ".join(f"{axis}: {how}" for axis, how in entry["coupling"].items())
        rows.append((entry["name"], shape, entry["domain"], coupling))
    return rows
