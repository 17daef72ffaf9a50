"""Damaged programs: whatever stands in a file, `check` answers soon, and with findings that have a code and a place."""

import random
import re
import time

import pytest
from programs import ACCEPTED, read

import lossdsl

SEEDS = range(200)
SECONDS = 2.0
WORDS = (
    "mean",
    "N",
    "[",
    "]",
    "(",
    ")",
    ":",
    ":=",
    "=",
    "|",
    "else",
    "use",
    "repeat",
    "scan",
    "x",
    "i",
    "0",
    "-1",
    "1e999",
    "^",
    "/",
    ",",
    ";",
    "->",
    '"""',
    "\t",
)
CHARACTERS = "\0\r\n \t\"'\\@#$%&~`?!{}é−∑\u00a0\u200b\U0001f600"


def mutate(text, rng):
    """One to three random changes of words, lines or characters."""
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.3:
            pieces, joint = text.split("\n"), "\n"
        else:
            pieces, joint = re.findall(r"\w+|\s+|.", text), ""
        if not pieces:
            return text
        k, other = rng.randrange(len(pieces)), rng.randrange(len(pieces))
        match rng.choice(("delete", "double", "swap", "word", "character", "cut")):
            case "delete":
                del pieces[k]
            case "double":
                pieces.insert(k, pieces[other])
            case "swap":
                pieces[k], pieces[other] = pieces[other], pieces[k]
            case "word":
                pieces.insert(k, rng.choice(WORDS))
            case "character":
                pieces.insert(k, rng.choice(CHARACTERS))
            case "cut":
                pieces = pieces[: k + 1]
        text = joint.join(pieces)
    return text


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_program_is_answered(seed):
    rng = random.Random(seed)
    text = mutate(read(rng.choice(ACCEPTED)), rng)
    start = time.process_time()
    found = lossdsl.check(text)
    assert time.process_time() - start < SECONDS, text
    for finding in found:
        assert re.match(r"(error|warning)\[E\d{3}\]: \S.*\n +--> .+:\d+:\d+\n", str(finding)), text
