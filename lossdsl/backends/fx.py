"""Linear code to `torch.fx.GraphModule`."""

from __future__ import annotations

import builtins
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from lossdsl.backends.code import Arg, Block, Call, Code, CustomCall, HyperRef, LoopCall, Reg, captured
from lossdsl.backends.printer import safe_name
from lossdsl.runtime import functions as rt
from lossdsl.runtime.control import Custom, Loop

_OPERATORS: dict[str, Callable[..., Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv, "%": operator.mod,
    "**": operator.pow, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "&": operator.and_, "|": operator.or_, "~": operator.invert, "neg": operator.neg, "getitem": operator.getitem, "getattr": getattr,
}  # fmt: skip
_DTYPES = {"torch.int64": torch.int64, "torch.bool": torch.bool}


def emit_fx(code: Code, name: str) -> fx.GraphModule:
    """The graph module: one placeholder an argument, then one a function argument; returns a tuple of results."""
    arguments = [reg for reg, _ in code.arguments] + [reg for reg, _ in code.functions]
    return _module(code.block, arguments, code.results, name)


def _module(block: Block, arguments: list[Reg], results: tuple[Arg, ...], title: str) -> fx.GraphModule:
    root = nn.Module()
    graph = fx.Graph()
    env: dict[Reg, Any] = {}
    names: set[str] = set()
    for reg in arguments:
        name = base = _name(reg)
        while name.lower() in names:  # fx lowers the case of names, so that W and w would meet
            name = f"{base}_{len(names)}"
        names.add(name.lower())
        env[reg] = graph.placeholder(name)
    for instruction in block.instructions:
        match instruction:
            case Call():
                env[instruction.out] = _call(graph, instruction, env)
            case LoopCall():
                _loop(graph, root, instruction, env)
            case CustomCall():
                _custom(graph, root, instruction, env)
    graph.output(tuple(_value(r, env) for r in results))
    graph.lint()
    return fx.GraphModule(root, graph, class_name=re.sub(r"\W", "_", title) or "Loss")


def _name(reg: Reg) -> str:
    return safe_name(reg.hint or "v")


def _value(arg: Arg, env: dict[Reg, Any]) -> Any:
    match arg:
        case Reg():
            return env[arg]
        case HyperRef():
            return arg.value
        case str() if arg in _DTYPES:
            return _DTYPES[arg]
        case tuple():
            return tuple(_value(a, env) for a in arg)
        case list():
            return [_value(a, env) for a in arg]
        case slice():
            return slice(_value(arg.start, env), _value(arg.stop, env), _value(arg.step, env))
        case _:
            return arg


def _call(graph: fx.Graph, call: Call, env: dict[Reg, Any]) -> Any:
    args = tuple(_value(a, env) for a in call.args)
    kwargs = {k: _value(a, env) for k, a in call.kwargs.items()}
    if all(isinstance(a, bool | int | float) for a in args) and (
        call.target in _OPERATORS or call.target.startswith(("math.", "builtins."))
    ):
        return target(call.target)(*args)  # on hyperparameters: a number
    if call.target.startswith("."):
        node = graph.call_method(call.target[1:], args, kwargs)
    elif call.target == "call":
        node = graph.call_function(apply_function, args, kwargs)
    else:
        node = graph.call_function(target(call.target), args, kwargs)
    if call.out.hint:
        node.name = graph._graph_namespace.create_name(_name(call.out), None)
    return node


def apply_function(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function that was handed in."""
    return function(*args)


def target(text: str) -> Callable[..., Any]:
    """The function that a call target names."""
    if text in _OPERATORS:
        return _OPERATORS[text]
    head, _, rest = text.partition(".")
    place: Any = {"torch": torch, "F": F, "rt": rt, "builtins": builtins, "math": math}[head]
    for part in rest.split("."):
        place = getattr(place, part)
    return place  # type: ignore[no-any-return]


def _loop(graph: fx.Graph, root: nn.Module, call: LoopCall, env: dict[Reg, Any]) -> None:
    own = (call.counter, *call.carried)
    captures = captured(call.body, call.results, own)
    body = _module(call.body, [*own, *captures], call.results, "LoopBody")
    name = _add(root, "loop", Loop(body, call.stop, call.scan, call.backwards))
    arguments = (_value(call.count, env), _value(call.initial, env), tuple(env[r] for r in captures))
    node = graph.call_module(name, arguments)
    for place, out in enumerate(call.outs):
        env[out] = graph.call_function(operator.getitem, (node, place))


def _custom(graph: fx.Graph, root: nn.Module, call: CustomCall, env: dict[Reg, Any]) -> None:
    forward_captures = captured(call.forward, (call.value,), call.wrt)
    own = (*call.wrt, call.incoming)
    backward_captures = captured(call.backward, call.gradients, own)
    forward = _module(call.forward, [*call.wrt, *forward_captures], (call.value,), "Value")
    backward = _module(call.backward, [*own, *backward_captures], call.gradients, "Gradient")
    name = _add(root, "declared", Custom(_First(forward), backward))
    arguments = (
        _value(call.inputs, env),
        tuple(env[r] for r in forward_captures),
        tuple(env[r] for r in backward_captures),
    )
    env[call.out] = graph.call_module(name, arguments)


class _First(nn.Module):
    """The only result of a module that returns a tuple."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any) -> Any:
        return self.inner(*args)[0]


def _add(root: nn.Module, base: str, module: nn.Module) -> str:
    count = 0
    while hasattr(root, f"{base}_{count}"):
        count += 1
    root.add_module(f"{base}_{count}", module)
    return f"{base}_{count}"
