"""Value regression: HL-Gauss, which classifies into bins of the value, against squared error.

HL-Gauss (arXiv:2403.03950) spreads the target over a histogram of a Gaussian around it and fits that with
cross-entropy; the prediction is the mean of the predicted histogram. The paper's claim is about values in
reinforcement learning, whose targets are noisy: one sample's pull on the scores is bounded however far off
its target is, while the pull of the squared error grows with the distance.

Here the values are two real measurements from scikit-learn: the progression of diabetes a year later from ten
clinical measures, and the number that a handwritten digit shows from its pixels. Training targets are as
measured, or with heavy-tailed noise (Student's t, two degrees of freedom); held-out ones always as measured.
HL-Gauss needs a range and clips targets to it, so squared error is also tried on targets clipped alike: what
HL-Gauss gains beyond that comes from the classification.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from _common import expectations, mean_and_error, parser, save, start, table
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm import tqdm

import lossdsl

MEAN_SQUARED_ERROR = """
use regression: squared_error

loss mean_squared_error(prediction: real[N], target: real[N]):
    mean[N](squared_error(prediction, target))
"""
REACH, BINS = 3.0, 51  # the histogram reaches this many standard deviations of the target to either side


@dataclass(frozen=True)
class Task:
    """Features [N, D], values [N], and the noise on training values, in their standard deviations."""

    name: str
    features: np.ndarray
    values: np.ndarray
    noise: float


@dataclass(frozen=True)
class Split:
    """A random half for training, the other held out; all standardised by the true training half."""

    train: Tensor
    train_values: Tensor
    test: Tensor
    test_values: Tensor

    @classmethod
    def of(cls, task: Task, seed: int) -> Split:
        """The split of this seed; noise comes on its training values only."""
        train, test, values, test_values = train_test_split(
            task.features, task.values, test_size=0.5, random_state=seed
        )
        noise = task.noise * np.random.default_rng(seed).standard_t(2, len(values))
        scale, centre, spread = StandardScaler().fit(train), values.mean(), values.std()
        tensors = (
            scale.transform(train),
            (values - centre) / spread + noise,
            scale.transform(test),
            (test_values - centre) / spread,
        )
        return cls(*(torch.tensor(tensor, dtype=torch.float32) for tensor in tensors))


def tasks() -> list[Task]:
    """The two problems, with true and with noisy training values."""
    problems = {
        "diabetes": load_diabetes(return_X_y=True),
        "number shown": load_digits(return_X_y=True),
    }
    return [
        Task(name + (", noisy" if noise else ""), features, values.astype(float), noise)
        for (name, (features, values)), noise in itertools.product(problems.items(), (0.0, 0.5))
    ]


@dataclass(frozen=True)
class Method:
    """A head's width, its loss of outputs [N, width] and targets [N], and how outputs read as values."""

    width: int
    loss: Callable[[Tensor, Tensor], Tensor]
    read: Callable[[Tensor], Tensor]


