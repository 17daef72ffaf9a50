"""Every example runs from its own file, prints its table and its expectations, and leaves its plot."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("[!_]*.py"))

COLUMNS = {
    "classification_tabular": ("task", "ensloss", "logistic", "hinge", "exponential"),
    "contrastive_digits": ("features", "all labels", "5 labels a class", "shifted by a pixel"),
    "preference_text": ("step", "chosen", "(trained)", "rejected", "margin", "accuracy"),
    "value_regression": ("task", "squared error", "squared error, clipped", "HL-Gauss"),
}


def run(example, *flags):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, ROOT / "examples" / f"{example}.py", "--quick", *flags],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_each_example_is_tried():
    assert sorted(COLUMNS) == EXAMPLES


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs_and_reports(example, tmp_path):
    done = run(example, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    tables = {tuple(re.split(r"\s{2,}", line.strip())): k for k, line in enumerate(lines)}
    assert COLUMNS[example] in tables, done.stdout
    below = tables[COLUMNS[example]]
    assert set(lines[below + 1]) == {" ", "-"}
    assert lines[below + 2].startswith("  ")
    assert "nan" not in done.stdout

    claims = [line for line in lines if line.startswith(("  [yes]", "  [ no]"))]
    assert len(claims) == 4
    assert (tmp_path / f"{example}.png").stat().st_size > 5000


@pytest.mark.slow
def test_the_seed_decides_the_result(tmp_path):
    first, again, other = (run("value_regression", "--out", str(tmp_path), "--seed", seed).stdout for seed in "112")
    assert first == again
    assert first != other


@pytest.mark.slow
def test_an_unknown_flag_is_explained():
    done = run("preference_text", "--learning-rate", "1")
    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr
    assert "Traceback" not in done.stderr
