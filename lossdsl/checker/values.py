"""What names stand for while a program is checked, and what checking yields."""

from __future__ import annotations

from dataclasses import dataclass, field

from lossdsl.graph.build import Graph
from lossdsl.graph.nodes import Dim, Leaf, Node
from lossdsl.graph.ranges import Ranges
from lossdsl.syntax import ast
from lossdsl.syntax.source import Span
from lossdsl.types.domains import Interval, Kind
from lossdsl.types.sizes import Size


@dataclass(frozen=True)
class Tensor:
    """A node whose visible axes stand in this order. Its other dims are index variables and lifted axes."""

    node: Node
    axes: tuple[Dim, ...] = ()


@dataclass(frozen=True)
class RecordValue:
    """A record's fields."""

    type_name: str
    fields: dict[str, Tensor]


@dataclass(frozen=True)
class FunctionValue:
    """A function handed in as an argument."""

    name: str
    type: ast.FunctionType


@dataclass(frozen=True)
class Several:
    """The values of a def with more than one."""

    items: tuple[Tensor, ...]


Value = Tensor | RecordValue | FunctionValue | Several


@dataclass
class Range:
    """What an index variable runs over: a length, and the axis where one is known."""

    size: Size
    axis: Dim | None = None


@dataclass
class Scope:
    """The names of one function body.

    axes: the dims that axis names stand for. reserved: dims that come along from the caller and must not be reused.
    states: names that `:=` may update.
    """

    module: LoadedModule
    function: ast.Function | None
    names: dict[str, Value] = field(default_factory=dict)
    axes: dict[str, Dim] = field(default_factory=dict)
    reserved: frozenset[Dim] = frozenset()
    variables: dict[str, Range] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    places: dict[str, Span] = field(default_factory=dict)
    prefix: str = ""
    in_loop: bool = False
    carried: frozenset[str] = frozenset()

    def inner(self) -> Scope:
        """A scope that sees these names and may add its own."""
        return Scope(
            self.module, self.function, dict(self.names), dict(self.axes), self.reserved, dict(self.variables),
            self.states, dict(self.places), self.prefix, self.in_loop, self.carried,
        )  # fmt: skip


@dataclass(frozen=True)
class LoadedModule:
    """A parsed file and what its `use` lines brought in. broken: names whose declaration is refused and reported already."""

    name: str
    tree: ast.Module
    records: dict[str, tuple[LoadedModule, ast.Record]] = field(default_factory=dict, compare=False, repr=False)
    functions: dict[str, tuple[LoadedModule, ast.Function]] = field(default_factory=dict, compare=False, repr=False)
    broken: set[str] = field(default_factory=set, compare=False, repr=False)


# ---- what checking a loss yields -------------------------------------------------------------


@dataclass(frozen=True)
class InputSpec:
    """One tensor input. path: its name, or record name and field."""

    path: tuple[str, ...]
    leaf: Leaf
    type: str

    @property
    def name(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True)
class FunctionSpec:
    """A function input."""

    name: str
    type: str


@dataclass(frozen=True)
class HyperSpec:
    """A hyperparameter: its kind, domain in words and as an interval, default."""

    name: str
    kind: Kind
    domain: Interval
    default: float | int | None
    value: float | int | None
    type: str


@dataclass(frozen=True)
class LastingSpec:
    """A state or a param. initial is a node over its axes; draws inside it are made once."""

    role: str
    name: str
    leaf: Leaf
    initial: Node | None
    type: str
    distribution: str | None = None
    arguments: tuple[Node, ...] = ()


@dataclass(frozen=True)
class DrawSpec:
    """A random variable: distribution and its arguments."""

    name: str
    leaf: Leaf
    distribution: str
    arguments: tuple[Node, ...]
    type: str


@dataclass(frozen=True)
class Definition:
    """A named intermediate value, for `--print types`."""

    name: str
    value: Tensor
    span: Span


@dataclass
class Program:
    """A checked loss: an index graph with everything that surrounds it."""

    name: str
    module: LoadedModule
    function: ast.Function
    graph: Graph
    ranges: Ranges
    inputs: list[InputSpec] = field(default_factory=list)
    functions: list[FunctionSpec] = field(default_factory=list)
    hypers: list[HyperSpec] = field(default_factory=list)
    lasting: list[LastingSpec] = field(default_factory=list)
    draws: list[DrawSpec] = field(default_factory=list)
    updates: dict[str, Node] = field(default_factory=dict)
    value: Tensor | None = None
    values: tuple[Tensor, ...] = ()
    definitions: list[Definition] = field(default_factory=list)
    ensures: tuple[ast.Phrase, ...] = ()
    axis_names: frozenset[str] = frozenset()
    requirements: dict[Size, str] = field(default_factory=dict)
    """Lengths that must not be negative, each with what it is needed for."""

    @property
    def roots(self) -> list[Node]:
        """Every node that has to be computed: the values, then the updates in order."""
        return [*(v.node for v in self.values), *self.updates.values()]
