"""Preference training of a small transformer on real text, with an objective written as a formula.

A word-level language model first learns English from the documentation that Python and its packages
ship. It is then taught to prefer real text over its own, twice from the same start:

    dpo(pi, ref)                   direct preference optimisation alone, arXiv:2305.18290
    dpo(pi, ref) + beta*sft(pi)    with imitation of the chosen answers: RPO, arXiv:2405.16436

A preference pair is a prompt, the first third of a sentence that the model has not seen, and two answers
of one length: chosen is how the sentence really goes on, rejected what the model itself would say (the
construction of SPIN, arXiv:2401.01335). Which answer is better is thus known without a judge, and hard
for the model to tell at first.

DPO asks only that the chosen answer gains on the rejected one. That is also reached when both become
unlikely, the rejected one more so, and this is what happens. The imitation term holds the chosen answers
up while the margin grows.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from _common import Options, expectations, parser, save, start, table
from _language_model import LanguageModel, pretrain
from _text import LONGEST, SOURCES, Pairs, Vocabulary, Words, prompts, sentences
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

import lossdsl

OBJECTIVES = ("dpo(pi, ref)", "dpo(pi, ref) + beta*sft(pi)")
Policy = dict[str, Tensor]


def policy(model: LanguageModel, pairs: Pairs) -> Policy:
    """The record `Policy`: log-probabilities of the chosen and of the rejected answers, each [B]."""
    tokens, answer = torch.cat([pairs.chosen, pairs.rejected]), pairs.answer.repeat(2, 1)[:, 1:]
    words = -F.cross_entropy(model(tokens[:, :-1], answer), tokens[:, 1:][answer], reduction="none")
    chosen, rejected = torch.zeros(answer.shape).masked_scatter(answer, words).sum(1).chunk(2)
    return {"chosen": chosen, "rejected": rejected}


@torch.no_grad()
def whole_policy(model: LanguageModel, pairs: Pairs) -> Policy:
    """`policy` of many pairs, a part at a time."""
    parts = [policy(model, pairs[rows]) for rows in torch.arange(len(pairs)).split(128)]
    return {name: torch.cat([part[name] for part in parts]) for name in ("chosen", "rejected")}


@torch.no_grad()
def make_pairs(model: LanguageModel, vocabulary: Vocabulary, texts: Sequence[Words]) -> Pairs:
    """Pairs of real answers and the model's own of the same length; the final full stop is given to both."""
    chosen, answer = prompts(texts, vocabulary)
    rejected = chosen.clone()
    drawn = answer & (chosen != 0) & answer.roll(-1, 1)
    for rows in tqdm(torch.arange(len(texts)).split(256), desc="the model's own answers"):
        tokens = rejected[rows]
        for t in range(1, LONGEST):
            here = drawn[rows, t]
            if here.any():
                where = torch.zeros(int(here.sum()), t, dtype=torch.bool)
                where[:, -1] = True
                scores = model(tokens[here, :t], where)
                scores[:, :3] = -math.inf  # as in the real answers: no padding, no start mark, no unknown word
                tokens[here, t] = torch.multinomial(scores.softmax(-1), 1)[:, 0]
        rejected[rows] = tokens
    return Pairs(chosen, rejected, answer)


@dataclass(frozen=True)
class Moment:
    """What the pairs say at one step: changes since the reference, in nats an answer, and an accuracy."""

    step: int
    chosen: float
    rejected: float
    margin: float
    accuracy: float
    trained_chosen: float


