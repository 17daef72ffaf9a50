"""Properties of the image references."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import softplus

from .base import Case, Draw
from .checks import cases_of, changed, close, load, value, value_and_gradients
from .yolov8_to import assign, bar, complete_iou

torch.set_num_threads(1)


# ms_ssim


def test_ms_ssim_at_equal_images_and_under_scaling() -> None:
    case = cases_of("ms_ssim", "ms_ssim")["equal images"]
    result, gradients = value_and_gradients("ms_ssim", "ms_ssim", case)
    close(result, -42.0)
    assert max(gradient.abs().max() for gradient in gradients.values()) < 1e-9
    for name, case in cases_of("ms_ssim", "ms_ssim").items():
        x, y, here = case.inputs["x"], case.inputs["y"], value("ms_ssim", "ms_ssim", case)
        close(value("ms_ssim", "ms_ssim", changed(case, x=y, y=x)), here, 1e-9)
        assert here >= -x.shape[2] * x.shape[3] - 1e-9
        assert (here > 0) == (name == "negative")
        larger = {"data_range": 3 * case.hyper.get("data_range", 1.0)}
        close(value("ms_ssim", "ms_ssim", changed(case, larger, x=3 * x, y=3 * y)), here, 1e-9)
        mapped = load("ms_ssim")["ms_ssim_map"].function(case.inputs, case.hyper, {})[0]
        close(-mapped.mean(1).sum((1, 2)).mean(), here)


def test_ms_ssim_map_at_one_pixel_of_a_single_scale() -> None:
    case = cases_of("ms_ssim", "ms_ssim_map")["single scale"]
    x, y = case.inputs["x"][0, 2], case.inputs["y"][0, 2]
    weights, a, b = [], [], []
    for row in range(6):
        for column in range(5):
            if abs(row - 5) <= 1 and abs(column - 3) <= 1:
                weights.append(math.exp(-((row - 5) ** 2 + (column - 3) ** 2) / (2 * 1.5**2)))
                a.append(x[row, column])
                b.append(y[row, column])
    g = torch.tensor(weights, dtype=torch.float64)
    g, u, v = g / g.sum(), torch.stack(a), torch.stack(b)
    mx, my = (g * u).sum(), (g * v).sum()
    vx, vy = (g * (u - mx) ** 2).sum(), (g * (v - my) ** 2).sum()
    cxy = (g * (u - mx) * (v - my)).sum()
    ssim = (2 * mx * my + 0.05**2) * (2 * cxy + 0.1**2)
    ssim = ssim / ((mx**2 + my**2 + 0.05**2) * (vx + vy + 0.1**2))
    close(value("ms_ssim", "ms_ssim_map", case)[0, 2, 5, 3], ssim)


def test_ms_ssim_image_relations() -> None:
    case = cases_of("ms_ssim", "ms_ssim_image")["single scale"]
    plain = changed(case, exponents=torch.ones(1, dtype=torch.float64))
    inputs = {key: case.inputs[key] for key in "xy"}
    mapped = load("ms_ssim")["ms_ssim_map"].function(inputs, {"scales": 1, **case.hyper}, {})[0]
    close(value("ms_ssim", "ms_ssim_image", plain), 1 - mapped[:, :, 2:-2, 2:-2].mean())
    same = changed(cases_of("ms_ssim", "ms_ssim_image")["five scales"])
    close(value("ms_ssim", "ms_ssim_image", changed(same, x=same.inputs["y"])), 0.0)
    clamped = cases_of("ms_ssim", "ms_ssim_image")["one image clamped to zero"]
    _, gradients = value_and_gradients("ms_ssim", "ms_ssim_image", clamped)
    assert not gradients["x"][1].any()
    assert gradients["x"][0].any()


def test_el_vae_parts() -> None:
    case = cases_of("ms_ssim", "el_vae")["posterior is the prior"]
    images = {key: case.inputs[key] for key in "xy"}
    close(value("ms_ssim", "el_vae", case), value("ms_ssim", "ms_ssim", Case("", images, case.hyper)))
    case = cases_of("ms_ssim", "el_vae")["weighted"]
    posterior = torch.distributions.Normal(case.inputs["mu"], torch.exp(case.inputs["logvar"] / 2))
    divergence = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    close(value("ms_ssim", "el_vae", changed(case, {"scale": 0.0})), divergence.sum(1).mean())


# mono_vifi


def test_photometric_is_symmetric_and_bounded() -> None:
    for case in load("mono_vifi")["photometric"].cases():
        here = value("mono_vifi", "photometric", case)
        x, y = case.inputs["x"], case.inputs["y"]
        close(value("mono_vifi", "photometric", changed(case, x=y, y=x)), here)
        assert here.min() >= 0
        assert here.max() <= 1
        close(value("mono_vifi", "photometric", changed(case, x=y)), torch.zeros_like(here))


def test_reproject_follows_the_camera() -> None:
    case = cases_of("mono_vifi", "reproject")["defaults"]
    source = case.inputs["source"]
    still = torch.eye(3, 4, dtype=torch.float64).expand(2, 3, 4)
    close(value("mono_vifi", "reproject", changed(case, pose=still)), source, 1e-5)
    # A shift by one pixel: depth times the inverse focal length.
    disp = torch.full_like(case.inputs["disp"], 0.5)
    depth = 1 / (0.01 + 9.99 * 0.5)
    moved = still.clone()
    moved[:, 0, 3] = depth / case.inputs["intr"][:, 0, 0]
    result = value("mono_vifi", "reproject", changed(case, pose=moved, disp=disp))
    close(result[..., :-1], source[..., 1:], 1e-5)
    close(result[..., -1], source[..., -1], 1e-5)
    outside = cases_of("mono_vifi", "reproject")["leaves the image"]
    _, gradients = value_and_gradients("mono_vifi", "reproject", outside)
    assert (gradients["disp"] == 0).any()
    assert (gradients["disp"] != 0).any()


def test_smoothness_and_si_log_ignore_scales() -> None:
    case = cases_of("mono_vifi", "smoothness")["grey"]
    here = value("mono_vifi", "smoothness", case)
    close(value("mono_vifi", "smoothness", changed(case, disp=5 * case.inputs["disp"])), here, 1e-5)
    flat = changed(case, image=torch.zeros_like(case.inputs["image"]))
    disp = case.inputs["disp"] / case.inputs["disp"].mean((1, 2), keepdim=True)
    close(
        value("mono_vifi", "smoothness", flat),
        disp.diff(dim=1).abs().mean() + disp.diff(dim=2).abs().mean(),
        1e-5,
    )
    case = cases_of("mono_vifi", "si_log")["scale free"]
    full = changed(case, mask=torch.ones_like(case.inputs["mask"]))
    here = value("mono_vifi", "si_log", full)
    close(value("mono_vifi", "si_log", changed(full, x=4 * case.inputs["x"])), here, 1e-5)
    logs = torch.log(case.inputs["x"]) - torch.log(case.inputs["y"])
    close(here, logs.var(dim=(1, 2), correction=0).mean(), 1e-5)
    assert all(value("mono_vifi", "si_log", other) >= 0 for other in load("mono_vifi")["si_log"].cases())


def test_view_synthesis_takes_the_smallest_error() -> None:
    case = cases_of("mono_vifi", "view_synthesis")["defaults"]
    arguments = case.inputs
    rows = []
    for s in range(2):
        camera = {key: arguments[key] for key in ("intr", "inv_intr", "disp")}
        camera |= {"source": arguments["source"][s], "pose": arguments["pose"][s]}
        seen = load("mono_vifi")["reproject"].function(camera, {}, {})[0]
        for image, noise in ((arguments["source"][s], 1e-5), (seen, 0.0)):
            pair = {"x": image, "y": arguments["target"]}
            error = load("mono_vifi")["photometric"].function(pair, {}, {})[0]
            rows.append(error + noise * arguments["noise"][:, s])
    best = torch.stack(rows).amin(0) * arguments["mask"]
    parts = {"disp": arguments["disp"], "image": arguments["target"]}
    smooth = load("mono_vifi")["smoothness"].function(parts, {}, {})[0]
    close(value("mono_vifi", "view_synthesis", case), best.mean() + 0.001 * smooth)


def test_mono_vifi_is_linear_in_its_weights_and_needs_all_parts() -> None:
    case = cases_of("mono_vifi", "mono_vifi")["nothing covered"]
    depths = [1 / (0.01 + 9.99 * case.inputs[key]) for key in ("disp", "disp_mf")]
    logs = [torch.log(depth + 1e-7)[0] for depth in depths]
    consistency = (logs[0] - logs[1]).var(dim=(1, 2), correction=0).mean()
    added = value("mono_vifi", "mono_vifi", case) - value("mono_vifi", "mono_vifi", changed(case, {"lam": 0.0}))
    close(added, 0.5 * consistency, 1e-7)
    result, gradients = value_and_gradients("mono_vifi", "mono_vifi", cases_of("mono_vifi", "mono_vifi")["defaults"])
    assert result > 0
    assert all(gradient.any() for gradient in gradients.values())


# yolov8_to


def test_complete_iou_of_known_boxes() -> None:
    box = torch.tensor([1.0, 2.0, 5.0, 8.0], dtype=torch.float64)
    close(complete_iou(box, box), 1.0, 1e-6)
    other = torch.tensor([3.0, 2.0, 7.0, 8.0], dtype=torch.float64)
    close(complete_iou(box, other), 12 / 36 - 4 / (36 + 36), 1e-6)
    apart = torch.tensor([11.0, 2.0, 15.0, 8.0], dtype=torch.float64)
    close(complete_iou(box, apart), -100 / (14**2 + 36), 1e-6)
    wide = torch.tensor([0.0, 4.0, 6.0, 6.0], dtype=torch.float64)
    v = 4 / math.pi**2 * (math.atan(4 / 6) - math.atan(3)) ** 2
    iou = 8 / (24 + 12 - 8)
    close(complete_iou(box, wide), iou - v * v / (v - iou + 1), 1e-6)


def _found(case: Case, b: int) -> tuple[list[int], list[float]]:
    """The assignment of one image, from boxes recomputed here."""
    i = case.inputs
    reach = (torch.softmax(i["dist"][b], -1) * torch.arange(i["dist"].shape[-1])).sum(-1)
    boxes = torch.cat([i["anchors"] - reach[:, :2], i["anchors"] + reach[:, 2:]], 1) * i["stride"][:, None]
    places = boxes, i["anchors"] * i["stride"][:, None]
    hyper = {"topk": 10, "alpha": 0.5, "beta": 6.0, **case.hyper}
    found = assign(i["scores"][b], places, i["gt_labels"][b].tolist(), i["gt_boxes"][b], hyper)
    return found.objects, found.weights


def test_assignment_covers_the_cases_that_matter() -> None:
    positives, objects, empty = 0, set(), 0
    for case in load("yolov8_to")["yolov8_to"].cases():
        for b in range(len(case.inputs["scores"])):
            owners, weights = _found(case, b)
            last = case.inputs["gt_labels"].shape[1] - 1
            assert last not in owners
            assert all(0 <= weight <= 1 for weight in weights)
            chosen = {g for g in owners if g >= 0}
            positives += sum(g >= 0 for g in owners)
            objects |= chosen
            empty += not chosen
    assert positives > 50
    assert len(objects) > 3
    assert empty >= 2


def test_yolo_without_objects_is_the_class_term() -> None:
    case = cases_of("yolov8_to", "yolov8_to")["padding only"]
    result, gradients = value_and_gradients("yolov8_to", "yolov8_to", case)
    close(result, 2.0 * softplus(case.inputs["scores"]).sum())
    assert not any(gradients[name].any() for name in ("dist", "coeff", "proto", "design"))


def test_yolo_ignores_the_order_of_objects_and_anchors() -> None:
    case = cases_of("yolov8_to", "yolov8_to")["two levels"]
    here, gradients = value_and_gradients("yolov8_to", "yolov8_to", case)
    assert not any(gradients[name].any() for name in ("anchors", "stride", "gt_boxes"))
    assert all(gradients[name].any() for name in ("scores", "dist", "coeff", "proto", "design"))
    order = torch.tensor([6, 2, 4, 0, 5, 1, 3])
    renamed = {key: case.inputs[key][:, order] for key in ("gt_labels", "gt_boxes", "masks")}
    close(value("yolov8_to", "yolov8_to", changed(case, **renamed)), here)
    turned = {key: case.inputs[key].flip(1) for key in ("scores", "dist", "coeff", "design")}
    turned |= {key: case.inputs[key].flip(0) for key in ("anchors", "stride")}
    close(value("yolov8_to", "yolov8_to", changed(case, **turned)), here)


@pytest.mark.parametrize("gain", ["box", "cls", "dfl", "reg_gain"])
def test_yolo_is_linear_in_its_gains(gain: str) -> None:
    case = cases_of("yolov8_to", "yolov8_to")["classes"]
    default = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "reg_gain": 0.1}[gain]
    off, on, double = (value("yolov8_to", "yolov8_to", changed(case, {gain: k * default})) for k in (0, 1, 2))
    close(double - on, on - off)
    assert on > off


def test_yolo_parts_match_the_losses_of_matched_anchors() -> None:
    case = cases_of("yolov8_to", "yolov8_to")["classes"]
    only = changed(case, {"box": 0.0, "cls": 0.0, "dfl": 0.0, "reg_gain": 1.0})
    owners, _ = _found(case, 0)
    matched = [a for a, g in enumerate(owners) if g >= 0]
    i, size = case.inputs, torch.tensor([48.0, 40.0] * 2, dtype=torch.float64)
    reach = (torch.softmax(i["dist"][0], -1) * torch.arange(12)).sum(-1)
    boxes = torch.cat([i["anchors"] - reach[:, :2], i["anchors"] + reach[:, 2:]], 1) * 8 / size
    masks = torch.stack([i["masks"][0, owners[a]] for a in matched])
    own = {"design": i["design"][0, matched], "boxes": boxes[matched].clamp(0, 1), "masks": masks}
    raster = {"epsilon": 0.05, "grid": 40}
    wanted = value("yolov8_to", "yolov8_to_reconstruction", Case("", own, raster))
    close(value("yolov8_to", "yolov8_to", only), wanted)
    assert 0 <= wanted < 1


def test_bars_are_where_they_should_be() -> None:
    draw = Draw(6, torch.float64)
    hyper = {"epsilon": 0.01, "grid": 200, "t_min": 0.001, "t_max": 0.2, "smooth": 1.0}
    box = torch.tensor([0.1, 0.2, 0.9, 0.8], dtype=torch.float64)
    level = torch.tensor([0.0, 0.5, 1.0, 0.5, 1.0], dtype=torch.float64)
    raster = bar(level, box, torch.Size([30, 41]), hyper)
    assert raster[15, 20] > 0.99
    assert raster[15, 8] > 0.9
    assert raster[9, 20] < 0.01
    assert raster[15, 1] < 0.01
    design = draw.uniform(5)
    turned = torch.cat([design[2:4], design[:2], design[4:]])
    close(bar(turned, box, torch.Size([30, 41]), hyper), bar(design, box, torch.Size([30, 41]), hyper), 1e-5)


def test_dice_score_and_segmentation_values() -> None:
    case = cases_of("yolov8_to", "yolov8_to_dice")["one bar"]
    assert 0 < value("yolov8_to", "yolov8_to_dice", case) < 1
    blank = cases_of("yolov8_to", "yolov8_to_dice")["blank image"]
    assert value("yolov8_to", "yolov8_to_dice", blank) < 0.2
    edges = cases_of("yolov8_to", "yolov8_to_segmentation")["boxes on pixel edges"]
    logits = torch.einsum("pk,khw->phw", edges.inputs["coeff"], edges.inputs["proto"])
    entropy = softplus(logits) - edges.inputs["masks"] * logits
    # The first box holds columns 4 to 11 and rows 1 to 3, the second one everything.
    wanted = (entropy[0, 1:4, 4:12].sum() / 128 / (0.5 * 0.375) + entropy[1].mean()) / 2
    close(value("yolov8_to", "yolov8_to_segmentation", edges), wanted)
    _, gradients = value_and_gradients("yolov8_to", "yolov8_to_segmentation", edges)
    assert not gradients["boxes"].any()
