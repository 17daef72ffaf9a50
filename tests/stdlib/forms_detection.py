"""Closed forms, in torch, of the detection losses: name -> (form, inputs, other hyperparameters)."""

import math
from itertools import permutations

import torch
import torch.nn.functional as F


def area(box):
    return (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])


def crossed(p, q):
    """Intersection, union and hull of two boxes."""
    low, high = torch.maximum(p[..., :2], q[..., :2]), torch.minimum(p[..., 2:], q[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    hull = torch.cat([torch.minimum(p[..., :2], q[..., :2]), torch.maximum(p[..., 2:], q[..., 2:])], -1)
    return shared, area(p) + area(q) - shared, hull


def iou(p, q, eps=1e-7):
    del eps
    shared, union, _ = crossed(p, q)
    return shared / union


def giou(p, q, eps=1e-7):
    del eps
    shared, union, hull = crossed(p, q)
    return shared / union - (area(hull) - union) / area(hull)


def diou(p, q, eps=1e-7):
    del eps
    _, _, hull = crossed(p, q)
    gap = (p[..., :2] + p[..., 2:] - q[..., :2] - q[..., 2:]).square().sum(-1) / 4
    return iou(p, q) - gap / (hull[..., 2:] - hull[..., :2]).square().sum(-1)


def ciou(p, q, eps=1e-7):
    del eps
    angles = [torch.atan((b[..., 2] - b[..., 0]) / (b[..., 3] - b[..., 1])) for b in (p, q)]
    mismatch = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    weight = (mismatch / (1 - iou(p, q) + mismatch)).detach()
    return diou(p, q) - weight * mismatch


def loss_of(score):
    return lambda boxes, targets, eps=1e-7: (1 - score(boxes, targets, eps)).mean()


def smooth_l1_boxes(boxes, targets, beta=1.0):
    return F.smooth_l1_loss(boxes, targets, beta=beta, reduction="sum") / len(boxes)


def distribution_focal(logits, target):
    d = float(target.clamp(0, len(logits) - 1.01))
    low, nll = math.floor(d), -logits.log_softmax(0)
    return (low + 1 - d) * nll[low] + (d - low) * nll[low + 1]


def hungarian(cost):
    rows = range(len(cost))
    best = min(permutations(range(cost.shape[1]), len(cost)), key=lambda p: cost[rows, list(p)].sum().item())
    return torch.tensor(best)


def corners(box):
    return torch.cat([box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2], -1)


def detr(logits, boxes, labels, targets, present, no_object=0.1, l1_weight=5.0, giou_weight=2.0):
    empty = logits.shape[2] - 1
    total, weights, errors = 0.0, 0.0, []
    for b in range(len(logits)):
        real = [g for g in range(labels.shape[1]) if present[b, g]]
        error = {
            (g, q): l1_weight * (boxes[b, q] - targets[b, g]).abs().sum()
            + giou_weight * (1 - giou(corners(boxes[b, q]), corners(targets[b, g])))
            for g in real
            for q in range(boxes.shape[1])
        }
        likely = logits[b].softmax(-1)

        def cost(order, real=real, error=error, likely=likely, b=b):
            pairs = zip(real, order, strict=True)
            return sum((error[g, q] - likely[q, labels[b, g]]).item() for g, q in pairs)

        order = min(permutations(range(boxes.shape[1]), len(real)), key=cost)
        wanted = {q: int(labels[b, g]) for g, q in zip(real, order, strict=True)}
        errors += [error[g, q] for g, q in zip(real, order, strict=True)]
        for q in range(boxes.shape[1]):
            weight = 1 if q in wanted else no_object
            total = total - weight * logits[b, q].log_softmax(0)[wanted.get(q, empty)]
            weights += weight
    return total / weights + sum(errors) / max(1, len(errors))


def box(draw, *shape):
    corner, extent = draw.uniform(*shape, 2), draw.uniform(*shape, 2, low=0.5, high=1.5)
    return torch.cat([corner, corner + extent], -1)


def boxes(draw):
    return {"boxes": box(draw, 6), "targets": box(draw, 6)}


def scene(draw):
    present = draw.bits(2, 3, chance=0.7)
    present[0] = True
    return {
        "logits": draw.normal(2, 5, 4),
        "boxes": draw.uniform(2, 5, 4, low=0.2, high=0.6),
        "labels": draw.integers(2, 3, below=3),
        "targets": draw.uniform(2, 3, 4, low=0.2, high=0.6),
        "present": present,
    }


LOSSES = {
    "iou": (iou, lambda draw: {"p": box(draw), "q": box(draw)}, {"eps": 1e-12}),
    "giou": (giou, lambda draw: {"p": box(draw), "q": box(draw) + 1}, {"eps": 1e-12}),
    "diou": (diou, lambda draw: {"p": box(draw), "q": box(draw)}, {"eps": 1e-12}),
    "ciou": (ciou, lambda draw: {"p": box(draw), "q": box(draw)}, {"eps": 1e-12}),
    "iou_loss": (loss_of(iou), boxes, {"eps": 1e-12}),
    "giou_loss": (loss_of(giou), boxes, {"eps": 1e-12}),
    "diou_loss": (loss_of(diou), boxes, {"eps": 1e-12}),
    "ciou_loss": (loss_of(ciou), boxes, {"eps": 1e-12}),
    "smooth_l1_boxes": (smooth_l1_boxes, boxes, {"beta": 0.3}),
    "distribution_focal": (
        distribution_focal,
        lambda draw: {"logits": draw.normal(7), "target": draw.uniform(1, low=-1, high=8).squeeze()},
        {},
    ),
    "hungarian": (hungarian, lambda draw: {"cost": draw.normal(4, 6)}, {}),
    "detr": (detr, scene, {"no_object": 0.4, "l1_weight": 1.0, "giou_weight": 3.0}),
}
