"""Text to syntax tree: `parse(source, diagnostics)`.

The grammar is the file `grammar/lossdsl.lark`; this module turns lark's tree into `ast` nodes. A text that does not parse as
a whole is parsed declaration by declaration, so that each broken one is reported and the sound ones are still checked;
`mistakes` words the findings. Bounded work: the text's length, its nesting and its depth have limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput, UnexpectedToken
from lark.indenter import DedentError, Indenter

from lossdsl.resources import grammar_text
from lossdsl.syntax import ast, mistakes
from lossdsl.syntax.diagnostics import Diagnostics
from lossdsl.syntax.source import MAX_TEXT, MAX_WORDS, Source, Span
from lossdsl.syntax.tables import lark_parser
from lossdsl.syntax.tokens import CLOSING, OPENING, Part, part, split

MAX_DEPTH = 400
MAX_SHOWN = 20
"""Broken declarations of one text that are reported."""


class _Indentation(Indenter):
    NL_type = "_NL"
    OPEN_PAREN_types = ["LPAR", "LSQB"]  # noqa: RUF012 - lark's interface
    CLOSE_PAREN_types = ["RPAR", "RSQB"]  # noqa: RUF012
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 8

    @property
    def always_accept(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names are told apart from keywords everywhere, so that `elsey` is never read as `else y`."""
        return (self.NL_type, "NAME")


class _OneLine(_Indentation):
    """For a lone expression: line ends mean nothing."""

    def handle_NL(self, token: Token) -> Iterator[Token]:  # noqa: N802 - lark's interface
        return iter(())


@cache
def _lark(start: str) -> Lark:
    return lark_parser(grammar_text(), start, _OneLine() if start == "expr" else _Indentation())


@cache
def _literals() -> dict[str, str]:
    """What the terminals of the grammar look like, for those that are fixed words."""
    return {t.name: t.pattern.value for t in _lark("start").terminals if t.pattern.type == "str"}


def parse(source: Source, diagnostics: Diagnostics) -> ast.Module | None:
    """The module that a source holds, as far as it is sound, after reporting why the rest is not; None where nothing is."""
    if _too_long(source, diagnostics):
        return None
    if _plain(source.text):
        tree = _try(source, Part(0, len(source.text), ()), "start")
        if tree is not None:
            with ast.deep_recursion():
                return _Builder(source, diagnostics).module(tree)
    with ast.deep_recursion():
        return _piecewise(source, diagnostics)


def parse_expression(source: Source, diagnostics: Diagnostics) -> ast.Expr | None:
    """A lone expression, as given to `lossdsl compile -e`."""
    if _too_long(source, diagnostics):
        return None
    whole = part(source, 0, len(source.text))
    found = mistakes.before(source, whole)
    if found is None:
        tree = _try(source, whole, "expr")
        if tree is not None:
            with ast.deep_recursion():
                return _Builder(source, diagnostics).expr(tree)
        found = _finding(source, whole, "expr")
    found.report(diagnostics)
    return None


# ---- as a whole, or in parts ---------------------------------------------------------------


def _too_long(source: Source, diagnostics: Diagnostics) -> bool:
    message = f"this text is longer than {MAX_TEXT:,} characters"
    if len(source.text) <= MAX_TEXT:
        # a text that short can hold few words
        if len(source.text) <= MAX_WORDS or len(_WORDS.findall(_SILENT.sub(" ", source.text))) <= MAX_WORDS:
            return False
        message = f"this program has more than {MAX_WORDS:,} words and signs"
    diagnostics.report(
        "E001",
        message,
        Span(source, 0, 1),
        help="split it into files that use each other",
    )
    return True


_SILENT = re.compile(r'"""[\s\S]*?"""|#[^\n]*')
_WORDS = re.compile(r"\w+|[^\w\s]")
_QUIET = re.compile(r'"""[\s\S]*?"""|"[^"\n]*"|#[^\n]*|(\r\n|[^\x20-\x7e\n])|[\[\]()]')


