"""The command line: one module a command, so that `list` and `compile` here are modules."""

from lossdsl.cli.dispatch import COMMANDS, DEFECT, main

__all__ = ["COMMANDS", "DEFECT", "main"]
