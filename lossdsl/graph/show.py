"""The index graph as text: one numbered line a node, children first, with the names of its dims.

    %1  pi.chosen                           [B] real
    %2  sub %1 %3                           [B] real  # margin
    %3  mean[B] %2                          real

Numbers, hyperparameters, lengths and positions stand where they are used, without a line of their own. `At`
is written as a read: `%1[N: i, D: 0]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lossdsl.graph import nodes as n
from lossdsl.graph.nodes import Dim, Node, topological

COLUMN = 44
"""Where types begin, if the operation is not longer."""

_INLINE = (n.Const, n.Hyper, n.SizeOf, n.Iota)


def show_graph(results: Sequence[tuple[str, Node, tuple[Dim, ...]]]) -> list[str]:
    """Lines for everything below some results: each has what stands before its `=`, and its axes in order."""
    return Listing([node for _, node, _ in results]).lines(results)


class Listing:
    """Numbers for nodes and names for dims, unique within one listing."""

    def __init__(self, roots: Iterable[Node]) -> None:
        self.nodes = [node for node in topological(list(roots)) if not isinstance(node, _INLINE)]
        self.numbers = {id(node): k + 1 for k, node in enumerate(self.nodes)}
        self.names: dict[Dim, str] = {}
        taken: set[str] = set()
        for dim in sorted({d for node in topological(list(roots)) for d in _dims_of(node)}, key=lambda d: d.order):
            name, count = str(dim), 1
            while name in taken:
                name, count = f"{dim}'{count}", count + 1
            taken.add(name)
            self.names[dim] = name

    def lines(self, results: Sequence[tuple[str, Node, tuple[Dim, ...]]]) -> list[str]:
        """One line a node, then one a result."""
        width = len(str(len(self.nodes))) + 1
        out = [f"{'%' + str(self.numbers[id(node)]):<{width}}  {self.node(node)}" for node in self.nodes]
        for name, node, axes in results:
            shape = f"  [{self._list(axes)}]" if axes else ""
            out.append(f"{name}= {self.ref(node)}{shape}")
        return out

    def node(self, node: Node) -> str:
        """One node with its type, and its name in the program."""
        if isinstance(node, n.Loop):
            return self._text(node)
        free = node.axes if isinstance(node, n.Leaf) else sorted(node.dims, key=lambda d: d.order)
        kind = f"[{self._list(free)}] {node.kind}" if free else str(node.kind)
        hint = f"  # {node.hint}" if node.hint and not isinstance(node, n.Leaf) else ""
        return f"{self._text(node):<{COLUMN}}  {kind}{hint}"

    def ref(self, node: Node) -> str:
        """A node where it is used."""
        match node:
            case n.Const():
                return str(node.value).lower() if isinstance(node.value, bool) else repr(node.value)
            case n.Hyper():
                return node.name
            case n.SizeOf():
                return f"|{node.size}|"
            case n.Iota():
                name = self.names[node.dim]
                return name if node.dim.index else f"@{name}"
            case _:
                return f"%{self.numbers[id(node)]}"

    def _list(self, dims: Iterable[Dim]) -> str:
        return ", ".join(self.names[d] for d in dims)

    def _refs(self, nodes: Iterable[Node]) -> str:
        return " ".join(map(self.ref, nodes))

    def _text(self, node: Node) -> str:
        match node:
            case n.Leaf():
                role = "" if node.role == "input" else f"{node.role} "
                return f"{role}{node.name}"
            case n.Apply():
                return f"{node.op} {self._refs(node.args)}"
            case n.Reduce():
                guard = "" if node.guard is None else f" | {self.ref(node.guard)}"
                default = "" if node.default is None else f" else {self.ref(node.default)}"
                return f"{node.op}[{self._list(node.bound)}{guard}] {self.ref(node.body)}{default}"
            case n.Along():
                return f"{node.op}[{self._list(node.along)}] {self.ref(node.body)}"
            case n.At():
                entries = ", ".join(f"{self.names[dim]}: {self.ref(index)}" for dim, index in node.mapping)
                default = "" if node.default is None else f" else {self.ref(node.default)}"
                return f"{self.ref(node.body)}[{entries}]{default}"
            case n.Concat():
                parts = " ".join(
                    self.ref(part) + (f"[{self.names[dim]}]" if dim is not None else "") for part, dim in node.parts
                )
                return f"concat[{self.names[node.dim]}] {parts}"
            case n.Solve():
                parts = " ".join(f"{self.ref(arg)}[{self._list(core)}]" for arg, core in node.args)
                return f"{node.op} {parts} -> [{self._list(node.axes)}]"
            case n.Scatter():
                over = f" over {self._list(node.over)}" if node.over else ""
                place = f"[{self.names[node.dim]}: {self.ref(node.index)}]"
                return f"{self.ref(node.base)}{place} := {self.ref(node.value)}{over}"
            case n.Custom():
                slopes = ", ".join(
                    f"{leaf.name} ({self.ref(argument)}): {'0' if slope is None else self.ref(slope)}"
                    for (leaf, argument), slope in zip(node.wrt, node.gradients, strict=True)
                )
                return f"{self.ref(node.value)} backward {node.incoming.name}: {slopes}"
            case n.Loop():
                return self._loop(node)
            case n.Result():
                return f"{self.ref(node.loop)}.{node.loop.carried[node.place].name}"
            case _:
                return type(node).__name__.lower()

    def _loop(self, node: n.Loop) -> str:
        changes = ", ".join(
            f"{leaf.name} = {self.ref(first)} then {self.ref(following)}"
            for leaf, first, following in zip(node.carried, node.initial, node.body, strict=True)
        )
        if node.axis is not None:
            way = " backwards" if node.backwards else ""
            return f"scan {node.counter.name}: {self.names[node.axis]}{way} with {changes}"
        until = "" if node.until is None else f" until {self.ref(node.until)}"
        return f"repeat {node.counter.name} < {self.ref(node.count)} with {changes}{until}"


def _dims_of(node: Node) -> set[Dim]:
    """Every dim that a node's line may name."""
    found = set(node.dims)
    match node:
        case n.Iota():
            found.add(node.dim)
        case n.Leaf():
            found.update(node.axes)
        case n.Reduce():
            found.update(node.bound)
        case n.Along():
            found.update(node.along)
        case n.At():
            found.update(dim for dim, _ in node.mapping)
        case n.Concat():
            found.add(node.dim)
            found.update(dim for _, dim in node.parts if dim is not None)
        case n.Solve():
            found.update(node.axes)
            found.update(dim for _, core in node.args for dim in core)
        case n.Scatter():
            found.update((node.dim, *node.over))
        case n.Loop():
            if node.axis is not None:
                found.add(node.axis)
        case _:
            pass
    return found
