"""Nested blocks: loops and declared derivatives, each lowered to a block of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lossdsl.backends.code import Arg, Block, CustomCall, LoopCall, Placed, Reg
from lossdsl.graph import nodes as n
from lossdsl.graph.nodes import Leaf
from lossdsl.types.domains import Kind

if TYPE_CHECKING:
    from lossdsl.backends.lower import Lowering


def _open(low: Lowering, leaves: Iterable[Leaf]) -> Block:
    block = Block()
    low.blocks.append((block, frozenset(map(id, leaves))))
    low.memo.append({})
    return block


def _close(low: Lowering) -> None:
    low.blocks.pop()
    low.memo.pop()


def custom(low: Lowering, node: n.Custom) -> Placed:
    """A value with a declared derivative."""
    home = low.level
    leaves = [leaf for leaf, _ in node.wrt]
    inputs = []
    regs = []
    for leaf, argument in node.wrt:
        placed = low.lower(argument)
        inputs.append(low.expand(placed, leaf.axes, argument.kind))
        reg = low.reg(leaf.name.split(".")[0])
        regs.append(reg)
        low.places[leaf.name] = Placed(reg, leaf.axes)
    forward = _open(low, leaves)
    low.level = len(low.blocks) - 1
    value = low.lower(node.value)
    order = tuple(node.incoming.axes)
    result = low.expand(value, order, node.kind)
    result = low.emit(".clone", result) if value.dims == order and not value.scalar else result
    _close(low)
    incoming = low.reg("gradient")
    low.places[node.incoming.name] = Placed(incoming, order)
    backward = _open(low, [*leaves, node.incoming])
    low.level = len(low.blocks) - 1
    gradients: list[Arg] = []
    for (leaf, _), gradient in zip(node.wrt, node.gradients, strict=True):
        if gradient is None or leaf.kind is not Kind.REAL:
            gradients.append(None)
            continue
        placed = low.real(low.lower(gradient), gradient.kind)
        extra = tuple(d for d in placed.dims if d not in leaf.axes)
        if extra:
            total = low.emit(".sum", placed.arg, tuple(low.axis(placed, d) for d in extra))
            placed = Placed(total, tuple(d for d in placed.dims if d in leaf.axes))
        gradients.append(low.expand(placed, leaf.axes))
    _close(low)
    low.level = home
    out = low.reg(node.hint or "")
    low.blocks[home][0].instructions.append(
        CustomCall(out, tuple(inputs), tuple(regs), forward, result, incoming, backward, tuple(gradients))
    )
    return Placed(out, order)


def result(low: Lowering, node: n.Result) -> Placed:
    """A carried value of a loop, which is lowered once."""
    loop = node.loop
    key = -1 - id(loop)
    known = next((m[key] for m in low.memo if key in m), None)
    if known is None:
        level = low.home(loop)
        before, low.level = low.level, level
        known = Placed(_loop(low, loop))
        low.level = before
        low.memo[level][key] = known
    axes = loop.carried[node.place].axes
    return Placed(known.arg[node.place], axes if loop.axis is None else (loop.axis, *axes))


def _loop(low: Lowering, loop: n.Loop) -> tuple[Reg, ...]:
    home = low.level
    count = low.lower(loop.count).arg
    initial = [
        low.expand(_as(low, low.lower(i), i.kind, c.kind), c.axes, c.kind)
        for i, c in zip(loop.initial, loop.carried, strict=True)
    ]
    counter = low.reg(loop.counter.name.split(".")[0])
    low.places[loop.counter.name] = Placed(counter, scalar=True)
    carried = []
    for leaf in loop.carried:
        reg = low.reg(leaf.name.split(".")[0])
        carried.append(reg)
        low.places[leaf.name] = Placed(reg, leaf.axes)
    body = _open(low, [loop.counter, *loop.carried])
    low.level = len(low.blocks) - 1
    results: list[Arg] = [
        low.expand(_as(low, low.lower(b), b.kind, c.kind), c.axes, c.kind)
        for b, c in zip(loop.body, loop.carried, strict=True)
    ]
    stop = None
    if loop.until is not None:
        condition = low.lower(loop.until)
        dims = condition.dims
        done = low.reg("done")
        frozen = Placed(done, dims)
        for k, leaf in enumerate(loop.carried):
            view = low.view(frozen, tuple(leaf.axes))
            results[k] = low.emit("torch.where", view, carried[k], results[k])
        ended = low.emit("|", done, low.expand(condition, dims, Kind.BOOL))
        results.append(ended)
        carried.append(done)
        stop = len(carried) - 1
    _close(low)
    low.level = home
    if stop is not None:
        shape = tuple(low.length(d.size) for d in dims)
        initial.append(low.emit("torch.zeros", shape, dtype="torch.bool", device=low.device()))
    outs = tuple(low.reg(r.hint) for r in carried)
    low.blocks[home][0].instructions.append(
        LoopCall(
            outs,
            counter,
            count,
            tuple(carried),
            tuple(initial),
            body,
            tuple(results),
            stop,
            loop.axis is not None,
            loop.backwards,
        )
    )
    return outs


def _as(low: Lowering, placed: Placed, kind: Kind, wanted: Kind) -> Placed:
    return low.real(placed, kind) if wanted is Kind.REAL else placed
