"""YOLOv8-TO: instance segmentation with a term that draws bars (arXiv:2404.18763)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .base import Case, Draw, Hyper, Inputs, stateless, total, whole

TINY = 1e-7
Levels = list[tuple[int, int, int]]
RASTER = {"epsilon": 0.001, "grid": 200, "t_min": 0.001, "t_max": 0.2, "smooth": 1.0}
GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "reg_gain": 1.0}
ASSIGNER = {"topk": 10, "alpha": 0.5, "beta": 6.0, "img_h": 640, "img_w": 640}


def _bce(x: Tensor, target: Tensor | float) -> Tensor:
    return softplus(x) - target * x


def complete_iou(p: Tensor, q: Tensor) -> Tensor:
    """CIoU of two boxes x1 y1 x2 y2."""
    wp, hp, wq, hq = p[2] - p[0], p[3] - p[1] + TINY, q[2] - q[0], q[3] - q[1] + TINY
    across = (torch.minimum(p[2], q[2]) - torch.maximum(p[0], q[0])).clamp(min=0)
    down = (torch.minimum(p[3], q[3]) - torch.maximum(p[1], q[1])).clamp(min=0)
    shared = across * down
    iou = shared / (wp * hp + wq * hq - shared + TINY)
    wide = torch.maximum(p[2], q[2]) - torch.minimum(p[0], q[0])
    tall = torch.maximum(p[3], q[3]) - torch.minimum(p[1], q[1])
    diagonal = wide**2 + tall**2 + TINY
    apart = ((p[0] + p[2] - q[0] - q[2]) / 2) ** 2 + ((p[1] + p[3] - q[1] - q[3]) / 2) ** 2
    v = 4 / math.pi**2 * (torch.atan(wq / hq) - torch.atan(wp / hp)) ** 2
    weight = (v / (v - iou + 1 + TINY)).detach()
    return iou - apart / diagonal - weight * v


def _crop(mask: Tensor, box: Tensor) -> Tensor:
    """The mask, zero outside the box given in fractions."""
    h, w = mask.shape
    x1, y1, x2, y2 = box.tolist()
    columns = torch.tensor([float(x1 * w <= c < x2 * w) for c in range(w)], dtype=box.dtype)
    rows = torch.tensor([float(y1 * h <= r < y2 * h) for r in range(h)], dtype=box.dtype)
    return mask.to(box.dtype) * rows[:, None] * columns


def bar(design: Tensor, box: Tensor, shape: torch.Size, hyper: Hyper) -> Tensor:
    """Soft raster [H, W] of one bar inside its box."""
    h, w = shape
    x1, x2 = (box[0] + design[i] * (box[2] - box[0]) for i in (0, 2))
    y1, y2 = (box[1] + design[i] * (box[3] - box[1]) for i in (1, 3))
    thick = hyper["t_min"] + design[4] * (hyper["t_max"] - hyper["t_min"])
    length = torch.sqrt((x1 - x2) ** 2 + (y1 - y2) ** 2) + 1e-4
    theta = torch.atan2(y2 - y1 + 1e-10, x2 - x1 + 1e-10)
    grid = int(hyper["grid"])
    columns = torch.tensor([c * (grid + 1) // w / grid for c in range(w)], dtype=box.dtype)
    rows = torch.tensor([r * (grid + 1) // h / grid for r in range(h)], dtype=box.dtype)
    dx, dy = (columns - (x1 + x2) / 2)[None, :], (rows - (y1 + y2) / 2)[:, None]
    along = (torch.cos(theta) * dx + torch.sin(theta) * dy) / (length / 2 + 1e-9)
    across = (torch.cos(theta) * dy - torch.sin(theta) * dx) / (thick / 2 + 1e-9)
    phi = 1 - (along**6 + across**6 + 1e-9) ** (1 / 6)
    return torch.sigmoid(phi / hyper["epsilon"])


def _dice(drawn: Tensor, wanted: Tensor, smooth: float) -> Tensor:
    return (2 * (drawn * wanted).sum() + smooth) / (drawn.sum() + wanted.sum() + smooth)


def _reconstruction(design: Tensor, box: Tensor, mask: Tensor, hyper: Hyper) -> Tensor:
    drawn = bar(design, box, mask.shape, hyper)
    return 1 - _dice(drawn, _crop(mask, box.detach()), hyper["smooth"])


def _segmentation(coeff: Tensor, proto: Tensor, box: Tensor, mask: Tensor) -> Tensor:
    logits = torch.einsum("k,khw->hw", coeff, proto)
    inside = _crop(torch.ones_like(logits), box.detach())
    area = ((box[2] - box[0]) * (box[3] - box[1])).detach()
    return (_bce(logits, mask.to(logits.dtype)) * inside).mean() / area


def reconstruction(inputs: Inputs, hyper: Hyper) -> Tensor:
    design, boxes, masks = inputs["design"], inputs["boxes"], inputs["masks"]
    terms = [_reconstruction(design[p], boxes[p], masks[p], hyper) for p in range(design.shape[0])]
    return total(terms, design) / max(1, len(terms))


def segmentation(inputs: Inputs, hyper: Hyper) -> Tensor:
    del hyper
    coeff, proto, boxes, masks = (inputs[key] for key in ("coeff", "proto", "boxes", "masks"))
    terms = [_segmentation(coeff[p], proto, boxes[p], masks[p]) for p in range(coeff.shape[0])]
    return total(terms, coeff) / max(1, len(terms))


def dice(inputs: Inputs, hyper: Hyper) -> Tensor:
    design, boxes, image = inputs["design"], inputs["boxes"], inputs["image"]
    drawn = torch.zeros(image.shape, dtype=design.dtype)
    for p in range(design.shape[0]):
        drawn = drawn + bar(design[p], boxes[p], image.shape, hyper)
    return _dice(drawn.clamp(max=1), image.to(design.dtype), hyper["smooth"])


@dataclass(frozen=True)
class Assignment:
    """Which object each anchor of an image learns: index or -1, and the weight of its class target."""

    objects: list[int]
    weights: list[float]


def assign(scores: Tensor, places: tuple[Tensor, Tensor], labels: list[int], boxes: Tensor, hyper: Hyper) -> Assignment:
    """Task-aligned assignment for one image; `places` holds predicted boxes and anchor centres, in pixels."""
    predicted, centres = places
    anchors, objects = range(scores.shape[0]), range(len(labels))
    inside = [[False for _ in anchors] for _ in objects]
    overlap = [[0.0 for _ in anchors] for _ in objects]
    aligned = [[0.0 for _ in anchors] for _ in objects]
    for g in objects:
        if boxes[g].sum().item() <= 0:
            continue
        for a in anchors:
            edges = torch.cat([centres[a] - boxes[g, :2], boxes[g, 2:] - centres[a]])
            inside[g][a] = edges.min().item() > 1e-9
            if inside[g][a]:
                overlap[g][a] = max(complete_iou(boxes[g], predicted[a]).item(), 0.0)
                score = torch.sigmoid(scores[a, labels[g]]).item()
                aligned[g][a] = score ** hyper["alpha"] * overlap[g][a] ** hyper["beta"]
    chosen = [[False for _ in anchors] for _ in objects]
    for g in objects:
        best = sorted(anchors, key=lambda a: -aligned[g][a])[: int(hyper["topk"])]
        for a in best:
            chosen[g][a] = inside[g][a]
    for a in anchors:
        if sum(chosen[g][a] for g in objects) > 1:
            winner = max(objects, key=lambda g: overlap[g][a])
            for g in objects:
                chosen[g][a] = g == winner
    weights = [0.0 for _ in anchors]
    for g in objects:
        members = [a for a in anchors if chosen[g][a]]
        top = max((overlap[g][a] for a in members), default=0.0)
        peak = max((aligned[g][a] for a in members), default=0.0)
        for a in members:
            weights[a] = max(weights[a], aligned[g][a] * top / (peak + 1e-9))
    owners = [next((g for g in objects if chosen[g][a]), -1) for a in anchors]
    return Assignment(owners, weights)


def _bins_loss(dist: Tensor, anchor: Tensor, box: Tensor) -> Tensor:
    """Distribution focal loss of the four sides, box in grid units."""
    bins = dist.shape[1]
    distances = torch.cat([anchor - box[:2], box[2:] - anchor]).clamp(0, bins - 1.01)
    sides = []
    for side, d in enumerate(distances.tolist()):
        log_p, low = torch.log_softmax(dist[side], 0), math.floor(d)
        sides.append(-(low + 1 - d) * log_p[low] - (d - low) * log_p[low + 1])
    return torch.stack(sides).mean()


def yolov8_to(inputs: Inputs, hyper: Hyper) -> Tensor:
    scores: Tensor = inputs["scores"]
    dist: Tensor = inputs["dist"]
    anchors, stride = inputs["anchors"].detach(), inputs["stride"].detach()
    gt_boxes, masks = inputs["gt_boxes"].detach(), inputs["masks"]
    batch, classes = len(scores), scores.shape[2]
    size = scores.new_tensor([hyper["img_w"], hyper["img_h"]] * 2)
    reach = torch.softmax(dist, -1) @ torch.arange(dist.shape[-1], dtype=scores.dtype)
    grid_boxes = torch.cat([anchors - reach[..., :2], anchors + reach[..., 2:]], -1)
    pixel_boxes = grid_boxes * stride[:, None]
    mass, cls_terms, box_terms, dfl_terms, seg_terms, rec_terms = 0.0, [], [], [], [], []
    for b in range(batch):
        labels = inputs["gt_labels"][b].tolist()
        found = assign(
            scores[b].detach(),
            (pixel_boxes[b].detach(), anchors * stride[:, None]),
            labels,
            gt_boxes[b],
            hyper,
        )
        seg, rec = [], []
        for a, (g, weight) in enumerate(zip(found.objects, found.weights, strict=True)):
            wanted = [weight if g >= 0 and c == labels[g] else 0.0 for c in range(classes)]
            cls_terms += [_bce(scores[b, a, c], wanted[c]) for c in range(classes)]
            if g < 0:
                continue
            mass += weight
            target = gt_boxes[b, g] / stride[a]
            box_terms.append(weight * (1 - complete_iou(grid_boxes[b, a], target)))
            dfl_terms.append(weight * _bins_loss(dist[b, a], anchors[a], target))
            fraction = gt_boxes[b, g] / size
            seg.append(_segmentation(inputs["coeff"][b, a], inputs["proto"][b], fraction, masks[b, g]))
            drawn_in = (pixel_boxes[b, a] / size).clamp(0, 1)
            rec.append(_reconstruction(inputs["design"][b, a], drawn_in, masks[b, g], hyper))
        if seg:
            seg_terms.append(torch.stack(seg).mean())
            rec_terms.append(torch.stack(rec).mean())
    z = max(mass, 1.0)
    part = {
        "cls": total(cls_terms, scores) / z,
        "box": total(box_terms, scores) / z + total(seg_terms, scores) / batch,
        "dfl": total(dfl_terms, scores) / z,
        "reg_gain": total(rec_terms, scores) / batch,
    }
    return batch * torch.stack([hyper[gain] * value for gain, value in part.items()]).sum()


def _anchor_points(levels: Levels, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Centres and strides of grids given as (rows, columns, stride)."""
    points = [(c + 0.5, r + 0.5, s) for rows, columns, s in levels for r in range(rows) for c in range(columns)]
    return torch.tensor([p[:2] for p in points], dtype=dtype), torch.tensor([p[2] for p in points], dtype=dtype)


