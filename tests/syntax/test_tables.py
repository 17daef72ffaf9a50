"""Parsing tables and trees that are kept between runs: never wrong, whatever lies in the cache."""

import os
import pickle
import stat

import pytest

from lossdsl.resources import grammar_text
from lossdsl.syntax import tables
from lossdsl.syntax.parser import _Indentation, _OneLine

TEXT = "loss l(x: real[N]):\n    mean[N](x)\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(tables.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


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


def test_the_second_time_they_are_read(folder, built):
    one = parser().parse(TEXT)
    two = parser().parse(TEXT)
    assert one == two
    assert len(built) == 1
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_expressions_have_their_own(folder, built):
    parser()
    tables.lark_parser(grammar_text(), "expr", _OneLine())
    assert len(built) == len(list(folder.iterdir())) == 2


def test_another_grammar_has_its_own(folder, built):
    parser()
    tables.lark_parser(grammar_text() + "\n// changed\n", "start", _Indentation())
    assert len(built) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "wrong type", "folder"])
def test_damage_is_noticed(folder, built, damage):
    parser()
    (file,) = folder.iterdir()
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "foreign":
        file.write_bytes(pickle.dumps({"data": 1}))
    elif damage == "wrong type":
        from hashlib import sha256

        payload = pickle.dumps({"data": {}, "memo": {}})
        file.write_bytes(sha256(payload).digest() + payload)
    else:
        file.unlink()
        file.mkdir()
    assert parser().parse(TEXT).data == "start"
    assert len(built) == 2


@pytest.mark.skipif(hasattr(os, "getuid") and os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(folder, built):
    folder.mkdir(mode=0o500)
    parser()
    parser()
    assert len(built) == 2
    assert not list(folder.iterdir())


def test_a_file_in_the_way(folder, built):
    folder.write_text("not a folder")
    assert parser().parse(TEXT).data == "start"


def test_another_users_file_is_not_read(folder, built, monkeypatch):
    parser()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    parser()
    assert len(built) == 2


@pytest.mark.parametrize("value", ["", "0"])
def test_it_can_be_switched_off(value, built, monkeypatch):
    monkeypatch.setenv(tables.VARIABLE, value)
    assert tables.cache_folder() is None
    parser()
    parser()
    assert len(built) == 2


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv(tables.VARIABLE, raising=False)
    monkeypatch.setattr(tables.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tables.cache_folder() == tmp_path / "lossdsl"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert tables.cache_folder() is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tables.cache_folder() == tmp_path / ".cache" / "lossdsl"
