"""The domain layer: real intervals with open or closed ends, and what is known beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

INF = math.inf


class Kind(Enum):
    """What the elements of a tensor are."""

    BOOL = "bool"
    INT = "int"
    REAL = "real"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Interval:
    """low ≤ x ≤ high, an end open where x cannot reach it (infinite ends are always open).

    nonzero: x is known to be unequal to 0 although 0 lies inside.
    """

    low: float = -INF
    high: float = INF
    low_open: bool = False
    high_open: bool = False
    nonzero: bool = False

    @property
    def empty(self) -> bool:
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    @property
    def positive(self) -> bool:
        return self.low > 0 or (self.low == 0 and (self.low_open or self.nonzero))

    @property
    def negative(self) -> bool:
        return self.high < 0 or (self.high == 0 and (self.high_open or self.nonzero))

    @property
    def nonnegative(self) -> bool:
        return self.low >= 0

    @property
    def nonpositive(self) -> bool:
        return self.high <= 0

    @property
    def excludes_zero(self) -> bool:
        return self.nonzero or self.positive or self.negative

    @property
    def point(self) -> float | None:
        return self.low if self.low == self.high else None

    def within(self, other: Interval) -> bool:
        """Is every x of this interval in the other?"""
        if self.empty:
            return True
        low_ok = self.low > other.low or (
            self.low == other.low and (self.low_open or not other.low_open or self.low == -INF)
        )
        high_ok = self.high < other.high or (
            self.high == other.high and (self.high_open or not other.high_open or self.high == INF)
        )
        return low_ok and high_ok and (not other.nonzero or self.excludes_zero)

    def meet(self, other: Interval) -> Interval:
        """What is in both."""
        low, low_open = max((self.low, self.low_open), (other.low, other.low_open))
        high, shut = min((self.high, not self.high_open), (other.high, not other.high_open))
        return Interval(low, high, low_open, not shut, self.nonzero or other.nonzero)

    def join(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        low, low_open = min((self.low, self.low_open), (other.low, other.low_open))
        high, shut = max((self.high, not self.high_open), (other.high, not other.high_open))
        return Interval(low, high, low_open, not shut, self.excludes_zero and other.excludes_zero)

    def __str__(self) -> str:
        if self.point is not None:
            return _number(self.low)
        if (self.low, self.high) == (-INF, INF):
            return "!= 0" if self.nonzero else "any real"
        if self.high == INF:
            return f"{'>' if self.low_open or (self.nonzero and self.low == 0) else '>='} {_number(self.low)}"
        if self.low == -INF:
            return f"{'<' if self.high_open else '<='} {_number(self.high)}"
        return (
            f"in {'(' if self.low_open else '['}{_number(self.low)}, {_number(self.high)}{')' if self.high_open else ']'}"
            + (" and not 0" if self.nonzero and self.low < 0 < self.high else "")
        )


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 1e15 else f"{value:.6g}"


ANY = Interval()
POSITIVE = Interval(0, INF, low_open=True)
NONNEGATIVE = Interval(0, INF)
UNIT_INTERVAL = Interval(0, 1)
TRUTH = Interval(0, 1)


def point(value: float) -> Interval:
    """The interval of one value."""
    return Interval(value, value)


# ---- arithmetic: every result holds all values of the operation on members -------------------


def add(a: Interval, b: Interval) -> Interval:
    """Sums."""
    return Interval(
        _sum(a.low, b.low, -INF), _sum(a.high, b.high, INF), a.low_open or b.low_open, a.high_open or b.high_open
    )


def negative(a: Interval) -> Interval:
    """Negations."""
    return Interval(-a.high, -a.low, a.high_open, a.low_open, a.nonzero)


def subtract(a: Interval, b: Interval) -> Interval:
    """Differences."""
    return add(a, negative(b))


def multiply(a: Interval, b: Interval) -> Interval:
    """Products."""
    ends = [
        (_product(x, y), _product_open(x, xo, y, yo))
        for x, xo in ((a.low, a.low_open), (a.high, a.high_open))
        for y, yo in ((b.low, b.low_open), (b.high, b.high_open))
    ]
    nonzero = a.excludes_zero and b.excludes_zero
    return _from_ends(ends, nonzero)


def _product_open(x: float, x_open: bool, y: float, y_open: bool) -> bool:
    """0 * y is reached where 0 is reached, whatever y does."""
    if x == 0 and y == 0:
        return x_open and y_open
    if x == 0:
        return x_open
    if y == 0:
        return y_open
    return x_open or y_open


def reciprocal(a: Interval) -> Interval:
    """1/x where x is not 0."""
    if a.low > 0 or (a.low == 0 and (a.low_open or a.nonzero)):
        low = 0.0 if a.high == INF else _down(1 / a.high)
        high = INF if a.low == 0 else _up(1 / a.low)
        return Interval(low, high, a.high_open or a.high == INF, a.low_open)
    if a.high < 0 or (a.high == 0 and (a.high_open or a.nonzero)):
        return negative(reciprocal(negative(a)))
    return Interval(nonzero=True)


def divide(a: Interval, b: Interval) -> Interval:
    """Quotients, the divisor not 0."""
    return multiply(a, reciprocal(b))


def monotone(a: Interval, low: float, high: float) -> Interval:
    """The image under an increasing function that takes these values at the ends of a."""
    return Interval(low, high, a.low_open and math.isfinite(low), a.high_open and math.isfinite(high))


def minimum(a: Interval, b: Interval) -> Interval:
    """Smaller ones."""
    low, low_open = min((a.low, a.low_open), (b.low, b.low_open))
    high, shut = min((a.high, not a.high_open), (b.high, not b.high_open))
    return Interval(low, high, low_open, not shut, a.excludes_zero and b.excludes_zero)


def maximum(a: Interval, b: Interval) -> Interval:
    """Larger ones."""
    return negative(minimum(negative(a), negative(b)))


def _sum(x: float, y: float, clash: float) -> float:
    total = x + y
    return clash if math.isnan(total) else total


def _product(x: float, y: float) -> float:
    return 0.0 if x == 0 or y == 0 else x * y


def _down(x: float) -> float:
    return math.nextafter(x, -INF)


def _up(x: float) -> float:
    return math.nextafter(x, INF)


def _from_ends(ends: list[tuple[float, bool]], nonzero: bool) -> Interval:
    low = min(e for e, _ in ends)
    high = max(e for e, _ in ends)
    return Interval(
        low,
        high,
        all(o for e, o in ends if e == low),
        all(o for e, o in ends if e == high),
        nonzero,
    )
