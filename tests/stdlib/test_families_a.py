"""The margin, classification, regression, distillation and consistency losses equal their closed forms."""

import re
from pathlib import Path

import pytest
import torch
from closed_forms import ROWS
from support import gradients, weighted

import lossdsl

SIZES = {"N": 5, "C": 4, "B": 2, "T": 3, "V": 6, "D": 7, "E": 3, "K": 2, "L": 3, "H": 3, "W": 4}
STDLIB = Path(lossdsl.__file__).parents[1] / "stdlib"

CASES = [
    pytest.param(row, hyper, id="-".join([row.name, *(f"{k}={v}" for k, v in hyper.items())]))
    for row in ROWS
    for hyper in row.hypers
]
EVERY = pytest.mark.parametrize(("row", "hyper"), CASES)
BOUNDED = pytest.mark.parametrize(("row", "hyper"), [one for one in CASES if one.values[0].bounded])
ONCE = pytest.mark.parametrize(("row", "hyper"), [pytest.param(row, row.hypers[0], id=row.name) for row in ROWS])


def built(row, hyper):
    if not row.header:
        return lossdsl.load(row.name, **hyper)
    given = [*re.findall(r"(\w+):", row.header), *(f"{name}={value}" for name, value in hyper.items())]
    head = f"use {row.family}: {row.name}\nloss lifted({row.header}) -> real[N]:\n"
    return lossdsl.compile(f"{head}    {row.name}({', '.join(given)})\n")


def drawn(entry, generator, extreme):
    """A tensor of a declared type; an extreme one holds 0, 1e4 and -1e4, or the ends of its domain."""
    shape = [SIZES[axis] for axis in entry.axes]
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    whole = torch.randint(0, 1_000_000, shape, generator=generator)
    size = torch.tensor([0.0, 1e4, -1e4], dtype=torch.float64)[whole % 3] if extreme else normal
    match re.match(r"\w+", entry.type)[0]:
        case "int":
            below = whole % SIZES[re.search(r"< (\w+)", entry.type)[1]]
            return torch.where(whole % 7 < 3, -1 - 99 * (whole % 2), below) if "-100" in entry.type else below
        case "bool":
            return whole % 2 == 0
        case "sign":
            return 2.0 * (whole % 2) - 1
        case "prob":
            return size.softmax(-1)
        case _ if " in " in entry.type:
            return size.sigmoid().clamp(min=1e-6)
        case _ if ">" in entry.type:
            return size.abs() + 0.1
        case _:
            return size


def inputs_of(module, seed, extreme=False, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    found = {e.name: drawn(e, generator, extreme) for e in module.signature.inputs}
    return {
        name: value.to(dtype).requires_grad_() if value.is_floating_point() else value for name, value in found.items()
    }


def free(row, inputs):
    return {name: value for name, value in inputs.items() if value.requires_grad and name != "sign"}


@EVERY
def test_value_and_gradient_equal_the_closed_form(row, hyper):
    module = built(row, hyper)
    for seed in range(2):
        inputs = inputs_of(module, seed)
        held = {name: value.detach() if name in row.fixed else value for name, value in inputs.items()}
        value, wanted = module(**inputs), row.form(**held, **hyper)
        torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-12)
        slopes = gradients(wanted, free(row, inputs))
        for name, slope in gradients(value, free(row, inputs)).items():
            torch.testing.assert_close(slope, slopes[name], rtol=1e-9, atol=1e-12, msg=f"gradient of {name}")


@ONCE
def test_gradient_equals_finite_differences(row, hyper):
    module = built(row, hyper)
    inputs = inputs_of(module, seed=3)
    leaves = {name: value for name, value in free(row, inputs).items() if name not in row.fixed}
    held = {name: value.detach() for name, value in inputs.items() if name not in leaves}
    on_simplex = {e.name for e in module.signature.inputs if e.type.startswith("prob")}

    def value(*given):
        moved = zip(leaves, given, strict=True)
        return weighted(module(**held, **{k: t.softmax(-1) if k in on_simplex else t for k, t in moved}))

    torch.autograd.gradcheck(value, list(leaves.values()))


@BOUNDED
def test_value_and_gradient_are_finite_at_extreme_inputs(row, hyper):
    module = built(row, hyper)
    plain = {e.name for e in module.signature.inputs if re.fullmatch(r"real(\[[^\]]*\])?", e.type)}
    for seed in range(3):
        inputs = inputs_of(module, seed, extreme=True, dtype=torch.float32)
        if seed == 0:
            inputs |= {name: torch.zeros_like(inputs[name]).requires_grad_() for name in plain}
        value = module(**inputs)
        assert torch.isfinite(value).all()
        for name, slope in gradients(value, free(row, inputs)).items():
            assert torch.isfinite(slope).all(), name


@pytest.mark.parametrize("family", sorted({row.family for row in ROWS}))
def test_every_loss_of_the_family_has_a_closed_form(family):
    declared = re.findall(r"^loss (\w+)", (STDLIB / f"{family}.loss").read_text(), re.MULTILINE)
    assert declared == [row.name for row in ROWS if row.family == family]


def test_means_over_nothing_are_zero():
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    labels, mask = torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.bool)
    one = {"logits": logits[0], "labels": labels[0]}
    found = [
        lossdsl.load("sft_tokens")(logits=logits, tokens=labels, mask=mask),
        lossdsl.load("next_token")(logits=logits[:, :1], tokens=labels[:, :1], mask=~mask[:, :1]),
        lossdsl.load("masked_cross_entropy")(logits=logits[0], labels=labels[0] - 1),
        lossdsl.load("weighted_cross_entropy")(**one, weight=torch.zeros(4, dtype=torch.float64)),
        lossdsl.load("token_distill")(student=logits, teacher=logits, mask=mask),
        lossdsl.load("relational_angle")(student=logits[0, :2], teacher=logits[1, :2]),
    ]
    for value in found:
        assert value.item() == 0
        assert not torch.autograd.grad(value, logits, allow_unused=True, materialize_grads=True)[0].any()
