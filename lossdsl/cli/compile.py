"""Compile a loss to a file, or print a phase of its compilation.

Without -o the result goes to standard output (python, fx). The format follows from the ending of OUT
(.py, .pt, .pt2, .onnx) unless --emit names it. Exit status: 0 fine, 1 refused, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
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
    write_file,
)

if TYPE_CHECKING:
    from lossdsl.checker.resolve import Resolved
    from lossdsl.checker.values import Program
    from lossdsl.runtime.module import CompiledLoss

FORMATS = ("python", "fx", "pt2", "onnx")
PHASES = ("ast", "types", "graph", "rewritten", "schedule", "fx")
ENDINGS = {".py": "python", ".pt": "fx", ".pth": "fx", ".pt2": "pt2", ".onnx": "onnx"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `lossdsl compile`."""
    add_target(parser)
    parser.add_argument("-o", "--out", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--emit",
        choices=FORMATS,
        help="python: a module that needs only torch; fx: a GraphModule; pt2: a torch.export program; onnx",
    )
    parser.add_argument(
        "--target", choices=("cpu", "cuda"), default="cpu", dest="device", help="the device that the result is for"
    )
    add_set(parser)
    parser.add_argument("--print", choices=PHASES, dest="phase", help="print a phase instead of emitting")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compile, or print a phase."""
    from lossdsl.syntax.diagnostics import LossError

    options = settings(arguments.options)
    form = _format(arguments)
    try:
        resolved = find(arguments)
        if arguments.phase is not None:
            text = "\n".join(_phase(arguments.phase, resolved, arguments, options)) + "\n"
            if arguments.json:
                print_json({"phase": arguments.phase, "text": text, "diagnostics": []})
            else:
                sys.stdout.write(text)
            return 0
        return _emit(form, resolved, arguments, options)
    except LossError as error:
        return refuse(error.diagnostics, arguments.json)


def _format(arguments: argparse.Namespace) -> str:
    """What to emit. Raises Failed where OUT and --emit do not fit."""
    out = None if arguments.out is None else Path(arguments.out)
    if arguments.phase is not None and (out is not None or arguments.emit is not None):
        raise Failed("--print goes to standard output; it takes neither -o nor --emit", None, 2)
    if out is not None and out.suffix == ".loss":
        raise Failed(f"{out} looks like a program; it is not overwritten", "results end in .py, .pt, .pt2, .onnx", 2)
    form = arguments.emit
    if form is None:
        form = "python" if out is None else ENDINGS.get(out.suffix, "python")
    if out is None and form in ("pt2", "onnx"):
        raise Failed(f"--emit {form} writes a binary file", f"name it: -o loss.{form}", 2)
    return str(form)


# ---- phases --------------------------------------------------------------------------------


def _phase(phase: str, resolved: Resolved, arguments: argparse.Namespace, options: dict[str, float | int]) -> list[str]:
    match phase:
        case "ast":
            return _tree(resolved, arguments)
        case "types":
            return _types(program_of(resolved, options))
        case "graph":
            return _graph(program_of(resolved, options))
        case "rewritten":
            from lossdsl.graph.rewrite import rewritten

            return _graph(rewritten(program_of(resolved, options)))
        case "schedule":
            from lossdsl.backends.show import show_code

            return show_code(_compiled(resolved, options).code)
        case _:
            readable: str = _compiled(resolved, options).graph_module.print_readable(print_output=False)
            return [line.rstrip() for line in readable.splitlines()]


def _tree(resolved: Resolved, arguments: argparse.Namespace) -> list[str]:
    """The whole file's tree, or that of the one function that was named."""
    from lossdsl.syntax.show import show_tree

    named = arguments.target is not None and ":" in arguments.target
    whole = resolved.recipe.kind == "module" and not named
    return show_tree(resolved.module.tree if whole else resolved.function)


def _types(program: Program) -> list[str]:
    from lossdsl.checker.describe import definitions, type_rows
    from lossdsl.checker.signature import signature

    rows = type_rows([d.to_json() for d in definitions(program)])
    return [paint(str(signature(program)), "bold", sys.stdout), *table(rows, indent="    ")]


def _graph(program: Program) -> list[str]:
    from lossdsl.graph.show import show_graph

    several = len(program.values) > 1
    results = [(f"value {k + 1} " if several else "value ", v.node, v.axes) for k, v in enumerate(program.values)]
    leaves = {s.name: s.leaf for s in program.lasting}
    results += [(f"{name} :", node, leaves[name].axes) for name, node in program.updates.items()]
    return show_graph(results)


# ---- emitting ------------------------------------------------------------------------------


