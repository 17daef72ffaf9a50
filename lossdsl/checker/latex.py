"""A function as a formula, in LaTeX or as text, read off its syntax tree.

Axes become indices: `mean[N](x)` is written as a sum over n of x with index n. What an axis-wise operation or
a call takes whole keeps no index inside it; the index stands behind the call if its value has that axis.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

from lossdsl.checker.binders import BINDERS, KEEPING
from lossdsl.checker.calls import builtin_names
from lossdsl.checker.notation import ATOM, BIG, LOOSE, Latex, Notation, Piece, Text
from lossdsl.checker.types import is_axis_name
from lossdsl.checker.values import LoadedModule, Program
from lossdsl.ops.elementwise import ELEMENTWISE
from lossdsl.syntax import ast

Axes = tuple[str, ...]
Line = tuple[str, str, str]
"""Left side, sign, right side."""

_OPERATORS = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod", "^": "pow", "and": "and",
    "or": "or", "<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne",
}  # fmt: skip


@dataclass
class Names:
    """What a formula has to know of the functions around it.

    program: the checked program of a function of a module, or None where it is refused.
    prelude: the names that mean the prelude's functions here.
    """

    program: Callable[[LoadedModule, ast.Function], Program | None]
    prelude: Mapping[str, tuple[LoadedModule, ast.Function]]


def latex(program: Program, names: Names) -> str:
    """The formula of a checked function as one LaTeX display."""
    lines = _lines(program, names, Latex())
    rows = [f"{left} {sign} {right}".strip() for left, sign, right in lines]
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def text(program: Program, names: Names) -> list[str]:
    """The formula of a checked function as lines of text."""
    lines = _lines(program, names, Text())
    return [f"{left} {sign} {right}" if right else left for left, sign, right in lines]


def _lines(program: Program, names: Names, notation: Notation) -> list[Line]:
    with _deep_recursion():
        return _Formula(program, names, notation).lines()


@contextmanager
def _deep_recursion() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@dataclass
class _Where:
    """What is bound here: axes to index letters, and the letters in use."""

    axes: dict[str, str] = field(default_factory=dict)
    letters: frozenset[str] = frozenset()

    def bind(self, axes: Mapping[str, str], letters: Sequence[str] = ()) -> _Where:
        return _Where({**self.axes, **axes}, self.letters | set(axes.values()) | set(letters))

    def without(self, axes: Sequence[str]) -> _Where:
        return _Where({a: v for a, v in self.axes.items() if a not in axes}, self.letters)


class _Formula:
    """One function."""

    def __init__(self, program: Program, names: Names, notation: Notation) -> None:
        self.program = program
        self.function = program.function
        self.module = program.module
        self.names = names
        self.n = notation
        self.axes: dict[str, Axes] = {}
        leaves = [(i.name, i.leaf) for i in program.inputs]
        leaves += [(item.name, item.leaf) for item in program.lasting]
        leaves += [(d.name, d.leaf) for d in program.draws]
        for name, leaf in leaves:
            self.axes[name] = tuple(str(d.size) for d in leaf.axes)
        for item in program.definitions:
            self.axes[item.name] = tuple(str(d.size) for d in item.value.axes)
        parameters = (*self.function.parameters, *self.function.hyperparameters)
        self.own = {p.name for p in parameters} | set(self.axes)

    # ---- statements ----

    def lines(self) -> list[Line]:
        """The whole function; its value is the last line, or the last but for updates."""
        return self._block(self.function.body, self._head(), 0)

    def _head(self) -> str:
        function = self.function
        inputs = ", ".join(self.n.symbol(p.name) for p in function.parameters)
        hypers = ", ".join(self.n.symbol(p.name) for p in function.hyperparameters)
        inside = f"{inputs}; {hypers}" if hypers else inputs
        return self.n.call(function.name, [inside]).text

    def _block(self, body: Sequence[ast.Statement], head: str, depth: int) -> list[Line]:
        out: list[Line] = []
        for statement in body:
            match statement:
                case ast.Value():
                    value = ", ".join(self.piece(e, _Where()).text for e in statement.values)
                    out.append((head, self.n.gets, value))
                case ast.Definition():
                    out.append(self._definition(statement, depth))
                case ast.Update():
                    target = self.piece(statement.target, _Where()).text
                    out.append((target, self.n.becomes, self.piece(statement.value, _Where()).text))
                case ast.Lasting():
                    out.append(self._lasting(statement))
                case ast.Draw():
                    law = self._law(statement.distribution)
                    out.append((self.n.symbol(statement.name), self.n.drawn, law))
                case ast.Repeat() | ast.Scan():
                    out.extend(self._loop(statement, depth))
                case ast.Backward():
                    out.extend(self._backward(statement))
                case ast.Ensures():
                    pass
        return out if depth == 0 else [(self.n.indent(left), sign, right) for left, sign, right in out]

    def _definition(self, statement: ast.Definition, depth: int) -> Line:
        targets: list[str] = []
        where = _Where()
        for target in statement.targets:
            where = where.bind({}, [e.span.text for e in getattr(target, "entries", ())])
            targets.append(self._target(target))
        values = ", ".join(self.piece(e, where).text for e in statement.values)
        sign = self.n.becomes if depth else self.n.gets
        return ", ".join(targets), sign, values

    def _target(self, target: ast.Expr) -> str:
        if isinstance(target, ast.Bracket) and isinstance(target.base, ast.Name):
            letters = [e.start if isinstance(e, ast.Slice) else e.value for e in target.entries]
            return self.n.symbol(target.base.id, [self.index(e) for e in letters if e is not None])
        return self.piece(target, _Where()).text

    def _lasting(self, item: ast.Lasting) -> Line:
        name = self.n.symbol(item.name)
        if item.distribution is not None:
            return f"{self.n.words(item.role + ' ')}{name}", self.n.drawn, self._law(item.distribution)
        value = "" if item.initial is None else self.piece(item.initial, _Where()).text
        return f"{self.n.words(item.role + ' ')}{name}", self.n.gets, f"{value}{self.n.words(' at first')}"

    def _law(self, law: ast.Distribution) -> str:
        return self.n.call(law.name, [self.piece(a.value, _Where()).text for a in law.arguments]).text

    def _loop(self, loop: ast.Repeat | ast.Scan, depth: int) -> list[Line]:
        start = ", ".join(f"{self.n.symbol(c.name)} = {self.piece(c.value, _Where()).text}" for c in loop.carried)
        variable, source = self.n.symbol(loop.variable), self.n.words(" from ")
        if isinstance(loop, ast.Repeat):
            count = self.piece(loop.count, _Where()).text
            first = f"{self.n.words('for ')}{variable} < {count}{source}{start}"
            if loop.until is not None:
                first += self.n.words(" until ") + self.piece(loop.until, _Where()).text
        else:
            way = " backwards" if loop.backwards else ""
            axis = self.piece(loop.axis, _Where()).text
            along = self.n.words(f"{way} along ")
            first = f"{self.n.words('for ')}{variable}{along}{axis}{source}{start}"
        return [(first, "", ""), *self._block(loop.body, "", depth + 1)]

    def _backward(self, statement: ast.Backward) -> list[Line]:
        out: list[Line] = []
        for item in statement.items:
            if isinstance(item, ast.Definition):
                out.append(self._definition(item, 0))
            else:
                slope = self.n.words("gradient of ") + self.piece(item.target, _Where()).text
                out.append((slope, self.n.gets, self.piece(item.value, _Where()).text))
        head = f"{self.n.words('backwards, from ')}{self.n.symbol(statement.gradient)}"
        return [(head, "", ""), *((self.n.indent(left), sign, right) for left, sign, right in out)]

    # ---- expressions ----

    def piece(self, expr: ast.Expr, where: _Where) -> Piece:
        """An expression, its bound axes as indices."""
        match expr:
            case ast.Number():
                return self.n.number(expr.text)
            case ast.Name():
                return self._name(expr.id, (), where)
            case ast.Member():
                return self._member(expr, (), where)
            case ast.Group():
                return self.piece(expr.inner, where)
            case ast.Negative():
                return self.n.operation("neg", [self.piece(expr.operand, where)])
            case ast.Not():
                return self.n.operation("not", [self.piece(expr.operand, where)])
            case ast.Binary():
                args = [self.piece(expr.left, where), self.piece(expr.right, where)]
                return self.n.operation(_OPERATORS[expr.op], args)
            case ast.Bracket():
                return self._read(expr, where)
            case ast.Call():
                return self._call(expr, where)
            case ast.Otherwise():
                value = self.piece(expr.value, where)
                default = self.piece(expr.default, where).text
                either = f"{value.text}{self.n.words(' or ')}{default}"
                return Piece(either + self.n.words(" if none"), LOOSE)

    def index(self, expr: ast.Expr) -> str:
        """An expression as an index."""
        return self.piece(expr, _Where()).text

    def _name(self, name: str, indices: Sequence[str], where: _Where, used: int = 0) -> Piece:
        axes = self.axes.get(name, ())[used:]
        own = [where.axes[a] for a in axes if a in where.axes]
        if is_axis_name(name) and name not in self.own:
            return Piece(name)
        if name == "inf" and name not in self.own:
            return Piece(self.n.infinity)
        return Piece(self.n.symbol(name, [*indices, *own]))

    def _member(self, expr: ast.Member, indices: Sequence[str], where: _Where) -> Piece:
        base = expr.base.id if isinstance(expr.base, ast.Name) else self.piece(expr.base, where).text
        axes = self.axes.get(f"{base}.{expr.field}", ())[len(indices) :]
        own = [where.axes[a] for a in axes if a in where.axes]
        return Piece(self.n.member(base, expr.field, [*indices, *own]))

    def _read(self, expr: ast.Bracket, where: _Where) -> Piece:
        """`z[i]`, `logits[C = labels]`, `x[1:K]`."""
        indices: list[str] = []
        keyed: dict[str, str] = {}
        for entry in expr.entries:
            match entry:
                case ast.Index(value):
                    indices.append(self.piece(value, where).text)
                case ast.Keyed(name, value):
                    keyed[name] = self.piece(value, where).text
                case ast.Slice(start, stop, step):
                    ends = ["" if e is None else self.piece(e, where).text for e in (start, stop)]
                    more = [] if step is None else [self.piece(step, where).text]
                    indices.append(":".join([*ends, *more]))
        rest = where.bind(keyed)
        taken = len(indices)
        match expr.base:
            case ast.Name(name):
                return self._name(name, indices, rest, taken)
            case ast.Member():
                return self._member(expr.base, indices, rest)
            case _:
                base = self.piece(expr.base, rest)
                return Piece(self.n.below(self.n.at_least(base, ATOM), indices))

    def _call(self, expr: ast.Call, where: _Where) -> Piece:
        head = expr.function.base if isinstance(expr.function, ast.Bracket) else expr.function
        bracket = expr.function if isinstance(expr.function, ast.Bracket) else None
        name = head.id if isinstance(head, ast.Name) else ""
        if bracket is not None and name in BINDERS and not self._keyed(bracket):
            return self._binder(name, bracket, expr, where)
        plain = [a.value for a in expr.arguments if a.name is None]
        if bracket is None and name in ELEMENTWISE and not self._declared(name, len(plain)):
            op = "cosine" if name == "cos" else name
            return self._elementwise(op, [self.piece(e, where) for e in plain])
        return self._function(name, expr, where)

    @staticmethod
    def _keyed(bracket: ast.Bracket) -> bool:
        return bool(bracket.entries) and all(isinstance(e, ast.Keyed) for e in bracket.entries)

    def _declared(self, name: str, count: int) -> bool:
        """Does this name mean a function written in the language?"""
        if name in self.module.functions or name in self.own:
            return True
        return name in self.names.prelude and not (name == "cos" and count == 1)

    def _elementwise(self, op: str, args: list[Piece]) -> Piece:
        spec = ELEMENTWISE[op]
        if len(args) == spec.arity:
            return self.n.operation(op, args)
        return self.n.call(op, [a.text for a in args])

    # ---- binders ----

    def _binder(self, name: str, bracket: ast.Bracket, call: ast.Call, where: _Where) -> Piece:
        axes: list[str] = []
        variables: dict[str, str | None] = {}
        for entry in bracket.entries:
            match entry:
                case ast.Index(ast.Name(word)) if is_axis_name(word):
                    axes.append(word)
                case ast.Index(ast.Name(word)):
                    variables[word] = None
                case ast.Slice(ast.Name(word), stop, _) if stop is not None:
                    variables[word] = stop.span.text
                case _:
                    pass
        body = next((a.value for a in call.arguments if a.name is None), None)
        if body is None:
            return Piece(call.span.text)
        if name in KEEPING:
            return self._keeping(name, axes, variables, call, body, where)
        letters = self._letters(axes, where, variables)
        inner = where.bind(letters, list(variables))
        read = [body] if bracket.guard is None else [body, bracket.guard]
        for word, size in variables.items():
            if size is None:
                variables[word] = self._range(word, read)
        conditions = [] if bracket.guard is None else self._conditions(bracket.guard)
        index = [*letters.values(), *map(self.n.symbol, variables)]
        sizes = [*axes, *variables.values()]
        count = None
        if bracket.guard is None and all(s is not None for s in sizes):
            count = self.n.factors([s for s in sizes if s is not None])
        index, rest = self._merge(index, conditions, variables, inner)
        return self.n.big(name, index, rest, count, self.piece(body, inner))

    def _keeping(
        self, name: str, axes: list[str], variables: Mapping[str, str | None], call: ast.Call, body: ast.Expr,
        where: _Where,
    ) -> Piece:  # fmt: skip
        inner = where.without(axes).bind({}, list(variables))
        found = self.n.along(name, [*axes, *map(self.n.symbol, variables)], self.piece(body, inner))
        extra = [f"{a.name} = {self.piece(a.value, where).text}" for a in call.arguments if a.name is not None]
        outside = [where.axes[a] for a in axes if a in where.axes]
        text = found.text + (self.n.words(" with ") + ", ".join(extra) if extra else "")
        return Piece(self.n.below(text, outside), LOOSE if extra else ATOM)

    def _letters(self, axes: Sequence[str], where: _Where, taken: Mapping[str, str | None]) -> dict[str, str]:
        """An index letter for each axis: its own, small, or one with a prime where that is in use."""
        out: dict[str, str] = {}
        for axis in axes:
            letter = self.n.symbol(axis.lower())
            used = {*where.letters, *out.values(), *map(self.n.symbol, (*self.own, *taken))}
            while letter in used:
                letter += "'"
            out[axis] = letter
        return out

    def _range(self, variable: str, exprs: Sequence[ast.Expr]) -> str | None:
        """The axis that a variable runs over, where a plain read tells it."""
        for expr in exprs:
            for item in walk(expr):
                if not isinstance(item, ast.Bracket):
                    continue
                axes = self._axes_of_base(item.base)
                for place, entry in enumerate(item.entries):
                    alone = isinstance(entry, ast.Index) and isinstance(entry.value, ast.Name)
                    if alone and entry.span.text.strip() == variable:
                        return axes[place] if place < len(axes) else None
        return None

    def _axes_of_base(self, base: ast.Expr) -> Axes:
        match base:
            case ast.Name(name):
                return self.axes.get(name, ())
            case ast.Member(ast.Name(name), field_name):
                return self.axes.get(f"{name}.{field_name}", ())
            case _:
                return ()

    def _conditions(self, guard: ast.Expr) -> list[ast.Expr]:
        match guard:
            case ast.Binary("and", left, right):
                return [*self._conditions(left), *self._conditions(right)]
            case ast.Group(inner):
                return self._conditions(inner)
            case _:
                return [guard]

    def _merge(
        self,
        index: list[str],
        conditions: Sequence[ast.Expr],
        variables: Mapping[str, str | None],
        where: _Where,
    ) -> tuple[list[str], list[str]]:
        """A condition `p != i` on a bound p takes the place of p, and of i if that is bound here too."""
        rest: list[str] = []
        for condition in conditions:
            text = self.piece(condition, where).text
            match condition:
                case ast.Binary(_, ast.Name(word), other) if word in variables and self.n.symbol(word) in index:
                    names = [e.id for e in walk(other) if isinstance(e, ast.Name)]
                    told = {self.n.symbol(name) for name in names if name in variables}
                    index = [text if i == self.n.symbol(word) else i for i in index if i not in told]
                case _:
                    rest.append(text)
        return index, rest

    # ---- functions ----

    def _function(self, name: str, call: ast.Call, where: _Where) -> Piece:
        """A function of the language, of the library, or an argument."""
        found = self.module.functions.get(name) or self.names.prelude.get(name)
        tensors = [a.value for a in call.arguments if a.name is None]
        core, result = self._core(found, tensors)
        inner = where.without(core)
        args = [self.piece(e, inner) for e in tensors]
        named = [a for a in call.arguments if a.name is not None]
        outside = [where.axes[a] for a in result if a in where.axes]
        if found is not None and name not in self.module.functions and not named:
            known = self._prelude(name, args)
            if known is not None:
                return Piece(self.n.below(self.n.at_least(known, ATOM), outside)) if outside else known
        hypers = [self._setting(a, inner) for a in named]
        inside = ", ".join(a.text for a in args)
        if hypers:
            inside = f"{inside}; {', '.join(hypers)}"
        return self.n.call(name, [inside], outside)

    def _setting(self, argument: ast.Argument, where: _Where) -> str:
        value = self.piece(argument.value, where).text
        assert argument.name is not None
        return value if value == self.n.symbol(argument.name) else f"{self.n.symbol(argument.name)} = {value}"

    def _prelude(self, name: str, args: list[Piece]) -> Piece | None:
        match name, len(args):
            case "norm", 1:
                return Piece(self.n.fenced("norm", args[0].text))
            case "dot", 2:
                return Piece(self.n.fenced("dot", f"{args[0].text}, {args[1].text}"))
            case (("dist" | "sqdist"), 2):
                norm = Piece(self.n.fenced("norm", self.n.operation("sub", args).text))
                return norm if name == "dist" else self.n.operation("pow", [norm, Piece("2")])
            case "cos", 2:
                return self.n.cosine(args)
            case "normalize", 1:
                return self.n.operation("div", [args[0], Piece(self.n.fenced("norm", args[0].text))])
            case _:
                return None

    def _core(self, found: tuple[LoadedModule, ast.Function] | None, tensors: Sequence[ast.Expr]) -> tuple[Axes, Axes]:
        """The caller's axes that a call takes whole, and those of them that its value has again."""
        if found is None:
            return (), ()
        core: dict[str, str] = {}
        for parameter, expr in zip(found[1].parameters, tensors, strict=False):
            if not isinstance(parameter.type, ast.ArrayType):
                continue
            wanted = [a.name or a.size.span.text for a in parameter.type.axes]
            axes = self.shape(expr) or self._record(expr)
            core.update(zip(reversed(wanted), reversed(axes), strict=False))
        if not core:
            return (), ()
        program = self.names.program(*found)
        value = None if program is None else program.value
        result = [] if value is None else [str(d.size) for d in value.axes]
        return tuple(core.values()), tuple(core[a] for a in result if a in core)

    def _record(self, expr: ast.Expr) -> Axes:
        """The axes of a record's fields."""
        if not isinstance(expr, ast.Name):
            return ()
        fields = [axes for name, axes in self.axes.items() if name.startswith(f"{expr.id}.")]
        return tuple(dict.fromkeys(axis for axes in fields for axis in axes))

    def shape(self, expr: ast.Expr) -> Axes:
        """The axes of an expression as far as the tree tells them."""
        match expr:
            case ast.Name() | ast.Member():
                return self._axes_of_base(expr)
            case ast.Group(inner) | ast.Negative(inner) | ast.Not(inner):
                return self.shape(inner)
            case ast.Binary(_, left, right):
                return tuple(dict.fromkeys((*self.shape(left), *self.shape(right))))
            case ast.Otherwise(value, _):
                return self.shape(value)
            case ast.Bracket(base, entries, _):
                keyed = [e.name for e in entries if isinstance(e, ast.Keyed)]
                axes = self.shape(base)
                return tuple(a for a in axes if a not in keyed) if keyed else axes[len(entries) :]
            case ast.Call():
                return self._call_shape(expr)
            case _:
                return ()

    def _call_shape(self, call: ast.Call) -> Axes:
        head = call.function.base if isinstance(call.function, ast.Bracket) else call.function
        name = head.id if isinstance(head, ast.Name) else ""
        tensors = [a.value for a in call.arguments if a.name is None]
        inside = tuple(dict.fromkeys(a for e in tensors for a in self.shape(e)))
        if isinstance(call.function, ast.Bracket) and name in BINDERS and name not in KEEPING:
            bound = {e.span.text for e in call.function.entries}
            return tuple(a for a in inside if a not in bound)
        if name in builtin_names() and not self._declared(name, len(tensors)):
            return inside
        core, result = self._core(self.module.functions.get(name) or self.names.prelude.get(name), tensors)
        return tuple(a for a in inside if a not in core or a in result)


def walk(expr: ast.Expr) -> Iterator[ast.Expr]:
    """An expression and all below it."""
    from lossdsl.checker.reads import walk as below

    yield from below(expr)


def called(function: ast.Function) -> list[str]:
    """The names that a function calls, in the order of reading."""
    found: dict[str, None] = {}
    stack: list[ast.Node] = [function]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Call):
            head = node.function.base if isinstance(node.function, ast.Bracket) else node.function
            if isinstance(head, ast.Name):
                found.setdefault(head.id)
        below: list[ast.Node] = []
        for item in fields(node):
            value = getattr(node, item.name)
            below += [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, ast.Node)]
        stack.extend(reversed(below))
    return list(found)


__all__ = ["BIG", "Names", "called", "latex", "text"]
