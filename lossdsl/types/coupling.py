"""The coupling layer: how the positions along one axis act together in a value."""

from __future__ import annotations

from enum import Enum


class Coupling(Enum):
    """From independent to entangled; the order is that of how hard a batch is to split.

    each: one value a position. sum, mean: a sum or mean of terms that each see one position. pairwise: terms that see two positions.
    everything: anything else.
    """

    EACH = "each position by itself"
    SUM = "separable: a sum over positions"
    MEAN = "separable: a mean over positions"
    PAIRWISE = "pairwise"
    GLOBAL = "global"

    @property
    def rank(self) -> int:
        return list(Coupling).index(self)


def worst(a: Coupling, b: Coupling) -> Coupling:
    """The more entangled of two."""
    return a if a.rank >= b.rank else b