def _plain(text: str) -> bool:
    """Is every character outside of docstrings and comments a printable ASCII character or a line end, and no bracket too deep?"""
    depth = 0
    for match in _QUIET.finditer(text):
        if match.group(1) not in (None, "\r\n"):
            return False
        word = match.group()
        depth += word in OPENING
        depth -= word in CLOSING
        if depth > mistakes.MAX_NESTING:
            return False
    return True


def _piecewise(source: Source, diagnostics: Diagnostics) -> ast.Module | None:
    builder = _Builder(source, diagnostics)
    pieces: list[ast.Module] = []
    broken: set[str] = set()
    shown = 0
    swallowing = False
    parts = split(source)
    for k, piece in enumerate(parts):
        if swallowing and piece.keyword is None:
            continue
        swallowing = False
        found = mistakes.before(source, piece)
        tree = _try(source, piece, "start") if found is None else None
        if tree is not None and (piece.keyword is not None or k == 0):
            pieces.append(builder.at(piece.start).module(tree))
            continue
        # lines at the left margin below a broken declaration mostly belong to it
        following = next((p for p in parts[k + 1 : k + 2] if p.keyword is None), None)
        swallowing = following is not None
        broken |= piece.names
        if shown < MAX_SHOWN:
            if found is None:
                found = (
                    mistakes.misplaced(source, piece.tokens[0])
                    if tree is not None
                    else _finding(source, piece, "start")
                )
            found.report(diagnostics)
            shown += 1
    if shown:
        return _joined(source, pieces, broken)
    whole = part(source, 0, len(source.text))
    tree = _try(source, whole, "start")
    if tree is not None:
        return builder.module(tree)
    _finding(source, whole, "start").report(diagnostics)
    return None


def _joined(source: Source, pieces: list[ast.Module], broken: set[str]) -> ast.Module | None:
    uses = tuple(u for p in pieces for u in p.uses)
    records = tuple(r for p in pieces for r in p.records)
    functions = tuple(f for p in pieces for f in p.functions)
    if broken and not (uses or records or functions):
        return None
    doc = next((p.doc for p in pieces if p.doc is not None), None)
    return ast.Module(source, doc, uses, records, functions, frozenset(broken), span=Span(source, 0, len(source.text)))


def _try(source: Source, piece: Part, start: str) -> Any:
    try:
        return _parsed(source, piece, start)
    except (UnexpectedInput, DedentError, AssertionError, _TooDeep):
        return None


class _TooDeep(Exception):  # noqa: N818 - control flow
    pass


def _parsed(source: Source, piece: Part, start: str) -> Tree[Token]:
    """Lark's tree of a part, its positions counted from the part's beginning."""
    text = source.text[piece.start : piece.end]
    tree = _lark(start).parse(text if start == "expr" else text + "\n")
    if _depth(tree) > MAX_DEPTH:
        raise _TooDeep
    return tree


def _finding(source: Source, piece: Part, start: str) -> mistakes.Finding:
    """Why a part does not parse."""
    beginning = Span(source, piece.start, min(piece.start + 1, max(len(source.text), piece.start + 1)))
    try:
        _parsed(source, piece, start)
    except _TooDeep:
        return mistakes.Finding(
            "E003",
            f"a formula here is more than {MAX_DEPTH} operations deep",
            beginning,
            "give parts of the formula a name of their own",
        )
    except DedentError:
        return mistakes.Finding(
            "E005",
            "the indentation of this part matches no open block",
            beginning,
            "indent with four spaces everywhere",
        )
    except AssertionError:
        return mistakes.Finding("E008", "a bracket of this part closes nothing", beginning)
    except UnexpectedInput as error:
        return mistakes.explain(_stop(source, piece, error))
    return mistakes.Finding("E004", "this part does not belong here", beginning)


def _stop(source: Source, piece: Part, error: UnexpectedInput) -> mistakes.Stop:
    kind, at = "character", error.pos_in_stream or 0  # type: ignore[redundant-expr]  # lark leaves it empty at the end
    if isinstance(error, UnexpectedToken):
        kind = error.token.type
        at = error.token.start_pos if error.token.start_pos is not None else len(source.text)
    at += piece.start
    k = next((k for k, t in enumerate(piece.tokens) if t.start >= at or t.end > at), len(piece.tokens))
    if kind == "$END":
        k = len(piece.tokens)
    interactive = getattr(error, "interactive_parser", None)
    accepts = (
        frozenset(interactive.accepts()) if interactive is not None else frozenset(getattr(error, "expected", ()) or ())
    )
    return mistakes.Stop(source, piece, k, kind, accepts, mistakes.expectation(accepts, _literals()))


