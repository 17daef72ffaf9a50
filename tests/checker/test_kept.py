"""What is kept between runs: tables, trees, sound files. Whatever lies there, nothing is ever wrong."""

import os
import pickle
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from lossdsl import kept
from lossdsl.checker import sound
from lossdsl.checker.modules import Library
from lossdsl.cli import main
from lossdsl.resources import grammar_text
from lossdsl.syntax import tables, trees
from lossdsl.syntax.diagnostics import Diagnostics
from lossdsl.syntax.parser import _Indentation, _OneLine, parse
from lossdsl.syntax.source import Source

TEXT = "loss l(x: real[N]):\n    mean[N](x)\n"
AS_ROOT = hasattr(os, "getuid") and os.getuid() == 0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(kept.VARIABLE, str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "kept"


def parser():
    return tables.lark_parser(grammar_text(), "start", _Indentation())


@pytest.fixture
def built(monkeypatch):
    """How often tables were built."""
    count = []
    real = tables.Lark

    class Counting(real):
        def __init__(self, *args, **kwargs):
            count.append(1)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(tables, "Lark", Counting)
    return count


# ---- the folder ----------------------------------------------------------------------------


def test_what_is_written_is_read(folder):
    assert kept.read("a") is None
    kept.write("a", b"content")
    assert kept.read("a") == b"content"
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def damaged(content, how):
    middle = len(content) // 2
    return {
        "cut": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "empty": b"",
        "foreign": pickle.dumps({"data": 1}),
        "wrong": sha256(b"junk").digest() + b"junk",
        "wrong type": sha256(pickle.dumps({"data": {}})).digest() + pickle.dumps({"data": {}}),
    }[how]


DAMAGES = ("cut", "flipped", "empty", "foreign", "wrong", "wrong type")


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_noticed(folder, built, how):
    parser()
    (file,) = folder.iterdir()
    file.write_bytes(damaged(file.read_bytes(), how))
    assert parser().parse(TEXT).data == "start"
    assert len(built) == 2
    assert parser().parse(TEXT).data == "start"
    assert len(built) == 2


def test_a_folder_in_the_place_of_a_file(folder, built):
    parser()
    (file,) = folder.iterdir()
    file.unlink()
    file.mkdir()
    assert parser().parse(TEXT).data == "start"
    assert [p.name for p in folder.iterdir()] == [file.name]


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(folder, built):
    folder.mkdir(mode=0o500)
    parser()
    parser()
    assert len(built) == 2
    assert not list(folder.iterdir())


def test_a_file_in_the_way(folder, built):
    folder.write_text("not a folder")
    assert parser().parse(TEXT).data == "start"


def test_another_users_file_is_not_read(folder, monkeypatch):
    kept.write("a", b"content")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert kept.read("a") is None


@pytest.mark.parametrize("value", ["", "0"])
def test_it_can_be_switched_off(value, built, monkeypatch):
    monkeypatch.setenv(kept.VARIABLE, value)
    assert kept.folder() is None
    parser()
    parser()
    assert len(built) == 2


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv(kept.VARIABLE, raising=False)
    monkeypatch.setattr(kept.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept.folder() == tmp_path / "lossdsl"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert kept.folder() is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kept.folder() == tmp_path / ".cache" / "lossdsl"
    monkeypatch.setattr(kept.sys, "platform", "darwin")
    assert kept.folder() == tmp_path / "Library" / "Caches" / "lossdsl"


def test_it_does_not_grow_without_end(folder, monkeypatch):
    monkeypatch.setattr(kept, "MAX_FILES", 10)
    for k in range(25):
        kept.write(f"f{k}", b"x")
        os.utime(folder / f"f{k}", (k, k))
    names = {p.name for p in folder.iterdir()}
    assert len(names) <= 10
    assert "f24" in names


def test_names_differ_with_every_part():
    names = {
        kept.digest(),
        kept.digest(""),
        kept.digest("a", "b"),
        kept.digest("ab"),
        kept.digest("a", "b", ""),
    }
    assert len(names) == 5
    assert kept.digest("\ud800")


# ---- tables --------------------------------------------------------------------------------


def test_tables_are_built_once(folder, built):
    assert parser().parse(TEXT) == parser().parse(TEXT)
    assert len(built) == 1


def test_expressions_and_other_grammars_have_their_own(folder, built):
    parser()
    tables.lark_parser(grammar_text(), "expr", _OneLine())
    tables.lark_parser(grammar_text() + "\n// changed\n", "start", _Indentation())
    assert len(built) == len(list(folder.iterdir())) == 3


# ---- trees ---------------------------------------------------------------------------------


def test_library_trees_are_kept_and_equal(folder):
    one = trees.sound_tree("stdlib/x.loss", TEXT)
    assert len([p for p in folder.iterdir() if p.name.startswith("tree-")]) == 1
    two = trees.sound_tree("stdlib/x.loss", TEXT)
    assert one == two == parse(Source("stdlib/x.loss", TEXT), Diagnostics())
    assert two.losses[0].span.text.rstrip() == TEXT.rstrip()
    assert two.losses[0].span.source.name == "stdlib/x.loss"


def test_other_trees_and_mistakes_are_not(folder):
    kept.write("a", b"content")
    trees.sound_tree("x.loss", TEXT)
    assert trees.sound_tree("stdlib/x.loss", "loss l(") is None
    assert not [p for p in folder.iterdir() if p.name.startswith("tree-")]


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_trees_are_parsed(folder, how):
    one = trees.sound_tree("stdlib/x.loss", TEXT)
    (file,) = [p for p in folder.iterdir() if p.name.startswith("tree-")]
    file.write_bytes(damaged(file.read_bytes(), how))
    assert trees.sound_tree("stdlib/x.loss", TEXT) == one


# ---- sound files ---------------------------------------------------------------------------

BASE = "def f(x: real[N]):\n    x * x\n"
USER = "use base: f\n\nloss l(x: real[N]):\n    mean[N](f(x))\n"


@pytest.fixture
def checked(folder, capsys, monkeypatch):
    """Check user.loss: its exit status, and whether it was known."""
    Path("user.loss").write_text(USER)
    Path("base.loss").write_text(BASE)
    calls = []
    real = Library.file
    monkeypatch.setattr(Library, "file", lambda self, path: calls.append(path) or real(self, path))

    def check():
        calls.clear()
        status = main(["check", "user.loss"])
        return status, not calls

    assert check() == (0, False)
    assert check() == (0, True)
    return check


def test_a_known_file_has_the_same_counts(checked, capsys):
    capsys.readouterr()
    checked()
    assert capsys.readouterr().out == "no errors in 1 file: 1 loss\n"


def test_it_is_known_from_everywhere(checked, monkeypatch, tmp_path):
    monkeypatch.chdir("/")
    assert sound.recall(tmp_path / "user.loss") == {"loss": 1, "def": 0, "record": 0}
    assert sound.recall(Path(os.path.relpath(tmp_path / "user.loss"))) is not None


def test_a_change_of_the_file(checked):
    Path("user.loss").write_text(USER.replace("mean[N]", "mean[M]"))
    assert checked() == (1, False)
    Path("user.loss").write_text(USER)
    assert checked() == (0, True)


def test_a_change_of_what_it_uses(checked):
    Path("base.loss").write_text(BASE.replace("f(", "g("))
    assert checked() == (1, False)


def test_what_it_uses_is_gone(checked):
    Path("base.loss").unlink()
    assert checked() == (1, False)


def test_what_was_not_there_appears(folder, checked):
    Path("user.loss").write_text(
        "use margin: hinge\n\nloss l(score: real[N], sign: sign[N]):\n    hinge(score, sign)\n"
    )
    assert checked() == (0, False)
    assert checked() == (0, True)
    Path("margin.loss").write_text("def other(x: real):\n    x\n")
    assert checked() == (1, False)


def test_a_link_is_turned_elsewhere(folder, checked, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "base.loss"
    outside.write_text(BASE)
    Path("base.loss").unlink()
    Path("base.loss").symlink_to(outside)
    assert checked() == (1, False)  # outside of the using file's folder


def test_another_compiler(checked, monkeypatch):
    monkeypatch.setattr(kept, "stamp", lambda: "another")
    assert checked() == (0, False)


def test_unreadable_now(checked):
    Path("user.loss").write_bytes(b"\xff\xfe")
    assert checked() == (1, False)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_entry(folder, checked, how):
    for file in folder.iterdir():
        if file.name.startswith("sound-"):
            file.write_bytes(damaged(file.read_bytes(), how))
    assert checked() == (0, False)


@pytest.mark.parametrize("entry", [b"[]", b"1", b'{"stamp": 1}', b'{"looked": [], "counts": 1, "stamp": 2}', b"\xff"])
def test_an_entry_of_another_form(folder, checked, entry):
    kept.write(sound._name(Path("user.loss")), entry)
    assert checked() == (0, False)


def test_files_with_findings_are_not_kept(folder, capsys):
    Path("bad.loss").write_text("loss l(x: real):\n    log(x)\n")
    for _ in range(2):
        assert main(["check", "bad.loss"]) == 1
        assert "E030" in capsys.readouterr().out
    assert sound.recall(Path("bad.loss")) is None
