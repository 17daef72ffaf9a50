"""No input whatsoever gives a traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lossdsl.cli import COMMANDS, DEFECT, common, main

TARGETS = ("check", "compile", "run", "explain", "fmt")


def words_for(command, target):
    more = {"run": ["--sample"], "compile": ["--print", "graph"], "fmt": ["--check"]}.get(command, [])
    return [command, target, *more]


@pytest.fixture
def odd_files(here):
    (here / "folder.loss").mkdir()
    (here / "binary.loss").write_bytes(bytes(range(256)))
    (here / "latin.loss").write_bytes("loss é():".encode("latin-1"))
    (here / "empty.loss").write_text("")
    (here / "nul.loss").write_text("loss l(x: real[N]):\0\n")
    (here / "deep.loss").write_text("loss l(x: real):\n    " + "(" * 5000 + "x" + ")" * 5000 + "\n")
    (here / "minus.loss").write_text("loss l(x: real):\n    " + "-" * 50_000 + "x\n")
    (here / "long.loss").write_text("#" * 5_000_000)
    (here / "huge.loss").write_text("loss l(x: real[N]):\n    mean[N](x) * " + "9" * 10_000 + "\n")
    (here / "self.loss").write_text("use self: l\n\nloss l(x: real[N]):\n    mean[N](x)\n")
    (here / "only.loss").write_text("def f(x: real[N]):\n    x\n")
    (here / "bom.loss").write_bytes(b"\xef\xbb\xbfloss l(x: real[N]):\r\n    mean[N](x)\r\n")
    (here / "unicode.loss").write_text("loss l(х: real[N]):\n    mean[N](х)\n")
    (here / "loop.loss").symlink_to("loop.loss")
    if hasattr(os, "mkfifo"):
        (here / "locked.loss").write_text("loss l(x: real[N]):\n    mean[N](x)\n")
        (here / "locked.loss").chmod(0)
    return sorted(p.name for p in here.iterdir())


def test_odd_files(cli, odd_files):
    for name in odd_files:
        for command in TARGETS:
            found = cli(*words_for(command, name))
            assert found.status in (0, 1), (command, name)
            if found.status and command != "fmt":
                assert found.err or found.out


@pytest.mark.parametrize("command", TARGETS)
@pytest.mark.parametrize(
    "target",
    ["", " ", ".", "..", "/", "nothing", "no/such.loss", "no.loss:x", "rpo:none", "a\0b.loss", "\ud800.loss",
     "x" * 5000, "x" * 300 + ".loss", "rpo:", ":", "::", "~", "../../etc/passwd", "*.loss", "-1", "NaN", "𝒙",
     "rpo\n"],
)  # fmt: skip
def test_odd_targets(cli, here, command, target):
    found = cli(*words_for(command, target))
    assert found.status in (1, 2)
    assert found.err or found.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_flags_and_fits(cli, command):
    for words in ([command, "--help"], ["help", command]):
        found = cli(*words)
        assert found.status == 0
        assert found.out.startswith(f"usage: lossdsl {command}")


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_flags_get_a_suggestion(cli, command):
    found = cli(command, "x", "--jsno")
    assert found.status == 2
    assert "has no flag --jsno" in found.err
    assert "did you mean --json?" in found.err or command == "new"


@pytest.mark.parametrize(
    ("word", "near"),
    [("chek", "check"), ("Compile", "compile"), ("explian", "explain"), ("zzz", "--help lists")],
)
def test_unknown_commands_get_a_suggestion(cli, word, near):
    found = cli(word)
    assert found.status == 2
    assert near in found.err


def test_flags_are_not_abbreviated(cli, dpo):
    assert cli("check", dpo, "--typ").status == 2


def test_no_command(cli):
    found = cli()
    assert found.status == 2
    assert "lossdsl COMMAND" in found.out
    assert cli("--help").status == 0


def test_version(cli):
    import lossdsl

    assert cli("--version").out == f"lossdsl {lossdsl.__version__}\n"


@pytest.mark.parametrize("command", ["check", "compile", "run", "explain", "fmt"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"loss", b"x" * 5_000_000, "é".encode()])
def test_odd_standard_input(cli, stdin, command, content):
    stdin(content)
    assert cli(*words_for(command, "-")).status in (0, 1)


def test_no_standard_input(cli, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    found = cli("check", "-")
    assert found.status == 1
    assert "no standard input" in found.err


@pytest.mark.parametrize("out", ["", ".", "folder", "missing/x.py", "/", "a\0b.py", "x" * 400 + ".py"])
def test_places_that_cannot_be_written(cli, dpo, here, out):
    (here / "folder").mkdir()
    found = cli("compile", dpo, "--emit", "fx", "-o", out)
    assert found.status == 1
    assert found.err


@pytest.mark.skipif(hasattr(os, "getuid") and os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(cli, dpo, here):
    (here / "locked").mkdir(mode=0o500)
    found = cli("compile", dpo, "--emit", "fx", "-o", "locked/x.pt")
    assert found.status == 1
    assert "cannot be written" in found.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk(cli, dpo, shell):
    found = cli("compile", dpo, "--emit", "fx", "-o", "/dev/full")
    assert found.status == 1
    assert "No space left" in found.err
    with Path("/dev/full").open("w") as full:
        done = shell("-m", "lossdsl", "list", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
def test_an_endless_file(cli):
    assert cli("check", "/dev/zero").status == 1


def test_a_closed_pipe_is_quiet(here):
    command = f"{sys.executable} -m lossdsl list; echo status $? >&2"
    done = subprocess.run(["bash", "-c", f"({command}) | head -1"], capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    done = subprocess.run(["bash", "-c", f"({command}) | true"], capture_output=True, text=True, check=False)
    assert done.stderr == "status 141\n"


def test_interrupting_is_quiet(here):
    code = "import sys; from lossdsl.cli import main; print('go', flush=True); sys.exit(main(['check', '-']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - a background job ignores Ctrl-C
    )  # fmt: skip
    assert process.stdout.readline() == "go\n"
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == ""


def test_output_that_a_terminal_cannot_show(shell):
    found = shell("-m", "lossdsl", "explain", "rpo", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert found.returncode == 0, found.stderr
    assert "\\u03c0" in found.stdout


def test_a_defect_is_said_to_be_one(monkeypatch, capsys):
    def fail(arguments):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("lossdsl.cli.list.run", fail)
    assert main(["list"]) == DEFECT
    err = capsys.readouterr().err
    assert "a defect of lossdsl: ZeroDivisionError: oops" in err
    assert "Traceback" not in err
    monkeypatch.setenv("LOSSDSL_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["list"])


def test_memory_runs_out(monkeypatch, capsys):
    def fail(arguments):
        raise MemoryError

    monkeypatch.setattr("lossdsl.cli.list.run", fail)
    assert main(["list"]) == 1
    assert "more memory" in capsys.readouterr().err


def test_python_m_and_the_script_are_one(shell):
    assert (
        shell("-m", "lossdsl", "--version").stdout
        == shell("-c", "from lossdsl.cli import main; main(['--version'])").stdout
    )


def test_tables_align():
    assert common.table([("a", "bb", "c"), ("aaa", "b")]) == ["a    bb  c", "aaa  b"]
    assert common.table([]) == []
