"""Closed forms, in torch, of the segmentation losses: name -> (form, inputs, other hyperparameters)."""

import torch
import torch.nn.functional as F


def planes(labels, classes):
    return F.one_hot(labels, classes).movedim(-1, 1).double()


def masses(logits, labels):
    """Common, predicted and true mass of each image and class."""
    p, t = logits.softmax(1), planes(labels, logits.shape[1]).to(logits.dtype)
    return (p * t).sum((-2, -1)), p.sum((-2, -1)), t.sum((-2, -1))


def dice(logits, labels, smooth=1.0):
    common, predicted, true = masses(logits, labels)
    return (1 - (2 * common + smooth) / (predicted + true + smooth)).mean()


def binary_dice(logits, target, smooth=1.0):
    p, t = logits.sigmoid().flatten(1), target.flatten(1)
    return (1 - (2 * (p * t).sum(1) + smooth) / (p.sum(1) + t.sum(1) + smooth)).mean()


def soft_jaccard(logits, labels, smooth=1.0):
    common, predicted, true = masses(logits, labels)
    return (1 - (common + smooth) / (predicted + true - common + smooth)).mean()


def index(logits, labels, alpha, beta, smooth):
    common, predicted, true = masses(logits, labels)
    return (common + smooth) / (common + alpha * (predicted - common) + beta * (true - common) + smooth)


def tversky(logits, labels, alpha=0.3, beta=0.7, smooth=1.0):
    return 1 - index(logits, labels, alpha, beta, smooth).mean()


def focal_tversky(logits, labels, alpha=0.3, beta=0.7, gamma=0.75, smooth=1.0):
    return ((1 - index(logits, labels, alpha, beta, smooth)) ** gamma).mean()


def pixel_cross_entropy(logits, labels, ignore=255):
    labels = labels.clone()
    labels[(labels == ignore) | (labels < 0) | (labels >= logits.shape[1])] = -100
    return F.cross_entropy(logits, labels, ignore_index=-100)


def binary_focal_pixels(logits, target, gamma=2.0, alpha=0.25):
    p = logits.sigmoid()
    found = -alpha * target * (1 - p) ** gamma * torch.log(p)
    return (found - (1 - alpha) * (1 - target) * p**gamma * torch.log(1 - p)).mean()


def boundary(logits, distance):
    return (logits.softmax(1) * distance).mean()


def extension(error, truth):
    """Lovász extension of |M| / |truth or M|, M the set of wrong pixels, by adding pixels one at a time."""
    error, truth = error.flatten(), set(truth.flatten().nonzero().flatten().tolist())
    wrong, before, total = set(), 0.0, error.new_zeros(())
    for place in error.argsort(descending=True, stable=True).tolist():
        wrong.add(place)
        now = len(wrong) / len(truth | wrong)
        total = total + error[place] * (now - before)
        before = now
    return total


def lovasz_hinge(logits, target):
    error = (1 - logits * (2 * target.to(logits.dtype) - 1)).relu()
    return torch.stack([extension(e, t) for e, t in zip(error, target, strict=True)]).mean()


def lovasz_softmax(logits, labels):
    p, images = logits.softmax(1), []
    for n in range(len(logits)):
        present = labels[n].unique().tolist()
        terms = [extension(((labels[n] == c).to(p.dtype) - p[n, c]).abs(), labels[n] == c) for c in present]
        images.append(torch.stack(terms).mean())
    return torch.stack(images).mean()


def classes(draw):
    return {"logits": draw.normal(3, 4, 5, 6), "labels": draw.integers(3, 5, 6, below=4)}


def with_gaps(draw):
    found = classes(draw)
    found["labels"][draw.bits(3, 5, 6, chance=0.3)] = 255
    found["labels"][:, 0, 0] = -1
    return found


def soft(draw):
    return {"logits": draw.normal(3, 4, 5), "target": draw.uniform(3, 4, 5)}


LOSSES = {
    "dice": (dice, classes, {"smooth": 0.1}),
    "binary_dice": (binary_dice, soft, {"smooth": 0.1}),
    "soft_jaccard": (soft_jaccard, classes, {"smooth": 2.0}),
    "tversky": (tversky, classes, {"alpha": 0.9, "beta": 0.2}),
    "focal_tversky": (focal_tversky, classes, {"gamma": 1.5, "smooth": 0.5}),
    "pixel_cross_entropy": (pixel_cross_entropy, with_gaps, {"ignore": 2}),
    "binary_focal_pixels": (binary_focal_pixels, soft, {"gamma": 0.5, "alpha": 0.6}),
    "boundary": (
        boundary,
        lambda draw: {"logits": draw.normal(2, 3, 4, 5), "distance": draw.normal(2, 3, 4, 5)},
        {},
    ),
    "lovasz_hinge": (
        lovasz_hinge,
        lambda draw: {"logits": draw.normal(3, 4, 5), "target": draw.bits(3, 4, 5)},
        {},
    ),
    "lovasz_softmax": (lovasz_softmax, classes, {}),
}
