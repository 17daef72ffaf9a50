"""Prove or refute what a program ensures: in a later version. `ensures` lines are parsed and kept for it."""

from __future__ import annotations

import argparse

from lossdsl.cli.common import Failed, add_json, add_target


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `lossdsl verify`."""
    add_target(parser, expression=False)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Say that there is no verifier yet."""
    raise Failed(
        "verify comes in a later version",
        f"lossdsl explain {arguments.target} shows what the program states and what is derived at once",
        2,
    )
