"""Linear code: what lowering yields and the emitters print.

Straight-line calls on registers, with nested blocks for loops and declared derivatives. Call targets are written as text:
`torch.exp`, `F.logsigmoid`, `.sum` (a method), `+` (an operator), `rt.maximum` (a function of `runtime.functions`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lossdsl.graph.nodes import Dim


@dataclass(frozen=True)
class Reg:
    """A value made once. hint: a name from the program."""

    index: int
    hint: str = field(default="", compare=False)


@dataclass(frozen=True)
class HyperRef:
    """A hyperparameter as a plain number; emitted Python names it."""

    name: str
    value: float | int


Arg = Any
"""A Reg, HyperRef, number, None, slice, dtype text (`torch.int64`), or tuples, lists and slices of these."""


@dataclass
class Call:
    """out = target(*args, **kwargs)."""

    out: Reg
    target: str
    args: tuple[Arg, ...]
    kwargs: dict[str, Arg] = field(default_factory=dict)


@dataclass
class Block:
    """Instructions in order; `parameters` are registers defined from outside."""

    parameters: tuple[Reg, ...] = ()
    instructions: list[Instruction] = field(default_factory=list)


@dataclass
class LoopCall:
    """carried = initial; for counter in range(count): carried = results. stop: which carried value ends the loop once all true.

    scan: results after each round are stacked along a new first axis, at the counter's place.
    """

    outs: tuple[Reg, ...]
    counter: Reg
    count: Arg
    carried: tuple[Reg, ...]
    initial: tuple[Arg, ...]
    body: Block
    results: tuple[Arg, ...]
    stop: int | None
    scan: bool
    backwards: bool


@dataclass
class CustomCall:
    """out = value of wrt at inputs, with the gradients declared as a function of wrt and incoming."""

    out: Reg
    inputs: tuple[Arg, ...]
    wrt: tuple[Reg, ...]
    forward: Block
    value: Arg
    incoming: Reg
    backward: Block
    gradients: tuple[Arg, ...]


Instruction = Call | LoopCall | CustomCall


@dataclass
class Code:
    """A lowered program. arguments: register and leaf name for every tensor that comes from outside, in order.

    results: the values, then the updated states in the order of `updates`. layouts: the order of dims of registers that hold a
    node's value; others are steps on the way there.
    """

    arguments: list[tuple[Reg, str]]
    functions: list[tuple[Reg, str]]
    block: Block
    results: tuple[Arg, ...]
    updates: tuple[str, ...]
    layouts: dict[Reg, tuple[Dim, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Placed:
    """A lowered node: a register or a plain number, and the order of its dims. scalar: a Python number, not a tensor."""

    arg: Arg
    dims: tuple[Dim, ...] = ()
    scalar: bool = False


def registers(arg: Arg) -> Iterator[Reg]:
    """Every register inside an argument."""
    match arg:
        case Reg():
            yield arg
        case tuple() | list():
            for item in arg:
                yield from registers(item)
        case slice():
            yield from registers((arg.start, arg.stop, arg.step))
        case dict():
            yield from registers(list(arg.values()))
        case _:
            return


def reads(instruction: Instruction) -> Iterator[Reg]:
    """Registers that an instruction takes from around it."""
    match instruction:
        case Call():
            yield from registers(instruction.args)
            yield from registers(instruction.kwargs)
        case LoopCall():
            yield from registers((instruction.count, instruction.initial))
            yield from captured(instruction.body, instruction.results, (instruction.counter, *instruction.carried))
        case CustomCall():
            yield from registers(instruction.inputs)
            yield from captured(instruction.forward, (instruction.value,), instruction.wrt)
            yield from captured(instruction.backward, instruction.gradients, (*instruction.wrt, instruction.incoming))


def captured(block: Block, results: Arg, own: tuple[Reg, ...]) -> list[Reg]:
    """Registers that a block uses but does not define, in order of use."""
    defined = set(own) | set(block.parameters)
    found: dict[Reg, None] = {}
    for instruction in block.instructions:
        for reg in reads(instruction):
            if reg not in defined:
                found[reg] = None
        defined |= set(outputs(instruction))
    for reg in registers(results):
        if reg not in defined:
            found[reg] = None
    return list(found)


def outputs(instruction: Instruction) -> tuple[Reg, ...]:
    """Registers that an instruction defines."""
    return instruction.outs if isinstance(instruction, LoopCall) else (instruction.out,)


def prune(block: Block, results: Arg) -> None:
    """Drop instructions whose results nothing uses."""
    needed = set(registers(results))
    kept: list[Instruction] = []
    for instruction in reversed(block.instructions):
        if any(out in needed for out in outputs(instruction)):
            if isinstance(instruction, LoopCall):
                prune(instruction.body, instruction.results)
            elif isinstance(instruction, CustomCall):
                prune(instruction.forward, (instruction.value,))
                prune(instruction.backward, instruction.gradients)
            needed |= set(reads(instruction))
            kept.append(instruction)
    block.instructions[:] = kept[::-1]


# ---- equal instructions ----------------------------------------------------------------------


def share(block: Block, results: tuple[Arg, ...]) -> tuple[Arg, ...]:
    """Make every value once: later equal calls are dropped and read the first one's result. Gives the results in these terms."""
    return _Sharing().block(block, results, {})