def _depth(tree: Tree[Token]) -> int:
    deepest = 0
    stack = [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        stack.extend((child, depth + 1) for child in node.children if isinstance(child, Tree))
    return deepest


# ---- lark's tree to ast --------------------------------------------------------------------


class _Builder:
    """One method a rule; `span` gives every node its place."""

    def __init__(self, source: Source, diagnostics: Diagnostics, offset: int = 0) -> None:
        self.source = source
        self.diagnostics = diagnostics
        self.offset = offset

    def at(self, offset: int) -> _Builder:
        """The same for a part of the text that begins there."""
        return _Builder(self.source, self.diagnostics, offset)

    def span(self, tree: Any) -> Span:
        if isinstance(tree, Token):
            return Span(self.source, (tree.start_pos or 0) + self.offset, (tree.end_pos or 0) + self.offset)
        meta = tree.meta
        if meta.empty:
            return Span(self.source, self.offset, self.offset)
        return Span(self.source, meta.start_pos + self.offset, meta.end_pos + self.offset)

    def module(self, tree: Any) -> ast.Module:
        doc, *items = tree.children
        uses, records, functions = [], [], []
        for item in items:
            match item.data:
                case "use":
                    uses.append(self.use(item))
                case "record":
                    records.append(self.record(item))
                case _:
                    functions.append(self.function(item))
        return ast.Module(
            self.source, _docstring(doc), tuple(uses), tuple(records), tuple(functions), span=self.span(tree)
        )

    def use(self, tree: Any) -> ast.Use:
        path, *used = tree.children
        names = tuple(ast.Used(str(u.children[0]), _text(u.children[1]), span=self.span(u)) for u in used)
        return ast.Use(tuple(str(p) for p in path.children), names, span=self.span(tree))

    def record(self, tree: Any) -> ast.Record:
        name, axes, *fields = tree.children
        return ast.Record(
            str(name),
            self.axes(axes),
            tuple(ast.Field(str(f.children[0]), self.type(f.children[1]), span=self.span(f)) for f in fields),
            span=self.span(name),
        )

    def function(self, tree: Any) -> ast.Function:
        kind, name, parameters, result, block = tree.children
        ordinary: list[ast.Parameter] = []
        hyper: list[ast.Parameter] = []
        for child in parameters.children:
            if child is None:
                continue
            if child.data == "hyperparameters":
                hyper.extend(self.parameter(p) for p in child.children)
            else:
                ordinary.append(self.parameter(child))
        doc, *statements = block.children
        return ast.Function(
            str(kind.children[0]),
            str(name),
            tuple(ordinary),
            tuple(hyper),
            None if result is None else self.type(result),
            _docstring(doc),
            self.statements(statements),
            span=self.span(tree),
            name_span=self.span(name),
        )

    def parameter(self, tree: Any) -> ast.Parameter:
        name, kind, default = tree.children
        return ast.Parameter(
            str(name), self.type(kind), None if default is None else self.expr(default), span=self.span(name)
        )

    def type(self, tree: Any) -> ast.Type:
        if tree.data == "function_type":
            *parameters, result = tree.children
            return ast.FunctionType(
                tuple(self.type(p) for p in parameters if p is not None), self.type(result), span=self.span(tree)
            )
        kind, axes, *rest = tree.children
        bounds: tuple[ast.Bound, ...] = ()
        interval = False
        if rest:
            domain = rest[0]
            if domain.data == "interval":
                opening, low, high, closing = domain.children
                lower = ">=" if str(opening.children[0]) == "[" else ">"
                upper = "<=" if str(closing.children[0]) == "]" else "<"
                bounds = (
                    ast.Bound(lower, self.expr(low), span=self.span(low)),
                    ast.Bound(upper, self.expr(high), span=self.span(high)),
                )
                interval = True
            else:
                bounds = tuple(
                    ast.Bound(str(b.children[0]), self.expr(b.children[1]), span=self.span(b)) for b in domain.children
                )
        return ast.ArrayType(str(kind), self.axes(axes), bounds, interval, span=self.span(tree))

    def axes(self, tree: Any) -> tuple[ast.Axis, ...]:
        return () if tree is None else tuple(self.axis(a) for a in tree.children)

    def axis(self, tree: Any) -> ast.Axis:
        first, *rest = tree.children
        match tree.data:
            case "named_axis":
                return ast.Axis(self.expr(rest[0]), name=str(first), span=self.span(tree))
            case "least_axis":
                sign, least = rest
                if sign != ">=":
                    self.diagnostics.report(
                        "E004", "an axis has a least length, written with `>=`", self.span(tree), help="write [N >= 2]"
                    )
                return ast.Axis(self.expr(first), least=self.expr(least), span=self.span(tree))
            case _:
                return ast.Axis(self.expr(first), span=self.span(tree))

    # -- statements --

    def statements(self, trees: list[Any]) -> tuple[ast.Statement, ...]:
        return tuple(self.statement(t) for t in trees)

    def block(self, tree: Any) -> tuple[ast.Statement, ...]:
        return self.statements([c for c in tree.children if c is not None and c.data != "docstring"])

    def statement(self, tree: Any) -> ast.Statement:
        span = self.span(tree)
        children: list[Any] = tree.children
        match tree.data:
            case "value":
                return ast.Value(self.exprs(children[0]), span=self.span(children[0]))
            case "definition":
                return ast.Definition(self.exprs(children[0]), self.exprs(children[1]), span=self.covering(children))
            case "update":
                return ast.Update(self.expr(children[0]), self.expr(children[1]), span=self.covering(children))
            case "lasting":
                role, name, kind, initial = children
                return ast.Lasting(
                    str(role.children[0]), str(name), self.type(kind), self.expr(initial), None, span=self.span(name)
                )
            case "lasting_draw":
                role, name, kind, *law = children
                return ast.Lasting(
                    str(role.children[0]),
                    str(name),
                    self.type(kind),
                    None,
                    self.distribution(law),
                    span=self.span(name),
                )
            case "draw":
                name, kind, *law = children
                return ast.Draw(str(name), self.type(kind), self.distribution(law), span=self.span(name))
            case "repeat":
                variable, bound, count, carried, until, body = children
                if str(bound) != "<":
                    self.diagnostics.report(
                        "E004", "a repetition counts with `<`", self.span(bound), help="write `repeat l < n with ..`"
                    )
                return ast.Repeat(
                    str(variable), self.expr(count), self.carried(carried),
                    None if until is None else self.expr(until), self.block(body), span=self.span(variable),
                )  # fmt: skip
            case "scan":
                variable, axis, backwards, carried, body = children
                return ast.Scan(
                    str(variable), self.expr(axis), backwards is not None, self.carried(carried), self.block(body),
                    span=self.span(variable),
                )  # fmt: skip
            case "backward":
                gradient, *items = children
                return ast.Backward(
                    str(gradient), tuple(self.backward_item(i) for i in items), span=self.span(gradient)
                )
            case _:
                return ast.Ensures(_merge_lists([self.phrase(p) for p in children]), span=span)

    def backward_item(self, tree: Any) -> ast.Derivative | ast.Definition:
        left, right = tree.children
        if tree.data == "step":
            return ast.Definition(self.exprs(left), self.exprs(right), span=self.covering([left, right]))
        return ast.Derivative(self.expr(left), self.expr(right), span=self.span(tree))

    def covering(self, children: list[Any]) -> Span:
        return self.span(children[0]).to(self.span(children[-1]))

    def distribution(self, parts: list[Any]) -> ast.Distribution:
        name, arguments = parts
        return ast.Distribution(str(name), self.arguments(arguments), span=self.span(name))

    def carried(self, tree: Any) -> tuple[ast.Initial, ...]:
        return tuple(
            ast.Initial(str(c.children[0]), self.expr(c.children[1]), span=self.span(c)) for c in tree.children
        )

    def phrase(self, tree: Any) -> ast.Phrase:
        words = []
        for word in tree.children:
            match word.data:
                case "word_name" | "word_number":
                    words.append(ast.Word(str(word.children[0]), span=self.span(word)))
                case "word_in":
                    words.append(ast.Word("in", span=self.span(tree)))
                case "word_bound":
                    words.append(ast.Word(str(word.children[0]), self.expr(word.children[1]), span=self.span(word)))
                case _:
                    words.append(ast.Word("()", self.expr(word.children[0]), span=self.span(word)))
        return ast.Phrase(tuple(words), span=self.span(tree))

    # -- expressions --

    def exprs(self, tree: Any) -> tuple[ast.Expr, ...]:
        return tuple(self.expr(e) for e in tree.children)

    def expr(self, tree: Any) -> ast.Expr:
        span = self.span(tree)
        children: list[Any] = tree.children
        match tree.data:
            case "name":
                return ast.Name(str(children[0]), span=span)
            case "number":
                return ast.Number(str(children[0]), span=span)
            case "group":
                return ast.Group(self.expr(children[0]), span=span)
            case "member":
                return ast.Member(self.expr(children[0]), str(children[1]), span=span)
            case "negative":
                return ast.Negative(self.expr(children[0]), span=span)
            case "not_":
                return ast.Not(self.expr(children[0]), span=span)
            case "binary" | "compare":
                left, op, right = children
                return ast.Binary(str(op), self.expr(left), self.expr(right), span=span)
            case "raised":
                return ast.Binary("^", self.expr(children[0]), self.expr(children[1]), span=span)
            case "or_":
                return ast.Binary("or", self.expr(children[0]), self.expr(children[1]), span=span)
            case "and_":
                return ast.Binary("and", self.expr(children[0]), self.expr(children[1]), span=span)
            case "otherwise":
                return ast.Otherwise(self.expr(children[0]), self.expr(children[1]), span=span)
            case "bracket":
                base, entries, guard = children
                return ast.Bracket(
                    self.expr(base), tuple(self.entry(e) for e in entries.children),
                    None if guard is None else self.expr(guard), span=span,
                )  # fmt: skip
            case _:
                return ast.Call(self.expr(children[0]), self.arguments(children[1]), span=span)

    def entry(self, tree: Any) -> ast.Entry:
        span = self.span(tree)
        children: list[Any] = tree.children
        match tree.data:
            case "keyed":
                return ast.Keyed(str(children[0]), self.expr(children[1]), span=span)
            case "span_entry":
                start, stop, step = (None if c is None else self.expr(c) for c in children)
                return ast.Slice(start, stop, step, span=span)
            case _:
                return ast.Index(self.expr(children[0]), span=span)

    def arguments(self, tree: Any) -> tuple[ast.Argument, ...]:
        if tree is None:
            return ()
        found = []
        for child in tree.children:
            if child is None:
                continue
            if child.data == "keyword":
                name, value = child.children
                found.append(ast.Argument(str(name), self.expr(value), span=self.span(child)))
            else:
                found.append(ast.Argument(None, self.expr(child.children[0]), span=self.span(child)))
        return tuple(found)


def _text(token: Token | None) -> str | None:
    return None if token is None else str(token)


def _docstring(tree: Any) -> str | None:
    if tree is None:
        return None
    text = str(tree.children[0])
    return text[3:-3] if text.startswith('"""') else text[1:-1]


def _merge_lists(phrases: list[ast.Phrase]) -> tuple[ast.Phrase, ...]:
    """`convex in x, y` was cut at its comma: a lone name after a phrase with `in` belongs to that list."""
    merged: list[ast.Phrase] = []
    for phrase in phrases:
        lone = len(phrase.words) == 1 and phrase.words[0].amount is None and phrase.words[0].text != "calibrated"
        if lone and merged and any(w.text == "in" for w in merged[-1].words):
            last = merged.pop()
            merged.append(ast.Phrase(last.words + phrase.words, span=last.span.to(phrase.span)))
        else:
            merged.append(phrase)
    return tuple(merged)
