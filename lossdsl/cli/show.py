"""Print the source of a library program: a paper's or family's file, or one declaration of it.

On a terminal it is coloured, unless NO_COLOR is set.
"""

from __future__ import annotations

import argparse
import re
import sys

from lossdsl.cli.common import Failed, add_json, has_color, paint, print_json

_WORDS = (
    "use", "record", "def", "loss", "param", "state", "draw", "repeat", "scan", "with", "until", "backwards",
    "backward", "ensures", "else", "where", "and", "or", "not", "as", "in",
)  # fmt: skip
_KINDS = ("real", "int", "bool", "sign", "prob", "unit", "fn")
_PIECES = re.compile(r'(?P<green>"""[\s\S]*?"""|"[^"\n]*")|(?P<dim>\#[^\n]*)|(?P<number>\b[0-9][\w.]*)|[A-Za-z_]\w*')


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `lossdsl show`."""
    parser.add_argument(
        "name",
        metavar="NAME",
        help="a name that `lossdsl list` shows, PAPER:LOSS, or a family as in preference",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the source."""
    file, line, text = _source(arguments.name)
    if arguments.json:
        print_json({"name": arguments.name, "file": file, "line": line, "source": text})
        return 0
    place = f"{file}:{line}" if line > 1 else file
    sys.stdout.write(paint(f"# {place}", "dim", sys.stdout) + "\n")
    sys.stdout.write((colored(text) if has_color(sys.stdout) else text).rstrip("\n") + "\n")
    return 0


def _source(name: str) -> tuple[str, int, str]:
    """File, first line and text of what a name stands for."""
    from lossdsl.checker.modules import Library, building_blocks, module_names
    from lossdsl.syntax.diagnostics import Diagnostics, LossError

    diagnostics = Diagnostics()
    library = Library(diagnostics)
    head, _, inner = name.partition(":")
    block = building_blocks().get(head)
    parts = tuple(head.split("."))
    module = None
    if all(re.fullmatch(r"[A-Za-z_]\w*", part) for part in parts):
        module = library.stdlib(("papers", *parts))
        if module is None and (block is None or inner):
            module = library.stdlib(parts)
        elif module is None and block is not None:
            module, inner = library.stdlib((block,)), head
    if diagnostics.errors:
        raise LossError(diagnostics.found)
    if module is None:
        known = [*(m.removeprefix("papers.") for m in module_names()), *building_blocks()]
        raise Failed.of_choice("library program", name, known, "lossdsl list shows what there is")
    source = module.tree.source
    if not inner:
        return source.name, 1, source.text
    places = {r.name: r.span for r in module.tree.records} | {f.name: f.name_span for f in module.tree.functions}
    if inner in places:
        return source.name, places[inner].line, _declaration(source.text, places[inner].line)
    names = list(places)
    raise Failed.of_choice(f"declaration in {head}:", inner, names, f"it has {', '.join(names)}")


def _declaration(text: str, first: int) -> str:
    """A declaration from its first line to the last line indented below it."""
    lines = text.splitlines()[first - 1 :]
    end = next((k for k, line in enumerate(lines[1:], 1) if line and not line[0].isspace()), len(lines))
    return "\n".join(lines[:end]).rstrip()


def colored(text: str) -> str:
    """A program with terminal colours."""

    def one(match: re.Match[str]) -> str:
        word = match.group()
        if match.group("green"):
            return f"\033[32m{word}\033[0m"
        if match.group("dim"):
            return f"\033[2m{word}\033[0m"
        if match.group("number"):
            return f"\033[36m{word}\033[0m"
        if word in _WORDS:
            return f"\033[35m{word}\033[0m"
        return f"\033[34m{word}\033[0m" if word in _KINDS else word

    return _PIECES.sub(one, text)
