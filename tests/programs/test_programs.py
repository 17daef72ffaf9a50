"""Golden tests: what is accepted, with which types and values, and what is refused, in which words."""

import pytest
from programs import (
    ACCEPTED,
    REJECTED,
    checked,
    declared_types,
    declared_values,
    expected_file,
    printed,
    read,
    type_text,
)

import lossdsl


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda p: p.stem)
def test_accepted(path):
    text = read(path)
    programs, found = checked(text)
    assert not found, "\n\n".join(map(str, found))
    wanted = declared_types(text)
    assert wanted, "no `# type` line"
    types = {p.name: type_text(p) for p in programs}
    assert {name: types.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("path", [p for p in ACCEPTED if declared_values(read(p))], ids=lambda p: p.stem)
def test_value(path):
    torch = pytest.importorskip("torch")
    text = read(path)
    for value in declared_values(text):
        program = next(p for p in checked(text)[0] if p.name == value.name)
        tensors = {p.name for p in (*program.function.parameters, *program.draws)}
        options = {name: given for name, given in value.given.items() if name not in tensors}
        inputs = {name: _tensor(torch, given) for name, given in value.given.items() if name in tensors}
        module = lossdsl.compile(text, value.name, **options).to(torch.float64)
        assert float(module(**inputs).detach()) == pytest.approx(value.expected, rel=1e-9, abs=1e-9)


def _tensor(torch, given):
    real = torch.tensor(given).is_floating_point()
    return torch.tensor(given, dtype=torch.float64 if real else None)


@pytest.mark.parametrize("path", REJECTED, ids=lambda p: p.stem)
def test_rejected(path):
    expected = expected_file(path).read_text(encoding="utf-8")
    assert expected.startswith("error[E")
    assert printed(read(path)) == expected, "python tests/programs/update.py writes what is printed now"


def test_each_expectation_has_a_program():
    kept = {expected_file(p) for p in REJECTED}
    assert set((REJECTED[0].parent).glob("*.expected")) == kept
