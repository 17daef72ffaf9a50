"""`lossdsl check` starts fast: well under a fifth of the time of `python -c "import torch"`, for every library file."""

import os
import resource
import subprocess
import sys

import pytest

from lossdsl.resources import stdlib_root

FILES = sorted(stdlib_root().rglob("*.loss"))


def seconds(*words, env, rounds=3):
    """The least processor time of a few runs, start-up included."""
    best = float("inf")
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], env=env, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """The environment of a user who has checked something before, and the time that torch takes there."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
    kept = tmp_path_factory.mktemp("kept")
    env = {
        **plain,
        "LOSSDSL_CACHE": str(kept),
        "PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode")),
    }
    subprocess.run([sys.executable, "-c", "import torch"], env=env, check=True)
    subprocess.run([sys.executable, "-m", "lossdsl", "check", *map(str, FILES)], env=env, check=True)
    return env, kept, seconds("-c", "import torch", env=env)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_a_file_that_was_sound_before(setting, file):
    env, _, torch = setting
    assert seconds("-m", "lossdsl", "check", file, env=env) < torch / 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["margin", "preference", "contrastive"])
def test_a_file_that_is_checked_anew(setting, name):
    env, kept, torch = setting

    def forget():
        for file in kept.glob("sound-*"):
            file.unlink()

    times = []
    for _ in range(4):
        forget()
        times.append(seconds("-m", "lossdsl", "check", stdlib_root() / f"{name}.loss", env=env, rounds=1))
    assert min(times) < torch / 5
