"""What the examples share: command line, reproducibility, tables and plots."""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Options:
    """The flags that every example takes."""

    seed: int
    quick: bool
    out: Path


def parser(description: str) -> argparse.ArgumentParser:
    """The command line of an example, to which it may add flags of its own."""
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    flags.add_argument("--quick", action="store_true", help="a few seconds' version, to see that it runs")
    flags.add_argument("--out", type=Path, default=HERE / "out", help="folder for the plot (default: examples/out)")
    return flags


def start(args: argparse.Namespace, threads: int = 2) -> Options:
    """Seed every generator, keep to few threads (one suits small networks best), make the output folder."""
    random.seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002  (scikit-learn draws from the global state unless told otherwise)
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    args.out.mkdir(parents=True, exist_ok=True)
    return Options(seed=args.seed, quick=args.quick, out=args.out)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a head, first column to the left, the others to the right."""
    widths = [max(len(line[k]) for line in [head, *rows]) for k in range(len(head))]
    print(f"\n{title}")
    for line in [head, ["-" * width for width in widths], *rows]:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  " + "  ".join(cells).rstrip())


def mean_and_error(values: Sequence[float] | np.ndarray, digits: int = 2) -> str:
    """`mean ± standard error` of repeated measurements."""
    sample = np.asarray(values, dtype=float)
    error = sample.std(ddof=1) / np.sqrt(len(sample)) if len(sample) > 1 else float("nan")
    return f"{sample.mean():.{digits}f} ± {error:.{digits}f}"


def expectations(claims: Mapping[str, bool], options: Options) -> None:
    """Print what is expected of a full run, and whether this run shows it."""
    short = " (--quick trains too little to show all)" if options.quick else ""
    print(f"\nExpected, and seen in this run{short}:")
    for claim, seen in claims.items():
        print(f"  [{'yes' if seen else 'no':>3}] {claim}")


def save(figure: Figure, path: Path) -> None:
    """Write a plot and say where it is."""
    figure.savefig(path, dpi=130, bbox_inches="tight")
    print(f"\nplot: {os.path.relpath(path)}")
