"""Every reference by itself: cases, values, gradients against differences, and both precisions."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from .base import Case
from .checks import SLUGS, changed, field, load, value, value_and_gradients, weights_like

torch.set_num_threads(1)
ALL = [(slug, loss) for slug in SLUGS for loss in load(slug)]
EVERY = pytest.mark.parametrize(("slug", "loss"), ALL, ids=[f"{slug}.{loss}" for slug, loss in ALL])

# Inputs in which the declared gradient is the true derivative: no stop-gradient, no declared backward.
TRUE_SLOPES = {
    "rpo.rpo": "pi.chosen pi.rejected",
    "rpo.rpo_average": "pi.chosen pi.rejected",
    "isogclr.rgcl": "z w tau",
    "ca_dino.ca_dino": "student student_embedding",
    "ca_dino.dlg_lc": "z",
    "ca_dino.aam_softmax": "z prototypes",
    "groco.group_order": "pos neg",
    "stop_regressing.hl_gauss_td": "logits",
    "stop_regressing.hl_gauss": "logits",
    "stop_regressing.two_hot": "logits",
    "stop_regressing.c51": "logits",
    "stop_regressing.hl_gauss_cql": "logits",
    "ms_ssim.ms_ssim": "x y",
    "ms_ssim.ms_ssim_map": "x y",
    "ms_ssim.el_vae": "x y mu logvar",
    "ms_ssim.ms_ssim_image": "x y",
    "mono_vifi.mono_vifi": "target source disp disp_mf pose intr inv_intr target_aff source_aff disp_aff "
    "pose_aff depth_aff",
    "mono_vifi.view_synthesis": "disp target source pose intr inv_intr",
    "mono_vifi.photometric": "x y",
    "mono_vifi.reproject": "source disp pose intr inv_intr",
    "mono_vifi.smoothness": "disp image",
    "mono_vifi.si_log": "x y",
    "lvm_med.vertex_affinity": "z w maps_z maps_w",
    "lvm_med.edge_affinity": "z w",
    "lvm_med.local_affinity": "maps_z maps_w",
    "metrix.metrix": "z mix",
    "metrix.metrix_contrastive": "z",
    "metrix.metrix_first_positive": "z mix",
    "metrix.metrix_anchor_negative": "z mix",
    "metrix.metrix_multi_similarity": "z mix",
    "metrix.utilization": "z w",
    "prd.prd": "z w prototypes kept",
    "prd.prd_code": "z w prototypes kept",
    "prd.prd_relation": "features kept",
    "prd.prd_prototypes": "prototypes",
    "z_loss.z_loss": "logits",
    "z_loss.z_loss_scores": "logits",
    "z_loss.z_loss_spherical": "target total square",
    "z_loss.z_loss_factored": "hidden w",
    "ensloss.hinge": "score",
    "ensloss.exponential": "score",
    "ensloss.logistic": "score",
    "ensloss.binary_focal": "score",
    "codegen2.codegen2": "clm_logits infill_logits",
    "codegen2.lm_z_loss": "logits",
    "codegen2.prefix_lm": "logits",
    "yolov8_to.yolov8_to": "coeff proto design",
    "yolov8_to.yolov8_to_reconstruction": "design boxes",
    "yolov8_to.yolov8_to_segmentation": "coeff proto",
    "yolov8_to.yolov8_to_dice": "design boxes",
    "regret_loss.regret_loss": "policy losses",
    "regret_loss.regret_loss_power": "policy losses",
    "regret_loss.regret_loss_ball": "policy losses",
    "regret_loss.regret": "policy losses",
    "regret_loss.dynamic_regret": "policy losses",
}
# Cases that stand on a kink, where the derivative is a convention.
ON_A_KINK = {"twin nodes", "duplicates", "equal scores", "one class", "zero hidden row"}


def _tensors(part: Any) -> list[Tensor]:
    if isinstance(part, Tensor):
        return [part]
    return [tensor for entry in part.values() for tensor in _tensors(entry)]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(_tensors(one), _tensors(other), strict=True))


@cache
def _exact(slug: str, loss: str) -> list[tuple[Case, Tensor, dict[str, Tensor]]]:
    """The float64 cases with their values and gradients."""
    return [(case, *value_and_gradients(slug, loss, case)) for case in load(slug)[loss].cases()]


@EVERY
def test_cases_are_complete_and_repeatable(slug: str, loss: str) -> None:
    reference = load(slug)[loss]
    cases, again = reference.cases(), reference.cases()
    assert len(cases) >= 4
    assert len({case.name for case in cases}) == len(cases)
    for one, other in zip(cases, again, strict=True):
        assert _same(one.inputs, other.inputs)
        assert _same(one.state, other.state)
        assert one.hyper == other.hyper
    for case in cases:
        assert set(case.hyper) <= set(reference.defaults)
        assert all(field(case.inputs, name).is_floating_point() for name in case.differentiable)
        assert all(t.dtype in {torch.float64, torch.int64, torch.bool} for t in _tensors(case.inputs))
        assert all(t.is_leaf and not t.requires_grad for t in _tensors(case.inputs))


@EVERY
def test_values_and_gradients_are_finite_and_agree_in_both_precisions(slug: str, loss: str) -> None:
    reference = load(slug)[loss]
    for (exact, precise, gradients), rounded in zip(_exact(slug, loss), reference.cases(torch.float32), strict=True):
        kept = copy.deepcopy(rounded)
        coarse, rough = value_and_gradients(slug, loss, rounded)
        assert _same(kept.inputs, rounded.inputs)
        assert _same(kept.state, rounded.state)
        assert (precise.dim() > 0) == reference.per_sample
        assert precise.isfinite().all()
        assert coarse.dtype == torch.float32
        torch.testing.assert_close(coarse.double(), precise, rtol=1e-4, atol=1e-5)
        for name, gradient in gradients.items():
            assert gradient.isfinite().all(), (exact.name, name)
            size = max(1.0, gradient.abs().max().item())
            assert ((rough[name].double() - gradient).abs() / size).max() < 2e-3, (exact.name, name)


@EVERY
def test_buffers_keep_their_shapes_and_carry_no_gradient(slug: str, loss: str) -> None:
    for case in load(slug)[loss].cases():
        if not case.state:
            continue
        _, updated = load(slug)[loss].function(case.inputs, case.hyper, case.state)
        assert list(updated) == list(case.state)
        assert all(updated[name].shape == buffer.shape for name, buffer in case.state.items())
        assert not any(buffer.requires_grad for buffer in updated.values())


@pytest.mark.parametrize("path", TRUE_SLOPES)
def test_gradients_are_the_slopes(path: str) -> None:
    slug, loss = path.split(".")
    generator = torch.Generator().manual_seed(5)
    for case, result, gradients in _exact(slug, loss):
        if case.name in ON_A_KINK:
            continue
        weights = weights_like(result)
        step = 1e-7 if slug == "yolov8_to" and "epsilon" not in case.hyper else 1e-6
        names = [name for name in TRUE_SLOPES[path].split() if name in case.differentiable]
        for group in [[name] for name in names] if len(names) < 7 else [names[::2], names[1::2]]:
            here = {name: field(case.inputs, name) for name in group}
            # Zeros stay: they mark what a mask leaves out.
            toward = {
                name: torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * (tensor != 0)
                for name, tensor in here.items()
            }
            moved = [
                {name.replace(".", "__"): here[name] + move * toward[name] for name in group} for move in (step, -step)
            ]
            ahead, behind = (value(slug, loss, changed(case, **inputs)) for inputs in moved)
            slope = ((ahead - behind) * weights).sum() / (2 * step)
            wanted = torch.stack([(gradients[name] * toward[name]).sum() for name in group]).sum()
            noise = 4e-15 * max(1.0, (result * weights).abs().sum().item()) / step
            same = torch.isclose(slope, wanted, rtol=2e-5, atol=1e-7 + noise)
            assert same, (case.name, group, slope.item(), wanted.item())
