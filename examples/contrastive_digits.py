"""Contrastive learning on scikit-learn's handwritten digits: InfoNCE without labels, SupCon with them.

A small convolutional encoder learns from two random views (turned, shifted, scaled, noisy) of each image:

    info_nce    the two views of an image attract, all other images repel; sees no label
    supcon      all views of a class attract (supervised contrastive, arXiv:2004.11362)

The features are judged by a k-nearest-neighbour vote on held-out images, beside the same vote on raw pixels
and on the untrained encoder's features, in three settings: all training images are labelled; only five of
each class are; all are, but the held-out images are shifted by one pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from _common import expectations, mean_and_error, parser, save, start, table
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from tqdm import tqdm

import lossdsl

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
SETTINGS = ("all labels", "5 labels a class", "shifted by a pixel")


@dataclass(frozen=True)
class Digits:
    """Images [N, 1, 8, 8] with values in [0, 1] and their labels [N], for training and held out."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    @classmethod
    def split(cls, seed: int) -> Digits:
        """A random half for training, the other half held out, classes in equal shares."""
        pixels, labels = load_digits(return_X_y=True)
        images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
        parts = train_test_split(images, torch.tensor(labels), test_size=0.5, stratify=labels, random_state=seed)
        train, test, train_labels, test_labels = parts
        return cls(train, train_labels, test, test_labels)


class Encoder(nn.Module):
    """Two convolutions and a feature layer; the loss sees a projection that is thrown away afterwards."""

    def __init__(self, width: int = 32, features: int = 128, projected: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 16, features),
        )
        self.project = nn.Sequential(nn.ReLU(), nn.Linear(features, projected))

    def forward(self, images: Tensor) -> Tensor:
        """Projections [N, projected] of images [N, 1, 8, 8]."""
        projected: Tensor = self.project(self.body(images))
        return projected


def view(images: Tensor) -> Tensor:
    """Each image turned by up to 20 degrees, scaled by up to 15 percent, shifted by up to a pixel, noisy."""
    n = len(images)
    turn = (2 * torch.rand(n) - 1) * np.pi / 9
    scale = 1 + 0.15 * (2 * torch.rand(n) - 1)
    shift = (2 * torch.rand(n, 2) - 1) * 2 / 8
    cos, sin = torch.cos(turn) * scale, torch.sin(turn) * scale
    affine = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).view(n, 2, 3)
    moved = F.grid_sample(images, F.affine_grid(affine, list(images.shape), align_corners=False), align_corners=False)
    return moved + 0.1 * torch.randn(images.shape)


def objectives() -> dict[str, Objective]:
    """The compiled losses, each as a function of both views' projections and the labels."""
    info_nce, supcon = lossdsl.load("info_nce", tau=0.5), lossdsl.load("supcon", tau=0.2)
    return {
        "InfoNCE": lambda z, w, _: info_nce(z=z, w=w),
        "SupCon": lambda z, w, labels: supcon(z=torch.cat([z, w]), labels=labels.repeat(2)),
    }


def fit(objective: Objective, digits: Digits, epochs: int, label: str, batch: int = 256) -> tuple[Encoder, list[float]]:
    """Train an encoder; returns it and the mean loss of each epoch."""
    encoder = Encoder()
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=1e-4)
    losses = []
    bar = tqdm(range(epochs), desc=label, leave=False)
    for _ in bar:
        values = []
        for rows in torch.randperm(len(digits.train)).split(batch):
            images = digits.train[rows]
            z, w = encoder(torch.cat([view(images), view(images)])).chunk(2)
            loss = objective(z, w, digits.train_labels[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            values.append(loss.item())
        losses.append(float(np.mean(values)))
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return encoder, losses


@torch.no_grad()
def judge(features: Callable[[Tensor], Tensor], digits: Digits, seed: int) -> list[float]:
    """k-NN accuracy in percent, in each of the settings, with cosine distance."""
    generator = np.random.default_rng(seed)
    labels = digits.train_labels.numpy()
    few = np.concatenate([generator.choice(np.flatnonzero(labels == c), 5, replace=False) for c in range(10)])
    every = np.arange(len(labels))

    shifted = torch.cat([digits.test.roll(by, axis) for axis in (2, 3) for by in (-1, 1)])
    known = features(digits.train).numpy()
    accuracies = []
    for rows, neighbours, images in (every, 5, digits.test), (few, 1, digits.test), (every, 5, shifted):
        truth = digits.test_labels.repeat(len(images) // len(digits.test)).numpy()
        vote = KNeighborsClassifier(neighbours, metric="cosine").fit(known[rows], labels[rows])
        accuracies.append(100 * float(vote.score(features(images).numpy(), truth)))
    return accuracies


def run(seed: int, epochs: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Accuracies by features and training curves by objective, for one split of the data."""
    torch.manual_seed(seed)
    digits = Digits.split(seed)
    accuracies = {
        "raw pixels": judge(lambda images: images.flatten(1), digits, seed),
        "untrained encoder": judge(Encoder().body, digits, seed),
    }
    curves = {}
    for name, objective in objectives().items():
        encoder, curves[name] = fit(objective, digits, epochs, f"{name}, seed {seed}")
        accuracies[name] = judge(encoder.body, digits, seed)
    return accuracies, curves


def plot(results: dict[str, np.ndarray], curves: dict[str, list[float]]) -> Figure:
    """Training curves of the first seed, and accuracies with their standard errors."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    for name, losses in curves.items():
        left.plot(losses, label=name)
    left.set(title="training loss", xlabel="epoch")
    left.legend()
    places = np.arange(len(SETTINGS))
    for k, (name, values) in enumerate(results.items()):
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
        right.bar(places + 0.2 * (k - 1.5), values.mean(axis=0), 0.18, yerr=error, label=name)
    right.set(title="k-NN accuracy on held-out digits", ylabel="%", ylim=(40, 110))
    right.set_xticks(places, SETTINGS)
    right.legend(loc="upper center", ncols=4, fontsize=8)
    return figure


def main() -> None:
    """Train with both objectives on several splits and compare."""
    flags = parser(__doc__.splitlines()[0])
    flags.add_argument("--seeds", type=int, default=5, help="number of splits (default: %(default)s)")
    args = flags.parse_args()
    options = start(args)
    seeds, epochs = (2, 5) if options.quick else (args.seeds, 80)

    runs = [run(options.seed + k, epochs) for k in tqdm(range(seeds), desc="splits")]
    results = {name: np.array([accuracies[name] for accuracies, _ in runs]) for name in runs[0][0]}
    rows = [
        [name, *(mean_and_error(values[:, k], 1) for k in range(len(SETTINGS)))] for name, values in results.items()
    ]
    table(
        f"k-NN accuracy in % on held-out digits, mean ± standard error over {seeds} splits",
        ["features", *SETTINGS],
        rows,
    )

    mean = {name: values.mean(axis=0) for name, values in results.items()}
    raw, nce, sup = mean["raw pixels"], mean["InfoNCE"], mean["SupCon"]
    expectations(
        {
            "without any label, InfoNCE beats raw pixels where labels are few": nce[1] > raw[1],
            "and where held-out images are shifted": nce[2] > raw[2],
            "SupCon, which sees the labels, does best in every setting": bool((sup >= np.maximum(raw, nce)).all()),
            "with all labels raw pixels are hard to beat: InfoNCE is within two points": nce[0] > raw[0] - 2,
        },
        options,
    )
    save(plot(results, runs[0][1]), options.out / "contrastive_digits.png")


if __name__ == "__main__":
    main()
