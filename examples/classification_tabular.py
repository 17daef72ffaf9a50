"""Binary classification of tabular data: EnsLoss against the logistic, hinge and exponential loss.

EnsLoss (arXiv:2409.00908) draws, at every step, a new set of slopes that a convex calibrated loss could have,
and hands them to the samples in the order of their margins: one training run sees an ensemble of losses. Its
value means nothing, only its gradient does, so what is compared is accuracy on held-out data.

The same network, optimiser and splits serve all losses. The data are real measurements from scikit-learn:
cells of breast tumours, and handwritten digits told apart in two ways. Each task is also tried with a fifth
of its training labels flipped, where a loss that insists on every sample overfits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from _common import expectations, mean_and_error, parser, save, start, table
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm import tqdm

import lossdsl

Objective = Callable[[Tensor, Tensor], Tensor]
LOSSES = ("ensloss", "logistic", "hinge", "exponential")


@dataclass(frozen=True)
class Task:
    """A binary problem: features [N, D], signs [N] in {-1, +1}, and the share of training labels to flip."""

    name: str
    features: np.ndarray
    signs: np.ndarray
    flipped: float


@dataclass(frozen=True)
class Split:
    """One random half of a task for training, standardised by it, and the other half held out."""

    train: Tensor
    train_signs: Tensor
    test: Tensor
    test_signs: Tensor

    @classmethod
    def of(cls, task: Task, seed: int) -> Split:
        """The split of this seed; labels are flipped in its training half only."""
        train, test, signs, test_signs = train_test_split(
            task.features, task.signs, test_size=0.5, stratify=task.signs, random_state=seed
        )
        flip = np.random.default_rng(seed).random(len(signs)) < task.flipped
        scale = StandardScaler().fit(train)
        tensors = (scale.transform(train), np.where(flip, -signs, signs), scale.transform(test), test_signs)
        return cls(*(torch.tensor(value, dtype=torch.float32) for value in tensors))


def tasks() -> list[Task]:
    """The problems, each with true labels and with a fifth of them flipped."""
    cells, benign = load_breast_cancer(return_X_y=True)
    pixels, digit = load_digits(return_X_y=True)
    alike = np.isin(digit, (3, 8))
    problems = {
        "breast cancer": (cells, benign == 1),
        "digits 3 or 8": (pixels[alike], digit[alike] == 3),
        "digits even or odd": (pixels, digit % 2 == 0),
    }
    return [
        Task(name + (", flipped" if flipped else ""), features, np.where(positive, 1, -1), flipped)
        for (name, (features, positive)), flipped in itertools.product(problems.items(), (0.0, 0.2))
    ]


def objective(name: str) -> Objective:
    """A compiled loss as a function of scores and signs; EnsLoss gets a fresh normal draw each time."""
    loss = lossdsl.load(name)
    if name == "ensloss":
        return lambda score, sign: loss(score=score, sign=sign, noise=torch.randn_like(score))
    return lambda score, sign: loss(score=score, sign=sign)


def accuracy(network: nn.Module, features: Tensor, signs: Tensor) -> float:
    """Percent of the signs that the scores have right."""
    with torch.no_grad():
        return 100 * float((network(features)[:, 0] * signs > 0).float().mean())


def fit(loss: Objective, split: Split, epochs: int, seed: int, batch: int = 128) -> list[float]:
    """Train a network; returns the accuracy on held-out data after each tenth of the training."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(split.train.shape[1], 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    history = [accuracy(network, split.test, split.test_signs)]
    for epoch in range(epochs):
        for rows in torch.randperm(len(split.train)).split(batch):
            value = loss(network(split.train[rows])[:, 0], split.train_signs[rows])
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)  # the exponential loss may explode
            optimiser.step()
        schedule.step()
        if (epoch + 1) % (epochs // 10) == 0:
            history.append(accuracy(network, split.test, split.test_signs))
    return history


def plot(results: dict[str, dict[str, np.ndarray]], epochs: int) -> Figure:
    """Accuracy over training, mean over seeds with its standard error, a panel a task."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplots(2, len(results) // 2, sharex=True).T.flat
    steps = np.linspace(0, epochs, 11)[1:]
    for panel, (task, by_loss) in zip(panels, results.items(), strict=True):
        for loss, runs in by_loss.items():
            mean, error = runs[:, 1:].mean(axis=0), runs[:, 1:].std(axis=0, ddof=1) / np.sqrt(len(runs))
            (line,) = panel.plot(steps, mean, label=loss, lw=2 if loss == "ensloss" else 1)
            panel.fill_between(steps, mean - error, mean + error, color=line.get_color(), alpha=0.15)
        panel.set(title=task, xlabel="epoch", ylabel="accuracy on held-out data, %")
    figure.axes[0].legend()
    return figure


def main() -> None:
    """Train with every loss on every task and seed, and compare."""
    flags = parser(__doc__.splitlines()[0])
    flags.add_argument("--seeds", type=int, default=10, help="number of splits (default: %(default)s)")
    args = flags.parse_args()
    options = start(args, threads=1)
    seeds, epochs = (2, 10) if options.quick else (args.seeds, 60)

    problems = tasks()
    losses = {name: objective(name) for name in LOSSES}
    results: dict[str, dict[str, np.ndarray]] = {}
    bar = tqdm(list(itertools.product(problems, losses)))
    for task, name in bar:
        bar.set_description(f"{task.name}, {name}")
        chosen = range(options.seed, options.seed + seeds)
        runs = [fit(losses[name], Split.of(task, seed), epochs, seed) for seed in chosen]
        results.setdefault(task.name, {})[name] = np.array(runs)

    final = {task: {name: runs[:, -1] for name, runs in by.items()} for task, by in results.items()}
    rows = [[task, *(mean_and_error(by[name]) for name in LOSSES)] for task, by in final.items()]
    table(f"accuracy in % on held-out data, mean ± standard error over {seeds} splits", ["task", *LOSSES], rows)
    others = LOSSES[1:]
    rows = [[task, *(mean_and_error(by["ensloss"] - by[name]) for name in others)] for task, by in final.items()]
    table("what EnsLoss gains on the same splits", ["task", *(f"over {name}" for name in others)], rows)

    gain = {name: [by["ensloss"].mean() - by[name].mean() for by in final.values()] for name in others}
    clean, noisy = slice(0, None, 2), slice(1, None, 2)
    expectations(
        {
            "with true labels all four are within a point": max(abs(g) for v in gain.values() for g in v[clean]) < 1,
            "with flipped labels EnsLoss overfits less than the logistic loss": min(gain["logistic"][noisy]) > 0,
            "and less than the exponential loss": min(gain["exponential"][noisy]) > 0,
            "the hinge loss, whose slope is bounded too, is within two points": (
                max(map(abs, gain["hinge"][noisy])) < 2
            ),
        },
        options,
    )
    save(plot(results, epochs), options.out / "classification_tabular.png")


if __name__ == "__main__":
    main()
