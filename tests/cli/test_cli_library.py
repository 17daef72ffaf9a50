"""`lossdsl list`, `show`, `new`, `verify`, `explain`, `fmt`."""

import os
import re

import pytest

import lossdsl
from lossdsl.checker.catalog import catalog
from lossdsl.cli.show import colored

AS_ROOT = hasattr(os, "getuid") and os.getuid() == 0

# ---- list ----------------------------------------------------------------------------------


def test_list_names_everything(cli):
    out = cli("list").out
    for name in lossdsl.available():
        assert f"  {name} " in out


def test_list_by_tag_and_family(cli):
    by_tag = {e["name"] for e in cli("list", "--tag", "contrastive", "--json").json}
    assert by_tag == {e.name for e in catalog() if "contrastive" in e.tags}
    by_family = cli("list", "--family", "preference", "--json").json
    assert {e["family"] for e in by_family} == {"preference"}
    assert set(by_family[0]) == {"name", "summary", "family", "tags", "file", "provenance"}
    assert cli("list", "--family", "papers", "--tag", "margin").status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tag", "contrastiv"], "did you mean contrastive?"),
        (["--family", "x"], "families are classification"),
    ],
)
def test_list_of_what_is_not_there(cli, words, message):
    found = cli("list", *words)
    assert found.status == 2
    assert message in found.err


# ---- show ----------------------------------------------------------------------------------


def test_show_a_paper_is_its_file(cli):
    out = cli("show", "rpo").out
    assert out.startswith('# stdlib/papers/rpo.loss\n"""')
    assert "arxiv: 2405.16436" in out


@pytest.mark.parametrize("name", ["dpo", "preference:dpo"])
def test_show_a_block_is_its_declaration(cli, name):
    first, *lines = cli("show", name).out.splitlines()
    assert re.fullmatch(r"# stdlib/preference\.loss:\d+", first)
    assert lines[0].startswith("loss dpo(")
    assert sum(not line.startswith((" ", ")")) for line in lines) == 1


@pytest.mark.parametrize("name", [e.name for e in catalog()])
def test_show_gives_source_that_checks(cli, name):
    text = cli("show", name, "--json").json["source"]
    assert "loss " in text


def test_show_a_record_and_a_loss_of_a_paper(cli):
    assert "record Policy[B]:\n    chosen: real[B]" in cli("show", "preference:Policy").out
    assert "loss rgcl(" in cli("show", "isogclr:rgcl").out


@pytest.mark.parametrize(
    ("name", "near"),
    [("dppo", "dpo"), ("preference:Polcy", "Policy"), ("../secret", None), ("", None), ("a:b:c", None)],
)
def test_show_what_is_not_there(cli, name, near):
    found = cli("show", name)
    assert found.status == 2
    assert near is None or f"did you mean {near}?" in found.err


def test_show_has_color_only_on_a_terminal(cli, monkeypatch):
    assert "\033" not in cli("show", "rpo").out
    monkeypatch.setattr("lossdsl.cli.show.has_color", lambda stream: True)
    out = cli("show", "rpo").out
    assert "\033[35mloss\033[0m" in out
    assert re.sub("\033\\[[0-9;]*m", "", out) == cli("show", "rpo").out or "\033" in out


def test_colors_leave_the_text_alone():
    text = 'loss l(x: real[N] >= 0):  # why "not"\n    """Doc with loss."""\n    mean[N](x^2 * 1e-6)\n'
    painted = colored(text)
    assert re.sub("\033\\[[0-9;]*m", "", painted) == text
    assert painted.count("\033[35mloss\033[0m") == 1


# ---- new -----------------------------------------------------------------------------------


def test_new_writes_a_template_that_checks_compiles_and_is_laid_out(cli, here):
    assert cli("new", "mine").status == 0
    assert cli("check", "mine.loss").status == 0
    assert cli("fmt", "--check", "mine.loss").status == 0
    assert cli("run", "mine.loss", "--sample").status == 0


def test_new_never_overwrites(cli, here):
    (here / "mine.loss").write_text("precious")
    found = cli("new", "mine.loss")
    assert found.status == 1
    assert "mine.loss exists already" in found.err
    assert (here / "mine.loss").read_text() == "precious"


def test_new_in_a_folder(cli, here):
    (here / "sub").mkdir()
    assert cli("new", "sub/deep").status == 0
    assert "loss deep(" in (here / "sub/deep.loss").read_text()
    found = cli("new", "nowhere/deep")
    assert found.status == 1
    assert "there is no folder nowhere" in found.err


