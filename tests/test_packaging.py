"""The wheel, installed elsewhere, finds its grammar and its standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import sys
from pathlib import Path
import lossdsl
from lossdsl.resources import stdlib_root
place = Path(sys.argv[1])
assert Path(lossdsl.__file__).is_relative_to(place), lossdsl.__file__
assert stdlib_root().is_relative_to(place), stdlib_root()
assert "dpo" in lossdsl.available()
assert lossdsl.check("loss f(x: real[N]):\\n    mean[N](x)\\n") == []
import torch
one = torch.ones(3)
print(lossdsl.load("rpo")(pi={"chosen": one, "rejected": one}, ref={"chosen": one, "rejected": one}).item())
"""


@pytest.mark.slow
def test_wheel_installed_elsewhere_is_complete(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    place = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), str(wheel)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (tmp_path / "main.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "main.py"), str(place)],
        check=False, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(place), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0.69 < float(done.stdout) < 0.7
