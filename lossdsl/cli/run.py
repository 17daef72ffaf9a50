"""Compute a loss once: its value, the norms of its gradients, and how its state changed.

Inputs come from a file of arrays by name (a record's field is `pi.chosen`), or are made up by --sample. Names
of state and params may stand in the file too. Exit status: 0 fine, 1 refused, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossdsl.cli.common import (
    Failed,
    add_json,
    add_set,
    add_target,
    find,
    paint,
    print_json,
    program_of,
    refuse,
    settings,
    table,
)
from lossdsl.syntax.diagnostics import suggest

if TYPE_CHECKING:
    from torch import Tensor

    from lossdsl.checker.resolve import Resolved
    from lossdsl.runtime.module import CompiledLoss

EXTRA = "pip install 'lossdsl[run]'"


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `lossdsl run`."""
    add_target(parser)
    parser.add_argument("--inputs", metavar="FILE", help="an .npz or .safetensors file of arrays by name")
    parser.add_argument("--sample", action="store_true", help="make inputs up from the declared types")
    parser.add_argument("--seed", type=int, default=0, help="for --sample and for the program's draws (default 0)")
    add_set(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compute and report."""
    from lossdsl.syntax.diagnostics import LossError

    options = settings(arguments.options)
    if (arguments.inputs is None) != arguments.sample:
        what = "both --inputs and --sample" if arguments.sample else "no inputs"
        raise Failed(f"{what} given", "give --inputs FILE, or --sample for made-up ones", 2)
    if not -(2**63) <= arguments.seed < 2**63:
        raise Failed("--seed needs a number of 64 bits", None, 2)
    try:
        resolved = find(arguments)
        report = _report(resolved, arguments, options)
    except LossError as error:
        return refuse(error.diagnostics, arguments.json)
    if arguments.json:
        print_json(_finite({**report, "diagnostics": []}))
    else:
        sys.stdout.write("\n".join(_text(report)) + "\n")
    return 0


def _report(resolved: Resolved, arguments: argparse.Namespace, options: dict[str, float | int]) -> dict[str, Any]:
    # programs are refused before torch is waited for
    program = program_of(resolved, options)
    missing = [h.name for h in program.hypers if h.value is None]
    if missing:
        raise Failed(f"{program.name} needs {', '.join(missing)}", f"--set {missing[0]}=..")
    import torch

    from lossdsl.runtime.build import compiled
    from lossdsl.runtime.inputs import LossInputError

    generator = torch.Generator().manual_seed(arguments.seed)
    functions: dict[str, Any] = {}
    if arguments.sample:
        from lossdsl.cli import sample
        from lossdsl.syntax.ast import FunctionType

        given = {name: int(value) for name, value in options.items() if name[:1].isupper()}
        lengths = sample.axis_lengths(program, given)
        arrays = sample.tensors(program, lengths, generator)
        told = {a.name for i in program.inputs for d in i.leaf.axes for a in d.size.atoms}
        options = {**options, **{name: length for name, length in lengths.items() if name not in told}}
        for parameter in resolved.function.parameters:
            if isinstance(parameter.type, FunctionType):
                functions[parameter.name] = sample.function(parameter.type, lengths, generator, parameter.name)
    else:
        arrays = read_arrays(Path(arguments.inputs))
        if program.functions:
            name = program.functions[0].name
            raise Failed(f"{name} is a function; no file can hold it", "call the loss from Python, or use --sample")
    loss = compiled(resolved, options)
    try:
        return _computed(loss, arrays, functions, generator)
    except LossInputError as error:
        raise Failed(str(error)) from None
    except ImportError as error:  # a solver may need a package of its own
        raise Failed(str(error)) from None
    except RuntimeError as error:
        raise Failed(f"torch: {str(error).partition(chr(10))[0] or 'failed'}") from None


def _computed(
    loss: CompiledLoss, arrays: dict[str, Tensor], functions: dict[str, Any], generator: Any
) -> dict[str, Any]:
    import torch
    from torch.nn.parameter import UninitializedBuffer

    lasting = {s.name for s in loss.program.lasting}
    kept = {name: array for name, array in arrays.items() if name in lasting}
    given = {name: array for name, array in arrays.items() if name not in lasting}
    if kept:
        loss.load_state_dict(kept, strict=False)
    known = [*(i.name for i in loss.program.inputs), *(d.name for d in loss.program.draws), *lasting]
    for name in given:
        if "." in name and name not in known:
            near = suggest(name, known)
            raise Failed(f"{loss.signature.name} takes no {name}", f"did you mean {near}?" if near else None)
    leaves = {name: a.clone().requires_grad_() if a.is_floating_point() else a for name, a in given.items()}
    arguments = {**_arguments(leaves), **functions}
    if any(isinstance(b, UninitializedBuffer) for b in loss.buffers()):
        loss.eval()(**arguments, generator=torch.Generator())  # it gets its lengths and first values
        loss.train()
    before = _state(loss)
    result = loss(**arguments, generator=generator)
    results = result if isinstance(result, tuple) else (result,)
    total = sum((r.sum() for r in results if r.is_floating_point()), start=results[0].new_zeros(()).float())
    if total.requires_grad:
        total.backward()
    wanted = {i.name for i in loss.program.inputs if i.leaf.kind.value == "real"}
    gradients = {name: _norm(leaf.grad) for name, leaf in leaves.items() if name in wanted and leaf.requires_grad}
    gradients |= {name: _norm(p.grad) for name, p in loss.named_parameters() if p.requires_grad}
    after = _state(loss)
    return {
        "name": loss.signature.name,
        "signature": str(loss.signature),
        "inputs": {name: [str(a.dtype).removeprefix("torch."), *a.shape] for name, a in given.items()},
        "values": [_summary(r.detach()) for r in results],
        "gradients": gradients,
        "state": {name: _change(before.get(name), new) for name, new in after.items()},
    }


def _arguments(leaves: dict[str, Tensor]) -> dict[str, Any]:
    """Keyword arguments: arrays `pi.chosen` and `pi.rejected` are the record pi."""
    out: dict[str, Any] = {}
    for name, array in leaves.items():
        head, _, field = name.partition(".")
        if not field:
            if head in out:
                raise Failed(f"the file has {head} and fields of {head}")
            out[head] = array
        elif isinstance(out.setdefault(head, {}), dict):
            out[head][field] = array
        else:
            raise Failed(f"the file has {head} and fields of {head}")
    return out


def _state(loss: CompiledLoss) -> dict[str, Tensor]:
    from torch.nn.parameter import UninitializedBuffer

    return {
        name: buffer.detach().clone()
        for name, buffer in loss.named_buffers()
        if not isinstance(buffer, UninitializedBuffer)
    }


def _norm(gradient: Tensor | None) -> float | None:
    return None if gradient is None else float(gradient.double().norm().item())


def _finite(data: Any) -> Any:
    """The same data for JSON, which has no infinities: they become null."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {k: _finite(v) for k, v in data.items()}
    return [_finite(v) for v in data] if isinstance(data, list) else data


def _summary(result: Tensor) -> dict[str, Any]:
    data = result.double()
    shape = list(result.shape)
    if not shape:
        return {"shape": shape, "value": data.item()}
    if data.numel() == 0:
        return {"shape": shape}
    return {"shape": shape, **{word: getattr(data, word)().item() for word in ("mean", "min", "max")}}


def _change(before: Tensor | None, after: Tensor) -> dict[str, Any]:
    new = after.double()
    old = None if before is None or before.shape != after.shape else before.double()
    moved = None if old is None else int((new != old).sum().item())
    return {
        "shape": list(after.shape),
        "norm_before": None if old is None else old.norm().item(),
        "norm_after": new.norm().item(),
        "change": None if old is None else (new - old).norm().item(),
        "entries_changed": moved,
    }


# ---- reading -------------------------------------------------------------------------------


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of an .npz or .safetensors file. Raises Failed."""
    if path.is_dir():
        raise Failed(f"{path} is a folder", "name an .npz or .safetensors file in it")
    if path.suffix not in (".npz", ".safetensors"):
        raise Failed(f"{path} is neither .npz nor .safetensors", "numpy.savez('x.npz', z=..) writes one", 2)
    if not path.is_file():
        raise Failed(f"there is no file {path}")
    try:
        arrays = _npz(path) if path.suffix == ".npz" else _safetensors(path)
    except ModuleNotFoundError as error:
        raise Failed(f"reading {path.suffix} files needs {error.name}", EXTRA) from None
    except (Failed, MemoryError):
        raise
    except PermissionError:
        raise Failed(f"{path} cannot be read: permission denied") from None
    except Exception as error:  # whatever a broken file provokes
        why = str(error).partition("\n")[0] or type(error).__name__
        raise Failed(f"{path} is no readable {path.suffix} file: {why}") from None
    if not arrays:
        raise Failed(f"{path} holds no arrays")
    return arrays


def _npz(path: Path) -> dict[str, Tensor]:
    import numpy as np
    import torch

    out: dict[str, Tensor] = {}
    with np.load(path, allow_pickle=False) as file:
        if not hasattr(file, "files"):
            raise Failed(f"{path} holds a single array without a name", "numpy.savez('x.npz', z=..) gives names")
        for name in file.files:
            array = file[name]
            if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
                raise Failed(f"{path}: {name} holds {array.dtype}, not numbers that torch has")
            native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(array.shape)
            if native.dtype.kind == "u" and native.dtype.itemsize > 1:
                native = native.astype(np.int64)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                out[name] = torch.from_numpy(native)
    return out


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(path))


# ---- printing ------------------------------------------------------------------------------


def _text(report: dict[str, Any]) -> list[str]:
    out = [paint(report["signature"], "bold", sys.stdout), ""]
    out += table([(n, f"{kind}{shape}") for n, (kind, *shape) in report["inputs"].items()], indent="    ")
    out.append("")
    for value in report["values"]:
        if "value" in value:
            out.append(f"value  {value['value']:.8g}")
        elif "mean" in value:
            words = ", ".join(f"{k} {value[k]:.6g}" for k in ("mean", "min", "max"))
            out.append(f"value  {value['shape']}: {words}")
        else:
            out.append(f"value  {value['shape']}: empty")
    if report["gradients"]:
        rows = [(n, "none" if g is None else f"{g:.6g}") for n, g in report["gradients"].items()]
        out += ["", paint("gradient norms", "bold", sys.stdout), *table(rows, indent="    ")]
    if report["state"]:
        out += ["", paint("state", "bold", sys.stdout)]
        out += table([(n, str(s["shape"]), _moved(s)) for n, s in report["state"].items()], indent="    ")
    return out


def _moved(state: dict[str, Any]) -> str:
    if state["norm_before"] is None:
        return f"norm {state['norm_after']:.6g}"
    if not state["entries_changed"]:
        return f"norm {state['norm_after']:.6g}, unchanged"
    return (
        f"norm {state['norm_before']:.6g} -> {state['norm_after']:.6g}, "
        f"{state['entries_changed']} entries changed by {state['change']:.6g}"
    )