def _scene(seed: int, dtype: torch.dtype, sizes: tuple[int, ...], levels: Levels) -> Inputs:
    """Objects of a third to two thirds of the image, predictions of about that size, the last row padding."""
    b, c, r, k, h, w, g = sizes
    draw = Draw(seed, dtype)
    anchors, stride = _anchor_points(levels, dtype)
    a = anchors.shape[0]
    height, width = levels[0][0] * levels[0][2], levels[0][1] * levels[0][2]
    size = draw.real([width, height])
    corner = draw.uniform(b, g, 2, low=0.02, high=0.3) * size
    extent = draw.uniform(b, g, 2, low=0.35, high=0.65) * size
    boxes = torch.cat([corner, corner + extent], -1)
    boxes[:, -1] = 0
    bins = torch.arange(r, dtype=dtype)
    wanted = draw.uniform(b, a, 4, 1, low=0.15, high=0.5) * size.mean() / stride[:, None, None]
    return {
        "scores": draw.normal(b, a, c),
        "dist": -0.5 * (bins - wanted) ** 2 + draw.normal(b, a, 4, r, scale=0.3),
        "coeff": draw.normal(b, a, k, scale=0.5),
        "proto": draw.normal(b, k, h, w),
        "design": draw.uniform(b, a, 5, low=0.1, high=0.9),
        "anchors": anchors,
        "stride": stride,
        "gt_labels": draw.integers(b, g, below=c),
        "gt_boxes": boxes,
        "masks": draw.bits(b, g, h, w).long(),
    }


