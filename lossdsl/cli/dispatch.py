"""From the words of a command line to the command: `lossdsl COMMAND ..`, one module a command.

Only the module of the command that is asked for is imported, and none imports torch before it has to.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from lossdsl.cli.common import Failed, Parser, prepare_streams, tell

COMMANDS = {
    "compile": "compile a loss, or print a phase of its compilation",
    "check": "report what is wrong with programs",
    "run": "compute a loss and its gradients on given or made-up inputs",
    "explain": "show a loss as a formula, with its types and properties",
    "verify": "prove or refute what a program ensures (in a later version)",
    "fmt": "bring programs into the canonical layout",
    "list": "list the standard library",
    "show": "print the source of a library program",
    "new": "begin a program from a template",
}
"""Commands with their line of help. The module of that name has `configure(parser)` and `run(arguments)`."""

INTERRUPTED = 130
PIPE_CLOSED = 141
DEFECT = 3

COLLECTIONS = (100_000, 20, 20)
"""Rarer garbage collection: a graph grows for most of a run, and each collection walks all of it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    prepare_streams()
    thresholds = gc.get_threshold()
    gc.set_threshold(*COLLECTIONS)
    try:
        try:
            status = _dispatch(words)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        status = PIPE_CLOSED
    finally:
        gc.set_threshold(*thresholds)
    return status


def _dispatch(words: list[str]) -> int:
    try:
        return _command(words)
    except SystemExit as stop:  # argparse ends this way, after its message
        return stop.code if isinstance(stop.code, int) else 2
    except Failed as failure:
        failure.show(as_json="--json" in words)
        return failure.status
    except MemoryError:
        tell("this needs more memory than there is")
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except OSError as error:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        tell(f"{where}{error.strerror or error}")
        return 1
    except Exception as error:
        if os.environ.get("LOSSDSL_TRACEBACK"):
            raise
        tell(
            f"a defect of lossdsl: {type(error).__name__}: {error}",
            "please report it with the program and the command; LOSSDSL_TRACEBACK=1 shows where it happened",
        )
        return DEFECT


def _command(words: list[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("-h", "--help", "help"):
        if name == "help" and len(words) > 1:
            return _command([words[1], "--help"])
        _print_help()
        return 0 if words else 2
    if name in ("-V", "--version"):
        from lossdsl import __version__

        sys.stdout.write(f"lossdsl {__version__}\n")
        return 0
    if name not in COMMANDS:
        raise Failed.of_choice("command", name, COMMANDS, "lossdsl --help lists the commands")
    module = import_module(f"lossdsl.cli.{name}")
    parser = Parser(prog=f"lossdsl {name}", description=module.__doc__)
    module.configure(parser)
    status: int = module.run(parser.parse(words[1:]))
    return status


def _print_help() -> None:
    width = max(map(len, COMMANDS)) + 2
    lines = [
        "usage: lossdsl COMMAND ..",
        "",
        "Training objectives written like their formulas, compiled to torch modules.",
        "",
        *(f"  {name:<{width}}{text}" for name, text in COMMANDS.items()),
        "",
        "lossdsl COMMAND --help says more; lossdsl --version names the version.",
        "Exit status: 0 fine, 1 refused, 2 wrong usage.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _forget_stdout() -> None:
    """Whoever read the output is gone; what is still buffered must not be written at exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass
