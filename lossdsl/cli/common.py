"""What the commands share: arguments, targets, messages, tables, files."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from lossdsl.syntax.diagnostics import Diagnostic, render, suggest

if TYPE_CHECKING:
    from lossdsl.checker.resolve import Resolved
    from lossdsl.checker.values import Program

MAX_INPUT = 4_000_000
"""Characters of standard input that are read; more than any program may have."""


# ---- failing -------------------------------------------------------------------------------


class Failed(Exception):  # noqa: N818 - it carries an exit status as much as an error
    """A command cannot go on. status: 1 what it was given is refused, 2 the command line itself is wrong."""

    def __init__(self, message: str, help: str | None = None, status: int = 1) -> None:  # noqa: A002
        super().__init__(message)
        self.message = message
        self.help = help
        self.status = status

    @staticmethod
    def of_choice(what: str, word: str, known: Iterable[str], otherwise: str) -> Failed:
        """An unknown word where only some are known."""
        near = suggest(word, known)
        return Failed(f"there is no {what} {word}", f"did you mean {near}?" if near else otherwise, 2)

    def show(self, as_json: bool) -> None:
        """Print the message, as a record where records are wanted."""
        if as_json and self.status == 1:
            print_json({"diagnostics": [plain_record(self.message, self.help)]})
        else:
            tell(self.message, self.help)


def plain_record(message: str, help: str | None = None) -> dict[str, Any]:  # noqa: A002
    """A finding that no program text is to blame for, in the form of `Diagnostic.to_json`."""
    return {
        "code": None,
        "severity": "error",
        "message": message,
        "span": None,
        "labels": [],
        "notes": [],
        "help": help,
    }


def tell(message: str, help: str | None = None) -> None:  # noqa: A002
    """An error that no program text is to blame for, on stderr."""
    head = paint("error", "red", sys.stderr)
    text = f"{head}: {message}\n" + (f"  = help: {help}\n" if help else "")
    if sys.stderr is not None:
        sys.stderr.write(text)


def show_diagnostics(found: Iterable[Diagnostic], stream: IO[str]) -> None:
    """Diagnostics with their excerpts, one blank line between."""
    texts = [render(d, color=has_color(stream)) for d in found]
    if texts:
        stream.write("\n\n".join(texts) + "\n")


def refuse(found: Sequence[Diagnostic], as_json: bool = False) -> int:
    """Print why a program was refused; the exit status."""
    if as_json:
        print_json({"diagnostics": [d.to_json() for d in found]})
    else:
        show_diagnostics(found, sys.stderr)
    return 1


def print_json(data: Any) -> None:
    """Data for tools, on stdout."""
    sys.stdout.write(json.dumps(data, indent=2) + "\n")


# ---- streams -------------------------------------------------------------------------------


def prepare_streams() -> None:
    """A terminal that lacks a character shows its escape instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


_COLORS = {
    "red": "31;1",
    "green": "32",
    "yellow": "33",
    "blue": "34;1",
    "cyan": "36",
    "bold": "1",
    "dim": "2",
}


def has_color(stream: IO[str] | None) -> bool:
    """Is this a terminal that wants colour? NO_COLOR, whatever it holds, says no."""
    if stream is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except ValueError:
        return False


def paint(text: str, color: str, stream: IO[str] | None) -> str:
    """The text in a colour, where the stream shows colours."""
    return f"\033[{_COLORS[color]}m{text}\033[0m" if has_color(stream) and text else text


