"""docs/diagnostics.md lists the codes that the sources use, and each that a lone text can give is given by some program here."""

import re

from programs import FOLDER, REJECTED, expected_file

ROOT = FOLDER.parents[1]
NOT_FROM_A_TEXT = {
    "E001",  # only a very long text
    "E007",  # files that cannot be read
    "E015",  # two files
    "E061",  # found when a loss is built
}


def used():
    sources = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "lossdsl").rglob("*.py"))
    return set(re.findall(r"[\"'](E\d{3})[\"']", sources))


def documented():
    return re.findall(r"^### (E\d{3})$", (ROOT / "docs/diagnostics.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_codes_are_documented():
    assert documented() == sorted(used())


def test_codes_occur():
    printed = "\n".join(expected_file(p).read_text(encoding="utf-8") for p in REJECTED)
    assert set(re.findall(r"^error\[(E\d{3})\]", printed, re.MULTILINE)) == used() - NOT_FROM_A_TEXT
