"""Papers on preference, contrast, sorting and metric learning agree with independent references."""

import math

import pytest
import torch
from references import ca_dino, groco, isogclr, metrix, prd, rpo
from references.base import Draw
from support import compare, finite

import lossdsl

PAPERS = {"rpo": rpo, "isogclr": isogclr, "ca_dino": ca_dino, "groco": groco, "metrix": metrix, "prd": prd}
LOSSES = [
    pytest.param(f"{slug}:{name}", reference, id=f"{slug}.{name}")
    for slug, module in PAPERS.items()
    for name, reference in module.REFERENCES.items()
]
EVERY = pytest.mark.parametrize(("target", "reference"), LOSSES)


@EVERY
def test_value_gradients_and_state_equal_the_reference(target, reference):
    compare(target, reference)


@EVERY
def test_value_and_gradients_are_finite_in_low_precision(target, reference):
    finite(target, reference)


# ---- what the papers' cards say beside the formula -------------------------------------------


def test_rpo_without_imitation_is_dpo():
    given = rpo.REFERENCES["rpo"].cases(torch.float64)[0].inputs
    torch.testing.assert_close(lossdsl.load("rpo", eta=0, beta=0.3)(**given), lossdsl.load("dpo", beta=0.3)(**given))


def test_isogclr_in_its_first_epoch_descends_the_robust_objective():
    draw = Draw(1, torch.float64)
    z, w = (draw.normal(5, 4).requires_grad_() for _ in range(2))
    index, tau = draw.permutation(9)[:5], draw.uniform(9, low=0.2, high=0.9)
    loss = lossdsl.load("isogclr", M=9)
    loss.load_state_dict({"s": torch.zeros(9), "u": torch.zeros(9), "tau": tau}, strict=False)
    surrogate = torch.autograd.grad(loss(z=z, w=w, index=index, epoch=0), (z, w))
    objective = torch.autograd.grad(lossdsl.load("isogclr:rgcl")(z=z, w=w, tau=tau[index]).mean(), (z, w))
    torch.testing.assert_close(surrogate, objective)


@pytest.mark.parametrize("name", ["isogclr:isogclr", "isogclr:isogclr_bimodal"])
def test_images_outside_the_batch_keep_their_temperatures(name):
    draw = Draw(2, torch.float64)
    given = {"z": draw.normal(3, 4), "w": draw.normal(3, 4), "index": torch.tensor([6, 0, 3])}
    loss = lossdsl.load(name, M=8)
    loss(**given, **({"epoch": torch.tensor(1)} if name.endswith(":isogclr") else {}))
    for key, kept in loss.state_dict().items():
        untouched = kept[[1, 2, 4, 5, 7]]
        assert (untouched == untouched[0]).all(), key


def test_an_image_beyond_the_training_set_is_refused():
    draw = Draw(3, torch.float64)
    loss = lossdsl.load("isogclr", M=4)
    with pytest.raises(lossdsl.LossInputError, match="index"):
        loss(z=draw.normal(2, 3), w=draw.normal(2, 3), index=torch.tensor([1, 4]), epoch=0)


def test_groco_refuses_more_negatives_than_there_are_rows():
    with pytest.raises(lossdsl.LossInputError):
        lossdsl.load("groco", topk=6)(views=Draw(4, torch.float64).normal(2, 6, 3))


def test_groco_does_not_mind_the_order_of_the_full_size_views():
    views = Draw(5, torch.float64).normal(4, 6, 3)
    loss = lossdsl.load("groco", n_pos=3, topk=4)
    torch.testing.assert_close(loss(views=views), loss(views=views[[2, 0, 1, 3]]))


def test_the_gate_of_a_constant_history_is_its_logarithm():
    gate = lossdsl.load("ca_dino:gate_threshold")(history=torch.full((6,), 0.3, dtype=torch.float64))
    torch.testing.assert_close(gate, torch.tensor(0.3, dtype=torch.float64).log())


def test_the_gate_follows_the_scale_of_the_history():
    history = Draw(6, torch.float64).uniform(30, low=0.01, high=5.0)
    gate = lossdsl.load("ca_dino:gate_threshold")
    torch.testing.assert_close(gate(history=7 * history), gate(history=history) + math.log(7))


def test_metrix_without_positives_is_its_clean_part():
    z, labels = Draw(7, torch.float64).normal(4, 3), torch.arange(4)
    mixed = lossdsl.load("metrix")(z=z, labels=labels, mix=torch.tensor(0.4, dtype=torch.float64))
    torch.testing.assert_close(mixed, lossdsl.load("metrix:metrix_contrastive")(z=z, labels=labels))


def test_prd_ignores_a_common_rotation_of_features_and_prototypes():
    draw = Draw(8, torch.float64)
    features, kept = draw.normal(6, 4), draw.normal(3, 4)
    turn = torch.linalg.qr(draw.normal(4, 4)).Q
    value = lossdsl.load("prd:prd_relation")(
        features=features @ turn, old_features=features, kept=kept @ turn, kept_old=kept
    )
    torch.testing.assert_close(value, torch.zeros_like(value))
