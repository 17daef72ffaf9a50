"""Scalar functions for the declarations in `ops`: on floats, and on mpmath's numbers of any precision."""

from __future__ import annotations

import math
from typing import Any


class Floats:
    """Python floats; overflow gives infinity as IEEE arithmetic does, and indeterminate forms give nan."""

    def number(self, value: float) -> float:
        return float(value)

    def divide(self, a: float, b: float) -> float:
        if b == 0:
            return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)
        return a / b

    def exp(self, a: float) -> float:
        try:
            return math.exp(a)
        except OverflowError:
            return math.inf

    def expm1(self, a: float) -> float:
        try:
            return math.expm1(a)
        except OverflowError:
            return math.inf

    def log(self, a: float) -> float:
        return math.log(a) if a > 0 else -math.inf if a == 0 else math.nan

    def log1p(self, a: float) -> float:
        return math.log1p(a) if a > -1 else -math.inf if a == -1 else math.nan

    def sqrt(self, a: float) -> float:
        return math.sqrt(a) if a >= 0 else math.nan

    def power(self, a: float, b: float) -> float:
        try:
            result = float(a) ** float(b)
        except OverflowError:
            return -math.inf if a < 0 and b % 2 == 1 else math.inf
        except ZeroDivisionError:
            return math.inf
        return math.nan if isinstance(result, complex) else result

    def power_slope(self, a: float, b: float) -> float:
        """d(a^b)/da; 0 at a = 0 where it would be infinite."""
        if b == 0:
            return 0.0
        if a == 0 and b < 1:
            return 0.0
        return b * self.power(a, b - 1)

    def power_log(self, y: float, a: float) -> float:
        """d(a^b)/db for a ≥ 0; 0 at a = 0, and 0 for a negative base, whose exponent is a constant."""
        return y * math.log(a) if a > 0 else 0.0

    def sigmoid(self, a: float) -> float:
        return 1 / (1 + math.exp(-a)) if a >= 0 else math.exp(a) / (1 + math.exp(a))

    def softplus(self, a: float) -> float:
        return max(a, 0.0) + math.log1p(math.exp(-abs(a)))

    def tanh(self, a: float) -> float:
        return math.tanh(a)

    def sech2(self, a: float) -> float:
        return 1 / math.cosh(a) ** 2 if abs(a) < 350 else 0.0

    def sign(self, a: float) -> float:
        return float((a > 0) - (a < 0))

    def sin(self, a: float) -> float:
        return math.sin(a) if math.isfinite(a) else math.nan

    def cos(self, a: float) -> float:
        return math.cos(a) if math.isfinite(a) else math.nan

    def tan(self, a: float) -> float:
        return math.tan(a) if math.isfinite(a) else math.nan

    def atan(self, a: float) -> float:
        return math.atan(a)

    def atan2(self, a: float, b: float) -> float:
        return math.atan2(a, b)

    def atan2_slopes(self, a: float, b: float) -> tuple[float, float]:
        square = a * a + b * b
        return (self.divide(b, square), self.divide(-a, square))

    def asin(self, a: float) -> float:
        return math.asin(a) if -1 <= a <= 1 else math.nan

    def acos(self, a: float) -> float:
        return math.acos(a) if -1 <= a <= 1 else math.nan

    def arc_slope(self, a: float) -> float:
        return 1 / math.sqrt((1 - a) * (1 + a)) if -1 < a < 1 else 0.0

    def sinh(self, a: float) -> float:
        try:
            return math.sinh(a)
        except OverflowError:
            return math.copysign(math.inf, a)

    def cosh(self, a: float) -> float:
        try:
            return math.cosh(a)
        except OverflowError:
            return math.inf

    def erf(self, a: float) -> float:
        return math.erf(a)

    def erfc(self, a: float) -> float:
        return math.erfc(a)

    def erf_slope(self, a: float) -> float:
        return 2 / math.sqrt(math.pi) * math.exp(-a * a)

    def lgamma(self, a: float) -> float:
        try:
            return math.lgamma(a)
        except (OverflowError, ValueError):  # at a pole the exception is ValueError
            return math.inf

    def digamma(self, a: float) -> float:
        import mpmath

        return float(mpmath.digamma(a))

    def trigamma(self, a: float) -> float:
        import mpmath

        return float(mpmath.psi(1, a))

    def floor(self, a: float) -> float:
        return a if math.isinf(a) or math.isnan(a) else math.floor(a)

    def round(self, a: float) -> float:
        return a if math.isinf(a) or math.isnan(a) else round(a)

    def reflect(self, i: int, length: int) -> int:
        i = abs(i)
        i = 2 * (length - 1) - i if i > length - 1 else i
        return min(max(i, 0), length - 1)

    def xlogy(self, x: float, y: float) -> float:
        return 0.0 if x == 0 else x * self.log(y)

    def logaddexp(self, a: float, b: float) -> float:
        return self.logsumexp([a, b])

    def logsumexp(self, items: list[float]) -> float:
        top = max(items)
        if math.isinf(top):
            return top
        return top + math.log(math.fsum(math.exp(x - top) for x in items))


