"""Preference, contrastive and metric losses equal closed forms in plain torch, finite at extreme inputs."""

import forms_contrastive
import forms_metric
import forms_preference
import pytest
import torch
from references.base import Case, Draw, Reference
from support import compare

import lossdsl

LOSSES = {
    "preference": forms_preference.LOSSES,
    "contrastive": forms_contrastive.LOSSES,
    "metric": forms_metric.LOSSES,
}
ENTRIES = [
    pytest.param(f"{family}:{name}", *entry, id=f"{family}.{name}")
    for family, losses in LOSSES.items()
    for name, entry in losses.items()
]
FIELDS = ("target", "form", "inputs", "hyper")
EVERY = pytest.mark.parametrize(FIELDS, ENTRIES)

# weights and targets that are held constant on purpose, so that the gradient is not that of the value
HELD = {"contrastive.swav", "metric.circle"}
CONSTANT = {"contrastive:byol": {"teacher"}, "contrastive:simsiam": {"z", "w"}}


def real_names(inputs):
    """The real inputs, fields of records as `pi.chosen`."""
    flat = {
        f"{name}.{part}" if part else name: tensor
        for name, value in inputs.items()
        for part, tensor in (value.items() if isinstance(value, dict) else [("", value)])
    }
    return tuple(name for name, tensor in flat.items() if tensor.is_floating_point())


def reference(form, make, hyper):
    """The closed form with two batches for the defaults and one for other hyperparameters."""

    def cases(dtype=torch.float64):
        found = []
        for seed, given in ((1, {}), (2, {}), (3, hyper)):
            inputs = make(Draw(seed, dtype))
            found.append(Case(f"{seed}", inputs, given, differentiable=real_names(inputs)))
        return found

    return Reference(lambda inputs, given, state: (form(inputs, **given), {}), {}, cases)


@EVERY
def test_value_and_gradients_equal_the_closed_form(target, form, inputs, hyper):
    compare(target, reference(form, inputs, hyper), 1e-7 if target.endswith("trained") else 1e-9)


@pytest.mark.parametrize(FIELDS, [entry for entry in ENTRIES if entry.id not in HELD])
def test_derivatives_equal_differences_of_values(target, form, inputs, hyper):
    loss = lossdsl.load(target, **hyper)
    given = inputs(Draw(5, torch.float64))
    constant = {"ref", "ref.chosen", "ref.rejected", "kl"} | CONSTANT.get(target, set())
    names = [name for name in real_names(given) if name not in constant]

    def value(*tensors):
        filled = {k: dict(v) if isinstance(v, dict) else v for k, v in given.items()}
        for name, tensor in zip(names, tensors, strict=True):
            record, _, part = name.partition(".")
            if part:
                filled[record][part] = tensor
            else:
                filled[name] = tensor
        return loss(**filled)

    start = []
    for name in names:
        record, _, part = name.partition(".")
        start.append((given[record][part] if part else given[record]).clone().requires_grad_())
    assert torch.autograd.gradcheck(value, start)


@EVERY
@pytest.mark.parametrize("scale", [1e-6, 1e4], ids=["tiny", "huge"])
def test_extreme_inputs_give_finite_values_and_gradients(target, form, inputs, hyper, scale):
    loss = lossdsl.load(target)
    given = inputs(Draw(7, torch.float32), scale)
    for name in real_names(given):
        record, _, part = name.partition(".")
        (given[record][part] if part else given[record]).requires_grad_()
    value = loss(**given)
    assert torch.isfinite(value).all()
    value.sum().backward()
    for name in real_names(given):
        record, _, part = name.partition(".")
        slope = (given[record][part] if part else given[record]).grad
        assert slope is None or torch.isfinite(slope).all(), name


# ---- losses that keep something between steps ------------------------------------------------


