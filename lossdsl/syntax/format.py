"""The canonical layout: `format_source(source, diagnostics)` and, for trees made by programs, `format_module(module)`.

docs/layout.md states the rules. The tree decides everything but blank lines between statements and the comments, which are not
in the tree: they are taken from the text word by word, since the words of the result are those of the text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Diagnostics
from lossdsl.syntax.layout import Comment, Doc, Fill, Indent, Line, Row, aligned, grouped, holds_comment, rows
from lossdsl.syntax.parser import parse
from lossdsl.syntax.source import Source
from lossdsl.syntax.tokens import Token, scan

T = TypeVar("T")

WIDTH = 100
STEP = 4

_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _UNARY, _POWER, _ELSE, _POSTFIX = range(1, 11)
_LEVELS = {
    "or": _OR, "and": _AND, "+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "//": _PRODUCT, "%": _PRODUCT, "^": _POWER,
}  # fmt: skip
_OPERANDS = {
    _OR: (_OR, _AND),
    _AND: (_AND, _NOT),
    _COMPARE: (_SUM, _SUM),
    _SUM: (_SUM, _PRODUCT),
    _PRODUCT: (_PRODUCT, _UNARY),
}


def format_source(source: Source, diagnostics: Diagnostics) -> str | None:
    """A text in the canonical layout, its comments kept, or None after reporting why it is no program."""
    before = len(diagnostics.errors)
    module = parse(source, diagnostics)
    if module is None or len(diagnostics.errors) > before:
        return None
    with ast.deep_recursion():
        return _Formatter(_Words.of(source)).module(module)


def format_module(module: ast.Module) -> str:
    """A module as text; brackets that the tree needs but has not are added."""
    with ast.deep_recursion():
        return _Formatter(None).module(module)


# ---- the words of the text, with their comments ----------------------------------------------


@dataclass
class _Words:
    """The words of a text in order. above: comments on lines of their own before a word; behind: those at its line's end."""

    source: Source
    words: list[Token] = field(default_factory=list)
    above: list[list[Token]] = field(default_factory=lambda: [[]])
    behind: list[list[Token]] = field(default_factory=list)
    at: int = 0

    @staticmethod
    def of(source: Source) -> _Words:
        found = _Words(source)
        for token in scan(source.text):
            if not token.is_comment:
                if found.words and token.text in (")", ";") and found.words[-1].text == "," and token.depth:
                    found.drop_comma()
                found.words.append(token)
                found.above.append([])
                found.behind.append([])
                if token.text in (",", ";") and token.depth and len(found.words) > 1:
                    found.pull()
            elif token.first or not found.words:
                found.above[-1].append(token)
            else:
                found.behind[-1].append(token)
        return found

    def pull(self) -> None:
        """Comments before a comma or semicolon come behind it, which so stays on the line of what it ends."""
        self.behind[-1] = [*self.behind[-2], *self.above[-2]]
        self.behind[-2], self.above[-2] = [], []

    def drop_comma(self) -> None:
        """A comma before a closing bracket is not kept; its comments are."""
        self.words.pop()
        behind, below = self.behind.pop(), self.above.pop()
        self.behind[-1] += [*self.above[-1], *behind]
        self.above[-1] = below

    def column(self) -> int:
        """The margin of the line of the next word."""
        return self.margin(self.words[self.at]) if self.at < len(self.words) else 0

    def margin(self, token: Token) -> int:
        """How far right a token stands."""
        line = self.source.text.rfind("\n", 0, token.start) + 1
        return len(self.source.text[line : token.start].expandtabs(8))

    def blank_above(self, token: Token) -> bool:
        return token.line > 1 and not self.source.line(token.line - 1).strip()


# ---- from tree to lines ------------------------------------------------------------------------


