"""Inputs made up from a signature: they have the declared shapes, kinds and domains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lossdsl.cli.common import Failed
from lossdsl.syntax import ast
from lossdsl.types.domains import Kind
from lossdsl.types.sizes import Atom, Size

if TYPE_CHECKING:
    from lossdsl.checker.values import Program
    from lossdsl.graph.nodes import Leaf
    from lossdsl.runtime.module import CompiledLoss

DEFAULTS = (4, 6, 5, 3, 2, 7, 8, 9)
"""Lengths of axes in the order of their first appearance, where nothing asks for more."""

MAX_LENGTH = 4096
MAX_ELEMENTS = 2**24


def axis_lengths(program: Program, given: Mapping[str, int]) -> dict[str, int]:
    """A length for every axis: as given, or as declared and long enough for every read. Raises Failed."""
    leaves = [i.leaf for i in program.inputs]
    leaves += [s.leaf for s in program.lasting] + [d.leaf for d in program.draws]
    sizes = [d.size for leaf in leaves for d in leaf.axes] + [x.below for x in leaves if x.below is not None]
    hypers = {h.name: int(h.value) for h in program.hypers if h.kind is Kind.INT and h.value is not None}
    atoms: dict[str, Atom] = {}
    for size in [*sizes, *program.requirements]:
        for atom in sorted(size.atoms):
            if atom.name not in hypers:
                atoms.setdefault(atom.name, atom)
    found = {**hypers, **given}
    for place, (name, atom) in enumerate((n, a) for n, a in atoms.items() if n not in given):
        found[name] = max(DEFAULTS[place % len(DEFAULTS)], atom.least)
    free = [name for name in atoms if name not in given]
    needs = {size: size - 1 for size in sizes} | {size: size for size in program.requirements}
    _grow(found, free, list(needs.values()))
    unmet = [str(s) for s, slack in needs.items() if slack.value(found) < 0]
    if unmet:
        raise Failed(f"no lengths were found for which {unmet[0]} is large enough", "give lengths with --set N=..")
    return {**given, **{name: found[name] for name in atoms}}


def _grow(found: dict[str, int], free: list[str], slacks: list[Size]) -> None:
    """Raise lengths until no slack is negative."""
    for _ in range(200):
        short = next((s for s in slacks if s.value(found) < 0), None)
        if short is None:
            return
        gain = {name: short.value({**found, name: 2 * found[name]}) - short.value(found) for name in free}
        helpful = [name for name in free if any(a.name == name for a in short.atoms) and gain[name] > 0]
        if not helpful or max(found[name] for name in helpful) > MAX_LENGTH:
            return
        for name in helpful:
            found[name] += max(1, found[name] // 4)


def tensors(program: Program, lengths: Mapping[str, int], generator: torch.Generator) -> dict[str, Tensor]:
    """A tensor for every input, by the names of a file: a record's field is `pi.chosen`."""
    hypers = {h.name: float(h.value) for h in program.hypers if h.value is not None}
    known = {**lengths, **{k: int(v) for k, v in hypers.items() if v == int(v)}}
    return {i.name: _tensor(i.leaf, known, generator) for i in program.inputs}


def examples(loss: CompiledLoss, seed: int = 0) -> dict[str, Tensor]:
    """Tensors for everything that a loss reads: its inputs, what lasts, and what is drawn."""
    program = loss.program
    given = {k: int(v) for k, v in loss.recipe.options.items() if k[:1].isupper()}
    lengths = axis_lengths(program, given)
    generator = torch.Generator().manual_seed(seed)
    found = tensors(program, lengths, generator)
    hypers = {h.name: int(h.value) for h in program.hypers if h.kind is Kind.INT and h.value is not None}
    leaves = [s.leaf for s in program.lasting] + [d.leaf for d in program.draws]
    for leaf in leaves:
        found[leaf.name] = _tensor(leaf, {**lengths, **hypers}, generator)
    return found


def _tensor(leaf: Leaf, lengths: Mapping[str, int], generator: torch.Generator) -> Tensor:
    shape = [d.size.value(lengths) for d in leaf.axes]
    if math.prod(shape) > MAX_ELEMENTS:
        raise Failed(f"{leaf.name} would have {math.prod(shape):,} elements", "give smaller lengths with --set N=..")
    if leaf.kind is Kind.BOOL:
        return torch.rand(shape, generator=generator) < 0.7
    if leaf.shape == "sign":
        return (torch.rand(shape, generator=generator) < 0.5) * 2.0 - 1.0
    if leaf.kind is Kind.INT:
        return _whole(leaf, shape, lengths, generator)
    plain = torch.randn(shape, generator=generator)
    if leaf.shape == "prob":
        return torch.softmax(plain, dim=-1)
    if leaf.shape == "unit":
        return torch.nn.functional.normalize(plain, dim=-1)
    domain = leaf.domain
    if math.isfinite(domain.low) and math.isfinite(domain.high):
        share = torch.rand(shape, generator=generator) * 0.98 + 0.01
        return domain.low + (domain.high - domain.low) * share
    if math.isfinite(domain.low):
        return domain.low + plain.abs() + 0.01
    if math.isfinite(domain.high):
        return domain.high - plain.abs() - 0.01
    return torch.where(plain == 0, 1.0, plain) if domain.nonzero else plain


def _whole(leaf: Leaf, shape: list[int], lengths: Mapping[str, int], generator: torch.Generator) -> Tensor:
    low = math.ceil(leaf.domain.low) if math.isfinite(leaf.domain.low) else 0
    low += leaf.domain.low_open and low == leaf.domain.low
    high = low + 5
    if math.isfinite(leaf.domain.high):
        high = math.floor(leaf.domain.high) + (0 if leaf.domain.high_open else 1)
    if leaf.below is not None:
        high = leaf.below.value(lengths)
    return torch.randint(low, max(high, low + 1), shape, generator=generator)


def function(
    declared: ast.FunctionType, lengths: Mapping[str, int], generator: torch.Generator, name: str
) -> Callable[..., Tensor]:
    """A small fixed network that maps the last axis. Raises Failed where that has not the declared shape."""
    shapes = [s.axes for s in (*declared.parameters, declared.result) if isinstance(s, ast.ArrayType) and s.axes]
    fronts = [[a.span.text for a in axes[:-1]] for axes in shapes]
    if len(shapes) != 2 or len(declared.parameters) != 1 or fronts[0] != fronts[1]:
        help_ = "call the loss from Python with a network of yours"
        raise Failed(f"{name}: a function {declared.span.text} cannot be made up", help_)
    rows, columns = (_length(axes[-1], lengths, name) for axes in shapes)
    weight = torch.randn(rows, columns, generator=generator) / math.sqrt(rows)

    def network(x: Tensor, *_: Any) -> Tensor:
        return torch.tanh(x @ weight.to(x.dtype))

    return network


def _length(axis: ast.Axis, lengths: Mapping[str, int], name: str) -> int:
    text = axis.name or axis.size.span.text
    if isinstance(axis.size, ast.Number):
        return int(axis.size.text.replace("_", ""))
    if text in lengths:
        return lengths[text]
    raise Failed(f"{name}: nothing tells the length {text}", f"--set {text}=..")