def test_dino_moves_its_centre_after_the_value():
    draw = Draw(9, torch.float64)
    student, teacher = draw.normal(4, 3, 6).requires_grad_(), draw.normal(2, 3, 6)
    loss = lossdsl.load("dino", momentum=0.7)
    center = draw.normal(6)
    loss.load_state_dict({"center": center.clone()})
    value = loss(student=student, teacher=teacher)
    p, log_q = torch.softmax((teacher - center) / 0.04, -1), torch.log_softmax(student / 0.1, -1)
    pairs = [-(p[u] * log_q[v]).sum(-1).mean() for u in range(2) for v in range(4) if u != v]
    torch.testing.assert_close(value, torch.stack(pairs).mean())
    torch.testing.assert_close(loss.center.double(), 0.7 * center + 0.3 * teacher.mean((0, 1)))


def test_dino_in_evaluation_leaves_its_centre_alone():
    draw = Draw(10, torch.float64)
    loss = lossdsl.load("dino").eval()
    loss(student=draw.normal(4, 3, 6), teacher=draw.normal(2, 3, 6))
    assert not loss.center.any()


def test_moco_queues_keys_round_and_round():
    draw = Draw(11, torch.float64)
    loss = lossdsl.load("moco", Q=5)
    queue, place = draw.normal(5, 4), 0
    loss.load_state_dict({"queue": queue.clone(), "cursor": torch.tensor(0)})
    for _ in range(4):
        z, w = draw.normal(2, 4), draw.normal(2, 4)
        expected = forms_contrastive.info_nce_bank({"z": z, "w": w, "negatives": queue})
        torch.testing.assert_close(loss(z=z, w=w), expected)
        for row in w:
            queue[place] = row
            place = (place + 1) % 5
        torch.testing.assert_close(loss.queue.double(), queue)


@pytest.mark.parametrize("name", ["clip_trained", "siglip_trained"])
def test_a_trained_temperature_receives_a_gradient(name):
    loss = lossdsl.load(name)
    loss(**forms_contrastive.pair(Draw(12, torch.float32))).backward()
    assert all(parameter.grad is not None and parameter.grad.abs() > 0 for parameter in loss.parameters())


# ---- what the batch may lack -----------------------------------------------------------------

LABELLED = [name for name, entry in LOSSES["metric"].items() if entry[1] is forms_metric.labelled] + ["supcon"]


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [5]], ids=["one class", "all alone", "one row"])
def test_batches_without_positives_or_negatives_give_finite_values_and_gradients(name, labels):
    z = Draw(13, torch.float32).normal(len(labels), 4).requires_grad_()
    value = lossdsl.load(name)(z=z, labels=torch.tensor(labels))
    value.backward()
    assert torch.isfinite(value)
    assert value >= 0
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("name", LABELLED)
def test_equal_rows_and_zero_rows_give_finite_gradients(name):
    z = torch.zeros(6, 4)
    z[2:] = torch.tensor([1.0, -2.0, 0.5, 0.0])
    z.requires_grad_()
    value = lossdsl.load(name)(z=z, labels=torch.tensor([0, 1, 0, 0, 1, 1]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(z.grad).all()


# ---- what connects them ----------------------------------------------------------------------


def test_known_noise_is_removed_from_dpo_on_average_over_the_flips():
    given, noise = forms_preference.policies(Draw(14, torch.float64)), 0.3
    flipped = {k: {"chosen": v["rejected"], "rejected": v["chosen"]} for k, v in given.items()}
    robust = lossdsl.load("robust_dpo", noise=noise)
    mixed = (1 - noise) * robust(**given) + noise * robust(**flipped)
    torch.testing.assert_close(mixed, lossdsl.load("dpo")(**given))


def test_a_ranking_of_two_is_bradley_terry():
    given = forms_preference.rewards(Draw(15, torch.float64))
    ranking = lossdsl.load("plackett_luce")(score=torch.stack([given["chosen"], given["rejected"]], 1))
    torch.testing.assert_close(ranking, lossdsl.load("bradley_terry")(**given))


def test_supervised_contrast_with_a_class_for_each_pair_is_simclr():
    given = forms_contrastive.pair(Draw(16, torch.float64))
    supervised = lossdsl.load("supcon_views", tau=0.5, base_tau=0.5)(**given, labels=torch.arange(5))
    torch.testing.assert_close(supervised, lossdsl.load("nt_xent")(**given))
