"""What tests of the command line share."""

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lossdsl.cli import main

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """What is kept between runs stays out of the user's folder."""
    before = os.environ.get("LOSSDSL_CACHE")
    os.environ["LOSSDSL_CACHE"] = str(tmp_path_factory.mktemp("kept"))
    yield
    if before is None:
        del os.environ["LOSSDSL_CACHE"]
    else:
        os.environ["LOSSDSL_CACHE"] = before


@pytest.fixture
def cli(capsys):
    """Run a command in this process: `cli("check", file)`. No input may give a traceback."""

    def run(*words):
        capsys.readouterr()
        status = main([str(w) for w in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert "a defect of lossdsl" not in err, err
        return Outcome(status, out, err)

    return run


@pytest.fixture
def stdin(monkeypatch):
    """Give the command this standard input."""

    def give(content):
        data = content if isinstance(content, bytes) else content.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shell():
    """Run Python in a process of its own: `shell("-m", "lossdsl", ..)`."""

    def run(*words, env=(), **options):
        settings = {**os.environ, **dict(env)}
        options = {"capture_output": True, "text": True, "timeout": 120, **options}
        return subprocess.run([sys.executable, *map(str, words)], env=settings, check=False, **options)

    return run


DPO = '''"""Preferences.

title: A title
authors: One and Two
year: 2023
tags: preference
"""

record Policy[B]:
    chosen: real[B]
    rejected: real[B]

loss dpo(pi: Policy[B], ref: Policy[B]; beta: real > 0 = 0.1):
    """Direct preference optimisation."""
    margin = (pi.chosen - ref.chosen) - (pi.rejected - ref.rejected)
    mean[B](softplus(-beta * margin))
    ensures convex in pi, value >= 0
'''

WRONG = """loss l(z: real[N, D], w: real[M, E]):
    a = log(z)
    mean[N, D](zz)
"""


@pytest.fixture
def dpo(here):
    path = here / "dpo.loss"
    path.write_text(DPO)
    return path


@pytest.fixture
def wrong(here):
    path = here / "wrong.loss"
    path.write_text(WRONG)
    return path
