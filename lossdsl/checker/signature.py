"""What a loss takes, keeps and draws: the public description of a program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lossdsl.checker.values import Program
from lossdsl.types.domains import Kind


@dataclass(frozen=True)
class Entry:
    """One name of a signature: its type as declared, and for tensors its axes."""

    name: str
    type: str
    axes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"


@dataclass(frozen=True)
class Hyperparameter:
    """A scalar fixed when the loss is built. value: what it was built with (None before)."""

    name: str
    type: str
    default: float | int | None
    value: float | int | None

    def __str__(self) -> str:
        return f"{self.name}: {self.type}" + ("" if self.value is None else f" = {self.value}")


@dataclass(frozen=True)
class Signature:
    """Inputs (a record's fields as `pi.chosen`), functions, hyperparameters, params, state, draws, and the value's type."""

    name: str
    inputs: tuple[Entry, ...]
    functions: tuple[Entry, ...]
    hyperparameters: tuple[Hyperparameter, ...]
    params: tuple[Entry, ...]
    state: tuple[Entry, ...]
    draws: tuple[Entry, ...]
    returns: str

    def __str__(self) -> str:
        head = ", ".join(map(str, (*self.inputs, *self.functions)))
        hyper = ", ".join(map(str, self.hyperparameters))
        return f"{self.name}({head}{'; ' + hyper if hyper else ''}) -> {self.returns}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for tools."""

        def entries(items: tuple[Entry, ...]) -> list[dict[str, Any]]:
            return [{"name": e.name, "type": e.type, "axes": list(e.axes)} for e in items]

        return {
            "name": self.name,
            "inputs": entries(self.inputs),
            "functions": entries(self.functions),
            "hyperparameters": [
                {"name": h.name, "type": h.type, "default": h.default, "value": h.value} for h in self.hyperparameters
            ],
            "params": entries(self.params),
            "state": entries(self.state),
            "draws": entries(self.draws),
            "returns": self.returns,
        }


def signature(program: Program) -> Signature:
    """The signature of a checked program."""

    def lasting(role: str) -> tuple[Entry, ...]:
        return tuple(Entry(s.name, s.type, _axes(s.leaf.axes)) for s in program.lasting if s.role == role)

    value = program.values[0]
    axes = ", ".join(str(d) for d in value.axes)
    kind = value.node.kind if value.node.kind is not Kind.BOOL else Kind.REAL
    return Signature(
        program.name,
        tuple(Entry(i.name, i.type, _axes(i.leaf.axes)) for i in program.inputs),
        tuple(Entry(f.name, f.type) for f in program.functions),
        tuple(Hyperparameter(h.name, h.type, h.default, h.value) for h in program.hypers),
        lasting("param"),
        lasting("state"),
        tuple(Entry(d.name, d.type, _axes(d.leaf.axes)) for d in program.draws),
        f"{kind}[{axes}]" if axes else str(kind),
    )


def _axes(dims: Any) -> tuple[str, ...]:
    return tuple(str(d.size) for d in dims)
