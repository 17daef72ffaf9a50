"""Solvers: operations on whole arrays that the language cannot say. They carry no gradient."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from lossdsl.ops.table import Solver


def _linear(m: Any, score: list[list[Any]]) -> list[int]:
    """By enumeration: the definition, for the interpreter."""
    rows, columns = len(score), len(score[0])
    best = max(
        permutations(range(columns), rows), key=lambda p: (sum(score[i][c] for i, c in enumerate(p)), [-c for c in p])
    )
    return list(best)


def _quadratic(m: Any, vertex: list[list[Any]], edge: list[list[list[list[Any]]]]) -> list[int]:
    rows, columns = len(vertex), len(vertex[0])

    def total(p: tuple[int, ...]) -> Any:
        linear = sum(vertex[i][p[i]] for i in range(rows))
        return linear + sum(edge[i][j][p[i]][p[j]] for i in range(rows) for j in range(rows))

    best = max(permutations(range(columns), rows), key=lambda p: (total(p), [-c for c in p]))
    return list(best)


_SOLVERS = [
    Solver(
        "linear_assignment",
        "The distinct columns, one a row, with the largest total score (rows at most columns).",
        (("N", "M"),),
        ("N",),
        "M",
        _linear,
        "linear_assignment",
    ),
    Solver(
        "quadratic_assignment",
        "The distinct columns p maximising sum_i vertex[i, p_i] + sum_ij edge[i, j, p_i, p_j]; first in lexicographic order on ties.",
        (("N", "M"), ("N", "N", "M", "M")),
        ("N",),
        "M",
        _quadratic,
        "quadratic_assignment",
    ),
]

SOLVERS: dict[str, Solver] = {op.name: op for op in _SOLVERS}
"""Every solver by name."""
