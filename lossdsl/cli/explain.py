"""Show a loss as a formula, with its inputs, types, properties, provenance and what it uses.

With --latex the formula is LaTeX. Exit status: 0 fine, 1 refused.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from lossdsl.cli.common import add_json, add_target, find, paint, print_json, program_of, refuse, table

if TYPE_CHECKING:
    from lossdsl.checker.resolve import Resolved
    from lossdsl.checker.values import LoadedModule, Program
    from lossdsl.syntax import ast

WIDTH = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `lossdsl explain`."""
    add_target(parser)
    parser.add_argument("--latex", action="store_true", help="the formula in LaTeX")
    parser.add_argument("--no-uses", action="store_true", help="only this loss, not the formulas of what it uses")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Explain one loss."""
    from lossdsl.syntax.diagnostics import LossError

    try:
        resolved = find(arguments)
        facts = explain(resolved, arguments.latex, not arguments.no_uses)
    except LossError as error:
        return refuse(error.diagnostics, arguments.json)
    if arguments.json:
        print_json({**facts, "diagnostics": []})
    else:
        sys.stdout.write("\n".join(_text(facts)) + "\n")
    return 0


def explain(resolved: Resolved, latex: bool = False, uses: bool = True) -> dict[str, Any]:
    """Everything there is to say of a loss, as plain data. Raises LossError."""
    from lossdsl.checker.catalog import provenance
    from lossdsl.checker.describe import definitions
    from lossdsl.checker.properties import derive
    from lossdsl.checker.signature import signature

    program = program_of(resolved, {})
    used = _uses(resolved)
    formulas = _Formulas(resolved, latex)
    return {
        "name": program.name,
        "file": resolved.module.name,
        "doc": textwrap.dedent(resolved.function.doc or "").strip(),
        "provenance": provenance(resolved.module.tree.doc),
        "formula": formulas.of(program),
        "signature": signature(program).to_json(),
        "types": [d.to_json() for d in definitions(program)],
        "derived": derive(program).to_json(),
        "ensures": [p.span.text for p in program.ensures],
        "uses": [
            {
                "name": function.name,
                "file": module.name,
                "formula": formulas.named(module, function) if uses else None,
            }
            for module, function in used
        ],
    }


class _Formulas:
    """Formulas of a loss and of what it uses; each function is checked once."""

    def __init__(self, resolved: Resolved, latex: bool) -> None:
        from lossdsl.checker.latex import Names

        self.resolved = resolved
        self.latex = latex
        self.prelude = resolved.library.prelude()
        self.programs: dict[int, Program | None] = {}
        self.names = Names(self.program, {} if self.prelude is None else self.prelude.functions)

    def program(self, module: LoadedModule, function: ast.Function) -> Program | None:
        from lossdsl.checker.program import elaborate
        from lossdsl.syntax.diagnostics import Diagnostics

        if id(function) not in self.programs:
            self.programs[id(function)] = elaborate(module, function, self.prelude, Diagnostics())
        return self.programs[id(function)]

    def of(self, program: Program) -> str:
        from lossdsl.checker.latex import latex, text

        return latex(program, self.names) if self.latex else "\n".join(text(program, self.names))

    def named(self, module: LoadedModule, function: ast.Function) -> str | None:
        program = self.program(module, function)
        return None if program is None else self.of(program)


def _uses(resolved: Resolved) -> list[tuple[LoadedModule, ast.Function]]:
    """Functions that a loss calls, and what those call, in the order of reading; the prelude is left out."""
    from lossdsl.checker.latex import called

    found: list[tuple[LoadedModule, ast.Function]] = []
    seen = {id(resolved.function)}
    waiting = [(resolved.module, resolved.function)]
    while waiting:
        module, function = waiting.pop(0)
        for name in called(function):
            target = module.functions.get(name)
            if target is not None and id(target[1]) not in seen:
                seen.add(id(target[1]))
                found.append(target)
                waiting.append(target)
    return found


# ---- printing ------------------------------------------------------------------------------


def _text(facts: dict[str, Any]) -> list[str]:
    from lossdsl.checker.describe import type_rows

    known = facts["provenance"]
    out = [paint(facts["name"], "bold", sys.stdout) + f"   {facts['file']}"]
    out += [line for part in facts["doc"].splitlines() for line in textwrap.wrap(part.strip(), WIDTH) or [""]]
    if known:
        order = [k for k in ("title", "authors", "year", "arxiv", "source", "tags") if k in known]
        out += ["", *table([(k, known[k]) for k in order])]
    out += ["", _head("formula"), *_indented(facts["formula"])]
    signature = facts["signature"]
    inputs = [(e["name"], e["type"]) for e in (*signature["inputs"], *signature["functions"])]
    if inputs:
        out += ["", _head("inputs"), *table(inputs, indent="    ")]
    hypers = [(h["name"], h["type"], _default(h["default"])) for h in signature["hyperparameters"]]
    if hypers:
        out += ["", _head("hyperparameters"), *table(hypers, indent="    ")]
    for role in ("params", "state", "draws"):
        kept = [(e["name"], e["type"]) for e in signature[role]]
        if kept:
            out += ["", _head(role), *table(kept, indent="    ")]
    out += ["", _head("types"), *table(type_rows(facts["types"]), indent="    ")]
    derived = facts["derived"]
    out += ["", _head("derived"), f"    value {derived['range']}"]
    out += [f"    {axis}: {how}" for axis, how in derived["coupling"].items()]
    if facts["ensures"]:
        out += ["", _head("ensures"), *(f"    {phrase}" for phrase in facts["ensures"])]
    if facts["uses"]:
        out += ["", _head("uses")]
        for item in facts["uses"]:
            out.append(f"    {item['name']}   {item['file']}")
            out += _indented(item["formula"] or "", 8)
    return out


def _head(word: str) -> str:
    return paint(word, "bold", sys.stdout)


def _indented(text: str, by: int = 4) -> list[str]:
    return [" " * by + line for line in text.splitlines()]


def _default(value: float | None) -> str:
    return "must be given" if value is None else f"= {value}"
