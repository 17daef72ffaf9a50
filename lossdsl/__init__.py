"""lossdsl: training objectives written like their formulas, checked like typed programs, compiled to torch modules.

The functions here are the whole public face. Importing this package imports no torch; `load` and `compile` do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossdsl.syntax.diagnostics import Diagnostic, LossError

if TYPE_CHECKING:
    from lossdsl.runtime.inputs import LossInputError
    from lossdsl.runtime.module import CompiledLoss

__version__ = "0.1.0"
__all__ = [
    "CompiledLoss",
    "Diagnostic",
    "LossError",
    "LossInputError",
    "available",
    "check",
    "compile",
    "format",
    "load",
    "verify",
]


def load(target: str | Path, /, **options: float | int) -> CompiledLoss:
    """A loss as a torch module.

    target: a name of the standard library ("rpo", "hinge", "stop_regressing:two_hot"), a file ("my.loss"), or one of a file's losses
    ("my.loss:name"). options: hyperparameters (`beta=0.1`) and lengths that no input tells (`M=50_000`).
    Raises LossError with diagnostics.
    """
    from lossdsl.checker.resolve import resolve
    from lossdsl.runtime.build import compiled

    return compiled(resolve(target), options)


def compile(source: str, /, name: str | None = None, **options: float | int) -> CompiledLoss:  # noqa: A001 - the word of the field
    """A loss from source text, or from a lone expression over library losses (`"dpo(pi, ref) + beta*sft(pi)"`).

    name: which loss of a program (its first one by default). options: as for `load`. Raises LossError with diagnostics.
    """
    from lossdsl.checker.resolve import from_text
    from lossdsl.runtime.build import compiled

    return compiled(from_text(source, name), options)


def check(source: str | Path) -> list[Diagnostic]:
    """The diagnostics of a program: a path (a Path, or text ending in .loss) or source text. Imports no torch."""
    from lossdsl.checker.modules import Library
    from lossdsl.checker.program import check_module
    from lossdsl.syntax.diagnostics import Diagnostics

    diagnostics = Diagnostics()
    library = Library(diagnostics)
    is_path = isinstance(source, Path) or (source.endswith(".loss") and "\n" not in source)
    module = library.file(Path(source)) if is_path else library.text("<text>", str(source))
    if module is not None:
        check_module(module, library.prelude(), diagnostics)
    return diagnostics.found


def format(source: str, /) -> str:  # noqa: A001 - the word of the field
    """A program in canonical layout. Raises LossError where it does not parse."""
    from lossdsl.syntax.diagnostics import Diagnostics
    from lossdsl.syntax.format import format_source
    from lossdsl.syntax.source import Source

    diagnostics = Diagnostics()
    text = format_source(Source("<text>", source), diagnostics)
    diagnostics.raise_if_errors()
    if text is None:
        raise LossError(diagnostics.found)
    return text


def available(tag: str | None = None) -> list[str]:
    """Names that `load` knows: papers and building blocks, all or those with a tag."""
    from lossdsl.checker.catalog import catalog

    return [entry.name for entry in catalog() if tag is None or tag in entry.tags]


def verify(*_: Any, **__: Any) -> Any:
    """Proofs and counterexamples for `ensures`: not in this version."""
    raise NotImplementedError("lossdsl.verify is not in this version; `ensures` lines are parsed and kept for it")


def __getattr__(name: str) -> Any:
    if name == "CompiledLoss":
        from lossdsl.runtime.module import CompiledLoss

        return CompiledLoss
    if name == "LossInputError":
        from lossdsl.runtime.inputs import LossInputError

        return LossInputError
    raise AttributeError(f"module 'lossdsl' has no attribute {name!r}")