class _Formatter:
    def __init__(self, words: _Words | None) -> None:
        self.words = words
        self.lines: list[Row] = []
        self.depth = 0
        self.square = False

    # -- words and comments --

    def word(self, text: str) -> Doc:
        """A word, with the comments that the text has there."""
        words = self.words
        if words is None or words.at >= len(words.words) or (text == "," and words.words[words.at].text != ","):
            return text
        above = self.comments_above()
        behind = [Comment(c.text.rstrip(), own=k > 0 or c.first) for k, c in enumerate(words.behind[words.at])]
        words.at += 1
        return [*above, text, *behind] if above or behind else text

    def comments_above(self) -> list[Doc]:
        """The comments on lines of their own before the next word."""
        if self.words is None:
            return []
        found = self.words.above[self.words.at]
        self.words.above[self.words.at] = []
        return [Comment(c.text.rstrip(), own=True) for c in found]

    def rows_above(self, margin: int, right_of: int = -1, first: bool = False) -> None:
        """Those comments as lines, as far as they stand right of a column; blank lines before them are kept, but for the first."""
        if self.words is None:
            return
        comments = self.words.above[self.words.at]
        while comments and self.words.margin(comments[0]) > right_of:
            comment = comments.pop(0)
            if self.words.blank_above(comment) and not first:
                self.blank()
            first = False
            self.lines.append(Row(" " * margin, comment.text.rstrip()))

    def blank(self) -> None:
        if self.lines and self.lines[-1] != Row(""):
            self.lines.append(Row(""))

    def keep_blank(self) -> None:
        """A blank line where the text has one before the next word."""
        words = self.words
        if words is not None and words.at < len(words.words) and words.blank_above(words.words[words.at]):
            self.blank()

    def emit(self, doc: Doc, margin: int) -> None:
        self.lines += rows(doc, margin, WIDTH, STEP)

    # -- declarations --

    def module(self, module: ast.Module) -> str:
        if module.doc is not None:
            self.rows_above(0, first=True)
            if self.lines:
                self.keep_blank()
            self.emit(self.word(f'"""{module.doc}"""'), 0)
        for k, use in enumerate(module.uses):
            self.move_to(use.span.start, 0)
            if k == 0 and module.doc is not None:
                self.blank()
            self.rows_above(0, first=k == 0)
            self.emit(self.use(use), 0)
        items: list[ast.Record | ast.Function] = [*module.records, *module.functions]
        for item in sorted(items, key=lambda d: d.span.start):
            self.move_to(item.span.start, 1 if isinstance(item, ast.Record) else 0)
            self.blank()
            before = len(self.lines)
            self.rows_above(0, first=True)
            if len(self.lines) > before:
                self.keep_blank()
            if isinstance(item, ast.Record):
                self.record(item)
            else:
                self.function(item)
        self.end()
        text = "\n".join(aligned(self.lines))
        return text + "\n" if text else ""

    def move_to(self, offset: int, back: int) -> None:
        """Go on with the declaration at an offset; a record's place is that of its name."""
        if self.words is not None:
            self.words.at = bisect_left(self.words.words, offset, key=lambda t: t.start) - back

    def end(self) -> None:
        """The comments below everything else."""
        if self.words is not None:
            self.words.at = len(self.words.words)
            if self.words.above[-1]:
                self.blank()
            self.rows_above(0, first=True)

    def use(self, use: ast.Use) -> Doc:
        line: list[Doc] = [self.word("use"), " ", self.word(use.path[0])]
        for step in use.path[1:]:
            line += [self.word("."), self.word(step)]
        line += [self.word(":"), " ", *self.listed(use.names, self.used)]
        return line

    def used(self, used: ast.Used) -> Doc:
        return (
            self.word(used.name)
            if used.alias is None
            else [self.word(used.name), " ", self.word("as"), " ", self.word(used.alias)]
        )

    def record(self, record: ast.Record) -> None:
        self.emit([self.word("record"), " ", self.word(record.name), self.axes(record.axes), self.word(":")], 0)
        column = self.column()
        for k, item in enumerate(record.fields):
            self.above_statement(STEP, first=k == 0)
            self.emit([self.word(item.name), self.word(":"), " ", self.type(item.type)], STEP)
        self.rows_above(STEP, right_of=column - 1)

    def function(self, function: ast.Function) -> None:
        head: list[Doc] = [self.word(function.kind), " ", self.word(function.name), self.parameters(function)]
        if function.result is not None:
            head += [" ", self.word("->"), " ", self.type(function.result)]
        self.emit([*head, self.word(":")], 0)
        self.block(function.body, STEP, function.doc)

    def parameters(self, function: ast.Function) -> Doc:
        opening = self.word("(")
        inner: list[Doc] = [Line("")]
        if function.parameters:
            inner.append(self.filled(function.parameters, self.parameter, ";" if function.hyperparameters else ""))
        if function.hyperparameters:
            inner += [Line()] if function.parameters else [self.word(";"), " "]
            inner.append(self.filled(function.hyperparameters, self.parameter))
        if not function.parameters and not function.hyperparameters:
            inner = []
        inner += self.comments_above()
        closing = self.word(")")
        return grouped([opening, Indent(inner), Line("") if inner else "", closing])

    def parameter(self, parameter: ast.Parameter) -> Doc:
        line: list[Doc] = [self.word(parameter.name), self.word(":"), " ", self.type(parameter.type)]
        if parameter.default is not None:
            line += [" ", self.word("="), " ", self.flat(parameter.default, _OR)]
        return line

    def listed(self, items: Sequence[T], build: Callable[[T], Doc], after: Doc = " ") -> list[Doc]:
        """Items separated by commas."""
        out: list[Doc] = []
        for k, item in enumerate(items):
            if k:
                out += [self.word(","), after]
            out.append(build(item))
        return out

    def filled(self, items: Sequence[T], build: Callable[[T], Doc], last: str = "") -> Fill:
        """Items, each with the comma behind it; behind the last what ends the list. A list with comments keeps its line ends."""
        ends = [*[","] * (len(items) - 1), last][: len(items)]
        parts: list[Doc] = []
        starts: set[int] = set()
        for k, (item, end) in enumerate(zip(items, ends, strict=True)):
            words = self.words
            if words is not None and words.at < len(words.words) and words.words[words.at].first:
                starts.add(k)
            parts.append([build(item), self.word(end) if end else ""])
        return Fill(parts, frozenset(starts) if any(map(holds_comment, parts)) else frozenset())

    # -- types --

    def type(self, kind: ast.Type) -> Doc:
        if isinstance(kind, ast.FunctionType):
            inside: list[Doc] = [
                self.word("fn"),
                self.word("("),
                *self.listed(kind.parameters, self.type),
                self.word(")"),
            ]
            return [*inside, " ", self.word("->"), " ", self.type(kind.result)]
        line: list[Doc] = [self.word(kind.kind), self.axes(kind.axes)]
        if kind.interval:
            low, high = kind.bounds
            line += [" ", self.word("in"), " ", self.word("[" if low.op == ">=" else "("), self.flat(low.limit, _SUM)]
            line += [self.word(","), " ", self.flat(high.limit, _SUM), self.word("]" if high.op == "<=" else ")")]
            return line
        for bound in kind.bounds:
            line += [" ", self.word(bound.op), " ", self.flat(bound.limit, _SUM)]
        return line

    def axes(self, axes: tuple[ast.Axis, ...]) -> Doc:
        square, self.square = self.square, True
        shape: Doc = [self.word("["), *self.listed(axes, self.axis), self.word("]")] if axes else ""
        self.square = square
        return shape

    def axis(self, axis: ast.Axis) -> Doc:
        if axis.name is not None:
            return [self.word(axis.name), " ", self.word("="), " ", self.flat(axis.size, _SUM)]
        line = self.flat(axis.size, _SUM)
        return line if axis.least is None else [line, " ", self.word(">="), " ", self.flat(axis.least, _SUM)]

    # -- statements --

    def column(self) -> int:
        return 0 if self.words is None else self.words.column()

    def above_statement(self, margin: int, first: bool) -> None:
        before = len(self.lines)
        self.rows_above(margin, first=first)
        if not first or len(self.lines) > before:
            self.keep_blank()

    def block(self, body: tuple[ast.Statement, ...], margin: int, doc: str | None = None) -> None:
        column = self.column()
        if doc is not None:
            self.above_statement(margin, first=True)
            self.emit(self.word(f'"""{doc}"""'), margin)
        for k, statement in enumerate(body):
            self.above_statement(margin, first=k == 0 and doc is None)
            self.statement(statement, margin)
        self.rows_above(margin, right_of=column - 1)

    def statement(self, statement: ast.Statement, margin: int) -> None:
        match statement:
            case ast.Repeat():
                head: list[Doc] = [self.word("repeat"), " ", self.word(statement.variable), " ", self.word("<"), " "]
                head += [self.expr(statement.count, _SUM), " ", *self.carried(statement.carried)]
                if statement.until is not None:
                    head += [" ", self.word("until"), " ", self.expr(statement.until)]
                self.emit([*head, self.word(":")], margin)
                self.block(statement.body, margin + STEP)
            case ast.Scan():
                head = [
                    self.word("scan"),
                    " ",
                    self.word(statement.variable),
                    self.word(":"),
                    " ",
                    self.expr(statement.axis, _SUM),
                    " ",
                ]
                if statement.backwards:
                    head += [self.word("backwards"), " "]
                self.emit([*head, *self.carried(statement.carried), self.word(":")], margin)
                self.block(statement.body, margin + STEP)
            case ast.Backward():
                self.emit([self.word("backward"), " ", self.word(statement.gradient), self.word(":")], margin)
                column = self.column()
                for k, item in enumerate(statement.items):
                    self.above_statement(margin + STEP, first=k == 0)
                    self.emit(self.backward_item(item), margin + STEP)
                self.rows_above(margin + STEP, right_of=column - 1)
            case _:
                self.emit(self.line(statement), margin)

    def line(self, statement: ast.Statement) -> Doc:
        match statement:
            case ast.Value():
                return self.exprs(statement.values)
            case ast.Definition():
                return [
                    *self.listed(statement.targets, self.target),
                    " ",
                    self.word("="),
                    " ",
                    self.exprs(statement.values),
                ]
            case ast.Update():
                return [self.expr(statement.target), " ", self.word(":="), " ", self.expr(statement.value)]
            case ast.Lasting():
                head = self.typed(statement.role, statement.name, statement.type)
                if statement.distribution is not None:
                    return [*head, " ", self.word("~"), " ", self.distribution(statement.distribution)]
                assert statement.initial is not None
                return [*head, " ", self.word("="), " ", self.expr(statement.initial)]
            case ast.Draw():
                head = self.typed("draw", statement.name, statement.type)
                return [*head, " ", self.word("~"), " ", self.distribution(statement.distribution)]
            case ast.Ensures():
                return [self.word("ensures"), " ", *self.listed(statement.phrases, self.phrase)]
            case _:
                raise AssertionError(statement)

    def typed(self, role: str, name: str, kind: ast.Type) -> list[Doc]:
        return [self.word(role), " ", self.word(name), self.word(":"), " ", self.type(kind)]

    def distribution(self, law: ast.Distribution) -> Doc:
        return [self.word(law.name), self.arguments(law.arguments)]

    def carried(self, items: tuple[ast.Initial, ...]) -> list[Doc]:
        return [
            self.word("with"),
            " ",
            *self.listed(items, lambda i: [self.word(i.name), " ", self.word("="), " ", self.expr(i.value)]),
        ]

    def backward_item(self, item: ast.Derivative | ast.Definition) -> Doc:
        if isinstance(item, ast.Definition):
            return self.line(item)
        return [self.target(item.target), self.word(":"), " ", self.expr(item.value)]

    def phrase(self, phrase: ast.Phrase) -> Doc:
        words = phrase.words
        lone = [w.amount is None and w.text != "calibrated" for w in words]
        start = next((k + 1 for k, w in enumerate(words) if w.text == "in"), len(words))
        line: list[Doc] = []
        for k, word in enumerate(words):
            if k > start and all(lone[k:]):
                line.append(self.word(","))
            if k and word.text != "()":
                line.append(" ")
            if word.text == "()":
                assert word.amount is not None
                line += [self.word("("), self.flat(word.amount, _SUM), self.word(")")]
            else:
                line.append(self.word(word.text))
                if word.amount is not None:
                    line += [" ", self.flat(word.amount, _SUM)]
        return line

    # -- expressions --

    def exprs(self, items: tuple[ast.Expr, ...]) -> Doc:
        return self.listed(items, self.expr)

    def target(self, expr: ast.Expr) -> Doc:
        """A left side: `i: N` in its brackets says what i runs over."""
        return self.bracket(expr, binds=True) if isinstance(expr, ast.Bracket) else self.expr(expr)

    def flat(self, expr: ast.Expr, level: int) -> Doc:
        """An expression on one line."""
        before, self.depth = self.depth, 0
        try:
            return self.expr(expr, level)
        finally:
            self.depth = before

    def expr(self, expr: ast.Expr, level: int = _OR) -> Doc:
        """An expression where one of at least this level can stand."""
        if _level(expr) < level:
            return self.inside(lambda: self.bare(expr))
        return self.bare(expr)

    def inside(self, build: Callable[[], Doc]) -> Doc:
        """Something in parentheses."""
        opening = self.word("(")
        self.depth += 1
        inner = build()
        self.depth -= 1
        below = self.comments_above()
        closing = self.word(")")
        return grouped([opening, Indent([Line(""), grouped(inner), *below]), Line(""), closing])

    def bare(self, expr: ast.Expr) -> Doc:
        match expr:
            case ast.Number(text):
                return self.word(text)
            case ast.Name(name):
                return self.word(name)
            case ast.Group(inner):
                return self.inside(lambda: self.expr(inner))
            case ast.Member(base, field_):
                gap = " " if isinstance(base, ast.Number) else ""
                return [self.expr(base, _POSTFIX), gap, self.word("."), self.word(field_)]
            case ast.Negative(operand):
                return [self.word("-"), self.expr(operand, _UNARY)]
            case ast.Not(operand):
                return [self.word("not"), " ", self.expr(operand, _NOT)]
            case ast.Otherwise(value, default):
                return [self.expr(value, _POSTFIX), " ", self.word("else"), " ", self.expr(default, _UNARY)]
            case ast.Bracket():
                return self.bracket(expr, binds=False)
            case ast.Call(function, arguments):
                head = (
                    self.bracket(function, binds=True)
                    if isinstance(function, ast.Bracket)
                    else self.expr(function, _POSTFIX)
                )
                return [head, self.arguments(arguments, function)]
            case ast.Binary("^", left, right):
                return [self.expr(left, _POSTFIX), self.word("^"), self.expr(right, _UNARY)]
            case ast.Binary():
                return self.chain(expr)

    def chain(self, expr: ast.Binary) -> Doc:
        """Operators of one level: a + b - c."""
        level = _level(expr)
        left_level, right_level = _OPERANDS[level]
        rest: list[tuple[str, ast.Expr]] = [(expr.op, expr.right)]
        first = expr.left
        while level != _COMPARE and isinstance(first, ast.Binary) and _level(first) == level:
            rest.append((first.op, first.right))
            first = first.left
        line: list[Doc] = [self.operand(first, left_level)]
        for op, operand in reversed(rest):
            if self.coefficient(first, op, operand) and len(rest) == 1:
                line += [self.word(op), self.expr(operand, right_level)]
            else:
                line += [Line() if self.depth else " ", self.word(op), " ", self.operand(operand, right_level)]
        return line

    def coefficient(self, factor: ast.Expr, op: str, operand: ast.Expr) -> bool:
        """2*N, and inside square brackets 2*i, are written without blanks."""
        if (
            op != "*"
            or not isinstance(factor, ast.Number)
            or not isinstance(operand, ast.Name)
            or not factor.text.isdigit()
        ):
            return False
        return self.square or operand.id[:1].isupper()

    def operand(self, expr: ast.Expr, level: int) -> Doc:
        return grouped(self.expr(expr, level))

    def bracket(self, expr: ast.Bracket, binds: bool) -> Doc:
        base = self.expr(expr.base, _POSTFIX)
        opening = self.word("[")
        breakable = binds and expr.guard is not None
        before, square = self.depth, self.square
        self.depth, self.square = self.depth + 1 if breakable else 0, True
        inner: list[Doc] = self.listed(expr.entries, lambda e: self.entry(e, binds), Line() if breakable else " ")
        self.square = square
        if expr.guard is not None:
            inner += [Line() if breakable else " ", self.word("|"), " ", grouped(self.expr(expr.guard))]
        self.depth = before
        inner += self.comments_above()
        closing = self.word("]")
        if not breakable:
            return [base, opening, *inner, closing]
        return [base, grouped([opening, Indent([Line(""), *inner]), Line(""), closing], late=True)]

    def entry(self, entry: ast.Entry, binds: bool) -> Doc:
        match entry:
            case ast.Index(value):
                return self.expr(value)
            case ast.Keyed(name, value):
                return [self.word(name), " ", self.word("="), " ", self.expr(value)]
            case ast.Slice(start, stop, None) if binds and start is not None and stop is not None:
                return [self.expr(start), self.word(":"), " ", self.expr(stop)]
            case ast.Slice():
                return self.slice(entry)

    def slice(self, entry: ast.Slice) -> Doc:
        parts = (entry.start, entry.stop, entry.step)
        gap = "" if all(p is None or _simple(p) for p in parts) else " "
        line: list[Doc] = []
        if entry.start is not None:
            line += [self.expr(entry.start), gap]
        line.append(self.word(":"))
        if entry.stop is not None:
            line += [gap, self.expr(entry.stop)]
        if entry.step is not None:
            line += [gap if entry.stop is not None else "", self.word(":"), gap, self.expr(entry.step)]
        return line

    def arguments(self, arguments: tuple[ast.Argument, ...], function: ast.Expr | None = None) -> Doc:
        opening = self.word("(")
        self.depth += 1
        inner = self.filled(arguments, self.argument)
        self.depth -= 1
        below = self.comments_above()
        closing = self.word(")")
        if not arguments and not below:
            return [opening, closing]
        plain = isinstance(opening, str) and not below and not holds_comment(inner)
        if plain and len(arguments) == 1 and arguments[0].name is None and _breaks_by_itself(arguments[0].value):
            return [opening, *inner.parts, closing]
        laid: Doc = inner if arguments else []
        if isinstance(function, ast.Name) and function.id == "where" and arguments:
            laid = grouped([inner.parts[0], *([Line(), part] for part in inner.parts[1:])])
        return grouped([opening, Indent([Line(""), laid, *below]), Line(""), closing])

    def argument(self, argument: ast.Argument) -> Doc:
        if argument.name is None:
            return grouped(self.expr(argument.value))
        return grouped([self.word(argument.name), self.word("="), self.expr(argument.value)])


def _level(expr: ast.Expr) -> int:
    match expr:
        case ast.Binary():
            return _LEVELS.get(expr.op, _COMPARE)
        case ast.Not():
            return _NOT
        case ast.Negative():
            return _UNARY
        case ast.Otherwise():
            return _ELSE
        case _:
            return _POSTFIX


def _simple(expr: ast.Expr) -> bool:
    return isinstance(expr, ast.Name | ast.Number) or (isinstance(expr, ast.Negative) and _simple(expr.operand))


def _breaks_by_itself(expr: ast.Expr) -> bool:
    """A lone argument that is a binder: its brackets open on this line, mean[i](mean[j](.."""
    match expr:
        case ast.Call(ast.Bracket(), arguments):
            return bool(arguments)
        case ast.Otherwise(value, default):
            return _breaks_by_itself(value) and _simple(default)
        case ast.Negative(operand) | ast.Not(operand):
            return _breaks_by_itself(operand)
        case _:
            return False