def table(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Rows as lines with aligned columns; the last column is not padded."""
    if not rows:
        return []
    widths = [max(len(row[k]) for row in rows if k < len(row)) for k in range(max(map(len, rows)))]
    return [
        (indent + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))).rstrip()
        for row in rows
    ]


# ---- arguments -----------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Arguments of one command: flags are never abbreviated, unknown ones get a suggestion."""

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The arguments; leaves by SystemExit after printing help, by Failed where they are wrong."""
        known, rest = self.parse_known_args(_joined(words))
        if rest:
            self._unknown(next((word for word in rest if word.startswith("--")), rest[0]))
        return known

    def _unknown(self, word: str) -> NoReturn:
        flags = [f for f in self._option_string_actions if f.startswith("--")]
        flag = word.partition("=")[0]
        if not flag.startswith("-") or flag == "-":
            raise Failed(f"{self.prog} takes no further argument {word}", f"{self.prog} --help says more", 2)
        near = suggest(flag, flags)
        help_ = f"did you mean {near}?" if near else f"{self.prog} --help lists its flags"
        raise Failed(f"{self.prog} has no flag {flag}", help_, 2)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments."""
        raise Failed(f"{self.prog}: {message}", f"{self.prog} --help says more", 2)


_EXPRESSION = ("-e", "--expr")


def _joined(words: Sequence[str]) -> list[str]:
    """An expression may begin with a minus sign: joined to its flag it is not taken for a flag itself."""
    out: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in _EXPRESSION:
            following = next(rest, None)
            out.extend([word] if following is None else [f"--expr={following}"])
        else:
            out.append(word)
    return out


def add_target(parser: argparse.ArgumentParser, expression: bool = True) -> None:
    """FILE|NAME, or -e EXPR."""
    parser.add_argument(
        "target",
        nargs="?" if expression else None,
        metavar="FILE|NAME",
        help="a .loss file (- for standard input), FILE:LOSS, or a name of the standard library",
    )
    if expression:
        parser.add_argument(
            "-e",
            "--expr",
            metavar="EXPR",
            help="an expression over library losses, as in 'dpo(pi, ref) + beta*sft(pi)'",
        )


def add_set(parser: argparse.ArgumentParser) -> None:
    """--set NAME=VALUE."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="options",
        help="a hyperparameter (beta=0.1) or the length of an axis (M=50_000); may be repeated",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print data for tools instead of text")


def settings(words: Iterable[str]) -> dict[str, float | int]:
    """The values of --set."""
    found: dict[str, float | int] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip()
        if not equals or re.fullmatch(r"[A-Za-z_]\w*", name) is None:
            raise Failed(f"--set {word}: expected NAME=VALUE", "for example --set beta=0.1", 2)
        value = number(text.strip())
        if value is None:
            raise Failed(f"--set {word}: {text.strip() or 'nothing'} is not a number", "for example --set beta=0.1", 2)
        if name in found:
            raise Failed(f"--set gives {name} twice", None, 2)
        found[name] = value
    return found


def number(text: str) -> float | int | None:
    """A number as written in a program, or true and false."""
    if text in ("true", "True", "false", "False"):
        return text in ("true", "True")
    if len(text) > 400 or re.fullmatch(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text) is None:
        return None
    plain = text.replace("_", "")
    if re.fullmatch(r"[-+]?[0-9]+", plain):
        return int(plain)
    value = float(plain)
    return value if abs(value) != float("inf") else None


# ---- targets -------------------------------------------------------------------------------


def find(arguments: argparse.Namespace) -> Resolved:
    """The loss that a command is about. Raises LossError where it is refused, Failed where none is named."""
    from lossdsl.checker.resolve import from_text, resolve

    expression = getattr(arguments, "expr", None)
    target = arguments.target
    if (target is None) == (expression is None):
        what = "both a FILE|NAME and -e" if target is not None else "no loss"
        raise Failed(f"{what} given", "give a FILE, a NAME of the standard library, or -e EXPR", 2)
    if expression is not None:
        return from_text(expression)
    head, _, name = target.partition(":")
    if head == "-":
        return from_text(read_stdin(), name or None, "<stdin>", Path())
    return resolve(target)


def program_of(resolved: Resolved, options: dict[str, float | int]) -> Program:
    """The checked program: with values if every hyperparameter has one, else symbolic. Raises LossError."""
    from lossdsl.checker.program import elaborate
    from lossdsl.checker.resolve import build
    from lossdsl.syntax.diagnostics import LossError

    needed = {p.name for p in resolved.function.hyperparameters if p.default is None} - options.keys()
    if not needed:
        return build(resolved, options)
    if options:
        declared = {p.name for p in resolved.function.hyperparameters}
        unknown = [o for o in options if o not in declared and not o[:1].isupper()]
        if unknown:
            return build(resolved, options)
        raise Failed(f"{resolved.function.name} also needs {', '.join(sorted(needed))}", f"--set {min(needed)}=..")
    diagnostics = resolved.library.diagnostics
    program = elaborate(resolved.module, resolved.function, resolved.library.prelude(), diagnostics)
    diagnostics.raise_if_errors()
    if program is None:
        raise LossError(diagnostics.found)
    return program


def read_stdin() -> str:
    """A program from standard input."""
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise Failed("there is no standard input to read")
    try:
        text: str = stream.read(MAX_INPUT + 1).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Failed("the standard input is not text in UTF-8") from None
    return text.replace("\r\n", "\n")


# ---- files ---------------------------------------------------------------------------------


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file. Raises Failed, saying why it cannot be written."""
    data = content.encode() if isinstance(content, str) else content
    try:
        path.write_bytes(data)
    except OSError as error:
        raise unwritable(path, error) from None
    except ValueError as error:
        raise Failed(f"{str(path)!r} is no file name: {error}") from None


def unwritable(path: Path, error: OSError) -> Failed:
    """Why a file cannot be written."""
    if path.is_dir():
        return Failed(f"{path} is a folder", "name a file in it")
    if not path.parent.is_dir():
        return Failed(f"there is no folder {path.parent}", f"make it first: mkdir -p {path.parent}")
    return Failed(f"{path} cannot be written: {error.strerror or error}")
