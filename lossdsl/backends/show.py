"""Linear code as text: one line an instruction, with the layout of its result where that is a node."""

from __future__ import annotations

from collections.abc import Iterable

from lossdsl.backends.code import Arg, Block, Call, Code, CustomCall, HyperRef, LoopCall, Reg
from lossdsl.graph.nodes import Dim

COLUMN = 60
"""Where layouts begin, if the instruction is not longer."""


def show_code(code: Code) -> list[str]:
    """Lines for a lowered program: arguments, instructions, results."""
    return _Listing(code).lines()


class _Listing:
    def __init__(self, code: Code) -> None:
        self.code = code
        self.out: list[str] = []

    def lines(self) -> list[str]:
        for reg, name in self.code.arguments:
            self._line(f"{_reg(reg)} = argument {name or '(dtype and device)'}", [reg], 0)
        for reg, name in self.code.functions:
            self._line(f"{_reg(reg)} = function {name}", [reg], 0)
        self._block(self.code.block, 0)
        count = len(self.code.results) - len(self.code.updates)
        for result in self.code.results[:count]:
            self._line(f"value {_arg(result)}", [], 0)
        for name, result in zip(self.code.updates, self.code.results[count:], strict=True):
            self._line(f"update {name} := {_arg(result)}", [], 0)
        return self.out

    def _line(self, text: str, made: Iterable[Reg], depth: int) -> None:
        shapes = [", ".join(map(_dim, self.code.layouts[r])) for r in made if r in self.code.layouts]
        layout = f"  [{']  ['.join(shapes)}]" if shapes else ""
        self.out.append(f"{'  ' * depth + text:<{COLUMN}}{layout}".rstrip())

    def _block(self, block: Block, depth: int) -> None:
        for instruction in block.instructions:
            match instruction:
                case Call():
                    self._line(f"{_reg(instruction.out)} = {_call(instruction)}", [instruction.out], depth)
                case LoopCall():
                    self._loop(instruction, depth)
                case CustomCall():
                    self._custom(instruction, depth)

    def _loop(self, loop: LoopCall, depth: int) -> None:
        start = ", ".join(f"{_reg(c)} = {_arg(i)}" for c, i in zip(loop.carried, loop.initial, strict=True))
        word = "scan" if loop.scan else "repeat"
        way = " backwards" if loop.backwards else ""
        outs = ", ".join(map(_reg, loop.outs))
        self._line(f"{outs} = {word} {_reg(loop.counter)} < {_arg(loop.count)}{way} with {start}", loop.outs, depth)
        self._block(loop.body, depth + 1)
        until = "" if loop.stop is None else f" until all of {_arg(loop.results[loop.stop])}"
        self._line(f"next {', '.join(map(_arg, loop.results))}{until}", [], depth + 1)

    def _custom(self, custom: CustomCall, depth: int) -> None:
        start = ", ".join(f"{_reg(w)} = {_arg(i)}" for w, i in zip(custom.wrt, custom.inputs, strict=True))
        self._line(f"{_reg(custom.out)} = declared {start}", [custom.out], depth)
        self._block(custom.forward, depth + 1)
        self._line(f"value {_arg(custom.value)}", [], depth + 1)
        self._line(f"backward {_reg(custom.incoming)}", [], depth + 1)
        self._block(custom.backward, depth + 2)
        self._line(f"gradients {', '.join(map(_arg, custom.gradients))}", [], depth + 2)


def _dim(dim: Dim) -> str:
    """A dim by its name; one that stands for several, whatever they are called, by its length."""
    return str(dim.size) if dim.index and not dim.label else str(dim)


def _call(call: Call) -> str:
    arguments = [_arg(a) for a in call.args] + [f"{k}={_arg(v)}" for k, v in call.kwargs.items()]
    if call.target.startswith(".") and arguments:
        return f"{arguments[0]}{call.target}({', '.join(arguments[1:])})"
    if not call.target[:1].isalpha() and len(call.args) == 2:
        return f"{arguments[0]} {call.target} {arguments[1]}"
    if call.target == "getitem" and len(call.args) == 2:
        entries = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
        return f"{arguments[0]}[{', '.join(map(_arg, entries))}]"
    if call.target == "getattr" and len(call.args) == 2:
        return f"{arguments[0]}.{call.args[1]}"
    return f"{call.target}({', '.join(arguments)})"


def _reg(reg: Reg) -> str:
    return f"%{reg.index}" + (f".{reg.hint}" if reg.hint else "")


def _arg(arg: Arg) -> str:
    match arg:
        case Reg():
            return _reg(arg)
        case HyperRef():
            return arg.name
        case str():
            return arg
        case tuple():
            return f"({', '.join(map(_arg, arg))}{',' if len(arg) == 1 else ''})"
        case list():
            return f"[{', '.join(map(_arg, arg))}]"
        case slice():
            ends = [_end(arg.start), _end(arg.stop)] + ([] if arg.step is None else [_end(arg.step)])
            return ":".join(ends)
        case _:
            return repr(arg)


def _end(arg: Arg) -> str:
    return "" if arg is None else _arg(arg)