def methods() -> dict[str, Method]:
    """The compiled losses with their heads."""
    squared = lossdsl.compile(MEAN_SQUARED_ERROR)
    gauss = lossdsl.load("stop_regressing:hl_gauss", v_min=-REACH, v_max=REACH, sigma_ratio=0.75)
    edges = torch.linspace(-REACH, REACH, BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2

    def clip(y: Tensor) -> Tensor:
        return y.clamp(-REACH, REACH)

    return {
        "squared error": Method(1, lambda out, y: squared(prediction=out[:, 0], target=y), lambda out: out[:, 0]),
        "squared error, clipped": Method(
            1,
            lambda out, y: squared(prediction=out[:, 0], target=clip(y)),
            lambda out: out[:, 0],
        ),
        "HL-Gauss": Method(
            BINS,
            lambda out, y: gauss(logits=out, target=clip(y)),
            lambda out: out.softmax(dim=1) @ centres,
        ),
    }


def error(network: nn.Module, method: Method, split: Split) -> float:
    """Root mean squared error on held-out data, in standard deviations of the value."""
    with torch.no_grad():
        off = method.read(network(split.test)) - split.test_values
    return float(off.square().mean().sqrt())


def fit(method: Method, split: Split, epochs: int, seed: int, batch: int = 64) -> list[float]:
    """Train a network; returns the error on held-out data at first and after each tenth of the training."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(split.train.shape[1], 128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Linear(128, method.width),
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    history = [error(network, method, split)]
    for epoch in range(epochs):
        for rows in torch.randperm(len(split.train)).split(batch):
            value = method.loss(network(split.train[rows]), split.train_values[rows])
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
        schedule.step()
        if (epoch + 1) % (epochs // 10) == 0:
            history.append(error(network, method, split))
    return history


def plot(results: dict[str, dict[str, np.ndarray]], epochs: int) -> Figure:
    """Error over training, mean over seeds with its standard error, a panel a task."""
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    steps = np.linspace(0, epochs, 11)
    for panel, (task, by_method) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        for method, runs in by_method.items():
            mean, spread = runs.mean(axis=0), runs.std(axis=0, ddof=1) / np.sqrt(len(runs))
            (line,) = panel.plot(steps, mean, label=method)
            panel.fill_between(steps, mean - spread, mean + spread, color=line.get_color(), alpha=0.15)
        panel.set(title=task, xlabel="epoch")
    figure.axes[0].set_ylabel("error on held-out data")
    figure.axes[0].legend()
    return figure


def main() -> None:
    """Train with every method on every task and seed, and compare."""
    flags = parser(__doc__.splitlines()[0])
    flags.add_argument("--seeds", type=int, default=6, help="number of splits (default: %(default)s)")
    args = flags.parse_args()
    options = start(args, threads=1)
    seeds, epochs = (2, 10) if options.quick else (args.seeds, 50)

    heads = methods()
    results: dict[str, dict[str, np.ndarray]] = {}
    bar = tqdm(list(itertools.product(tasks(), heads)))
    for task, name in bar:
        bar.set_description(f"{task.name}, {name}")
        chosen = range(options.seed, options.seed + seeds)
        runs = [fit(heads[name], Split.of(task, seed), epochs, seed) for seed in chosen]
        results.setdefault(task.name, {})[name] = np.array(runs)

    final = {task: {name: runs[:, -1] for name, runs in by.items()} for task, by in results.items()}
    rows = [[task, *(mean_and_error(by[name], 3) for name in heads)] for task, by in final.items()]
    title = "root mean squared error on held-out data, in standard deviations of the value"
    table(f"{title}; mean ± standard error over {seeds} splits", ["task", *heads], rows)

    rows = [[task, *(f"{by[name].mean(axis=0).min():.3f}" for name in heads)] for task, by in results.items()]
    table(
        "the same at the epoch that is best for the method, as if one knew when to stop",
        ["task", *heads],
        rows,
    )

    error_of = {task: {name: float(values.mean()) for name, values in by.items()} for task, by in final.items()}
    plain, clipped, gauss = heads
    noisy = [by for task, by in error_of.items() if task.endswith("noisy")]
    expectations(
        {
            "with noisy values HL-Gauss is the best": all(by[gauss] < min(by[plain], by[clipped]) for by in noisy),
            "clipping alone already helps the squared error there": all(by[clipped] < by[plain] for by in noisy),
            "with true values of the digits HL-Gauss is better too": (
                error_of["number shown"][gauss] < error_of["number shown"][plain]
            ),
            "with true values of diabetes, few and noisy by themselves, it is not worse": (
                error_of["diabetes"][gauss] < error_of["diabetes"][plain] + 0.02
            ),
        },
        options,
    )
    save(plot(results, epochs), options.out / "value_regression.png")


if __name__ == "__main__":
    main()
