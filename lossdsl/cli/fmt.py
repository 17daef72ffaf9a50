"""Bring programs into the canonical layout, in place; comments are kept.

Exit status: 0 fine, 1 a file does not parse, or, with --check, is not in the canonical layout.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossdsl.cli.common import add_json, print_json, read_stdin, show_diagnostics, write_file

if TYPE_CHECKING:
    from lossdsl.syntax.diagnostics import Diagnostic


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `lossdsl fmt`."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a .loss file; - formats standard input to standard output"
    )
    parser.add_argument("--check", action="store_true", help="change nothing, only say what would be changed")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Format each file."""
    refused = changed = 0
    report: list[dict[str, Any]] = []
    for file in arguments.files:
        before, after, found = _formatted(file)
        wrong = after is None
        differs = not wrong and before != after
        refused += wrong
        changed += differs
        report.append({"file": file, "changed": differs, "diagnostics": [d.to_json() for d in found]})
        if not arguments.json:
            show_diagnostics(found if wrong else [], sys.stderr)
        if after is None:
            continue
        if file == "-" and not arguments.check:
            if not arguments.json:
                sys.stdout.write(after)
        elif differs:
            if not arguments.check:
                write_file(Path(file), after)
            if not arguments.json:
                sys.stdout.write(f"{'would change' if arguments.check else 'changed'} {file}\n")
    if arguments.json:
        print_json({"files": report})
    return 1 if refused or (arguments.check and changed) else 0


def _formatted(file: str) -> tuple[str | None, str | None, list[Diagnostic]]:
    """The text before and after, and why there is none after."""
    from lossdsl.checker.modules import read_text
    from lossdsl.syntax.diagnostics import Diagnostics
    from lossdsl.syntax.format import format_source
    from lossdsl.syntax.source import Source

    diagnostics = Diagnostics()
    text = read_stdin() if file == "-" else read_text(Path(file), diagnostics)
    if text is None:
        return None, None, diagnostics.found
    after = format_source(Source("<stdin>" if file == "-" else file, text), diagnostics)
    return text, after, diagnostics.found
