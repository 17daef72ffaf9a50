"""Operations over axes: reductions, and those that keep their axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lossdsl.ops.table import Along, Reduction
from lossdsl.types.domains import ANY, INF, NONNEGATIVE, TRUTH, Interval


def _total(items: list[Any]) -> Any:
    total = items[0]
    for item in items[1:]:
        total = total + item
    return total


def _first(items: list[Any], better: Callable[[Any, Any], bool]) -> int:
    best = 0
    for k, item in enumerate(items):
        if better(item, items[best]):
            best = k
    return best


def _one_hot(m: Any, k: int, n: int) -> list[Any]:
    return [m.number(1 if j == k else 0) for j in range(n)]


def _more(a: Any, b: Any) -> bool:
    return bool(a > b)


def _less(a: Any, b: Any) -> bool:
    return bool(a < b)


def _sum_range(a: Interval, nonempty: bool) -> Interval:
    low = 0 if a.low >= 0 else -INF
    high = 0 if a.high <= 0 else INF
    strict_low = nonempty and a.positive
    strict_high = nonempty and a.negative
    if nonempty and a.low > 0:
        low = a.low
        strict_low = a.low_open
    if nonempty and a.high < 0:
        high = a.high
        strict_high = a.high_open
    return Interval(low, high, strict_low, strict_high)


def _product(items: list[Any]) -> Any:
    total = items[0]
    for item in items[1:]:
        total = total * item
    return total


def _product_weights(m: Any, y: Any, items: list[Any]) -> list[Any]:
    return [_product([*items[:k], *items[k + 1 :]] or [m.number(1)]) for k in range(len(items))]


def _product_range(a: Interval, nonempty: bool) -> Interval:
    if a.low >= 0:
        return Interval(0, 1 if a.high <= 1 else INF, low_open=a.positive)
    return Interval(-1, 1) if a.low >= -1 and a.high <= 1 else ANY


def _lse_range(a: Interval, nonempty: bool) -> Interval:
    return Interval(a.low, INF, a.low_open) if nonempty else ANY


_REDUCTIONS = [
    Reduction("sum", "Sum.", "\\sum", lambda m, xs: _total(xs), lambda m, y, xs: [m.number(1)] * len(xs), _sum_range, 0,
              monotone="increasing", curvature="affine"),
    Reduction("mean", "Arithmetic mean.", "\\operatorname{mean}", lambda m, xs: m.divide(_total(xs), len(xs)),
              lambda m, y, xs: [m.divide(1, len(xs))] * len(xs), lambda a, n: a, None, kind="real", monotone="increasing", curvature="affine"),
    Reduction("prod", "Product.", "\\prod", lambda m, xs: _product(xs), _product_weights, _product_range, 1),
    Reduction("max", "Largest; the first winner takes the gradient.", "\\max", lambda m, xs: xs[_first(xs, _more)],
              lambda m, y, xs: _one_hot(m, _first(xs, _more), len(xs)), lambda a, n: a, None, monotone="increasing", curvature="convex"),
    Reduction("min", "Smallest; the first winner takes the gradient.", "\\min", lambda m, xs: xs[_first(xs, _less)],
              lambda m, y, xs: _one_hot(m, _first(xs, _less), len(xs)), lambda a, n: a, None, monotone="increasing", curvature="concave"),
    Reduction("logsumexp", "log of the sum of exponentials.", "\\operatorname{logsumexp}", lambda m, xs: m.logsumexp(xs),
              lambda m, y, xs: [m.exp(x - y) for x in xs], _lse_range, None, kind="real", monotone="increasing", curvature="convex"),
    Reduction("norm", "Euclidean norm; derivative 0 at the zero vector.", "\\lVert\\cdot\\rVert", lambda m, xs: m.sqrt(_total([x * x for x in xs])),
              lambda m, y, xs: [m.divide(x, y) if y > 0 else 0 * x for x in xs], lambda a, n: NONNEGATIVE, 0, kind="real", curvature="convex"),
    Reduction("any", "Does one hold?", "\\exists", lambda m, xs: any(bool(x) for x in xs), None, lambda a, n: TRUTH, False, kind="bool"),
    Reduction("all", "Do all hold?", "\\forall", lambda m, xs: all(bool(x) for x in xs), None, lambda a, n: TRUTH, True, kind="bool"),
    Reduction("argmax", "Place of the first largest.", "\\operatorname{argmax}", lambda m, xs: _first(xs, _more), None,
              lambda a, n: NONNEGATIVE, None, kind="int"),
    Reduction("argmin", "Place of the first smallest.", "\\operatorname{argmin}", lambda m, xs: _first(xs, _less), None,
              lambda a, n: NONNEGATIVE, None, kind="int"),
]  # fmt: skip

REDUCTIONS: dict[str, Reduction] = {op.name: op for op in _REDUCTIONS}
"""Every reduction by name. count, var, std and norm are made of these."""


def _order(items: list[Any]) -> list[int]:
    return sorted(range(len(items)), key=lambda k: items[k])


def _ranks(items: list[Any]) -> list[int]:
    ranks = [0] * len(items)
    for place, k in enumerate(_order(items)):
        ranks[k] = place
    return ranks


def _running(items: list[Any], step: Callable[[Any, Any], Any]) -> list[Any]:
    out = [items[0]]
    for item in items[1:]:
        out.append(step(out[-1], item))
    return out


def _softmax(m: Any, items: list[Any]) -> list[Any]:
    total = m.logsumexp(items)
    return [m.exp(x - total) for x in items]


def _log_softmax(m: Any, items: list[Any]) -> list[Any]:
    total = m.logsumexp(items)
    return [x - total for x in items]


def _softmax_pullback(m: Any, ys: list[Any], xs: list[Any], gs: list[Any]) -> list[Any]:
    mixed = _total([y * g for y, g in zip(ys, gs, strict=True)])
    return [y * (g - mixed) for y, g in zip(ys, gs, strict=True)]


def _log_softmax_pullback(m: Any, ys: list[Any], xs: list[Any], gs: list[Any]) -> list[Any]:
    total = _total(gs)
    return [g - m.exp(y) * total for y, g in zip(ys, gs, strict=True)]


def _sort_pullback(m: Any, ys: list[Any], xs: list[Any], gs: list[Any]) -> list[Any]:
    out = list(gs)
    for place, k in enumerate(_order(xs)):
        out[k] = gs[place]
    return out


def _cumsum_pullback(m: Any, ys: list[Any], xs: list[Any], gs: list[Any]) -> list[Any]:
    return _running(gs[::-1], lambda a, b: a + b)[::-1]


def _cumprod_pullback(m: Any, ys: list[Any], xs: list[Any], gs: list[Any]) -> list[Any]:
    return [
        _total([g * _product([*xs[:k], *xs[k + 1 : j + 1]] or [m.number(1)]) for j, g in enumerate(gs) if j >= k])
        for k in range(len(xs))
    ]


def _cummax_pullback(m: Any, ys: list[Any], xs: list[Any], gs: list[Any]) -> list[Any]:
    out = [m.number(0)] * len(gs)
    for j, g in enumerate(gs):
        best = 0
        for k in range(j + 1):  # torch gives ties to the last of them
            if xs[k] >= xs[best]:
                best = k
        out[best] = out[best] + g
    return out


def _logcumsumexp(m: Any, items: list[Any]) -> list[Any]:
    return [m.logsumexp(items[: k + 1]) for k in range(len(items))]


def _logcumsumexp_pullback(m: Any, ys: list[Any], xs: list[Any], gs: list[Any]) -> list[Any]:
    return [_total([g * m.exp(x - ys[j]) for j, g in enumerate(gs) if j >= k]) for k, x in enumerate(xs)]


_ALONG = [
    Along("softmax", "exp(x) divided by its sum.", "\\operatorname{softmax}", _softmax, _softmax_pullback,
          lambda a: Interval(0, 1, low_open=True), joint=True),
    Along("log_softmax", "x minus its logsumexp.", "\\operatorname{log\\,softmax}", _log_softmax, _log_softmax_pullback,
          lambda a: Interval(-INF, 0), joint=True),
    Along("sort", "Ascending.", "\\operatorname{sort}", lambda m, xs: [xs[k] for k in _order(xs)], _sort_pullback, lambda a: a, kind="same"),
    Along("argsort", "Places in ascending order, stable.", "\\operatorname{argsort}", lambda m, xs: _order(xs), None,
          lambda a: NONNEGATIVE, kind="int", positions=True),
    Along("rank", "How many come before in the stable ascending order.", "\\operatorname{rank}", lambda m, xs: _ranks(xs), None,
          lambda a: NONNEGATIVE, kind="int", positions=True),
    Along("cumsum", "Running sum.", "\\operatorname{cumsum}", lambda m, xs: _running(xs, lambda a, b: a + b), _cumsum_pullback,
          lambda a: _sum_range(a, True), kind="same"),
    Along("cumprod", "Running product.", "\\operatorname{cumprod}", lambda m, xs: _running(xs, lambda a, b: a * b), _cumprod_pullback,
          lambda a: _product_range(a, True), kind="same"),
    Along("cummax", "Running maximum.", "\\operatorname{cummax}", lambda m, xs: _running(xs, lambda a, b: a if a > b else b),
          _cummax_pullback, lambda a: a, kind="same"),
    Along("logcumsumexp", "Running logsumexp.", "\\operatorname{logcumsumexp}", _logcumsumexp, _logcumsumexp_pullback,
          lambda a: Interval(a.low, INF, a.low_open)),
]  # fmt: skip

ALONG: dict[str, Along] = {op.name: op for op in _ALONG}
"""Every operation that keeps its axis, by name. flip is a read, top is sort and a slice."""
