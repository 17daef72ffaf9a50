"""`lossdsl check`: findings, counts, types, records; fast and without torch."""

import json

import pytest

from lossdsl.resources import stdlib_root

FORBIDDEN = ("torch", "pydantic", "sympy", "numpy")


def test_a_sound_file(cli, dpo):
    found = cli("check", "dpo.loss")
    assert (found.status, found.out, found.err) == (0, "no errors in 1 file: 1 loss, 1 record\n", "")


def test_findings_name_place_and_count(cli, wrong):
    found = cli("check", wrong)
    assert found.status == 1
    assert f"--> {wrong}:2:9" in found.out
    assert f"--> {wrong}:3:16" in found.out
    assert found.out.endswith("\n\n2 errors in 1 file\n")


def test_no_color_off_a_terminal(cli, wrong):
    assert "\033" not in cli("check", wrong).out


def test_color_on_a_terminal(cli, wrong, monkeypatch):
    monkeypatch.setattr("lossdsl.cli.common.has_color", lambda stream: True)
    assert "\033[31;1merror[E030]\033[0m" in cli("check", wrong).out


@pytest.mark.parametrize(
    ("variables", "tty", "expected"),
    [({}, True, True), ({"NO_COLOR": "1"}, True, False), ({"TERM": "dumb"}, True, False), ({}, False, False)],
)
def test_when_there_is_color(variables, tty, expected, monkeypatch):
    from lossdsl.cli.common import has_color

    class Stream:
        def isatty(self):
            return tty

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert has_color(Stream()) is expected


def test_json_holds_the_records(cli, wrong, dpo):
    found = cli("check", "--json", wrong, dpo)
    assert found.status == 1
    assert found.json["files"] == [str(wrong), str(dpo)]
    first = found.json["diagnostics"][0]
    assert first["code"] == "E030"
    assert first["span"] == {"file": str(wrong), "line": 2, "column": 9, "end_line": 2, "end_column": 15}
    assert set(first) == {"code", "severity", "message", "span", "labels", "notes", "help"}


def test_types_show_all_layers(cli, dpo):
    lines = cli("check", "--types", dpo).out.splitlines()
    margin = next(line for line in lines if line.strip().startswith("margin"))
    assert margin.split(maxsplit=2) == ["margin", "real[B]", "any real  B: each position by itself"]
    value = next(line for line in lines if line.strip().startswith("value"))
    assert value.split() == ["value", "real", ">", "0", "B:", "separable:", "a", "mean", "over", "positions"]


def test_types_as_json(cli, dpo):
    types = cli("check", "--types", "--json", dpo).json["types"]
    margin = next(d for d in types[0]["definitions"] if d["name"] == "margin")
    assert margin == {
        "name": "margin",
        "role": "definition",
        "kind": "real",
        "shape": ["B"],
        "domain": "any real",
        "coupling": {"B": "each position by itself"},
        "line": 15,
    }


def test_domains_of_inputs_are_said_as_declared(cli, here):
    (here / "a.loss").write_text(
        "loss l(p: prob[N, C], u: unit[N, C], s: sign[N], y: int[N] < C, m: bool[N], k: int[N]):\n"
        "    mean[n | m[n]](s[n] * p[n, y[n]] * u[n, 0] * k[n]) else 0\n"
    )
    out = cli("check", "--types", "a.loss").out
    for word in ("sums to 1", "norm 1", "-1 or 1", "in [0, C)", "true or false", "any whole number"):
        assert word in out


def test_names_of_the_library(cli):
    assert cli("check", "rpo", "supcon").status == 0
    assert cli("check", "rpoo").status == 1


def test_standard_input(cli, stdin):
    stdin("loss l(x: real[N]):\n    mean[N](x)\n")
    assert cli("check", "-").status == 0
    stdin("loss l(x: real[N]):\n    mean[M](x)\n")
    found = cli("check", "-")
    assert found.status == 1
    assert "--> <stdin>:2:10" in found.out


def test_a_finding_in_a_shared_file_is_printed_once(cli, here):
    (here / "base.loss").write_text("def f(x: real[N]):\n    log(x\n")
    for name in ("a", "b"):
        (here / f"{name}.loss").write_text("use base: f\n\nloss l(x: real[N]):\n    mean[N](f(x))\n")
    out = cli("check", "a.loss", "b.loss").out
    assert out.count("base.loss:2") == 1


@pytest.mark.parametrize("path", sorted(stdlib_root().rglob("*.loss")), ids=lambda p: p.stem)
def test_the_whole_library_is_sound(cli, path):
    found = cli("check", path)
    assert found.status == 0, found.out


def test_check_imports_neither_torch_nor_other_large_packages(shell, dpo, wrong):
    code = (
        "import sys, json\n"
        "from lossdsl.cli import main\n"
        f"main(['check', '--types', {str(dpo)!r}, {str(wrong)!r}])\n"
        f"print(json.dumps([m for m in {FORBIDDEN} if m in sys.modules]))"
    )
    out = shell("-c", code).stdout.splitlines()
    assert json.loads(out[-1]) == []


@pytest.mark.parametrize("words", [["list"], ["show", "rpo"], ["explain", "rpo"], ["fmt", "--check", "dpo.loss"]])
def test_other_commands_that_import_no_torch(shell, dpo, words):
    code = f"import sys\nfrom lossdsl.cli import main\nmain({words})\nassert 'torch' not in sys.modules"
    found = shell("-c", code)
    assert found.returncode == 0, found.stderr