def yolov8_to_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    names = ("scores", "dist", "coeff", "proto", "design", "anchors", "stride", "gt_boxes")

    def case(name: str, seed: int, sizes: tuple[int, ...], levels: Levels, hyper: Hyper) -> Case:
        inputs = _scene(seed, dtype, sizes, levels)
        if name == "padding only":
            inputs["gt_boxes"] = torch.zeros_like(inputs["gt_boxes"])
        if name == "an empty image":
            inputs["gt_boxes"][0] = 0
        height, width, step = levels[0]
        return Case(name, inputs, {"img_h": height * step, "img_w": width * step, **hyper}, differentiable=names)

    smooth, thick = {"epsilon": 0.05, "grid": 40}, {"t_max": 0.6, "smooth": 0.2, "alpha": 1.0}
    return [
        case("two levels", 5301, (3, 1, 9, 6, 11, 13, 7), [(4, 5, 8), (2, 3, 16)], {**smooth, "topk": 5}),
        case("classes", 5302, (1, 3, 12, 7, 10, 8, 6), [(5, 6, 8)], {**smooth, "topk": 4, "reg_gain": 0.1}),
        case("sharp bars", 5303, (1, 6, 8, 3, 14, 12, 7), [(3, 6, 16)], {"topk": 3, "beta": 2.0, "alpha": 1.0}),
        case("an empty image", 5304, (3, 1, 10, 8, 9, 12, 6), [(4, 5, 8)], {**smooth, "topk": 6, "box": 1.0}),
        case("padding only", 5305, (1, 3, 7, 6, 8, 9, 11), [(3, 4, 8)], {"topk": 2, "cls": 2.0}),
        case(
            "thick bars",
            5306,
            (3, 1, 11, 6, 16, 15, 8),
            [(4, 5, 8)],
            {**smooth, "topk": 1, **thick},
        ),
    ]


