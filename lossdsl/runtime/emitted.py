"""Functions that stand in emitted files besides those of `functions`: taking inputs. Their source is copied."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["check_axes", "check_range", "field", "precision"]


def precision(*inputs: Any) -> Any:
    """The dtype to compute in (the widest real one, at least float32) and the device."""
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    dtype, device = torch.float32, torch.device("cpu")
    real = [t for t in tensors if t.is_floating_point() and t.ndim > 0] or [t for t in tensors if t.is_floating_point()]
    for tensor in real:
        dtype = torch.promote_types(dtype, tensor.dtype)
    for tensor in tensors:
        device = tensor.device if tensor.ndim > 0 or tensor.device.type != "cpu" else device
    return dtype, device


def field(record: Any, name: str) -> Any:
    """A field of a record given as a mapping or as an object."""
    return record[name] if hasattr(record, "keys") else getattr(record, name)


def check_axes(axis: str, lengths: dict[str, int]) -> None:
    """Axes of one name have one length."""
    (first, length), *rest = lengths.items()
    for name, other in rest:
        if other != length:
            raise ValueError(f"{name} has {axis} = {other}, but {first} has {axis} = {length}")


def check_range(name: str, values: Any, low: int, high: Any) -> None:
    """Whole numbers lie in low <= x < high; looked at on the CPU only, and not while compiling."""
    if torch.compiler.is_compiling() or values.device.type != "cpu" or values.numel() == 0:
        return
    if int(values.min()) < low or (high is not None and int(values.max()) >= high):
        bound = f"{name} must be at least {low}" + ("" if high is None else f" and less than {high}")
        raise ValueError(f"{bound}, got {int(values.min())} to {int(values.max())}")