@pytest.mark.parametrize(
    ("name", "near"),
    [("Mine", "mine"), ("my-loss", "my_loss"), ("3d", "loss_3d"), ("été", None), ("mean", "my_mean"),
     ("loss", "my_loss"), ("", None), ("a b", "a_b"), (".", None), ("x\0y", None)],
)  # fmt: skip
def test_new_refuses_what_is_no_name(cli, here, name, near):
    found = cli("new", name)
    assert found.status == 2
    assert near is None or near in found.err
    assert not list(here.iterdir())


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_new_without_permission(cli, here):
    (here / "locked").mkdir(mode=0o500)
    found = cli("new", "locked/mine")
    assert found.status == 1
    assert "cannot be written" in found.err


# ---- verify --------------------------------------------------------------------------------


def test_verify_says_that_it_comes_later(cli):
    found = cli("verify", "rpo")
    assert found.status == 2
    assert "later version" in found.err


# ---- explain -------------------------------------------------------------------------------


def test_explain_in_text(cli, dpo):
    out = cli("explain", dpo).out
    assert "title    A title" in out
    assert "dpo(π, ref; β) = 1/B Σ_b softplus(-β·margin_b)" in out
    for head in ("formula", "inputs", "hyperparameters", "types", "derived", "ensures"):
        assert f"\n\n{head}\n    " in out
    assert "beta  real > 0  = 0.1" in out
    assert "    convex in pi\n    value >= 0" in out


def test_explain_in_latex(cli):
    out = cli("explain", "info_nce", "--latex").out
    assert "\\begin{aligned}" in out
    assert "\\frac{1}{N} \\sum_{i} \\left(\\log \\sum_{j} e^{s_{ij}} - s_{ii}\\right)" in out


def test_explain_shows_what_is_used(cli):
    found = cli("explain", "rpo", "--json").json
    assert [u["name"] for u in found["uses"]][:2] == ["dpo", "sft"]
    assert found["uses"][1]["formula"] == "sft(π) = -1/B Σ_b π.chosen_b"
    assert cli("explain", "rpo", "--no-uses", "--json").json["uses"][1]["formula"] is None
    assert "sft   stdlib/preference.loss" in cli("explain", "rpo").out


def test_explain_state_params_draws(cli):
    assert "\n\nstate\n    center  real[K]" in cli("explain", "dino").out
    assert "\n\nparams\n    log_scale" in cli("explain", "clip_trained").out
    assert "\n\ndraws\n    noise" in cli("explain", "ensloss").out


def test_explain_an_expression(cli):
    found = cli("explain", "-e", "dpo(pi, ref) + beta*sft(pi)")
    assert found.status == 0, found.err
    assert "dpo(π, ref) + β·sft(π)" in found.out
    assert "must be given" in found.out


def test_explain_refuses(cli, wrong):
    assert cli("explain", wrong).status == 1
    assert cli("explain", wrong, "--json").json["diagnostics"]


# ---- fmt -----------------------------------------------------------------------------------

MESSY = "loss   l( x:real[N] ) :\n    mean[N]( x )   # kept\n"


def test_fmt_in_place(cli, here):
    path = here / "a.loss"
    path.write_text(MESSY)
    assert cli("fmt", "--check", "a.loss").status == 1
    assert path.read_text() == MESSY
    found = cli("fmt", "a.loss")
    assert (found.status, found.out) == (0, "changed a.loss\n")
    text = path.read_text()
    assert text.startswith("loss l(x: real[N]):\n")
    assert "# kept" in text
    assert (cli("fmt", "a.loss").out, cli("fmt", "--check", "a.loss").status) == ("", 0)


def test_fmt_of_standard_input(cli, stdin):
    stdin(MESSY)
    found = cli("fmt", "-")
    assert found.out.startswith("loss l(x: real[N]):\n")
    stdin(MESSY)
    found = cli("fmt", "--check", "-")
    assert (found.status, found.out) == (1, "would change -\n")


def test_fmt_leaves_a_broken_file_alone(cli, here):
    path = here / "a.loss"
    path.write_text("loss l(x: real[N]:\n    mean[N](x)\n")
    before = path.read_bytes()
    found = cli("fmt", "a.loss")
    assert found.status == 1
    assert "a.loss:1" in found.err
    assert path.read_bytes() == before


def test_fmt_goes_on_after_a_broken_file(cli, here):
    (here / "a.loss").write_text("loss (")
    (here / "b.loss").write_text(MESSY)
    found = cli("fmt", "a.loss", "b.loss")
    assert (found.status, found.out) == (1, "changed b.loss\n")


def test_fmt_json(cli, here):
    (here / "b.loss").write_text(MESSY)
    assert cli("fmt", "--check", "b.loss", "--json").json["files"][0]["changed"] is True


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_fmt_without_permission(cli, here):
    path = here / "a.loss"
    path.write_text(MESSY)
    path.chmod(0o400)
    found = cli("fmt", "a.loss")
    assert found.status == 1
    assert "cannot be written" in found.err