def _compiled(resolved: Resolved, options: dict[str, float | int]) -> CompiledLoss:
    from lossdsl.runtime.build import compiled

    return compiled(resolved, options)


def _emit(form: str, resolved: Resolved, arguments: argparse.Namespace, options: dict[str, float | int]) -> int:
    required = _required(resolved, options) if form == "python" else ()
    loss = _with_stand_ins(resolved, options, required)
    match form:
        case "python":
            content: str | bytes = _python(loss, arguments.device, required)
        case "fx":
            content = _fx(loss, arguments.out is not None)
        case "pt2":
            content = _pt2(loss, arguments.device)
        case _:
            content = _onnx(loss, arguments.device)
    if arguments.out is not None:
        write_file(Path(arguments.out), content)
    if arguments.json:
        code = content if isinstance(content, str) and arguments.out is None else None
        print_json(
            {
                "out": arguments.out,
                "emit": form,
                "signature": loss.signature.to_json(),
                "properties": loss.properties.to_json(),
                "code": code,
                "diagnostics": [],
            }
        )
    elif arguments.out is None:
        sys.stdout.write(content if isinstance(content, str) else content.decode())
    else:
        sys.stderr.write(f"wrote {arguments.out}: {loss.signature}\n")
    return 0


def _required(resolved: Resolved, options: dict[str, float | int]) -> tuple[str, ...]:
    """Hyperparameters without default or given value: an emitted constructor asks for them."""
    return tuple(p.name for p in resolved.function.hyperparameters if p.default is None and p.name not in options)


def _with_stand_ins(resolved: Resolved, options: dict[str, float | int], required: tuple[str, ...]) -> CompiledLoss:
    """The loss, values that the emitted constructor will ask for standing in for themselves."""
    from lossdsl.syntax.diagnostics import LossError

    if not required:
        return _compiled(resolved, options)
    for value in (1.0, 0.5, 2.0, 0.0, -1.0):
        found = list(resolved.library.diagnostics.found)
        try:
            return _compiled(resolved, {**options, **dict.fromkeys(required, value)})
        except LossError:
            resolved.library.diagnostics.found[:] = found
    return _compiled(resolved, options)


def _python(loss: CompiledLoss, target: str, required: tuple[str, ...]) -> str:
    from lossdsl.backends.python import emit_python

    try:
        return emit_python(loss, target=target, required=required)
    except ValueError as error:
        raise Failed(str(error), f"--set {required[0]}=..") from None


def _fx(loss: CompiledLoss, saved: bool) -> str | bytes:
    """The graph module as a file for torch.load, or its code."""
    if not saved:
        code: str = loss.graph_module.print_readable(print_output=False)
        return "\n".join(line.rstrip() for line in code.splitlines()) + "\n"
    import torch

    stream = io.BytesIO()
    torch.save(loss.graph_module, stream)
    return stream.getvalue()


def _exported(loss: CompiledLoss, target: str) -> Any:
    """The exported program, traced on made-up inputs."""
    from lossdsl.backends.export import export
    from lossdsl.cli.sample import examples

    if loss.program.functions:
        help_ = "--emit python takes the function as an argument"
        raise Failed(f"{loss.program.name} takes a function, which cannot stand in an exported program", help_)
    with _quietly("torch.export", loss):
        return export(loss, examples=examples(loss), target=target)


@contextmanager
def _quietly(exporter: str, loss: CompiledLoss) -> Iterator[None]:
    """Without an exporter's remarks on the way; what it cannot do is a refusal."""
    import logging
    import warnings

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (Failed, MemoryError):
        raise
    except Exception as error:  # exporters raise whatever they meet
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        first = re.sub(r"\033\[[0-9;]*m", "", str(cause)).strip().partition("\n")[0]
        why = f"{type(cause).__name__}: {first[:200]}"
        help_ = "--emit python writes a module for every program"
        raise Failed(f"{exporter} cannot take {loss.program.name}: {why}", help_) from None
    finally:
        logging.disable(disabled)


def _pt2(loss: CompiledLoss, target: str) -> bytes:
    import torch

    stream = io.BytesIO()
    exported = _exported(loss, target)
    with _quietly("torch.export", loss):
        torch.export.save(exported, stream)
    return stream.getvalue()


def _onnx(loss: CompiledLoss, target: str) -> bytes:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise Failed(f"--emit onnx needs {' and '.join(missing)}", "pip install 'lossdsl[onnx]'")
    import torch

    exported = _exported(loss, target)
    with _quietly("ONNX", loss):
        program: Any = torch.onnx.export(exported, dynamo=True, verbose=False)
        content: bytes = program.model_proto.SerializeToString()
    return content