def _fractions(draw: Draw, p: int) -> Tensor:
    corner, extent = draw.uniform(p, 2, low=0.03, high=0.35), draw.uniform(p, 2, low=0.3, high=0.6)
    return torch.cat([corner, corner + extent], -1)


def _bars(draw: Draw, p: int) -> Inputs:
    return {"design": draw.uniform(p, 5, low=0.05, high=0.95), "boxes": _fractions(draw, p)}


def reconstruction_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper) -> Case:
        p, h, w = sizes
        draw = Draw(seed, dtype)
        inputs = {**_bars(draw, p), "masks": draw.bits(p, h, w, chance=0.6).long()}
        return Case(name, inputs, hyper, differentiable=("design", "boxes") if p else ())

    thick = {"epsilon": 0.05, "t_min": 0.1, "t_max": 0.8, "smooth": 0.1, "grid": 17}
    return [
        case("defaults", 5311, (4, 24, 20), {}),
        case("blurred", 5312, (3, 9, 11), {"epsilon": 0.1, "grid": 30}),
        case("thick", 5313, (6, 13, 8), thick),
        case("one bar", 5314, (1, 16, 17), {"epsilon": 0.02}),
        case("no bars", 5315, (0, 7, 6), {}),
    ]


def segmentation_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...]) -> Case:
        p, k, h, w = sizes
        draw = Draw(seed, dtype)
        inputs = {
            "coeff": draw.normal(p, k),
            "proto": draw.normal(k, h, w),
            "boxes": _fractions(draw, p),
            "masks": draw.bits(p, h, w).long(),
        }
        return Case(name, inputs, differentiable=("coeff", "proto", "boxes") if p else ())

    edges = case("boxes on pixel edges", 5325, (2, 3, 8, 16))
    edges.inputs["boxes"] = Draw(0, dtype).real([[0.25, 0.125, 0.75, 0.5], [0.0, 0.0, 1.0, 1.0]])
    return [
        case("few objects", 5321, (3, 6, 10, 12)),
        case("many objects", 5322, (8, 5, 7, 9)),
        case("one object", 5323, (1, 3, 15, 11)),
        case("no objects", 5324, (0, 3, 6, 5)),
        edges,
    ]


def dice_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper) -> Case:
        p, h, w = sizes
        draw = Draw(seed, dtype)
        inputs = {**_bars(draw, p), "image": draw.bits(h, w, chance=0.5).long()}
        return Case(name, inputs, hyper, differentiable=("design", "boxes"))

    blank = case("blank image", 5334, (3, 9, 8), {"epsilon": 0.05, "smooth": 0.5})
    blank.inputs["image"] = whole([[0] * 8] * 9)
    return [
        case("defaults", 5331, (4, 22, 25), {}),
        case("overlapping", 5332, (8, 10, 12), {"epsilon": 0.1, "t_max": 0.7, "grid": 50}),
        case("one bar", 5333, (1, 12, 9), {"epsilon": 0.03, "t_min": 0.05}),
        blank,
    ]


REFERENCES = {
    "yolov8_to": stateless(yolov8_to, {**GAINS, **ASSIGNER, **RASTER}, yolov8_to_cases),
    "yolov8_to_reconstruction": stateless(reconstruction, RASTER, reconstruction_cases),
    "yolov8_to_segmentation": stateless(segmentation, {}, segmentation_cases),
    "yolov8_to_dice": stateless(dice, RASTER, dice_cases),
}