class _Sharing:
    """replaced: what stands for a register whose call was dropped."""

    def __init__(self) -> None:
        self.replaced: dict[Reg, Reg] = {}

    def block(self, block: Block, results: tuple[Arg, ...], outside: dict[Any, Call]) -> tuple[Arg, ...]:
        """outside: calls whose results the block may read, by what they compute."""
        seen = dict(outside)
        kept: list[Instruction] = []
        for instruction in block.instructions:
            match instruction:
                case Call():
                    instruction.args = self.arg(instruction.args)
                    instruction.kwargs = {k: self.arg(a) for k, a in instruction.kwargs.items()}
                    if instruction.target == "call":  # a function handed in may do different things each time
                        kept.append(instruction)
                        continue
                    key = (instruction.target, _key(instruction.args), _key(sorted(instruction.kwargs.items())))
                    first = seen.setdefault(key, instruction)
                    if first is instruction:
                        kept.append(instruction)
                        continue
                    if not first.out.hint:
                        first.out = Reg(first.out.index, instruction.out.hint)
                    self.replaced[instruction.out] = first.out
                case LoopCall():
                    instruction.count, instruction.initial = self.arg(instruction.count), self.arg(instruction.initial)
                    instruction.results = self.block(instruction.body, instruction.results, seen)
                    kept.append(instruction)
                case CustomCall():
                    instruction.inputs = self.arg(instruction.inputs)
                    (instruction.value,) = self.block(instruction.forward, (instruction.value,), {})
                    instruction.gradients = self.block(instruction.backward, instruction.gradients, {})
                    kept.append(instruction)
        block.instructions[:] = kept
        return tuple(self.arg(r) for r in results)

    def arg(self, arg: Arg) -> Arg:
        match arg:
            case Reg():
                return self.replaced.get(arg, arg)
            case tuple():
                return tuple(self.arg(a) for a in arg)
            case list():
                return [self.arg(a) for a in arg]
            case slice():
                return slice(self.arg(arg.start), self.arg(arg.stop), self.arg(arg.step))
            case _:
                return arg


def _key(arg: Arg) -> Any:
    """Equal for arguments that mean the same; 1, 1.0 and True differ."""
    match arg:
        case tuple() | list():
            return (type(arg).__name__, *map(_key, arg))
        case slice():
            return ("slice", _key(arg.start), _key(arg.stop), _key(arg.step))
        case Reg() | str():
            return arg
        case _:
            return (type(arg).__name__, repr(arg))
