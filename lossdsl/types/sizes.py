"""Lengths of axes: polynomials with whole coefficients over atoms.

An atom is the name of an axis or of a whole hyperparameter, or a floor division. Sizes are values: equal polynomials
are equal, so `N + N` is `2*N`. Checking computes with them all the time: hashes and sums are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

MAX_TERMS = 40


class _Hashed:
    """Keeps the hash of a frozen dataclass, and the words by which factors are sorted."""

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        kept: int | None = self.__dict__.get("_hash")
        if kept is None:
            kept = self.__dict__["_hash"] = hash(self._fields())
        return kept

    @cached_property
    def words(self) -> str:
        return repr(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Hashes of texts differ between processes, so what is kept stays here."""
        return (type(self), self._fields())


@dataclass(frozen=True, order=True)
class Atom(_Hashed):
    """A named length that nothing else determines. least: what it is at least."""

    name: str
    least: int = 1

    __hash__ = _Hashed.__hash__

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Floor(_Hashed):
    """numerator // denominator."""

    numerator: Size
    denominator: int

    __hash__ = _Hashed.__hash__

    def __str__(self) -> str:
        inner = str(self.numerator)
        return f"({inner}) // {self.denominator}" if " " in inner or "*" in inner else f"{inner} // {self.denominator}"


Factor = Atom | Floor
Monomial = tuple[Factor, ...]


class SizeTooLarge(Exception):  # noqa: N818 - reported as a diagnostic by the checker
    """A length grew beyond what is worth computing with."""


