"""Every snippet of the README and of docs/ does what the page says. `snippets` says what is tried."""

import pytest
from snippets import PAGES, Block, Page, blocks, matches


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    failures = Page(page).run()
    assert not failures, "\n\n".join(failures)


# ---- the mechanism itself ------------------------------------------------------------------


def tried(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text)
    return Page(page).run()


@pytest.mark.parametrize(
    "text",
    [
        "```python\n1 / 0\n```\n",
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```loss\nloss l(x: real[N]):\n    log(x)\n```\n",
        "```loss\ny[i] = \n```\n",
        "```loss E031\nloss l(x: real[N]):\n    mean[N](x)\n```\n",
        "```sh\nlossdsl check nothing.loss\n```\n",
        "```sh\nmake nonsense\n```\n",
        "```sh\nrm -rf x\n```\n",
        "```console\n$ lossdsl --version\nlossdsl 99\n```\n",
        "```console\n$ lossdsl check nothing.loss\n...\n$ echo $?\n0\n```\n",
    ],
)
def test_what_is_wrong_is_found(tmp_path, monkeypatch, text):
    failures = tried(tmp_path, monkeypatch, text)
    assert len(failures) == 1
    assert failures[0].startswith("page.md:")


def test_what_is_right_passes(tmp_path, monkeypatch):
    text = (
        "A file, `a.loss`:\n\n```loss\nloss l(x: real[N]):\n    mean[N](x)\n```\n"
        "```sh\nlossdsl check a.loss    # a comment\nmake test\n```\n"
        "```console\n$ lossdsl check a.loss\nno errors ...\n$ echo $?\n0\n```\n"
        "```console\n$ lossdsl nonsense\n...\n$ echo $?\n2\n```\n"
        "```loss\ny[i] = x[i]\n```\n```loss sketch\n???\n```\n"
        "```loss E030\nloss l(x: real):\n    log(x)\n```\n"
        "```python\nprint('a')\nprint('b')\n```\n\n```text\n...\nb\n```\n"
    )
    assert tried(tmp_path, monkeypatch, text) == []


def test_a_block_that_is_never_closed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\n1\n")
    with pytest.raises(AssertionError, match="never closed"):
        blocks(page)


def test_blocks_know_their_place(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n\n```loss sketch more\na\n```\n")
    assert blocks(page) == [Block("loss", ("sketch", "more"), "a\n", 3, "text\n")]


@pytest.mark.parametrize(
    ("expected", "found", "fits"),
    [
        ("a\nb", "a\nb\n", True),
        ("a", "a\nb", False),
        ("a\n...", "a\nb\nc", True),
        ("...\nc", "a\nb\nc", True),
        ("a\n...\nc", "a\nc", True),
        ("value ... norm", "value 1.5 norm", True),
        ("value ... norm", "value 1.5", False),
    ],
)
def test_matching(expected, found, fits):
    assert matches(expected, found) is fits
