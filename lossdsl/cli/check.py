"""Report what is wrong with programs. Nothing is printed but findings and a last line of counts.

Imports no torch, so it is fast enough to run on every keystroke. Exit status: 0 no errors, 1 errors.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossdsl.cli.common import add_json, print_json, read_stdin, show_diagnostics

if TYPE_CHECKING:
    from lossdsl.checker.values import LoadedModule, Program
    from lossdsl.syntax.diagnostics import Diagnostic


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `lossdsl check`."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a .loss file, - for standard input, or a name of the standard library",
    )
    parser.add_argument(
        "--types",
        action="store_true",
        help="print the type of every definition: shape, kind, domain, coupling",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check each file."""
    findings: list[Diagnostic] = []
    seen: set[str] = set()
    counts = {"loss": 0, "def": 0, "record": 0}
    types: list[dict[str, Any]] = []
    for file in arguments.files:
        known = None if arguments.types else _recalled(file)
        programs, found, held = _check(file) if known is None else ([], [], known)
        new = [d for d in found if str(d) not in seen]
        seen.update(map(str, new))
        findings.extend(new)
        counts = {kind: count + held.get(kind, 0) for kind, count in counts.items()}
        if arguments.types:
            types.extend(_types(file, programs))
        if not arguments.json:
            show_diagnostics(new, sys.stdout)
    errors = sum(d.severity == "error" for d in findings)
    if arguments.json:
        report: dict[str, Any] = {"files": arguments.files, "diagnostics": [d.to_json() for d in findings]}
        print_json({**report, "types": types} if arguments.types else report)
    else:
        if types:
            _print_types(types)
        sys.stdout.write(_summary(len(arguments.files), counts, errors, bool(findings) or bool(types)))
    return 1 if errors else 0


def _recalled(file: str) -> dict[str, int] | None:
    """How many declarations of each kind a file has, if it is known to be sound."""
    from lossdsl.checker.sound import recall

    return recall(Path(file)) if file.endswith(".loss") else None


def _check(file: str) -> tuple[list[Program], list[Diagnostic], dict[str, int]]:
    from lossdsl.checker.modules import Library
    from lossdsl.checker.program import check_module
    from lossdsl.checker.sound import remember
    from lossdsl.syntax.diagnostics import Diagnostics

    diagnostics = Diagnostics()
    library = Library(diagnostics)
    prelude = library.prelude()
    if file == "-":
        module = library.text("<stdin>", read_stdin(), Path())
    elif file.endswith(".loss") or "/" in file or _exists(file):
        module = library.file(Path(file))
    else:
        module = _named(library, file)
    if module is None:
        return [], diagnostics.found, {}
    programs = check_module(module, prelude, diagnostics)
    held = {"loss": 0, "def": 0, "record": len(module.tree.records)}
    for function in module.tree.functions:
        held[function.kind] += 1
    if file.endswith(".loss") and not diagnostics.found:
        remember(Path(file), library.looked, held)
    return programs, diagnostics.found, held


def _exists(file: str) -> bool:
    try:
        return Path(file).exists()
    except (OSError, ValueError):
        return False


def _named(library: Any, name: str) -> LoadedModule | None:
    """A file of the standard library by the name of one of its losses, or a missing file."""
    from lossdsl.checker.modules import building_blocks

    home = building_blocks().get(name)
    candidates = [("papers", *name.split(".")), tuple(name.split(".")), *([] if home is None else [(home,)])]
    for parts in candidates:
        if all(part.isidentifier() for part in parts):
            found: LoadedModule | None = library.stdlib(parts)
            if found is not None or library.diagnostics.errors:
                return found
    return library.file(Path(name))  # type: ignore[no-any-return]


def _summary(files: int, counts: dict[str, int], errors: int, spaced: bool) -> str:
    if errors:
        return f"\n{_count(errors, 'error')} in {_count(files, 'file')}\n"
    words = {"loss": ("loss", "losses"), "def": ("def", "defs"), "record": ("record", "records")}
    held = [f"{n} {words[kind][n != 1]}" for kind, n in counts.items() if n]
    head = "\n" if spaced else ""
    return f"{head}no errors in {_count(files, 'file')}: {', '.join(held) or 'nothing declared'}\n"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


# ---- types ---------------------------------------------------------------------------------


def _types(file: str, programs: list[Program]) -> list[dict[str, Any]]:
    from lossdsl.checker.describe import definitions
    from lossdsl.checker.signature import signature

    return [
        {
            "file": file,
            "function": program.name,
            "kind": program.function.kind,
            "signature": str(signature(program)),
            "definitions": [d.to_json() for d in definitions(program)],
        }
        for program in programs
    ]


def _print_types(types: list[dict[str, Any]]) -> None:
    from lossdsl.checker.describe import type_rows
    from lossdsl.cli.common import paint, table

    for k, entry in enumerate(types):
        head = paint(f"{entry['kind']} {entry['signature']}", "bold", sys.stdout)
        lines = table(type_rows(entry["definitions"]), indent="    ")
        sys.stdout.write(("\n" if k else "") + "\n".join([head, *lines]) + "\n")
