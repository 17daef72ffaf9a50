"""A small causal transformer over words, in plain torch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from _text import LONGEST
from torch import Tensor, nn
from tqdm import tqdm


class Block(nn.Module):
    """Causal self-attention and a two-layer perceptron, each added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] to the same shape."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.before_attention(x)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        mixed: Tensor = x + self.mlp(self.before_mlp(x))
        return mixed


class LanguageModel(nn.Module):
    """A causal transformer over words, with tied input and output embeddings."""

    def __init__(self, words: int, width: int = 128, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(words, width), nn.Embedding(LONGEST + 1, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.place.weight, std=0.02)

    def forward(self, tokens: Tensor, where: Tensor) -> Tensor:
        """Scores of the next word, [places, words], at the places of tokens [B, T] that bool [B, T] marks."""
        x = self.blocks(self.embed(tokens) + self.place.weight[: tokens.shape[1]])
        scores: Tensor = self.norm(x[where]) @ self.embed.weight.T
        return scores


def pretrain(model: LanguageModel, tokens: Tensor, steps: int, batch: int = 64) -> float:
    """Teach the model to go on with text; returns the recent mean loss of a word, in nats."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    recent = math.nan
    bar = tqdm(range(steps), desc="pretraining")
    for _ in bar:
        rows = tokens[torch.randint(len(tokens), (batch,))]
        words = rows[:, 1:] != 0
        loss = F.cross_entropy(model(rows[:, :-1], words), rows[:, 1:][words])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        recent = loss.item() if math.isnan(recent) else 0.95 * recent + 0.05 * loss.item()
        bar.set_postfix(loss=f"{recent:.2f}")
    return recent
