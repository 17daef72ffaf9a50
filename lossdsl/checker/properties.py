"""What is derived of a program at once: the range of its value and how it couples the positions along each axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lossdsl.checker.values import Program
from lossdsl.graph.coupling import couplings


@dataclass(frozen=True)
class Properties:
    """range: an interval that holds the value. coupling: for each axis, how positions along it act together."""

    range: str
    coupling: dict[str, str]

    def __str__(self) -> str:
        axes = ", ".join(f"{axis}: {how}" for axis, how in self.coupling.items())
        return f"value {self.range}" + (f"; {axes}" if axes else "")

    def to_json(self) -> dict[str, Any]:
        return {"range": self.range, "coupling": dict(self.coupling)}


def derive(program: Program) -> Properties:
    """Range and coupling of the first value."""
    value = program.values[0].node
    return Properties(str(program.ranges.interval(value)), {a: c.value for a, c in couplings(value).items()})