FLOATS = Floats()


class Multiprecision:
    """mpmath's numbers, at the precision that mpmath is set to."""

    def __init__(self) -> None:
        import mpmath

        self._mp: Any = mpmath.mp

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mp, name)

    def number(self, value: float) -> Any:
        return self._mp.mpf(value)

    def divide(self, a: Any, b: Any) -> Any:
        if b == 0:
            return self._mp.nan if a == 0 else self._mp.inf * self.sign(a)
        return self._mp.mpf(a) / b

    def log(self, a: Any) -> Any:
        return self._mp.log(a) if a > 0 else self._mp.ninf if a == 0 else self._mp.nan

    def log1p(self, a: Any) -> Any:
        return self._mp.log1p(a) if a > -1 else self._mp.ninf if a == -1 else self._mp.nan

    def sqrt(self, a: Any) -> Any:
        return self._mp.sqrt(a) if a >= 0 else self._mp.nan

    def power(self, a: Any, b: Any) -> Any:
        if a == 0 and b < 0:
            return self._mp.inf
        if a < 0 and b != int(b):
            return self._mp.nan
        return self._mp.mpf(a) ** b

    def power_slope(self, a: Any, b: Any) -> Any:
        if b == 0 or (a == 0 and b < 1):
            return self.number(0)
        return b * self.power(a, b - 1)

    def power_log(self, y: Any, a: Any) -> Any:
        return y * self._mp.log(a) if a > 0 else self.number(0)

    def sigmoid(self, a: Any) -> Any:
        return 1 / (1 + self._mp.exp(-a)) if a >= 0 else self._mp.exp(a) / (1 + self._mp.exp(a))

    def softplus(self, a: Any) -> Any:
        return max(a, self.number(0)) + self._mp.log1p(self._mp.exp(-abs(a)))

    def sech2(self, a: Any) -> Any:
        return 1 / self._mp.cosh(a) ** 2

    def sign(self, a: Any) -> Any:
        return self.number((a > 0) - (a < 0))

    def atan2_slopes(self, a: Any, b: Any) -> tuple[Any, Any]:
        square = a * a + b * b
        return (self.divide(b, square), self.divide(-a, square))

    def asin(self, a: Any) -> Any:
        return self._mp.asin(a) if -1 <= a <= 1 else self._mp.nan

    def acos(self, a: Any) -> Any:
        return self._mp.acos(a) if -1 <= a <= 1 else self._mp.nan

    def arc_slope(self, a: Any) -> Any:
        return 1 / self._mp.sqrt((1 - a) * (1 + a)) if -1 < a < 1 else self.number(0)

    def erf_slope(self, a: Any) -> Any:
        return 2 / self._mp.sqrt(self._mp.pi) * self._mp.exp(-a * a)

    def lgamma(self, a: Any) -> Any:
        return self._mp.loggamma(a)

    def trigamma(self, a: Any) -> Any:
        return self._mp.psi(1, a)

    def round(self, a: Any) -> Any:
        return self._mp.nint(a)

    def reflect(self, i: int, length: int) -> int:
        return FLOATS.reflect(i, length)

    def xlogy(self, x: Any, y: Any) -> Any:
        return self.number(0) if x == 0 else x * self.log(y)

    def logaddexp(self, a: Any, b: Any) -> Any:
        return self.logsumexp([a, b])

    def logsumexp(self, items: list[Any]) -> Any:
        top = max(items)
        if self._mp.isinf(top):
            return top
        return top + self._mp.log(self._mp.fsum(self._mp.exp(x - top) for x in items))
