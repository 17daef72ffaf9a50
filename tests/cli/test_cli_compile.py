"""`lossdsl compile`: phases, formats, settings."""

import ast as python_ast

import pytest

from lossdsl.cli import compile as command
from lossdsl.cli import main

PHASES = ("ast", "types", "graph", "rewritten", "schedule", "fx")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", ["rpo", "supcon", "swav", "isogclr", "ensloss", "lvm_med", "groco"])
def test_every_phase_prints(cli, phase, name):
    options = ["--set", "M=10"] if name == "isogclr" else []
    found = cli("compile", name, "--print", phase, *options)
    assert found.status == 0, found.err
    assert len(found.out.splitlines()) > 3


def test_the_tree(cli, dpo):
    lines = cli("compile", dpo, "--print", "ast").out.splitlines()
    assert lines[0] == 'Module doc="Preferences."'
    assert "  records: Record Policy" in lines
    assert "    body: Definition" in lines
    one = cli("compile", f"{dpo}:dpo", "--print", "ast").out.splitlines()
    assert one[0] == 'Function loss dpo doc="Direct preference optimisation."'


def test_the_graph_has_numbered_lines_with_dims(cli, dpo):
    lines = cli("compile", dpo, "--print", "graph").out.splitlines()
    assert lines[1].split() == ["%2", "pi.chosen", "[B]", "real"]
    assert any(line.split() == ["%8", "sub", "%4", "%7", "[B]", "real", "#", "margin"] for line in lines)
    assert any(line.split()[1:] == ["mean[B]", "%10", "real"] for line in lines)
    assert lines[-1] == "value = %11"


def test_rewriting_is_shown(cli, here):
    (here / "a.loss").write_text("loss l(x: real[N, C]):\n    mean[N](log(sum[C](exp(x))))\n")
    assert "logsumexp[C]" not in cli("compile", "a.loss", "--print", "graph").out
    assert "logsumexp[C]" in cli("compile", "a.loss", "--print", "rewritten").out


def test_the_schedule_shows_layouts(cli, dpo):
    lines = cli("compile", dpo, "--print", "schedule").out.splitlines()
    assert lines[0].split() == ["%1.pi_chosen", "=", "argument", "pi.chosen", "[B]"]
    assert any("torch.mean(" in line and line.endswith("[]") for line in lines)
    assert lines[-1].startswith("value %")


def test_updates_are_results(cli):
    out = cli("compile", "dino", "--print", "graph").out
    assert "\ncenter := %" in out
    assert "update center := %" in cli("compile", "dino", "--print", "schedule").out


def test_symbols_stand_for_hyperparameters_without_a_value(cli, here):
    (here / "a.loss").write_text("loss l(x: real[N]; k: real > 0):\n    mean[N](k * x)\n")
    assert cli("compile", "a.loss", "--print", "graph").status == 0
    found = cli("compile", "a.loss", "--print", "fx")
    assert found.status == 1
    assert "needs k" in found.err
    assert cli("compile", "a.loss", "--print", "fx", "--set", "k=2").status == 0


def test_an_expression(cli):
    found = cli("compile", "-e", "dpo(pi, ref) + beta*sft(pi)", "--set", "beta=0.05", "--print", "types")
    assert found.status == 0, found.err
    assert found.out.startswith("dpo_sft(pi.chosen: real[B]")
    assert "beta: real = 0.05" in found.out


def test_an_expression_may_begin_with_a_minus_sign(cli):
    assert cli("compile", "-e", "-sft(pi)", "--print", "types").status == 0


def test_an_expression_that_is_refused(cli):
    found = cli("compile", "-e", "dpo(pi, re", "--print", "types")
    assert found.status == 1
    assert "<expression>:1:" in found.err


def test_fx_to_standard_output_is_code(cli, dpo):
    found = cli("compile", dpo, "--emit", "fx")
    assert found.status == 0
    python_ast.parse(found.out)
    assert "def forward(self, pi_chosen" in found.out


def test_fx_to_a_file_loads_and_computes(cli, dpo):
    import torch

    assert cli("compile", dpo, "-o", "dpo.pt").status == 0
    module = torch.load("dpo.pt", weights_only=False)
    x = torch.arange(4.0)
    (value,) = module(x, x + 1, x, x)
    assert torch.allclose(value, torch.nn.functional.softplus(torch.tensor(0.1)))


def test_settings_reach_the_graph(cli, dpo):
    assert "0.25 *" in cli("compile", dpo, "--emit", "fx", "--set", "beta=0.25").out


@pytest.mark.parametrize(
    ("word", "status", "message"),
    [
        ("beta", 2, "expected NAME=VALUE"),
        ("=1", 2, "expected NAME=VALUE"),
        ("beta=", 2, "nothing is not a number"),
        ("beta=much", 2, "much is not a number"),
        ("beta=nan", 2, "nan is not a number"),
        ("beta=1e999", 2, "is not a number"),
        ("beta=__import__('os')", 2, "is not a number"),
        ("beta=-1", 1, "lies outside its domain"),
        ("bta=1", 1, "did you mean beta?"),
        ("N=0.5", 1, "must be a whole number"),
    ],
)
def test_wrong_settings(cli, dpo, word, status, message):
    found = cli("compile", dpo, "--print", "graph", "--set", word)
    assert found.status == status
    assert message in found.err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-2", -2),
        ("50_000", 50000),
        ("0.1", 0.1),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("true", True),
        ("2.", 2.0),
    ],
)
def test_numbers_of_settings(text, value):
    from lossdsl.cli.common import number

    found = number(text)
    assert found == value
    assert type(found) is type(value)