@dataclass(frozen=True)
class Size(_Hashed):
    """sum of coefficient * product of factors; `terms` is sorted, without zero coefficients."""

    terms: tuple[tuple[Monomial, int], ...]

    __hash__ = _Hashed.__hash__

    @staticmethod
    def of(value: int | str | Atom) -> Size:
        if isinstance(value, int):
            return Size((((), value),)) if value else Size(())
        atom = Atom(value) if isinstance(value, str) else value
        return Size((((atom,), 1),))

    @cached_property
    def constant(self) -> int | None:
        """The value of a size without atoms."""
        if not self.terms:
            return 0
        if len(self.terms) == 1 and self.terms[0][0] == ():
            return self.terms[0][1]
        return None

    @cached_property
    def atom(self) -> Atom | None:
        """The atom that this size is, if it is just one."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1:
            factor = self.terms[0][0][0]
            return factor if isinstance(factor, Atom) else None
        return None

    @cached_property
    def atoms(self) -> frozenset[Atom]:
        found: set[Atom] = set()
        for monomial, _ in self.terms:
            for factor in monomial:
                found |= {factor} if isinstance(factor, Atom) else factor.numerator.atoms
        return frozenset(found)

    def __add__(self, other: Size | int) -> Size:
        return _sum(self, other if isinstance(other, Size) else Size.of(other))

    def __neg__(self) -> Size:
        return Size(tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: Size | int) -> Size:
        return _difference(self, other if isinstance(other, Size) else Size.of(other))

    def __mul__(self, other: Size | int) -> Size:
        return _product(self, other if isinstance(other, Size) else Size.of(other))

    def __floordiv__(self, divisor: int) -> Size:
        return self if divisor == 1 else _quotient(self, divisor)

    def _divided(self, divisor: int) -> Size:
        if all(c % divisor == 0 for _, c in self.terms):
            return Size(tuple((m, c // divisor) for m, c in self.terms))
        if self.constant is not None:
            return Size.of(self.constant // divisor)
        # whole multiples leave the floor, so that (H + 2) // 2 and H // 2 + 1 are one size
        inside = [(m, c % divisor) for m, c in self.terms]
        outside = [(m, c // divisor) for m, c in self.terms]
        numerator = _collect(inside)
        if numerator.constant is not None:
            return _collect(outside) + numerator.constant // divisor
        if len(numerator.terms) == 1 and numerator.terms[0][1] == 1 and len(numerator.terms[0][0]) == 1:
            nested = numerator.terms[0][0][0]
            if isinstance(nested, Floor):
                return _collect(outside) + Size((((Floor(nested.numerator, nested.denominator * divisor),), 1),))
        return _collect(outside) + Size((((Floor(numerator, divisor),), 1),))

    @cached_property
    def least(self) -> int | None:
        """A proved lower bound, or None where none was found."""
        total = 0
        for monomial, coefficient in self.terms:
            low = 1
            for factor in monomial:
                low *= _factor_least(factor)
            if coefficient < 0 and monomial:
                return _difference_least(self)
            total += coefficient * low
        return total

    def value(self, sizes: Mapping[str, int]) -> int:
        """The number that this size is when the atoms have these lengths."""
        total = 0
        for monomial, coefficient in self.terms:
            product = coefficient
            for factor in monomial:
                if isinstance(factor, Atom):
                    product *= sizes[factor.name]
                else:
                    product *= factor.numerator.value(sizes) // factor.denominator
            total += product
        return total

    def substitute(self, sizes: Mapping[str, Size]) -> Size:
        """The size with some atoms replaced by sizes."""
        if not any(a.name in sizes for a in self.atoms):
            return self
        total = Size(())
        for monomial, coefficient in self.terms:
            product = Size.of(coefficient)
            for factor in monomial:
                if isinstance(factor, Atom):
                    product = product * sizes.get(factor.name, Size.of(factor))
                else:
                    product = product * (factor.numerator.substitute(sizes) // factor.denominator)
            total = total + product
        return total

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        parts: list[str] = []
        for monomial, coefficient in sorted(self.terms, key=lambda t: (t[0] == (), t[1] < 0)):
            names = "*".join(
                f"({f})" if isinstance(f, Floor) and (abs(coefficient) != 1 or len(monomial) > 1) else str(f)
                for f in monomial
            )
            size = abs(coefficient)
            body = names if names and size == 1 else f"{size}*{names}" if names else str(size)
            sign = "-" if coefficient < 0 else "+"
            parts.append(body if not parts and sign == "+" else f"-{body}" if not parts else f" {sign} {body}")
        return "".join(parts)


@lru_cache(maxsize=8192)
def _sum(a: Size, b: Size) -> Size:
    return _collect([*a.terms, *b.terms])


@lru_cache(maxsize=8192)
def _difference(a: Size, b: Size) -> Size:
    return _collect([*a.terms, *((m, -c) for m, c in b.terms)])


@lru_cache(maxsize=8192)
def _product(a: Size, b: Size) -> Size:
    return _collect([(tuple(sorted(m + n, key=str)), c * d) for m, c in a.terms for n, d in b.terms])


@lru_cache(maxsize=8192)
def _quotient(a: Size, divisor: int) -> Size:
    return a._divided(divisor)  # noqa: SLF001 - its kept form


def _words(term: tuple[Monomial, int]) -> str:
    return f"({', '.join(f.words for f in term[0])}{',' if len(term[0]) == 1 else ''})"


def _collect(terms: list[tuple[Monomial, int]]) -> Size:
    found: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        found[monomial] = found.get(monomial, 0) + coefficient
    kept = [(m, c) for m, c in found.items() if c]
    if len(kept) > MAX_TERMS or any(abs(c) > 2**62 or len(m) > 8 for m, c in kept):
        raise SizeTooLarge
    return Size(tuple(sorted(kept, key=_words) if len(kept) > 1 else kept))


def _factor_least(factor: Factor) -> int:
    if isinstance(factor, Atom):
        return factor.least
    low = factor.numerator.least
    return 0 if low is None or low < 0 else low // factor.denominator


def _difference_least(size: Size) -> int | None:
    """A - a // k and the like: bound each negative floor by its numerator."""
    total = Size(())
    for monomial, coefficient in size.terms:
        if coefficient < 0 and len(monomial) == 1 and isinstance(monomial[0], Floor):
            floor = monomial[0]
            if floor.denominator % -coefficient == 0:  # c * (n // (c*d)) <= n // d
                total = total - floor.numerator // (floor.denominator // -coefficient)
                continue
            if floor.numerator.constant is None and -coefficient <= floor.denominator:
                total = total - floor.numerator  # -c*(n // d) >= -n for c <= d and n >= 0
                continue
        total = total + Size(((monomial, coefficient),))
    if any(c < 0 and m for m, c in total.terms):
        return _shifted_least(total)
    return total.least


def _shifted_least(size: Size) -> int | None:
    """N*(N - 1) and the like: with every atom written as its least plus a rest, all coefficients may be positive."""
    if any(isinstance(factor, Floor) for monomial, _ in size.terms for factor in monomial):
        return None
    shifted = size.substitute({a.name: Size.of(Atom(a.name, 0)) + a.least for a in size.atoms})
    if any(c < 0 and m for m, c in shifted.terms):
        return None
    return sum(c for m, c in shifted.terms if not m)
