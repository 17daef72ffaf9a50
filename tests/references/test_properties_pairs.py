"""Properties of the preference, contrastive, matching and metric-learning references."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import logsigmoid

from .base import Case, Draw
from .ca_dino import mixture
from .checks import cases_of, changed, close, load, new_state, value, value_and_gradients
from .groco import soft_sort
from .lvm_med import ranking, solve

torch.set_num_threads(1)


# rpo


def _policy(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    pi, ref = case.inputs["pi"], case.inputs["ref"]
    gap = pi["chosen"] - pi["rejected"] - ref["chosen"] + ref["rejected"]
    return pi["chosen"], pi["rejected"], gap


def test_rpo_is_dpo_without_imitation() -> None:
    for loss in ("rpo", "rpo_average"):
        case = cases_of("rpo", loss)["plain dpo"]
        beta = case.hyper.get("beta", 0.5)
        close(value("rpo", loss, case), -logsigmoid(beta * _policy(case)[2]).mean())


def test_rpo_gradients_have_their_closed_form() -> None:
    case = cases_of("rpo", "rpo")["strong"]
    beta, eta, size = case.hyper["beta"], case.hyper["eta"], 3
    _, gradients = value_and_gradients("rpo", "rpo", case)
    miss = torch.sigmoid(-beta * _policy(case)[2])
    close(gradients["pi.chosen"], -beta / size * (miss + eta))
    close(gradients["pi.rejected"], beta / size * miss)
    close(gradients["ref.chosen"], torch.zeros(size))
    close(gradients["ref.rejected"], torch.zeros(size))


def test_rpo_imitation_adds_its_weight() -> None:
    case = cases_of("rpo", "rpo")["one pair"]
    chosen = _policy(case)[0]
    added = value("rpo", "rpo", case) - value("rpo", "rpo", changed(case, {"eta": 0.0}))
    close(added, -1.5 * 0.3 * chosen.mean())
    case = cases_of("rpo", "rpo_average")["defaults"]
    added = value("rpo", "rpo_average", case) - value("rpo", "rpo_average", changed(case, {"eta": 0.0}))
    close(added, -0.2 * (_policy(case)[0] / case.inputs["length"]).mean())
    assert all((case.inputs["length"] >= 1).all() for case in load("rpo")["rpo_average"].cases())


# isogclr


@pytest.mark.parametrize("name", ["first epoch ignores s", "no memory"])
def test_isogclr_without_memory_follows_its_objective(name: str) -> None:
    case = cases_of("isogclr", "isogclr")[name]
    index, rho = case.inputs["index"], case.hyper.get("rho", 0.4)
    taus = case.state["tau"][index]
    inputs = {"z": case.inputs["z"], "w": case.inputs["w"], "tau": taus}
    leaves = {key: tensor.clone().requires_grad_() for key, tensor in inputs.items()}
    objective = load("isogclr")["rgcl"].function(leaves, {"rho": rho}, {})[0]
    wanted = torch.autograd.grad(objective.mean(), [leaves["z"], leaves["w"]], retain_graph=True)
    _, gradients = value_and_gradients("isogclr", "isogclr", case)
    close(gradients["z"], wanted[0])
    close(gradients["w"], wanted[1])
    slope = torch.autograd.grad(objective.sum(), leaves["tau"])[0]
    after = new_state("isogclr", "isogclr", changed(case, {"beta": 1.0, "clip": 100.0}))
    close(after["u"][index], slope / 2)


def test_isogclr_buffers_move_as_declared() -> None:
    for case in load("isogclr")["isogclr"].cases():
        after, index = new_state("isogclr", "isogclr", case), case.inputs["index"]
        elsewhere = torch.ones(case.sizes["M"], dtype=torch.bool)
        elsewhere[index] = False
        for name, buffer in case.state.items():
            assert torch.equal(after[name][elsewhere], buffer[elsewhere])
            assert not torch.equal(after[name][index], buffer[index])
        hyper = {"tau_min": 0.05, "tau_max": 1.0, "eta": 0.03, **case.hyper}
        free = case.state["tau"] - hyper["eta"] * after["u"]
        close(after["tau"][index], free.clamp(hyper["tau_min"], hyper["tau_max"])[index])
    case = cases_of("isogclr", "isogclr")["tight clip"]
    after = new_state("isogclr", "isogclr", changed(case, {"beta": 1.0}))
    assert after["u"][case.inputs["index"]].abs().max() == 0.2
    case = cases_of("isogclr", "isogclr")["temperature limits"]
    taus = new_state("isogclr", "isogclr", case)["tau"][case.inputs["index"]]
    assert (taus == 0.2).any()
    assert (taus == 0.5).any()
    start = cases_of("isogclr", "isogclr")["unmet image after the first epoch"]
    fresh = new_state("isogclr", "isogclr", changed(start, epoch=torch.tensor(0)))
    close(new_state("isogclr", "isogclr", start)["s"], 0.8 * fresh["s"])


def test_isogclr_is_symmetric_and_ignores_lengths() -> None:
    for loss in ("isogclr", "rgcl"):
        case = next(iter(cases_of("isogclr", loss).values()))
        z, w = case.inputs["z"], case.inputs["w"]
        here = value("isogclr", loss, case)
        close(value("isogclr", loss, changed(case, z=w, w=z)), here)
        lengths = torch.arange(1.0, len(z) + 1, dtype=torch.float64)[:, None]
        close(value("isogclr", loss, changed(case, z=z * lengths, w=w / lengths)), here)


def test_isogclr_bimodal_without_memory_follows_its_objective() -> None:
    case = cases_of("isogclr", "isogclr_bimodal")["no memory"]
    index, n = case.inputs["index"], len(case.inputs["index"])
    leaves = {key: case.inputs[key].clone().requires_grad_() for key in "zw"}
    unit_z, unit_w = (leaves[key] / leaves[key].norm(dim=1, keepdim=True) for key in "zw")
    sim = unit_z @ unit_w.T
    objective = torch.zeros((), dtype=torch.float64)
    taus = []
    for letter, table in (("z", sim), ("w", sim.T)):
        tau = case.state[f"tau_{letter}"][index].clone().requires_grad_()
        taus.append(tau)
        exponents = (table - table.diagonal()[:, None]) / tau[:, None]
        side = tau * (torch.logsumexp(exponents, 1) - math.log(n - 1) + 6.0)
        objective = objective + side.mean()
    wanted = torch.autograd.grad(objective, [leaves["z"], leaves["w"], *taus])
    _, gradients = value_and_gradients("isogclr", "isogclr_bimodal", case)
    close(gradients["z"], wanted[0])
    close(gradients["w"], wanted[1])
    after = new_state("isogclr", "isogclr_bimodal", changed(case, {"clip": 100.0}))
    close(after["u_z"][index], n * wanted[2])
    close(after["u_w"][index], n * wanted[3])


def test_rgcl_is_convex_in_temperature_and_bounded_by_the_worst_weights() -> None:
    case = cases_of("isogclr", "rgcl")["wide"]
    low, high = torch.full((5,), 0.2, dtype=torch.float64), torch.full((5,), 1.4, dtype=torch.float64)
    ends = [value("isogclr", "rgcl", changed(case, tau=tau)) for tau in (low, high)]
    middle = value("isogclr", "rgcl", changed(case, tau=(low + high) / 2))
    assert (middle <= (ends[0] + ends[1]) / 2).all()


# ca_dino


def test_ca_dino_moves_its_centre_after_the_value() -> None:
    case = cases_of("ca_dino", "ca_dino")["one long crop"]
    after = new_state("ca_dino", "ca_dino", case)["center"]
    close(after, 0.5 * case.state["center"] + 0.5 * case.inputs["teacher"].mean((0, 1)))
    still = cases_of("ca_dino", "ca_dino")["no consistency"]
    close(new_state("ca_dino", "ca_dino", still)["center"], still.state["center"])


def test_ca_dino_invariances() -> None:
    case = cases_of("ca_dino", "ca_dino")["two long and four short crops"]
    here, shift = value("ca_dino", "ca_dino", case), torch.linspace(-1, 2, 7, dtype=torch.float64)
    moved = Case("moved", changed(case, teacher=case.inputs["teacher"] + shift).inputs, {}, {})
    moved.state["center"] = case.state["center"] + shift
    close(value("ca_dino", "ca_dino", moved), here)
    order = torch.tensor([0, 1, 5, 3, 2, 4])
    swapped = {key: case.inputs[key][order] for key in ("student", "student_embedding")}
    close(value("ca_dino", "ca_dino", changed(case, **swapped)), here)
    extra = value("ca_dino", "ca_dino", changed(case, {"lam": 3.0})) - here
    assert 0 <= extra <= 4
    _, gradients = value_and_gradients("ca_dino", "ca_dino", case)
    assert not gradients["teacher"].any()
    assert not gradients["teacher_embedding"].any()


def test_aam_softmax_adds_the_margin_to_the_angle() -> None:
    case = cases_of("ca_dino", "aam_softmax")["gentle"]
    z, prototypes, labels = (case.inputs[key] for key in ("z", "prototypes", "labels"))
    cosine = torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(prototypes).T
    logits, rows = 3 * cosine, torch.arange(len(z))
    assert (cosine[rows, labels] > math.cos(math.pi - 0.5)).all()
    logits[rows, labels] = 3 * torch.cos(torch.acos(cosine[rows, labels]) + 0.5)
    close(
        value("ca_dino", "aam_softmax", case),
        torch.nn.functional.cross_entropy(logits, labels, reduction="none"),
    )
    past = cases_of("ca_dino", "aam_softmax")["past the turning point"].inputs
    pairs = torch.cosine_similarity(past["z"], past["prototypes"][past["labels"]])
    assert (pairs < math.cos(math.pi - 0.6)).all()


@pytest.mark.parametrize("case", load("ca_dino")["gate_threshold"].cases(), ids=lambda case: case.name)
def test_gate_threshold_is_where_the_densities_cross(case: Case) -> None:
    x, found = torch.log(case.inputs["history"]), value("ca_dino", "gate_threshold", case)
    hyper = {"em_iters": 50, "floor": 1e-6, **case.hyper}
    weights, means, variances = mixture(x, int(hyper["em_iters"]), hyper["floor"])
    close(weights[0] + weights[1], 1.0)
    assert means[0] < found < means[1]
    logs = [
        torch.log(w / v.sqrt()) - (found - mu) ** 2 / (2 * v)
        for w, mu, v in zip(weights, means, variances, strict=True)
    ]
    if case.name == "midpoint":
        close(found, (means[0] + means[1]) / 2)
        assert abs(logs[0] - logs[1]) > 1e-3
    else:
        close(logs[0], logs[1])
    scaled = value("ca_dino", "gate_threshold", changed(case, history=3.0 * case.inputs["history"]))
    close(scaled, found + math.log(3.0), 1e-7)


def test_dlg_lc_sorts_its_samples() -> None:
    kinds, corrected, dropped = set(), 0, 0
    for case in load("ca_dino")["dlg_lc"].cases():
        margin = {key: case.inputs[key] for key in ("z", "prototypes", "labels")}
        hyper = {key: number for key, number in case.hyper.items() if key in {"scale", "margin"}}
        losses = load("ca_dino")["aam_softmax"].function(margin, hyper, {})[0]
        rounds = {"em_iters": case.hyper.get("em_iters", 50)}
        gate = load("ca_dino")["gate_threshold"].function({"history": case.inputs["history"]}, rounds, {})[0]
        inside = torch.log(losses) <= gate
        kinds.add("some" if inside.any() and not inside.all() else "none" if not inside.any() else "all")
        result, gradients = value_and_gradients("ca_dino", "dlg_lc", case)
        assert result >= 0
        assert not gradients["w"].any()
        assert not gradients["history"].any()
        close(value("ca_dino", "dlg_lc", changed(case, z=2 * case.inputs["z"], w=5 * case.inputs["w"])), result)
        options = {"scale": 32.0, "threshold": 0.5, "sharpen": 0.1, **case.hyper}
        u, v = (
            options["scale"] * torch.cosine_similarity(case.inputs[key][:, None], margin["prototypes"], dim=2)
            for key in "zw"
        )
        sure = ~inside & (torch.softmax(v, 1).amax(1) > options["threshold"])
        soft = torch.nn.functional.cross_entropy(u, torch.softmax(v / options["sharpen"], 1), reduction="none")
        close(result, (losses * inside + soft * sure).mean())
        corrected += int(sure.sum())
        dropped += int((~inside & ~sure).sum())
    assert kinds == {"some", "none", "all"}
    assert corrected > 3
    assert dropped > 3


# groco


def test_soft_sort_is_doubly_stochastic_and_approaches_the_sorting() -> None:
    x = torch.tensor([[0.3, -0.5, 0.9, 0.1, -0.2]], dtype=torch.float64)
    soft = soft_sort(x, 1.0)[0]
    close(soft.sum(0), torch.ones(5))
    close(soft.sum(1), torch.ones(5))
    hard = soft_sort(x, 1e8)[0]
    close(x @ hard, x.sort().values, 1e-6)


def test_group_order_halves_and_shifts() -> None:
    case = cases_of("groco", "group_order")["steep"]
    pos, neg = case.inputs["pos"], case.inputs["neg"]
    ranks = soft_sort(torch.cat([neg, pos], 1), 20.0)
    high = ranks[:, :, neg.shape[1] :].sum(2)
    wanted = torch.tensor([0.0] * 5 + [1.0] * 2, dtype=torch.float64).expand_as(high)
    close(value("groco", "group_order", case), torch.nn.functional.binary_cross_entropy(high, wanted))
    close(
        value("groco", "group_order", changed(case, pos=pos + 3, neg=neg + 3)),
        value("groco", "group_order", case),
    )


def test_groco_invariances() -> None:
    case = cases_of("groco", "groco")["small crops"]
    views, here = case.inputs["views"], value("groco", "groco", case)
    v, n, _ = views.shape
    lengths = torch.linspace(0.5, 3, v * n, dtype=torch.float64).reshape(v, n, 1)
    close(value("groco", "groco", changed(case, views=views * lengths)), here)
    close(value("groco", "groco", changed(case, views=views[:, torch.randperm(n)])), here)
    close(value("groco", "groco", changed(case, views=views[[1, 0, 2, 3, 4]])), here)
    far = changed(case, views=views[[0, 2, 1, 3, 4]])
    assert not torch.isclose(value("groco", "groco", far), here)


# lvm_med


def test_matching_without_edges_is_linear_assignment() -> None:
    case = cases_of("lvm_med", "graph_matching_loss")["no edges"]
    cv = case.inputs["cv"]
    rows, columns = linear_sum_assignment(cv.numpy(), maximize=True)
    found = solve(cv, case.inputs["ce"], torch.zeros(4, 4, 4, 4, dtype=torch.float64))
    assert found[rows, columns].sum() == 4
    close(value("lvm_med", "graph_matching_loss", case), 2.0 * sum(rows != columns))


def test_matching_score_is_the_written_sum() -> None:
    draw = Draw(9, torch.float64)
    cv, ce, edges = draw.normal(3, 3), draw.normal(3, 3, 3, 3), draw.bits(3, 3, 3, 3).double()
    for (score, order), expected in zip(ranking(cv, ce, edges), permutations(range(3)), strict=True):
        assert order == expected
        v = torch.zeros(3, 3, dtype=torch.float64)
        v[torch.arange(3), torch.tensor(order)] = 1
        close(score, (cv * v).sum() + torch.einsum("ijab,ia,jb->", edges * ce, v, v))


@pytest.mark.parametrize("case", load("lvm_med")["graph_matching_loss"].cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_matching_gradient_is_the_difference_of_two_solutions(case: Case, factor: float) -> None:
    cv, ce = case.inputs["cv"], case.inputs["ce"]
    lam = case.hyper.get("lam", 80.0)
    edges = _edges(case)
    leaves = {"cv": cv.clone().requires_grad_(), "ce": ce.clone().requires_grad_()}
    result = value("lvm_med", "graph_matching_loss", changed(case, **leaves))
    (factor * result).backward()
    identity = torch.eye(len(cv), dtype=torch.float64)
    first, second = solve(cv, ce, edges), solve(cv - lam * factor * (1 - 2 * identity), ce, edges)
    assert int(result) in {0, *range(4, 2 * len(cv) + 1, 2)}
    close(result, 2 * (len(cv) - (first * identity).sum()))
    close(leaves["cv"].grad if leaves["cv"].grad is not None else 0, (first - second) / lam)
    pairs = torch.einsum("ia,jb->ijab", first, first) - torch.einsum("ia,jb->ijab", second, second)
    close(leaves["ce"].grad if leaves["ce"].grad is not None else 0, edges * pairs / lam)
    if lam == 80.0:
        assert torch.equal(second, identity)
    if case.name == "ties":
        assert torch.equal(first.argmax(1), torch.tensor([0, 1, 2, 3]))


def test_matching_cases_reach_other_second_solutions() -> None:
    between = 0
    for case in load("lvm_med")["graph_matching_loss"].cases():
        cv, ce = case.inputs["cv"], case.inputs["ce"]
        identity = torch.eye(len(cv), dtype=torch.float64)
        pushed = cv - case.hyper.get("lam", 80.0) * (1 - 2 * identity)
        for costs in (cv, pushed):
            scores = sorted((score for score, _ in ranking(costs, ce, _edges(case))), reverse=True)
            assert case.name == "ties" or len(scores) == 1 or scores[0] - scores[1] > 1e-2
        first, second = solve(cv, ce, _edges(case)), solve(pushed, ce, _edges(case))
        between += not torch.equal(first, second) and not torch.equal(second, identity)
    assert between >= 2


def _edges(case: Case) -> Tensor:
    return torch.einsum("ij,ab->ijab", case.inputs["adj_z"].double(), case.inputs["adj_w"].double())


def test_lvm_med_invariances() -> None:
    case = cases_of("lvm_med", "lvm_med")["small step"]
    here, gradients = value_and_gradients("lvm_med", "lvm_med", case)
    assert any(gradient.any() for gradient in gradients.values())
    scaled = {key: 3.0 * case.inputs[key] for key in ("z", "w", "maps_z")}
    close(value("lvm_med", "lvm_med", changed(case, **scaled)), here)
    order = torch.tensor([3, 1, 4, 0, 2])
    renamed = {key: case.inputs[key][order] for key in ("z", "w", "maps_z", "maps_w", "grid_z", "grid_w")}
    renamed |= {key: case.inputs[key][order][:, order] for key in ("adj_z", "adj_w", "noise_v")}
    renamed["noise_e"] = case.inputs["noise_e"][order][:, order][:, :, order][:, :, :, order]
    close(value("lvm_med", "lvm_med", changed(case, **renamed)), here)
    separated = cases_of("lvm_med", "lvm_med")["no noise"]
    result, gradients = value_and_gradients("lvm_med", "lvm_med", separated)
    assert result == 0
    assert not any(gradient.any() for gradient in gradients.values())


def test_lvm_med_affinities() -> None:
    case = cases_of("lvm_med", "edge_affinity")["twin nodes"]
    result, gradients = value_and_gradients("lvm_med", "edge_affinity", case)
    assert not result[0, 2].any()
    assert not result.diagonal(dim1=2, dim2=3).any()
    assert result.abs().max() <= 1 + 1e-12
    pair = case.inputs["z"][0] - case.inputs["z"][1], case.inputs["w"][3] - case.inputs["w"][2]
    close(result[0, 1, 3, 2], torch.cosine_similarity(*pair, dim=0))
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    case = cases_of("lvm_med", "vertex_affinity")["one point"]
    q, r = case.inputs["maps_z"][:, 0], case.inputs["maps_w"][:, 0]
    local = torch.cosine_similarity(q[:, None], r[None], dim=2)
    whole = torch.cosine_similarity(case.inputs["z"][:, None], case.inputs["w"][None], dim=2)
    close(value("lvm_med", "vertex_affinity", case), 0.4 * whole + 0.6 * 4 * local)


# metrix


WITH_MIX = ("metrix", "metrix_first_positive", "metrix_anchor_negative", "metrix_multi_similarity")


@pytest.mark.parametrize("loss", [*WITH_MIX, "metrix_contrastive"])
def test_metrix_ignores_lengths_and_order(loss: str) -> None:
    case = cases_of("metrix", loss)["several a class"]
    z, labels, here = case.inputs["z"], case.inputs["labels"], value("metrix", loss, case)
    lengths = torch.linspace(0.2, 4, len(z), dtype=torch.float64)[:, None]
    close(value("metrix", loss, changed(case, z=z * lengths)), here)
    order = torch.tensor([8, 7, 6, 5, 4, 3, 2, 1, 0])
    turned = value("metrix", loss, changed(case, z=z[order], labels=labels[order]))
    assert torch.isclose(turned, here) == (loss != "metrix_first_positive")
    assert all(value("metrix", loss, other) >= 0 for other in cases_of("metrix", loss).values())


def test_metrix_relations() -> None:
    pairs = cases_of("metrix", "metrix")["pairs"]
    close(value("metrix", "metrix", pairs), value("metrix", "metrix_first_positive", pairs))
    crowded = cases_of("metrix", "metrix")["several a class"]
    here, first = (value("metrix", loss, crowded) for loss in ("metrix", "metrix_first_positive"))
    assert not torch.isclose(here, first)
    for case in cases_of("metrix", "metrix").values():
        clean = changed(case, {"lam": 0.0})
        alone = Case("", {key: case.inputs[key] for key in ("z", "labels")}, {"margin": case.hyper.get("margin", 0.5)})
        close(value("metrix", "metrix", clean), value("metrix", "metrix_contrastive", alone))
        if case.name in {"singles", "one class"}:
            close(value("metrix", "metrix", case), value("metrix", "metrix", clean))
    together = cases_of("metrix", "metrix_anchor_negative")["one class"]
    close(
        value("metrix", "metrix_anchor_negative", together),
        value("metrix", "metrix_anchor_negative", changed(together, {"lam": 0.0})),
    )


def test_metrix_pure_mixtures_are_the_other_examples() -> None:
    case = changed(cases_of("metrix", "metrix")["pairs"], mix=torch.tensor(1.0, dtype=torch.float64))
    e, labels = torch.nn.functional.normalize(case.inputs["z"]), case.inputs["labels"]
    same = (labels[:, None] == labels) & ~torch.eye(len(e), dtype=torch.bool)
    distance = (e[:, None] - e).norm(dim=2)
    added = value("metrix", "metrix", case) - value("metrix", "metrix", changed(case, {"lam": 0.0}))
    other = (labels[:, None] != labels).sum(1)
    close(added, 0.4 * (distance * same * other[:, None]).sum() / (same * other[:, None]).sum())


def test_metrix_multi_similarity_has_its_plain_form() -> None:
    case = cases_of("metrix", "metrix_multi_similarity")["pairs"]
    hyper = {**case.hyper, "lam": 0.0}
    e, labels = torch.nn.functional.normalize(case.inputs["z"]), case.inputs["labels"]
    sim, same = e @ e.T, labels[:, None] == labels
    positives = same & ~torch.eye(len(e), dtype=torch.bool)
    pull = torch.log(1 + (torch.exp(-2 * (sim - 0.3)) * positives).sum(1)) / 2
    push = torch.log(1 + (torch.exp(5 * (sim - 0.3)) * ~same).sum(1)) / 5
    close(value("metrix", "metrix_multi_similarity", changed(case, hyper)), (pull + push).mean())


def test_utilization_is_zero_on_stored_queries() -> None:
    case = cases_of("metrix", "utilization")["few queries"]
    assert 0 <= value("metrix", "utilization", case) <= 4
    close(value("metrix", "utilization", changed(case, z=2 * case.inputs["w"][:4])), 0.0)