def test_a_setting_given_twice(cli, dpo):
    assert cli("compile", dpo, "--set", "beta=1", "--set", "beta=2").status == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--emit", "pt2"], "writes a binary file"),
        (["--emit", "onnx"], "writes a binary file"),
        (["--emit", "exe"], "invalid choice"),
        (["--print", "graph", "-o", "x.py"], "neither -o nor --emit"),
        (["-o", "x.loss"], "it is not overwritten"),
        (["--target", "tpu"], "invalid choice"),
        (["-e", "sft(pi)"], "both a FILE|NAME and -e given"),
    ],
)
def test_wrong_usage(cli, dpo, words, message):
    found = cli("compile", dpo, *words)
    assert found.status == 2
    assert message in found.err


def test_no_loss_given(cli):
    found = cli("compile")
    assert found.status == 2
    assert "no loss given" in found.err


def test_a_length_that_nothing_tells(cli):
    found = cli("compile", "moco", "--print", "fx")
    assert found.status in (0, 1)
    if found.status:
        assert "Q" in found.err


def test_json_of_a_phase_and_of_a_refusal(cli, dpo, wrong):
    assert "%1" in cli("compile", dpo, "--print", "graph", "--json").json["text"]
    found = cli("compile", wrong, "--json")
    assert found.status == 1
    assert {d["code"] for d in found.json["diagnostics"]} >= {"E030"}


def test_json_describes_what_was_emitted(cli, dpo):
    found = cli("compile", dpo, "--emit", "fx", "-o", "d.pt", "--json").json
    assert found["out"] == "d.pt"
    assert found["signature"]["hyperparameters"][0]["value"] == 0.1
    assert found["properties"]["coupling"] == {"B": "separable: a mean over positions"}


def test_onnx_says_what_is_missing(cli, dpo, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    found = cli("compile", dpo, "-o", "d.onnx")
    assert found.status == 1
    assert "needs onnx and onnxscript" in found.err
    assert "pip install 'lossdsl[onnx]'" in found.err


# ---- formats -------------------------------------------------------------------------------


def test_python_is_the_default(cli, dpo, here):
    import torch

    printed = cli("compile", dpo)
    assert printed.status == 0
    assert cli("compile", dpo, "-o", "dpo.py").status == 0
    assert (here / "dpo.py").read_text() == printed.out
    names = {}
    exec(compile(printed.out, "dpo.py", "exec"), names)
    (made,) = [v for k, v in names.items() if k.lower() == "dpo"]
    x = {"chosen": torch.zeros(3), "rejected": torch.ones(3)}
    y = {"chosen": torch.zeros(3), "rejected": torch.zeros(3)}
    assert torch.allclose(made()(pi=x, ref=y), torch.nn.functional.softplus(torch.tensor(0.1)))


def test_the_target_is_in_the_file(cli):
    assert 'device="cuda"' in cli("compile", "dino", "--target", "cuda").out
    assert "cuda" not in cli("compile", "dino").out


def test_pt2_loads_and_takes_other_lengths(cli, dpo):
    import torch

    assert cli("compile", dpo, "-o", "dpo.pt2").status == 0
    program = torch.export.load("dpo.pt2").module()
    for count in (3, 8):
        x = torch.arange(float(count))
        tensors = {"pi.chosen": x, "pi.rejected": x + 1, "ref.chosen": x, "ref.rejected": x}
        assert torch.allclose(program(tensors), torch.nn.functional.softplus(torch.tensor(0.1)))


def test_a_program_that_cannot_be_exported(cli, here):
    (here / "f.loss").write_text("loss l(x: real[N], f: fn(real[N]) -> real[N]):\n    mean[N](f(x))\n")
    found = cli("compile", "f.loss", "-o", "f.pt2")
    assert found.status == 1
    assert "takes a function" in found.err
    assert not (here / "f.pt2").exists()


def test_an_exporter_that_fails(cli, dpo, monkeypatch):
    def fail(*args, **kwargs):
        try:
            raise KeyError("inner")
        except KeyError as cause:
            raise RuntimeError("\033[96mouter\033[0m\nand more") from cause

    monkeypatch.setattr("lossdsl.backends.export.export", fail)
    found = cli("compile", dpo, "-o", "dpo.pt2")
    assert found.status == 1
    assert "torch.export cannot take dpo: KeyError: 'inner'" in found.err


@pytest.mark.slow
def test_onnx_where_it_is_installed(cli, dpo):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    import onnx

    assert cli("compile", dpo, "-o", "dpo.onnx").status == 0
    onnx.checker.check_model("dpo.onnx")


def test_a_free_scalar_becomes_an_argument_of_the_emitted_class(tmp_path, capsys):
    out = tmp_path / "rpo.py"
    assert main(["compile", "-e", "dpo(pi, ref) + beta*sft(pi)", "-o", str(out)]) == 0
    text = out.read_text()
    assert "def __init__(self, beta: float) -> None:" in text
    capsys.readouterr()


def test_a_free_scalar_of_a_graph_must_be_given(capsys):
    assert main(["compile", "-e", "dpo(pi, ref) + beta*sft(pi)", "--emit", "fx"]) == 1
    assert "beta" in capsys.readouterr().err
