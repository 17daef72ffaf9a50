"""Linear code as Python statements: names, precedence, folding of values that are used once."""

from __future__ import annotations

import ast
import builtins
import keyword
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import nn

from lossdsl.backends.code import (
    Arg,
    Block,
    Call,
    CustomCall,
    HyperRef,
    Instruction,
    LoopCall,
    Reg,
    captured,
    outputs,
    reads,
    registers,
)
from lossdsl.runtime import functions as rt

WIDTH = 100
_BINARY = {"|": 3, "&": 4, "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6, "**": 8}
_COMPARE = ("<", "<=", ">", ">=", "==", "!=")
_UNARY, _POSTFIX = 7, 9
_RAW = ("torch.int64", "torch.bool")
RESERVED = frozenset((
    *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *(n for n in dir(rt) if not n.startswith("__")), "self", "torch", "F", "nn", "math",
    "Tensor", "ctx", "dtype", "device", "generator",
))  # fmt: skip

Text = tuple[str, int]
"""An expression and how tightly it binds."""


def safe_name(text: str, taken: Iterable[str] = ()) -> str:
    """A Python name from a program's, clear of keywords, builtins and what the file uses itself."""
    name = re.sub(r"\W", "_", text) or "value"
    if name[0].isdigit():
        name = f"v{name}"
    while name in RESERVED or name in set(taken):
        name += "_"
    return name


def attribute_name(text: str) -> str:
    """As safe_name, clear of what every module has."""
    name = safe_name(text)
    while hasattr(nn.Module, name):
        name += "_"
    return name


@dataclass
class Printer:
    """Prints one function body. helpers: functions of the runtime that it calls. classes: classes made for declared derivatives."""

    hyper: Callable[[HyperRef], str]
    names: dict[Reg, str] = field(default_factory=dict)
    helpers: set[str] = field(default_factory=set)
    classes: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)
    _folded: dict[Reg, Text] = field(default_factory=dict)
    _uses: Counter[Reg] = field(default_factory=Counter)
    _owner: dict[Reg, int] = field(default_factory=dict)

    # ---- names ----

    def reserve(self, names: Iterable[str]) -> None:
        """Names that no value may take."""
        self._taken |= set(names)

    def name(self, reg: Reg, wanted: str | None = None) -> str:
        """The variable of a register."""
        if reg not in self.names:
            base = safe_name(wanted or reg.hint or "value")
            name, count = base, 2
            while name in self._taken:
                name, count = f"{base}_{count}", count + 1
            self._taken.add(name)
            self.names[reg] = name
        return self.names[reg]

    # ---- blocks ----

    def body(self, block: Block, results: tuple[Arg, ...]) -> None:
        """The statements of a whole function."""
        self._count(block, results)
        self._block(block, results, 0)

    def _count(self, block: Block, results: Arg) -> None:
        for instruction in block.instructions:
            self._uses.update(self._mentions(instruction))
            for out in outputs(instruction):
                self._owner[out] = id(block)
            match instruction:
                case LoopCall():
                    self._count(instruction.body, instruction.results)
                case CustomCall():
                    self._count(instruction.forward, (instruction.value,))
                    self._count(instruction.backward, instruction.gradients)
                case _:
                    pass
        self._uses.update(registers(results))

    def _mentions(self, instruction: Instruction) -> list[Reg]:
        """Uses in this block; what a nested block captures must keep a name."""
        match instruction:
            case Call():
                return list(reads(instruction))
            case LoopCall():
                own = (instruction.counter, *instruction.carried)
                kept = captured(instruction.body, instruction.results, own)
                return [*registers((instruction.count, instruction.initial)), *kept, *kept]
            case CustomCall():
                kept = [*captured(instruction.forward, (instruction.value,), instruction.wrt),
                        *captured(instruction.backward, instruction.gradients, (*instruction.wrt, instruction.incoming))]  # fmt: skip
                return [*registers(instruction.inputs), *kept, *kept]

    def _block(self, block: Block, results: tuple[Arg, ...], depth: int) -> None:
        for instruction in block.instructions:
            match instruction:
                case Call():
                    self._call(instruction, depth)
                case LoopCall():
                    self._loop(instruction, depth)
                case CustomCall():
                    self._custom(instruction, depth)

    def line(self, text: str, depth: int) -> None:
        self.lines.append("    " * depth + text)

    def _call(self, call: Call, depth: int) -> None:
        text = self._expression(call)
        foldable = self._uses[call.out] == 1 and not call.out.hint and len(text[0]) < WIDTH - 25
        if foldable or (
            call.target == "getattr" and call.args[1] in ("shape", "dtype", "device") and text[1] == _POSTFIX
        ):
            self._folded[call.out] = text
            return
        self.line(f"{self.name(call.out)} = {text[0]}", depth)

    def _loop(self, call: LoopCall, depth: int) -> None:
        names = [self.name(r) for r in call.carried]
        self.line(f"{', '.join(names)} = {', '.join(self.text(a) for a in call.initial)}", depth)
        steps = f"{names[0]}_steps"
        if call.scan:
            self.line(f"{steps} = []", depth)
        span = f"range({self.text(call.count)})"
        self.line(f"for {self.name(call.counter)} in {f'reversed({span})' if call.backwards else span}:", depth)
        self._block(call.body, call.results, depth + 1)
        self.line(f"{', '.join(names)} = {', '.join(self.text(r) for r in call.results)}", depth + 1)
        if call.scan:
            self.line(f"{steps}.append(({', '.join(names)},))", depth + 1)
        if call.stop is not None:
            self.helpers.add("finished")
            self.line(f"if finished({names[call.stop]}):", depth + 1)
            self.line("break", depth + 2)
        if call.scan:
            order = f"{steps}[::-1]" if call.backwards else steps
            outs = [self.name(out) for out in call.outs]
            self.line(f"{', '.join(outs)}, = (torch.stack(items) for items in zip(*{order}, strict=True))", depth)
        else:
            for out, name in zip(call.outs, names, strict=True):
                self._folded[out] = (name, _POSTFIX)

    def _custom(self, call: CustomCall, depth: int) -> None:
        title = f"Declared{len(self.classes) + 1}"
        captures = list(dict.fromkeys([*captured(call.forward, (call.value,), call.wrt),
                                       *captured(call.backward, call.gradients, (*call.wrt, call.incoming))]))  # fmt: skip
        outer = [self.text(r) for r in captures]
        inputs = [self.text(a) for a in call.inputs]
        place = len(self.classes)
        self.classes.append("")
        self.classes[place] = self._declared(title, call, captures)
        self.line(
            f"{self.name(call.out)} = {title}.apply({', '.join(['self', f'({chr(44).join(outer)},)' if outer else '()', *inputs])})",
            depth,
        )

    def _declared(self, title: str, call: CustomCall, captures: list[Reg]) -> str:
        def part(block: Block, results: tuple[Arg, ...], own: list[Reg]) -> tuple[list[str], list[str], Printer]:
            inner = Printer(self.hyper, helpers=self.helpers, classes=self.classes)
            head = [inner.name(r) for r in own]
            kept = [inner.name(r) for r in captures]
            if kept:
                inner.line(f"{', '.join(kept)}, = captured", 2)
            inner._count(block, results)
            inner._block(block, results, 2)
            return inner.lines, head, inner

        forward, heads, first = part(call.forward, (call.value,), list(call.wrt))
        backward, names, second = part(call.backward, call.gradients, [*call.wrt, call.incoming])
        gradients = ", ".join("None" if g is None else second.text(g) for g in call.gradients)
        return "\n".join([
            f"class {title}(torch.autograd.Function):",
            '    """A value whose derivative the program declares."""',
            "",
            "    @staticmethod",
            f"    def forward(ctx, self, captured, {', '.join(heads)}):",
            f"        ctx.save_for_backward({', '.join(heads)})",
            "        ctx.module, ctx.captured = self, captured",
            *forward,
            f"        return {first.text(call.value)}",
            "",
            "    @staticmethod",
            "    @torch.autograd.function.once_differentiable",
            f"    def backward(ctx, {names[-1]}):",
            f"        {', '.join(names[:-1])}, = ctx.saved_tensors",
            "        self, captured = ctx.module, ctx.captured",
            *backward,
            f"        return None, None, {gradients}",
        ])  # fmt: skip

    # ---- expressions ----

    def text(self, arg: Arg) -> str:
        return self.part(arg)[0]

    def part(self, arg: Arg) -> Text:
        """An argument as an expression."""
        match arg:
            case Reg():
                return self._folded[arg] if arg in self._folded else (self.name(arg), _POSTFIX)
            case HyperRef():
                return (self.hyper(arg), _POSTFIX)
            case bool() | None:
                return (repr(arg), _POSTFIX)
            case int() | float():
                return _number(arg)
            case str():
                return (arg if arg in _RAW else repr(arg), _POSTFIX)
            case tuple():
                inner = ", ".join(self.text(a) for a in arg)
                return (f"({inner},)" if len(arg) == 1 else f"({inner})", _POSTFIX)
            case list():
                return (f"[{', '.join(self.text(a) for a in arg)}]", _POSTFIX)
            case slice():
                return (self._slice(arg), 0)
            case _:
                raise TypeError(type(arg))

    def _slice(self, piece: slice) -> str:
        start, stop = ("" if x is None else self.text(x) for x in (piece.start, piece.stop))
        return f"{start}:{stop}" + ("" if piece.step is None else f":{self.text(piece.step)}")

    def _at(self, arg: Arg, level: int) -> str:
        text, own = self.part(arg)
        return text if own >= level else f"({text})"

    def _expression(self, call: Call) -> Text:
        target, args = call.target, call.args
        if target in _BINARY:
            level = _BINARY[target]
            tight = (level + 1, level) if target == "**" else (level, level + 1)
            return (f"{self._at(args[0], tight[0])} {target} {self._at(args[1], tight[1])}", level)
        if target in _COMPARE:
            return (f"{self._at(args[0], 3)} {target} {self._at(args[1], 3)}", 2)
        if target in ("neg", "~"):
            return (f"{'-' if target == 'neg' else '~'}{self._at(args[0], _UNARY)}", _UNARY)
        if target == "getitem":
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            inner = ", ".join(self._slice(p) if isinstance(p, slice) else self.text(p) for p in places)
            return (f"{self._at(args[0], _POSTFIX)}[{inner}]", _POSTFIX)
        if target == "getattr":
            return (f"{self._at(args[0], _POSTFIX)}.{args[1]}", _POSTFIX)
        given = [self.text(a) for a in args] + [f"{k}={self.text(a)}" for k, a in call.kwargs.items()]
        if target.startswith("."):
            given = given[1:]
            return (f"{self._at(args[0], _POSTFIX)}{target}({', '.join(given)})", _POSTFIX)
        if target == "call":
            return (f"{given[0]}({', '.join(given[1:])})", _POSTFIX)
        name = target
        if target.startswith("rt."):
            name = target[3:]
            self.helpers.add(name)
        elif target.startswith("builtins."):
            name = target[9:]
        return (f"{name}({', '.join(given)})", _POSTFIX)


def _number(value: float) -> Text:
    if not math.isfinite(value):
        return (f'float("{value}")', _POSTFIX)
    return (repr(value), _UNARY if value < 0 or repr(value).startswith("-") else _POSTFIX)


def check_source(text: str) -> None:
    """The text is one Python module (a self-check: nothing of a program may end a string or a line)."""
    ast.parse(text)
