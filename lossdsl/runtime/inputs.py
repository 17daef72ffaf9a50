"""Binding the tensors of a call to the names of a program: shapes, dtypes, devices, domains.

Shapes and names are always checked. Values (an index out of its range, a domain) are checked on the CPU; on an accelerator only
when asked, since that waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossdsl.checker.values import Program
from lossdsl.graph.nodes import Leaf
from lossdsl.syntax.diagnostics import suggest
from lossdsl.types.domains import ANY, Kind
from lossdsl.types.sizes import Atom, Size


class LossInputError(ValueError):
    """A loss was called with something it does not take. Names the argument, what was expected and what came."""


@dataclass
class Bound:
    """A call's tensors by leaf name, the lengths of the axes, and the dtype to compute in."""

    tensors: dict[str, Tensor]
    functions: dict[str, Any]
    sizes: dict[str, int]
    dtype: torch.dtype
    device: torch.device


class Binder:
    """Binds calls for one program."""

    def __init__(self, program: Program, sizes: Mapping[str, int]) -> None:
        self.program = program
        self.fixed = dict(sizes)
        self.parameters = list(dict.fromkeys([i.path[0] for i in program.inputs] + [f.name for f in program.functions]))
        order = [p.name for p in program.function.parameters]
        self.parameters.sort(key=order.index)
        self.draws = [d.name for d in program.draws]
        # looked up ahead of any call: torch.compile does not follow cached properties
        specs = [*((i.name, i.leaf) for i in program.inputs), *((d.name, d.leaf) for d in program.draws)]
        self.axes = {
            name: [(None if d.size.atom is None else d.size.atom.name, d.size) for d in leaf.axes]
            for name, leaf in specs
        }
        self.atoms = {size: sorted(size.atoms) for axes in self.axes.values() for _, size in axes}
        self.atoms |= {size: sorted(size.atoms) for size in program.requirements}
        self.types = {i.name: i.type for i in program.inputs}
        self.requirements = list(program.requirements.items())
        self.needed_least = {a.name: a.least for i in program.inputs for d in i.leaf.axes for a in d.size.atoms}

    # ---- names ----

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any], values: bool | None) -> Bound:
        """Check a call and put it in order. values: check values too (None: on the CPU)."""
        given = self._names(args, kwargs)
        tensors: dict[str, Any] = {}
        for spec in self.program.inputs:
            tensors[spec.name] = self._pick(given[spec.path[0]], spec.path)
        functions = {}
        for function in self.program.functions:
            if not callable(given[function.name]):
                raise LossInputError(
                    f"{function.name}: expected a function {function.type}, got {_what(given[function.name])}"
                )
            functions[function.name] = given[function.name]
        for name in self.draws:
            if given.get(name) is not None:
                tensors[name] = given[name]
        device = self._device(tensors)
        leaves = {s.name: s.leaf for s in self.program.inputs} | {d.name: d.leaf for d in self.program.draws}
        checked = {name: self._tensor(name, leaves[name], value, device) for name, value in tensors.items()}
        sizes = self._sizes(checked)
        dtype = self._dtype(checked, leaves)
        if self._checks_values(values, device, checked):
            for name, tensor in checked.items():
                self._values(name, leaves[name], tensor, sizes)
        final = {name: _cast(t, leaves[name], dtype) for name, t in checked.items()}
        return Bound(final, functions, sizes, dtype, device)

    def further_axes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[str, int], ...]:
        """How many leading axes each input has beyond its declared ones; empty where none has, or where one has too few."""
        given = {**dict(zip(self.parameters, args, strict=False)), **kwargs}
        extra: dict[str, int] = {}
        for spec in self.program.inputs:
            value = given.get(spec.name)
            if isinstance(value, Tensor):
                extra[spec.name] = value.ndim - len(spec.leaf.axes)
        if not extra or min(extra.values()) < 0 or max(extra.values()) == 0:
            return ()
        return tuple((name, count) for name, count in extra.items() if count)

    def _names(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if len(args) > len(self.parameters):
            raise LossInputError(
                f"{self.program.name} takes {len(self.parameters)} inputs ({', '.join(self.parameters)}), {len(args)} were given"
            )
        given = dict(zip(self.parameters, args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                raise LossInputError(f"{name}: given twice")
            if name not in self.parameters and name not in self.draws:
                hypers = [h.name for h in self.program.hypers]
                if name in hypers:
                    raise LossInputError(
                        f"{name} is a hyperparameter: give it when the loss is built, lossdsl.load(.., {name}=..)"
                    )
                near = suggest(name, [*self.parameters, *self.draws])
                hint = f"; did you mean {near}?" if near else f"; it takes {', '.join([*self.parameters, *self.draws])}"
                raise LossInputError(f"{self.program.name} has no input {name}{hint}")
            given[name] = value
        missing = [p for p in self.parameters if p not in given]
        if missing:
            declared = {p: self._declared(p) for p in missing}
            raise LossInputError(
                f"{self.program.name} needs " + ", ".join(f"{p}: {declared[p]}" for p in missing) + " too"
            )
        return given

    def _declared(self, parameter: str) -> str:
        return next((p.type.span.text for p in self.program.function.parameters if p.name == parameter), "")

    def _pick(self, value: Any, path: tuple[str, ...]) -> Any:
        if len(path) == 1:
            return value
        record, item = path
        if isinstance(value, Mapping):
            if item not in value:
                raise LossInputError(
                    f"{record}: a {self._declared(record)} has {item}; the mapping given has {', '.join(map(str, value)) or 'nothing'}"
                )
            return value[item]
        if isinstance(value, Tensor) or not hasattr(value, item):
            raise LossInputError(f"{record}: expected a mapping or an object with {item}, got {_what(value)}")
        return getattr(value, item)

    # ---- tensors ----

    def _device(self, tensors: dict[str, Any]) -> torch.device:
        first: tuple[str, torch.device] | None = None
        for name, value in tensors.items():
            if not isinstance(value, Tensor) or (value.ndim == 0 and value.device.type == "cpu"):
                continue
            if first is None:
                first = name, value.device
            elif value.device != first[1]:
                raise LossInputError(f"{name}: is on {value.device}, but {first[0]} is on {first[1]}; move one of them")
        return torch.device("cpu") if first is None else first[1]

    def _tensor(self, name: str, leaf: Leaf, given: Any, device: torch.device) -> Tensor:
        value = given
        if isinstance(value, bool | int | float) and not leaf.axes:
            real = leaf.kind is Kind.REAL
            if not real and isinstance(value, float) and value != int(value):
                raise LossInputError(f"{name}: expected {self._type(name)}, got {value}")
            dtype = torch.float64 if real else torch.bool if leaf.kind is Kind.BOOL else torch.int64
            value = torch.tensor(value, dtype=dtype, device=device)
        if not isinstance(value, Tensor):
            raise LossInputError(f"{name}: expected a tensor {self._type(name)}, got {_what(value)}")
        if value.ndim != len(leaf.axes):
            raise LossInputError(f"{name}: expected {self._type(name)} with {len(leaf.axes)} axes, got {_what(value)}")
        if value.ndim == 0 and value.device != device:
            value = value.to(device)
        if value.layout != torch.strided:
            raise LossInputError(f"{name}: expected a dense tensor, got {value.layout}")
        self._kind(name, leaf, value)
        return value

    def _kind(self, name: str, leaf: Leaf, value: Tensor) -> None:
        floating, whole = value.is_floating_point(), not value.is_floating_point() and not value.is_complex()
        match leaf.kind:
            case Kind.REAL:
                fine = floating or (
                    whole
                    and (value.dtype is not torch.bool or leaf.domain.within(_ZERO_ONE))
                    and (leaf.shape == "sign" or not leaf.axes or leaf.domain.within(_ZERO_ONE))
                )
                wanted = "a real tensor; call .float()"
            case Kind.INT:
                fine = whole
                wanted = "whole numbers; call .long()"
            case _:
                fine = floating or whole
                wanted = "truth values, or 0 and 1"
        if not fine:
            raise LossInputError(f"{name}: expected {self._type(name)}, {wanted}; got {value.dtype}")

    def _type(self, name: str) -> str:
        return self.types.get(name) or next((d.type for d in self.program.draws if d.name == name), "")

    # ---- lengths ----

    def _sizes(self, tensors: dict[str, Tensor]) -> dict[str, int]:
        sizes = dict(self.fixed)
        told: dict[str, str] = dict.fromkeys(sizes, "the loader")
        later: list[tuple[str, int, Size]] = []
        for name, tensor in tensors.items():
            for place, (axis, size) in enumerate(self.axes[name]):
                if axis is None:
                    later.append((name, place, size))
                elif axis not in sizes:
                    sizes[axis] = tensor.shape[place]
                    told[axis] = name
                elif sizes[axis] != tensor.shape[place]:
                    raise LossInputError(
                        f"{name}: {self._type(name)} has {axis} = {tensor.shape[place]} (shape {list(tensor.shape)}), "
                        f"but {told[axis]} has {axis} = {sizes[axis]}"
                    )
        for name, place, size in later:
            self._derived(name, place, size, tensors[name], sizes)
        for atom_name, least in self.needed_least.items():
            if atom_name in sizes and sizes[atom_name] < least:
                raise LossInputError(
                    f"{told.get(atom_name, atom_name)}: {atom_name} = {sizes[atom_name]}, but must be at least {least}"
                )
        for slack, message in self.requirements:
            if all(a.name in sizes for a in self.atoms[slack]) and slack.value(sizes) < 0:
                known = ", ".join(f"{a.name} = {sizes[a.name]}" for a in self.atoms[slack])
                raise LossInputError(f"{message} ({known})")
        return sizes

    def _derived(self, name: str, place: int, size: Size, tensor: Tensor, sizes: dict[str, int]) -> None:
        actual = tensor.shape[place]
        unknown = [a for a in self.atoms[size] if a.name not in sizes]
        if len(unknown) == 1:
            solved = _solve(size, unknown[0], sizes, actual)
            if solved is None:
                raise LossInputError(
                    f"{name}: axis {place} of {self._type(name)} must have length {size}, got {actual} (shape {list(tensor.shape)})"
                )
            sizes[unknown[0].name] = solved
            unknown = []
        if unknown:
            return
        expected = size.value(sizes)
        if expected != actual:
            raise LossInputError(
                f"{name}: axis {place} of {self._type(name)} must have length {size} = {expected}, got {actual} (shape {list(tensor.shape)})"
            )

    # ---- dtypes and values ----

    def _dtype(self, tensors: dict[str, Tensor], leaves: dict[str, Leaf]) -> torch.dtype:
        """The widest real dtype, at least float32: sums of half-precision values are made in single precision."""
        found: torch.dtype | None = None
        for name, tensor in tensors.items():
            if leaves[name].kind is Kind.REAL and tensor.is_floating_point() and tensor.ndim > 0:
                found = tensor.dtype if found is None else torch.promote_types(found, tensor.dtype)
        if found is None:
            scalars = [
                t.dtype for name, t in tensors.items() if leaves[name].kind is Kind.REAL and t.is_floating_point()
            ]
            found = scalars[0] if scalars and all(s == scalars[0] for s in scalars) else torch.get_default_dtype()
        return torch.promote_types(found, torch.float32)

    def _checks_values(self, values: bool | None, device: torch.device, tensors: dict[str, Tensor]) -> bool:
        if torch.compiler.is_compiling() or any(_symbolic(t) for t in tensors.values()):
            return False
        return device.type == "cpu" if values is None else values

    def _values(self, name: str, leaf: Leaf, tensor: Tensor, sizes: dict[str, int]) -> None:
        if tensor.numel() == 0:
            return
        tensor = tensor.detach()
        if leaf.kind is Kind.BOOL:
            if tensor.dtype is not torch.bool and not bool(((tensor == 0) | (tensor == 1)).all()):
                raise LossInputError(
                    f"{name}: expected truth values or 0 and 1, got values from {_number(tensor.min())} to {_number(tensor.max())}"
                )
            return
        if leaf.below is not None and all(a.name in sizes for a in leaf.below.atoms):
            limit = leaf.below.value(sizes)
            if bool((tensor >= limit).any()):
                raise LossInputError(
                    f"{name}: {self._type(name)} must be less than {leaf.below} = {limit}, got {_number(tensor.max())}"
                )
        domain = leaf.domain
        if leaf.shape == "sign":
            if not bool((tensor.abs() == 1).all()):
                raise LossInputError(
                    f"{name}: expected -1 or +1 everywhere, got values from {_number(tensor.min())} to {_number(tensor.max())}"
                )
            return
        if domain != ANY and tensor.dtype is not torch.bool:
            self._interval(name, leaf, tensor)
        if leaf.shape in ("prob", "unit") and leaf.axes:
            size = tensor.sum(-1) if leaf.shape == "prob" else tensor.norm(dim=-1)
            if bool(((size - 1).abs() > _tolerance(tensor) * max(tensor.shape[-1], 1)).any()):
                word = "sum" if leaf.shape == "prob" else "Euclidean norm"
                raise LossInputError(
                    f"{name}: the last axis of {self._type(name)} must have {word} 1, got {_number(size.min())} to {_number(size.max())}"
                )

    def _interval(self, name: str, leaf: Leaf, tensor: Tensor) -> None:
        domain = leaf.domain
        slack = _tolerance(tensor) if tensor.is_floating_point() else 0.0
        low, high = torch.aminmax(tensor)
        below = low <= domain.low if domain.low_open and math.isfinite(domain.low) else low < domain.low - slack
        above = high >= domain.high if domain.high_open and math.isfinite(domain.high) else high > domain.high + slack
        if bool(below) or bool(above):
            raise LossInputError(
                f"{name}: {self._type(name)} must be {domain}, got values from {_number(low)} to {_number(high)}"
            )


_ZERO_ONE = type(ANY)(0, 1)


def _cast(tensor: Tensor, leaf: Leaf, dtype: torch.dtype) -> Tensor:
    match leaf.kind:
        case Kind.REAL:
            return tensor if tensor.dtype == dtype else tensor.to(dtype)
        case Kind.INT:
            return tensor if tensor.dtype == torch.int64 else tensor.long()
        case _:
            return tensor if tensor.dtype == torch.bool else tensor != 0


def _solve(size: Size, atom: Atom, sizes: Mapping[str, int], actual: int) -> int | None:
    at_zero = size.value({**sizes, atom.name: 0})
    step = size.value({**sizes, atom.name: 1}) - at_zero
    if step == 0 or (actual - at_zero) % step:
        return None
    solved = (actual - at_zero) // step
    return solved if size.value({**sizes, atom.name: solved}) == actual else None


def _tolerance(tensor: Tensor) -> float:
    return 8 * torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0


def _symbolic(tensor: Tensor) -> bool:
    return (
        type(tensor) not in (Tensor, torch.nn.Parameter)
        or tensor.device.type == "meta"
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def _what(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {list(value.shape)}"
    return f"{value!r}" if isinstance(value, bool | int | float) else f"a {type(value).__name__}"


def _number(tensor: Tensor) -> str:
    return f"{tensor.item():g}"