def prefer(
    loss: nn.Module,
    label: str,
    reference: LanguageModel,
    train: Pairs,
    held_out: Pairs,
    steps: int,
    batch: int = 32,
) -> list[Moment]:
    """Train a copy of the reference with the loss; returns the measurements along the way."""
    model = copy.deepcopy(reference).requires_grad_()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.0)
    fixed, fixed_held_out = whole_policy(reference, train), whole_policy(reference, held_out)
    some = len(held_out)

    def moment(step: int) -> Moment:
        now, trained = whole_policy(model, held_out), whole_policy(model, train[:some])
        chosen = (now["chosen"] - fixed_held_out["chosen"]).mean().item()
        rejected = (now["rejected"] - fixed_held_out["rejected"]).mean().item()
        accuracy = (now["chosen"] > now["rejected"]).float().mean().item()
        seen = (trained["chosen"] - fixed["chosen"][:some]).mean().item()
        return Moment(step, chosen, rejected, chosen - rejected, accuracy, seen)

    history = [moment(0)]
    bar = tqdm(range(1, steps + 1), desc=label)
    for step in bar:
        rows = torch.randint(len(train), (batch,))
        ref = {name: value[rows] for name, value in fixed.items()}
        value = loss(pi=policy(model, train[rows]), ref=ref)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        if step % max(1, steps // 8) == 0:
            history.append(moment(step))
            bar.set_postfix(chosen=f"{history[-1].chosen:+.1f}", margin=f"{history[-1].margin:+.1f}")
    return history


def report(histories: dict[str, list[Moment]], options: Options) -> None:
    """Print the measurements, what was expected of them, and whether it came."""
    head = ["step", "chosen", "(trained)", "rejected", "margin", "accuracy"]
    for formula, history in histories.items():
        rows = [
            [
                str(m.step),
                *(f"{x:+.2f}" for x in (m.chosen, m.trained_chosen, m.rejected, m.margin)),
                f"{m.accuracy:.1%}",
            ]
            for m in history
        ]
        table(f"{formula}", head, rows)
    print(
        "\nOn held-out pairs, against the reference model, in nats an answer: how the log-probability of the"
        "\nchosen answer changed (in brackets: on pairs trained on), that of the rejected one, and the margin"
        "\nbetween them. Accuracy is the share of pairs whose real answer is the likelier one for the model."
    )
    first, alone, both = histories[OBJECTIVES[0]][0], *(history[-1] for history in histories.values())
    falls = alone.chosen < -1
    stays = both.chosen > 0.2 * alone.chosen and both.trained_chosen > 0
    grows = min(alone.margin, both.margin) > 0.5
    rises = min(alone.accuracy, both.accuracy) > first.accuracy
    expectations(
        {
            f"DPO alone makes the chosen answers less likely ({alone.chosen:+.1f} nats)": falls,
            f"with imitation they stay ({both.chosen:+.1f}, trained on {both.trained_chosen:+.1f})": stays,
            f"the margin grows with both ({alone.margin:+.1f} and {both.margin:+.1f})": grows,
            f"so does accuracy ({first.accuracy:.0%} to {alone.accuracy:.0%} and {both.accuracy:.0%})": rises,
        },
        options,
    )


def plot(histories: dict[str, list[Moment]]) -> Figure:
    """Chosen likelihood, margin and accuracy over training."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    for formula, history in histories.items():
        steps = [m.step for m in history]
        (line,) = axes[0].plot(steps, [m.chosen for m in history], marker="o", ms=3, label=formula)
        axes[0].plot(
            steps,
            [m.rejected for m in history],
            color=line.get_color(),
            ls=":",
            label="  the rejected answers",
        )
        axes[1].plot(steps, [m.margin for m in history], marker="o", ms=3)
        axes[2].plot(steps, [100 * m.accuracy for m in history], marker="o", ms=3)
    axes[0].axhline(0, color="grey", lw=0.8)
    axes[0].legend(fontsize=8)
    titles = ("log-probability of the chosen answers", "preference margin", "real answer likelier")
    for axis, title, unit in zip(axes, titles, ("nats since the start", "nats", "% of held-out pairs"), strict=True):
        axis.set(title=title, xlabel="step", ylabel=unit)
    return figure


def main() -> None:
    """Pretrain, make pairs, train with each objective, report."""
    flags = parser(__doc__.splitlines()[0])
    flags.add_argument("--beta", type=float, default=0.1, help="weight of the imitation term (default: %(default)s)")
    args = flags.parse_args()
    options = start(args)
    steps, pairs, held, updates = (60, 256, 100, 8) if options.quick else (500, 2000, 300, 80)

    losses = {
        formula: lossdsl.compile(formula, **({"beta": args.beta} if "beta" in formula else {}))
        for formula in OBJECTIVES
    }

    texts = sentences(("numpy",) if options.quick else SOURCES)
    random.shuffle(texts)
    vocabulary = Vocabulary.of(texts)
    unseen = [words for words in texts if vocabulary.knows(words)][: pairs + held]
    known = sorted(set(texts) - set(unseen))
    print(f"{len(texts)} sentences, {sum(map(len, texts))} words, vocabulary of {len(vocabulary)}")

    reference = LanguageModel(len(vocabulary))
    nats = pretrain(reference, vocabulary.encode(known), steps)
    reference.requires_grad_(requires_grad=False)
    print(f"pretrained to {nats:.2f} nats a word")
    data = make_pairs(reference, vocabulary, unseen)
    print("one pair:")
    for name, tokens in ("chosen", data.chosen[0]), ("rejected", data.rejected[0]):
        print(f"  {name:8} {vocabulary.decode(tokens)}")

    histories = {}
    for formula, loss in losses.items():
        torch.manual_seed(options.seed)
        histories[formula] = prefer(loss, formula, reference, data[held:], data[:held], updates)
    report(histories, options)
    save(plot(histories), options.out / "preference_text.png")


if __name__ == "__main__":
    main()
