"""The syntax tree of a `.loss` program: frozen data, a span on every node.

Spans do not take part in equality, so that two layouts of one program compare equal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lossdsl.syntax.source import Source, Span


@dataclass(frozen=True)
class Node:
    """Anything with a place in the text."""

    span: Span = field(compare=False, repr=False, kw_only=True)


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Within this block a walk down the deepest tree that the parser admits does not exhaust Python's stack."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


# ---- expressions ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Number(Node):
    """A number as written."""

    text: str


@dataclass(frozen=True)
class Name(Node):
    """A name."""

    id: str


@dataclass(frozen=True)
class Member(Node):
    """`base.field`."""

    base: Expr
    field: str


@dataclass(frozen=True)
class Group(Node):
    """A parenthesised expression; kept so that formatting keeps it."""

    inner: Expr


@dataclass(frozen=True)
class Negative(Node):
    """`-operand`."""

    operand: Expr


@dataclass(frozen=True)
class Not(Node):
    """`not operand`."""

    operand: Expr


@dataclass(frozen=True)
class Binary(Node):
    """op is one of + - * / // % ^ < <= > >= == != and or."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Index(Node):
    """One entry of a bracket: an expression."""

    value: Expr


@dataclass(frozen=True)
class Slice(Node):
    """`a:b`, `a:b:step`; `i: N` before a definition or in a binder has the same form."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@dataclass(frozen=True)
class Keyed(Node):
    """`C = labels` in a bracket."""

    name: str
    value: Expr


Entry = Index | Slice | Keyed


@dataclass(frozen=True)
class Bracket(Node):
    """`base[entries | guard]`: a read, or, where an argument list follows, a binder or an axis binding."""

    base: Expr
    entries: tuple[Entry, ...]
    guard: Expr | None


@dataclass(frozen=True)
class Argument(Node):
    """One argument of a call, with its keyword if it has one."""

    name: str | None
    value: Expr


@dataclass(frozen=True)
class Call(Node):
    """`function(arguments)`; function is a Name, or a Bracket over a Name."""

    function: Expr
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Otherwise(Node):
    """`value else default`."""

    value: Expr
    default: Expr


Expr = Number | Name | Member | Group | Negative | Not | Binary | Bracket | Call | Otherwise

# ---- types ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis(Node):
    """One axis of a shape: `N`, `3`, `2*N`, `M = 2*N`, `N >= 2`."""

    size: Expr
    name: str | None = None
    least: Expr | None = None


@dataclass(frozen=True)
class Bound(Node):
    """`op limit`, op one of < <= > >=."""

    op: str
    limit: Expr


@dataclass(frozen=True)
class ArrayType(Node):
    """`kind[axes] bounds`; kind is real, int, bool, sign, prob, unit or the name of a record.

    interval: the domain was written `in [a, b]`; bounds then holds its two ends.
    """

    kind: str
    axes: tuple[Axis, ...]
    bounds: tuple[Bound, ...] = ()
    interval: bool = False


@dataclass(frozen=True)
class FunctionType(Node):
    """`fn(parameters) -> result`."""

    parameters: tuple[Type, ...]
    result: Type


Type = ArrayType | FunctionType

# ---- statements ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Value(Node):
    """The value of a block, or several."""

    values: tuple[Expr, ...]


@dataclass(frozen=True)
class Definition(Node):
    """`x = e`, `s[i, j] = e`, `x, y = f(z)`."""

    targets: tuple[Expr, ...]
    values: tuple[Expr, ...]


@dataclass(frozen=True)
class Update(Node):
    """`state := e`, `state[index] := e`."""

    target: Expr
    value: Expr


@dataclass(frozen=True)
class Lasting(Node):
    """`param` or `state`: role, name, type and either an initial expression or a distribution."""

    role: str
    name: str
    type: Type
    initial: Expr | None
    distribution: Distribution | None


@dataclass(frozen=True)
class Distribution(Node):
    """The law of a draw or of a param's first value."""

    name: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Draw(Node):
    """`draw name: type ~ distribution`."""

    name: str
    type: Type
    distribution: Distribution


@dataclass(frozen=True)
class Initial(Node):
    """A carried value's name and first value."""

    name: str
    value: Expr


@dataclass(frozen=True)
class Repeat(Node):
    """`repeat variable < count with carried until until:`."""

    variable: str
    count: Expr
    carried: tuple[Initial, ...]
    until: Expr | None
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Scan(Node):
    """`scan variable: axis backwards with carried:`."""

    variable: str
    axis: Expr
    backwards: bool
    carried: tuple[Initial, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Derivative(Node):
    """One gradient of a `backward` block."""

    target: Expr
    value: Expr


@dataclass(frozen=True)
class Backward(Node):
    """A declared derivative."""

    gradient: str
    items: tuple[Derivative | Definition, ...]

    @property
    def derivatives(self) -> tuple[Derivative, ...]:
        return tuple(i for i in self.items if isinstance(i, Derivative))


@dataclass(frozen=True)
class Word(Node):
    """One word of an ensures phrase; amount holds the expression of `(L)` or `>= c`."""

    text: str
    amount: Expr | None = None


@dataclass(frozen=True)
class Phrase(Node):
    """One property of an `ensures` line."""

    words: tuple[Word, ...]


@dataclass(frozen=True)
class Ensures(Node):
    """The properties that a program promises."""

    phrases: tuple[Phrase, ...]


Statement = Value | Definition | Update | Lasting | Draw | Repeat | Scan | Backward | Ensures

# ---- declarations --------------------------------------------------------------------------


@dataclass(frozen=True)
class Used(Node):
    """A name brought in by `use`, with the name it gets."""

    name: str
    alias: str | None


@dataclass(frozen=True)
class Use(Node):
    """`use path: names`."""

    path: tuple[str, ...]
    names: tuple[Used, ...]


@dataclass(frozen=True)
class Field(Node):
    """One field of a record."""

    name: str
    type: Type


@dataclass(frozen=True)
class Record(Node):
    """A named bundle of tensors."""

    name: str
    axes: tuple[Axis, ...]
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Parameter(Node):
    """A tensor parameter or a hyperparameter."""

    name: str
    type: Type
    default: Expr | None


@dataclass(frozen=True)
class Function(Node):
    """A `def` or a `loss` (kind)."""

    kind: str
    name: str
    parameters: tuple[Parameter, ...]
    hyperparameters: tuple[Parameter, ...]
    result: Type | None
    doc: str | None
    body: tuple[Statement, ...]
    name_span: Span = field(compare=False, repr=False, kw_only=True)


@dataclass(frozen=True)
class Module(Node):
    """A file. broken: the names of declarations that did not parse, which are reported already."""

    source: Source = field(compare=False, repr=False)
    doc: str | None
    uses: tuple[Use, ...]
    records: tuple[Record, ...]
    functions: tuple[Function, ...]
    broken: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def losses(self) -> tuple[Function, ...]:
        return tuple(f for f in self.functions if f.kind == "loss")
