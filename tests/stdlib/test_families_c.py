"""Image, segmentation and detection losses equal closed forms in torch, finite at extreme inputs."""

import forms_detection
import forms_image
import forms_segmentation
import pytest
import torch
from references.base import Case, Draw, Reference
from support import compare, gradients, weighted

import lossdsl

LOSSES = {
    "image": forms_image.LOSSES,
    "segmentation": forms_segmentation.LOSSES,
    "detection": forms_detection.LOSSES,
}
ENTRIES = [
    pytest.param(f"{family}:{name}", *entry, id=f"{family}.{name}")
    for family, losses in LOSSES.items()
    for name, entry in losses.items()
]
FIELDS = ("target", "form", "inputs", "hyper")
EVERY = pytest.mark.parametrize(FIELDS, ENTRIES)
# a weight held constant on purpose, so that the gradient is not that of the value; a solver, which has none
OTHER_SLOPES = ("detection.ciou", "detection.ciou_loss", "detection.hungarian")
SMOOTH = pytest.mark.parametrize(FIELDS, [entry for entry in ENTRIES if entry.id not in OTHER_SLOPES])
# the programs add eps to divisors that the closed forms leave alone
TOLERANCE = {f"detection:{name}": 1e-5 for name in forms_detection.LOSSES if "iou" in name or name == "detr"}


def real_names(inputs):
    """Inputs that get a gradient; a target distance is constant by the loss's nature."""
    return tuple(k for k, v in inputs.items() if v.is_floating_point() and not (k == "target" and v.dim() == 0))


def reference(form, make, hyper):
    def cases(dtype=torch.float64):
        made = [(seed, given, make(Draw(seed, dtype))) for seed, given in ((1, {}), (2, {}), (3, hyper), (4, hyper))]
        return [Case(f"{seed}", inputs, given, differentiable=real_names(inputs)) for seed, given, inputs in made]

    return Reference(lambda inputs, given, state: (form(**inputs, **given), {}), {}, cases)


@EVERY
def test_value_and_gradients_equal_the_closed_form(target, form, inputs, hyper):
    compare(target, reference(form, inputs, hyper), TOLERANCE.get(target, 1e-9))


@SMOOTH
def test_gradients_equal_differences_of_values(target, form, inputs, hyper):
    del form
    module, given = lossdsl.load(target, **hyper), inputs(Draw(5, torch.float64))
    leaves = {k: v.clone().requires_grad_() for k, v in given.items() if v.is_floating_point()}

    def value(*found):
        return weighted(module(**{**given, **dict(zip(leaves, found, strict=True))}))

    assert torch.autograd.gradcheck(value, tuple(leaves.values()), atol=1e-6, rtol=1e-4)


def extremes(name, tensor):
    """Tensors that stretch a loss: all equal, huge of either sign, targets at their ends."""
    if not tensor.is_floating_point():
        return [tensor]
    signs = torch.where(torch.arange(tensor.numel()).reshape(tensor.shape) % 3 == 0, -1.0, 1.0)
    if name == "target" and tensor.dim():
        return [(signs > 0).float()]
    return [torch.zeros_like(tensor), torch.ones_like(tensor), 1e4 * signs, 1e4 * tensor]


@EVERY
def test_value_and_gradients_are_finite_at_extreme_inputs(target, form, inputs, hyper):
    del form, hyper
    module, given = lossdsl.load(target), inputs(Draw(6, torch.float32))
    choices = {name: extremes(name, tensor) for name, tensor in given.items()}
    for k in range(4):
        for shift in range(2):
            found = {n: c[(k + shift * j) % len(c)].clone() for j, (n, c) in enumerate(choices.items())}
            leaves = {n: t.requires_grad_() for n, t in found.items() if t.is_floating_point()}
            value = module(**found)
            assert torch.isfinite(value).all(), f"{target} {k} {shift}: {value}"
            if value.is_floating_point():
                for name, slope in gradients(value, leaves).items():
                    assert torch.isfinite(slope).all(), f"{target} {k} {shift}: gradient of {name}"
