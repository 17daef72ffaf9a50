"""Properties of the classification, sequence, value-function and online-learning references."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

from .base import Case, Draw, unit
from .checks import cases_of, changed, close, load, value, value_and_gradients
from .stop_regressing import hat, histogram

torch.set_num_threads(1)


# stop_regressing


RANGE = {"v_min": -2.0, "v_max": 3.0, "sigma_ratio": 0.75}


def test_histogram_and_hat_are_distributions() -> None:
    for y in (-2.5, -1.9, 0.37, 2.999):
        scalar = torch.tensor(y, dtype=torch.float64)
        close(histogram(scalar, 20, RANGE).sum(), 1.0)
        close(hat(scalar, 20, RANGE).sum(), 1.0)
        places = torch.linspace(-2, 3, 20, dtype=torch.float64)
        close((hat(scalar, 20, RANGE) * places).sum(), max(y, -2.0))
    narrow = histogram(torch.tensor(0.37, dtype=torch.float64), 20, {**RANGE, "sigma_ratio": 1e-3})
    assert narrow.argmax() == math.floor((0.37 + 2) / 0.25)
    close(narrow.max(), 1.0)


@pytest.mark.parametrize("loss", ["hl_gauss", "two_hot"])
def test_value_losses_reach_their_bound_and_follow_affine_maps(loss: str) -> None:
    case = cases_of("stop_regressing", loss)["few bins"]
    target, hyper = case.inputs["target"], {**RANGE, **case.hyper}
    make = histogram if loss == "hl_gauss" else hat
    p = torch.stack([make(y, 4, hyper) for y in target])
    entropy = -torch.xlogy(p, p).sum(1).mean()
    best = changed(case, logits=torch.log(p.clamp(min=1e-300)) + 3)
    close(value("stop_regressing", loss, best), entropy)
    assert value("stop_regressing", loss, case) > entropy
    moved = changed(case, {"v_min": -1.0 * 3 + 7, "v_max": 2.0 * 3 + 7}, target=3 * target + 7)
    close(value("stop_regressing", loss, moved), value("stop_regressing", loss, case))
    shift = torch.arange(8.0, dtype=torch.float64)[:, None]
    shifted = changed(case, logits=case.inputs["logits"] + shift)
    close(value("stop_regressing", loss, shifted), value("stop_regressing", loss, case))


def test_temporal_difference_stops_at_the_target() -> None:
    for loss in ("hl_gauss_td", "hl_gauss_cql"):
        for case in load("stop_regressing")[loss].cases():
            _, gradients = value_and_gradients("stop_regressing", loss, case)
            assert not any(gradients[name].any() for name in ("reward", "discount", "next_logits"))
            if loss == "hl_gauss_td":
                norms = gradients["logits"].flatten(1).norm(dim=1) * len(case.inputs["actions"])
                assert norms.max() <= math.sqrt(2)


def test_terminal_transitions_fit_the_reward() -> None:
    for loss, plain in (("hl_gauss_td", "hl_gauss"), ("c51", "two_hot")):
        case = changed(cases_of("stop_regressing", loss)["atari"], discount=torch.zeros(4, dtype=torch.float64))
        rows = torch.arange(4)
        inputs = {
            "logits": case.inputs["logits"][rows, case.inputs["actions"]],
            "target": case.inputs["reward"],
        }
        close(value("stop_regressing", loss, case), value("stop_regressing", plain, Case("", inputs)))


def test_conservative_gap_is_added() -> None:
    case = cases_of("stop_regressing", "hl_gauss_cql")["two bins"]
    q = torch.softmax(case.inputs["logits"], 2) @ torch.tensor([-1.25, 0.25], dtype=torch.float64)
    gap = torch.logsumexp(q, 1) - q[torch.arange(3), case.inputs["actions"]]
    added = value("stop_regressing", "hl_gauss_cql", case) - value("stop_regressing", "hl_gauss_td", case)
    close(added, 0.1 * gap.mean())


# prd


def test_prd_relation_is_zero_when_nothing_or_everything_turned() -> None:
    case = cases_of("prd", "prd_relation")["defaults"]
    features, kept = case.inputs["old_features"], case.inputs["kept_old"]
    close(value("prd", "prd_relation", changed(case, features=features, kept=kept)), 0.0)
    turn = torch.linalg.qr(Draw(3, torch.float64).normal(5, 5)).Q
    turned = changed(case, features=2 * features @ turn, kept=kept @ turn)
    close(value("prd", "prd_relation", turned), 0.0)
    assert value("prd", "prd_relation", case) > 0
    _, gradients = value_and_gradients("prd", "prd_relation", case)
    assert not gradients["old_features"].any()
    assert not gradients["kept_old"].any()
    order = torch.tensor([4, 2, 6, 0, 1, 3, 5])
    shuffled = changed(case, kept=case.inputs["kept"][order], kept_old=case.inputs["kept_old"][order])
    close(value("prd", "prd_relation", shuffled), value("prd", "prd_relation", case))


def test_prd_is_the_weighted_sum_of_its_parts() -> None:
    case = cases_of("prd", "prd")["defaults"]
    weights = ((0, 0), (1, 0), (0, 1))
    parts = [value("prd", "prd", changed(case, {"alpha": a, "beta": b})) for a, b in weights]
    close(value("prd", "prd", case), parts[0] + 2 * (parts[1] - parts[0]) + 4 * (parts[2] - parts[0]))
    own = {key: case.inputs[key] for key in ("features", "labels", "prototypes")}
    close(parts[1] - parts[0], value("prd", "prd_prototypes", Case("", own)))
    assert 0 <= parts[1] - parts[0] <= 2
    own = {key: case.inputs[key] for key in ("features", "old_features", "kept", "kept_old")}
    close(parts[2] - parts[0], value("prd", "prd_relation", Case("", own)))
    scaled = {key: 3 * case.inputs[key] for key in ("z", "features", "prototypes", "kept")}
    close(value("prd", "prd", changed(case, **scaled)), value("prd", "prd", case))
    _, gradients = value_and_gradients("prd", "prd_prototypes", cases_of("prd", "prd_prototypes")["one class"])
    assert not gradients["features"].any()


def test_prd_contrast_with_one_or_no_shared_class() -> None:
    case = cases_of("prd", "prd")["one row"]
    close(value("prd", "prd", changed(case, {"alpha": 0.0, "beta": 0.0})), 0.0)
    case = changed(cases_of("prd", "prd")["defaults"], {"alpha": 0.0, "beta": 0.0, "base_tau": 0.1})
    case = changed(case, labels=torch.arange(4), prototypes=torch.ones(4, 5, dtype=torch.float64))
    rows = unit(torch.cat([case.inputs["z"], case.inputs["w"]]))
    logits = (rows @ rows.T / 0.1).fill_diagonal_(-math.inf)
    close(value("prd", "prd", case), cross_entropy(logits, (torch.arange(8) + 4) % 8))


def test_prd_code_distils_task_by_task() -> None:
    case = cases_of("prd", "prd_code")["one task"]
    free = changed(case, {"beta": 0.0})
    now = torch.log_softmax(case.inputs["features"] @ unit(case.inputs["kept"]).T, 1)
    before = torch.log_softmax(case.inputs["old_features"] @ unit(case.inputs["kept_old"]).T, 1)
    added = value("prd", "prd_code", case) - value("prd", "prd_code", free)
    close(added, 4 * (before.exp() * (before - now)).sum(1).mean())
    alone = cases_of("prd", "prd_code")["one prototype a task"]
    close(value("prd", "prd_code", alone), value("prd", "prd_code", changed(alone, {"beta": 0.0})))


# z_loss


def test_z_loss_ignores_shift_and_scale_and_is_bounded() -> None:
    for case in load("z_loss")["z_loss"].cases():
        logits, here = case.inputs["logits"], value("z_loss", "z_loss", case)
        n, c = logits.shape
        a, b = case.hyper.get("a", 1.0), case.hyper.get("b", 0.0)
        if case.name != "large eps":
            moved = logits * torch.arange(1.0, n + 1)[:, None] + 2
            close(value("z_loss", "z_loss", changed(case, logits=moved)), here, 1e-8)
        ends = [softplus(torch.tensor(a * (b + s * math.sqrt(c - 1)))) / a for s in (-1, 1)]
        assert ends[0] - 1e-6 <= here <= ends[1] + 1e-6
        _, gradients = value_and_gradients("z_loss", "z_loss", case)
        close(gradients["logits"].sum(1), torch.zeros(n))
        if case.name != "large eps":
            close((gradients["logits"] * logits).sum(1), torch.zeros(n))


def test_z_loss_forms_agree() -> None:
    for case in load("z_loss")["z_loss_factored"].cases():
        scores = case.inputs["hidden"] @ case.inputs["w"].T
        plain = Case("", {"logits": scores, "labels": case.inputs["labels"]}, case.hyper)
        close(value("z_loss", "z_loss_factored", case), value("z_loss", "z_loss", plain))
        statistics = {
            "target": scores[torch.arange(len(scores)), case.inputs["labels"]],
            "total": scores.sum(1),
            "square": scores.square().sum(1),
        }
        spherical = Case("", statistics, {"classes": scores.shape[1], **case.hyper})
        close(value("z_loss", "z_loss_spherical", spherical), value("z_loss", "z_loss", plain))


def test_z_loss_scores_and_equal_rows() -> None:
    scores = value("z_loss", "z_loss_scores", cases_of("z_loss", "z_loss_scores")["defaults"])
    close(scores.sum(1), torch.zeros(5))
    close(scores.square().sum(1), torch.full((5,), 7.0))
    case = cases_of("z_loss", "z_loss")["equal scores"]
    _, gradients = value_and_gradients("z_loss", "z_loss", case)
    assert not gradients["logits"][[1, 3]].any()
    alone = {key: case.inputs[key][[1, 3]] for key in ("logits", "labels")}
    close(value("z_loss", "z_loss", Case("", alone, case.hyper)), math.log1p(math.exp(1.0)) / 2)
    sharp = changed(cases_of("z_loss", "z_loss")["sharp"], {"a": 1e6})
    own = load("z_loss")["z_loss_scores"].function({"logits": sharp.inputs["logits"]}, {}, {})[0]
    margin = 1.5 - own[torch.arange(4), sharp.inputs["labels"]]
    close(value("z_loss", "z_loss", sharp), margin.clamp(min=0).mean(), 1e-5)


# ensloss


@pytest.mark.parametrize("case", load("ensloss")["ensloss"].cases(), ids=lambda case: case.name)
def test_ensloss_slopes_are_those_of_a_calibrated_loss(case: Case) -> None:
    g = value("ensloss", "ensloss_derivative", case)
    u = case.inputs["score"] * case.inputs["sign"]
    eps = case.hyper.get("eps", 1e-6)
    assert g.min() >= -1 - eps
    assert g.max() <= -eps
    assert (g[u.argsort()].diff() >= 0).all()
    result, gradients = value_and_gradients("ensloss", "ensloss", case)
    close(result, (g * u).mean())
    close(gradients["score"], g * case.inputs["sign"] / len(g))
    assert not gradients["noise"].any()
    flipped = changed(case, noise=case.inputs["noise"].flip(0))
    close(value("ensloss", "ensloss", flipped), result)
    turned = changed(case, score=case.inputs["score"].flip(0), sign=case.inputs["sign"].flip(0))
    close(value("ensloss", "ensloss_derivative", turned), g.flip(0))


def test_ensloss_by_hand() -> None:
    draws = torch.tensor([0.0, -1.0, 2.0], dtype=torch.float64)
    score = torch.tensor([0.5, -1.0, -4.0], dtype=torch.float64)
    inputs = {"score": score, "sign": torch.tensor([1, 1, -1]), "noise": draws}
    # Margins 0.5, -1, 4; slopes -1 (two of them, one cut), -exp(-1) for the largest margin.
    wanted = torch.tensor([-1.0, -1.0, -math.exp(-1) / 4], dtype=torch.float64) - 1e-6
    close(value("ensloss", "ensloss_derivative", Case("", inputs)), wanted)
    # B is infinite at -1 and 2 for lam = -1 (1 + lam v = 0 or less at 1 and beyond), 1 at 0.
    wanted = torch.tensor([-1.0, -1.0, -0.5 / 4], dtype=torch.float64) - 1e-6
    close(value("ensloss", "ensloss_derivative", Case("", inputs, {"lam": -1.0})), wanted)
    # B is 1, 0 and 3 for lam = 1.
    wanted = torch.tensor([-1.0, -1.0, 0.0], dtype=torch.float64) - 1e-6
    close(value("ensloss", "ensloss_derivative", Case("", inputs, {"lam": 1.0})), wanted)


def test_margin_losses_at_zero() -> None:
    inputs = {"score": torch.zeros(3, dtype=torch.float64), "sign": torch.tensor([1, -1, 1])}
    for loss, wanted in (
        ("hinge", 1.0),
        ("exponential", 1.0),
        ("logistic", math.log(2)),
        ("binary_focal", math.log(2) / 4),
    ):
        close(value("ensloss", loss, Case("", inputs)), wanted)


# codegen2


def test_lm_loss_is_masked_cross_entropy_with_a_penalty() -> None:
    case = cases_of("codegen2", "lm_z_loss")["strong penalty"]
    logits, tokens, mask = (case.inputs[key] for key in ("logits", "tokens", "mask"))
    kept = mask[:, 1:].bool()
    shifted = logits[:, :-1][kept]
    wanted = cross_entropy(shifted, tokens[:, 1:][kept]) + 0.3 * torch.logsumexp(shifted, 1).square().mean()
    close(value("codegen2", "lm_z_loss", case), wanted)
    first = mask.clone()
    first[:, 0] = 1 - first[:, 0]
    close(value("codegen2", "lm_z_loss", changed(case, mask=first)), wanted)
    plain = changed(case, {"z_weight": 0.0})
    moved = changed(plain, logits=logits + torch.arange(7.0)[:, None])
    close(value("codegen2", "lm_z_loss", moved), value("codegen2", "lm_z_loss", plain))
    assert not torch.isclose(value("codegen2", "lm_z_loss", changed(moved, {"z_weight": 0.3})), wanted)


def test_codegen2_mixes_its_streams() -> None:
    case = cases_of("codegen2", "codegen2")["strong penalty"]
    parts = []
    for stream in ("clm", "infill"):
        own = {key: case.inputs[f"{stream}_{key}"] for key in ("logits", "tokens", "mask")}
        parts.append(value("codegen2", "lm_z_loss", Case("", own, {"z_weight": 0.5})))
    close(value("codegen2", "codegen2", case), 0.3 * parts[0] + 0.7 * parts[1])
    draw = Draw(4, torch.float64)
    logits, tokens, mask = draw.normal(4, 5, 6), draw.integers(4, 5, below=6), torch.ones(4, 5).bool()
    whole = Case("", {"logits": logits, "tokens": tokens, "mask": mask})
    halves = {f"clm_{key}": tensor[:2] for key, tensor in whole.inputs.items()}
    halves |= {f"infill_{key}": tensor[2:] for key, tensor in whole.inputs.items()}
    close(value("codegen2", "codegen2", Case("", halves)), value("codegen2", "lm_z_loss", whole))


def test_prefix_counts_only_later_targets() -> None:
    case = cases_of("codegen2", "prefix_lm")["no prefix"]
    plain = Case("", {key: case.inputs[key] for key in ("logits", "tokens", "mask")}, case.hyper)
    close(value("codegen2", "prefix_lm", case), value("codegen2", "lm_z_loss", plain))
    case = cases_of("codegen2", "prefix_lm")["strong penalty"]
    late = case.inputs["mask"] * (torch.arange(8) >= case.inputs["prefix"][:, None])
    plain = Case("", {**{key: case.inputs[key] for key in ("logits", "tokens")}, "mask": late}, case.hyper)
    close(value("codegen2", "prefix_lm", case), value("codegen2", "lm_z_loss", plain))


# regret_loss


def _regrets(case: Case) -> Tensor:
    return value("regret_loss", "regret", case)


def test_regret_of_known_play() -> None:
    losses = torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, 2.0]], dtype=torch.float64)
    policy = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], dtype=torch.float64)
    inputs = {"policy": policy[None, None], "losses": losses[None, None]}
    close(value("regret_loss", "regret", Case("", inputs)), torch.tensor([[3.75 - 1.5]]))
    close(value("regret_loss", "dynamic_regret", Case("", inputs)), torch.tensor([[3.75 - 0.5]]))


@pytest.mark.parametrize("case", load("regret_loss")["regret"].cases(), ids=lambda case: case.name)
def test_regret_invariances(case: Case) -> None:
    r, losses = _regrets(case), case.inputs["losses"]
    assert (value("regret_loss", "dynamic_regret", case) >= r - 1e-12).all()
    shift = torch.linspace(-1, 2, losses.shape[2], dtype=torch.float64)[:, None]
    close(_regrets(changed(case, losses=losses + shift)), r)
    close(_regrets(changed(case, losses=2.5 * losses)), 2.5 * r)
    both = {key: case.inputs[key].flip(2).flip(3) for key in ("policy", "losses")}
    close(_regrets(changed(case, **both)), r)


def test_regret_loss_between_mean_and_worst() -> None:
    for case in load("regret_loss")["regret_loss"].cases():
        h = _regrets(Case("", case.inputs)).clamp(min=0).square()
        close(value("regret_loss", "regret_loss", changed(case, {"k": 0.0})), h.mean())
        close(value("regret_loss", "regret_loss", changed(case, {"k": 1e5})), h.amax(1).mean(), 1e-6)
    alone = cases_of("regret_loss", "regret_loss")["one trajectory"]
    close(
        value("regret_loss", "regret_loss", alone),
        _regrets(Case("", alone.inputs)).clamp(min=0).square().mean(),
    )
    close(value("regret_loss", "regret_loss_power", alone), value("regret_loss", "regret_loss", alone))


def test_unbeaten_groups_cost_nothing() -> None:
    for loss in ("regret_loss", "regret_loss_power"):
        case = cases_of("regret_loss", loss)["no regret in a group"]
        assert (_regrets(Case("", case.inputs))[0] < 0).all()
        _, gradients = value_and_gradients("regret_loss", loss, case)
        assert not gradients["policy"][0].any()
        assert gradients["policy"][1].any()
        own = {key: tensor[:1] for key, tensor in case.inputs.items()}
        assert value("regret_loss", loss, Case("", own)) == 0


def test_regret_in_the_ball() -> None:
    case = cases_of("regret_loss", "regret_loss_ball")["wide ball"]
    summed = case.inputs["losses"].sum(1)
    best = -3.5 * unit(summed)
    fixed = best[:, None].expand_as(case.inputs["policy"])
    close(value("regret_loss", "regret_loss_ball", changed(case, policy=fixed)), 0.0, 1e-9)
    still = changed(case, policy=torch.zeros_like(case.inputs["policy"]))
    close(value("regret_loss", "regret_loss_ball", still), (3.5 * summed.norm(dim=1)).square().mean())
