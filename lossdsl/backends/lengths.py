"""Lengths of axes while lowering: numbers, or registers that read them from the shapes of what comes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lossdsl.backends.code import Arg, HyperRef, Placed, Reg
from lossdsl.checker.values import Program
from lossdsl.graph.nodes import Leaf
from lossdsl.types.sizes import Atom, Size


class UnknownSize(Exception):  # noqa: N818 - becomes a diagnostic in the loader
    """No input, state or keyword tells this length."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


class Lengths:
    """The part of lowering that knows lengths. sizes: what the loader fixed."""

    program: Program
    sizes: Mapping[str, int | HyperRef]
    arguments: list[tuple[Reg, str]]

    def __init__(self) -> None:
        self.atoms: dict[str, Placed] = {}
        self.lengths: dict[Size, Placed] = {}

    def emit(self, target: str, *args: Arg, hint: str = "", at: int | None = None, **kwargs: Arg) -> Reg:
        """Append a call and give its result."""
        raise NotImplementedError

    def length(self, size: Size) -> Arg:
        """A length as a number or as a register holding one."""
        if size.constant is not None:
            return size.constant
        if size not in self.lengths:
            self.lengths[size] = Placed(self._length(size), scalar=True)
        return self.lengths[size].arg

    def _length(self, size: Size) -> Arg:
        total: Arg = None
        for monomial, coefficient in size.terms:
            product: Arg = None
            for factor in monomial:
                if isinstance(factor, Atom):
                    value = self._atom(factor.name)
                else:
                    value = self.scalar("//", self.length(factor.numerator), factor.denominator)
                product = value if product is None else self.scalar("*", product, value)
            if product is None:
                product = coefficient
            elif coefficient != 1:
                product = self.scalar("*", coefficient, product)
            total = product if total is None else self.scalar("+", total, product)
        return 0 if total is None else total

    def scalar(self, op: str, a: Arg, b: Arg) -> Arg:
        if isinstance(a, int) and isinstance(b, int):
            return {"+": a + b, "*": a * b, "//": a // b if b else 0}[op]
        return self.emit(op, a, b, at=0)

    def _atom(self, name: str) -> Arg:
        if name in self.atoms:
            return self.atoms[name].arg
        if name in self.sizes:
            return self.sizes[name]
        found = self._find_atom(name)
        self.atoms[name] = Placed(found, scalar=True)
        return found

    def _find_atom(self, name: str) -> Arg:
        for reg, leaf in self._leaves():
            for place, dim in enumerate(leaf.axes):
                if dim.size.atom is not None and dim.size.atom.name == name:
                    return self.read_length(reg, place, name)
        for reg, leaf in self._leaves():
            for place, dim in enumerate(leaf.axes):
                solved = self._solve(dim.size, name, reg, place)
                if solved is not None:
                    return solved
        for spec in self.program.hypers:
            if spec.name == name and spec.value is not None:
                return HyperRef(name, int(spec.value))
        raise UnknownSize(name)

    def read_length(self, reg: Reg, place: int, hint: str) -> Arg:
        shape = self.emit("getattr", reg, "shape", at=0)
        return self.emit("getitem", shape, place, hint=hint, at=0)

    def _solve(self, size: Size, name: str, reg: Reg, place: int) -> Arg:
        """The atom from a length that is linear in it, the rest being known: 2*N, J + 3."""
        if any(len(m) > 1 or any(not isinstance(f, Atom) for f in m) for m, _ in size.terms):
            return None
        factors = {m[0].name: c for m, c in size.terms if m and isinstance(m[0], Atom)}
        if name not in factors or any(f != name and f not in self.atoms and f not in self.sizes for f in factors):
            return None
        rest = size - Size.of(Atom(name)) * factors[name]
        value = self.read_length(reg, place, name)
        minus = self.length(-rest)
        shifted = value if minus == 0 else self.emit("+", value, minus, at=0)
        return shifted if factors[name] == 1 else self.emit("//", shifted, factors[name], at=0)

    def _leaves(self) -> Iterable[tuple[Reg, Leaf]]:
        by_name = {name: reg for reg, name in self.arguments}
        specs = [
            *(i.leaf for i in self.program.inputs),
            *(s.leaf for s in self.program.lasting),
            *(d.leaf for d in self.program.draws),
        ]
        return [(by_name[leaf.name], leaf) for leaf in specs if leaf.name in by_name]
