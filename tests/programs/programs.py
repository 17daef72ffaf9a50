"""The programs of this folder and what is expected of each.

accepted/NAME.loss begins with lines

    # type FUNCTION: real[N, C]                   what each declaration yields
    # value FUNCTION: {"x": [1, 2]} => 1.5        what it yields for inputs, hyperparameters and lengths

and rejected/NAME.loss stands beside NAME.expected, the findings as they are printed.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import lossdsl
from lossdsl.checker.modules import Library
from lossdsl.checker.program import check_module
from lossdsl.syntax.diagnostics import Diagnostics

FOLDER = Path(__file__).resolve().parent
ACCEPTED = sorted((FOLDER / "accepted").glob("*.loss"))
REJECTED = sorted((FOLDER / "rejected").glob("*.loss"))


@dataclass
class Value:
    """One `# value` line."""

    name: str
    given: dict
    expected: float


def read(path):
    return path.read_bytes().decode("utf-8")


def declared_types(text):
    return dict(re.findall(r"^# type (\w+): (.+)$", text, re.MULTILINE))


def declared_values(text):
    found = re.findall(r"^# value (\w+): (\{.*\}) => (.+)$", text, re.MULTILINE)
    return [Value(name, json.loads(given), float(number)) for name, given, number in found]


def checked(text):
    """The checked programs of a text and the findings."""
    diagnostics = Diagnostics()
    library = Library(diagnostics)
    module = library.text("<text>", text)
    programs = [] if module is None else check_module(module, library.prelude(), diagnostics)
    return programs, diagnostics.found


def type_text(program):
    """What a program yields, written as in a header: `real[N, C]`, or `real, real` for two values."""
    return ", ".join(_type(value) for value in program.values)


def _type(value):
    kind = value.node.kind.name.lower()
    return f"{kind}[{', '.join(str(axis) for axis in value.axes)}]" if value.axes else kind


def printed(text):
    """The findings as they are printed; places in the library without their lines, which change with it."""
    findings = "\n\n".join(str(d) for d in lossdsl.check(text))
    return re.sub(r"(stdlib/[\w/]+\.loss):\d+:\d+", r"\1", findings) + "\n"


def expected_file(path):
    return path.with_suffix(".expected")
