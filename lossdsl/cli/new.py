"""Begin a program from a commented template. An existing file is never overwritten."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from lossdsl.cli.common import Failed, unwritable

TEMPLATE = '''"""What this objective is for, in one line.

title:
authors:
year:
tags: my
"""

# Parameters before the `;` are tensors, with the names of their axes in brackets. Those after it are
# hyperparameters: scalars with a domain and a default, fixed when the loss is built.
loss {name}(logits: real[N, C], labels: int[N] < C; smoothing: real in [0, 1) = 0.1):
    """What the value means."""
    # A definition. `[n]` makes n run over the first axis; logits[n, labels[n]] picks one entry of each row.
    nll[n] = logsumexp[C](logits[n]) - logits[n, labels[n]]
    # A binder removes axes: here the mean over C leaves one value for each n.
    uniform = logsumexp[C](logits) - mean[C](logits)
    # The last expression is the value.
    mean[N]((1 - smoothing) * nll + smoothing * uniform)
    ensures value >= 0
'''


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `lossdsl new`."""
    parser.add_argument("name", metavar="NAME", help="the name of the loss; NAME.loss is written")


def run(arguments: argparse.Namespace) -> int:
    """Write the template."""
    path = Path(arguments.name)
    path = path if path.suffix == ".loss" else path.with_name(f"{path.name}.loss") if path.name else path
    name = path.stem
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name) is None:
        word = re.sub(r"\W+", "_", name.lower()).strip("_") or "my_loss"
        near = word if word[0].isalpha() else f"loss_{word}"
        raise Failed(f"{name!r} cannot be the name of a loss", f"small letters, digits and _: lossdsl new {near}", 2)
    from lossdsl.checker.calls import builtin_names

    if name in (*builtin_names(), "loss", "def", "record", "use", "state", "param", "draw", "repeat", "scan"):
        raise Failed(f"{name} is a word of the language", f"call it my_{name}", 2)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(name=name))
    except FileExistsError:
        raise Failed(f"{path} exists already", "choose another name") from None
    except OSError as error:
        raise unwritable(path, error) from None
    sys.stdout.write(f"wrote {path}\nlossdsl check {path}\n")
    return 0
