"""Text to syntax tree: `parse(source, diagnostics)`.

The grammar is the file `grammar/lossdsl.lark`; this module turns lark's tree into `ast` nodes and lark's errors into
diagnostics. Bounded work: the text's length, its nesting and its depth have limits.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.indenter import DedentError, Indenter

from lossdsl.resources import grammar_text
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Diagnostics
from lossdsl.syntax.source import Source, Span

MAX_TEXT = 1_000_000
MAX_NESTING = 100
MAX_DEPTH = 400

_LOOK_ALIKES = {
    "−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "≤": "<=", "≥": ">=", "≠": "!=", "“": '"',
    "”": '"', "‘": '"', "’": '"', "∞": "inf", "π": "pi", "∑": "sum", "∏": "prod", "→": "->", "≔": ":=", "\u00a0": "a space",
    "\u2003": "a space", "\u3000": "a space", "²": "^2", "³": "^3", "√": "sqrt", "∈": "in", "λ": "lam", "τ": "tau", "β": "beta",
    "α": "alpha", "γ": "gamma", "η": "eta", "ρ": "rho", "σ": "sigma", "θ": "theta", "μ": "mu", "ε": "eps", "δ": "delta",
    "φ": "phi", "ψ": "psi", "ω": "omega",
}  # fmt: skip


class _Indentation(Indenter):
    NL_type = "_NL"
    OPEN_PAREN_types = ["LPAR", "LSQB"]  # noqa: RUF012 - lark's interface
    CLOSE_PAREN_types = ["RPAR", "RSQB"]  # noqa: RUF012
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 8


@cache
def _lark(start: str) -> Lark:
    return Lark(
        grammar_text(),
        parser="lalr",
        postlex=_Indentation(),
        propagate_positions=True,
        maybe_placeholders=True,
        start=start,
    )


def parse(source: Source, diagnostics: Diagnostics) -> ast.Module | None:
    """The module that a source holds, or None after reporting why it is none."""
    if not _acceptable(source, diagnostics):
        return None
    tree = _tree(source, "start", diagnostics)
    return None if tree is None else _Builder(source, diagnostics).module(tree)


def parse_expression(source: Source, diagnostics: Diagnostics) -> ast.Expr | None:
    """A lone expression, as given to `lossdsl compile -e`."""
    if not _acceptable(source, diagnostics):
        return None
    tree = _tree(source, "expr", diagnostics)
    if tree is None:
        return None
    return _Builder(source, diagnostics).expr(tree)


# ---- before and around lark ----------------------------------------------------------------


def _acceptable(source: Source, diagnostics: Diagnostics) -> bool:
    text = source.text
    if len(text) > MAX_TEXT:
        diagnostics.report("E001", f"this text is longer than {MAX_TEXT:,} characters", Span(source, 0, 1))
        return False
    depth = 0
    for match in re.finditer(r'"""[\s\S]*?(?:"""|\Z)|"[^"\n]*"|#[^\n]*|[\[\]()]|[^\x00-\x7f]|[\x00-\x08\x0b\x0e-\x1f\x7f]', text):
        found = match.group()
        if found in ("[", "("):
            depth += 1
            if depth > MAX_NESTING:
                diagnostics.report(
                    "E003",
                    f"brackets are nested more than {MAX_NESTING} deep",
                    Span(source, match.start(), match.end()),
                    help="give inner parts a name of their own",
                )
                return False
        elif found in ("]", ")"):
            depth = max(depth - 1, 0)
        elif not found.isascii() and found[0] not in '"#' or ord(found[0]) < 32 or ord(found[0]) == 127:
            _report_character(source, match.start(), diagnostics)
            return False
    return True


def _report_character(source: Source, at: int, diagnostics: Diagnostics) -> None:
    char = source.text[at]
    meant = _LOOK_ALIKES.get(char)
    shown = char if char.isprintable() else f"\\x{ord(char):02x}"
    diagnostics.report(
        "E002",
        f"the character {shown!r} (U+{ord(char):04X}) cannot stand in a program",
        Span(source, at, at + 1),
        help=f"write {meant}" if meant else "names are made of ASCII letters, digits and _; other characters may stand in comments and docstrings",
    )


def _tree(source: Source, start: str, diagnostics: Diagnostics) -> Tree[Token] | None:
    text = source.text if start == "expr" else source.text + "\n"
    try:
        tree = _lark(start).parse(text)
    except UnexpectedInput as error:
        _report_syntax(source, error, diagnostics)
        return None
    except DedentError:
        _report_dedent(source, diagnostics)
        return None
    if isinstance(tree, Tree) and _depth(tree) > MAX_DEPTH:
        diagnostics.report(
            "E003",
            f"this expression is more than {MAX_DEPTH} operations deep",
            Span(source, tree.meta.start_pos, tree.meta.start_pos + 1),
            help="give parts of it a name of their own",
        )
        return None
    return tree


def _depth(tree: Tree[Token]) -> int:
    deepest = 0
    stack = [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        stack.extend((child, depth + 1) for child in node.children if isinstance(child, Tree))
    return deepest


def _report_dedent(source: Source, diagnostics: Diagnostics) -> None:
    widths = [0]
    offset = 0
    for line in source.text.splitlines(keepends=True):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            width = len(line) - len(line.lstrip(" \t"))
            while widths and width < widths[-1]:
                widths.pop()
            if width not in widths:
                if width < max(widths, default=0) or not widths:
                    break
                widths.append(width)
        offset += len(line)
    diagnostics.report(
        "E005",
        "this line's indentation matches no open block",
        Span(source, min(offset, max(len(source.text) - 1, 0)), min(offset + 1, len(source.text))),
        help="indent it like the first line of the block that it belongs to",
    )


_TOKEN_WORDS = {
    "NAME": "a name", "NUMBER": "a number", "STRING": "a docstring", "_NL": "the end of the line", "_INDENT": "an indented block",
    "_DEDENT": "the end of the block", "$END": "the end of the file", "BOUND": "a comparison", "EQUALITY": "a comparison",
    "ADDITIVE": "+ or -", "MULTIPLICATIVE": "* or /", "LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]", "COLON": ":", "COMMA": ",",
    "EQUAL": "=", "SEMICOLON": ";", "CIRCUMFLEX": "^", "VBAR": "|", "DOT": ".", "TILDE": "~", "__ANON_0": "->", "MINUS": "-",
}  # fmt: skip


def _report_syntax(source: Source, error: UnexpectedInput, diagnostics: Diagnostics) -> None:
    at = min(max(error.pos_in_stream or 0, 0), max(len(source.text) - 1, 0))
    if isinstance(error, UnexpectedCharacters):
        char = source.text[at : at + 1] or " "
        span = Span(source, at, at + 1)
        if char == '"':
            diagnostics.report("E004", "this docstring is never closed", span, help='end it with """')
            return
        helps = {"&": "write `and`", "!": "write `not`, or `!=` for unequal", "@": "write dot(x, y) or sum[k](a[i, k] * b[k, j])",
                 "'": 'docstrings stand in """', "{": "use ( and ) or [ and ]", "$": None}  # fmt: skip
        diagnostics.report("E004", f"{char!r} has no meaning here", span, help=helps.get(char))
        return
    token = error.token if isinstance(error, UnexpectedToken) else Token("$END", "")
    expected = set(getattr(error, "expected", ()) or ())
    _report_token(source, token, expected, at, diagnostics)


def _report_token(source: Source, token: Token, expected: set[str], at: int, diagnostics: Diagnostics) -> None:
    kind = token.type
    if kind == "$END":
        last = len(source.text.rstrip()) - 1
        diagnostics.report(
            "E004", "the text ends too early", Span(source, max(last, 0), max(last + 1, 1)), help=_expectation(expected)
        )
        return
    start = token.start_pos if token.start_pos is not None else at
    if kind in ("_NL", "_DEDENT"):
        start = _line_end(source, start)
        message, width = "this line ends too early", 1
    elif kind == "_INDENT":
        start = _first_of_line(source, start)
        message, width = "this line is indented without need", 1
    else:
        message, width = f"{str(token)!r} is not expected here", max(len(token), 1)
    span = Span(source, start, min(start + width, max(len(source.text), start + 1)))
    diagnostics.report("E004", message, span, help=_hint(source, token, expected))


def _line_end(source: Source, at: int) -> int:
    at = min(at, len(source.text))
    while at > 0 and (at >= len(source.text) or source.text[at] in " \t\r\n"):
        at -= 1
    return at


def _first_of_line(source: Source, at: int) -> int:
    while at < len(source.text) and source.text[at] in " \t\r\n":
        at += 1
    return min(at, max(len(source.text) - 1, 0))


def _hint(source: Source, token: Token, expected: set[str]) -> str:
    before = source.text[: token.start_pos or 0].rstrip()
    line = before.rsplit("\n", 1)[-1].strip()
    if token.type == "EQUAL" and "EQUALITY" in expected:
        return "a comparison is written =="
    if token.value == "if":
        return "a choice is written where(condition, a, b)"
    if token.value == "for":
        return "write a binder, sum[i](..), or a loop: repeat l < n with x = x0:"
    if token.value == "return":
        return "the last expression of a block is its value; write it alone"
    if token.value in ("lambda", "import", "class", "while"):
        return f"there is no {token.value} in the language; see docs/language.md"
    if token.type == "MULTIPLICATIVE" and before.endswith("*"):
        return "a power is written ^"
    if token.type == "_INDENT" and line.endswith(")"):
        return "end the line above with a colon"
    if token.type == "_NL" and re.match(r"(def|loss|record|repeat|scan|backward)\b", line) and not line.endswith(":"):
        return "end the line with a colon"
    return _expectation(expected)


def _expectation(expected: set[str]) -> str:
    words = sorted({_TOKEN_WORDS.get(t, t.lower() if t.isupper() else t) for t in expected})
    if not words:
        return "see docs/language.md for what can stand here"
    if len(words) > 8:
        starts = {"NAME", "NUMBER", "LPAR"}
        return "an expression can stand here" if starts <= expected else "expected " + ", ".join(words[:8]) + ", .."
    return "expected " + (words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1])


# ---- lark's tree to ast --------------------------------------------------------------------


class _Builder:
    """One method a rule; `span` gives every node its place."""

    def __init__(self, source: Source, diagnostics: Diagnostics):
        self.source = source
        self.diagnostics = diagnostics

    def span(self, tree: Tree[Token] | Token) -> Span:
        if isinstance(tree, Token):
            return Span(self.source, tree.start_pos or 0, tree.end_pos or 0)
        meta = tree.meta
        if meta.empty:
            return Span(self.source, 0, 0)
        return Span(self.source, meta.start_pos, meta.end_pos)

    def module(self, tree: Tree[Token]) -> ast.Module:
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

    def use(self, tree: Tree[Token]) -> ast.Use:
        path, *used = tree.children
        names = tuple(ast.Used(str(u.children[0]), _text(u.children[1]), span=self.span(u)) for u in used)
        return ast.Use(tuple(str(p) for p in path.children), names, span=self.span(tree))

    def record(self, tree: Tree[Token]) -> ast.Record:
        name, axes, *fields = tree.children
        return ast.Record(
            str(name),
            self.axes(axes),
            tuple(ast.Field(str(f.children[0]), self.type(f.children[1]), span=self.span(f)) for f in fields),
            span=self.span(name),
        )

    def function(self, tree: Tree[Token]) -> ast.Function:
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

    def parameter(self, tree: Tree[Token]) -> ast.Parameter:
        name, kind, default = tree.children
        return ast.Parameter(
            str(name), self.type(kind), None if default is None else self.expr(default), span=self.span(name)
        )

    def type(self, tree: Tree[Token]) -> ast.Type:
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

    def axes(self, tree: Tree[Token] | None) -> tuple[ast.Axis, ...]:
        return () if tree is None else tuple(self.axis(a) for a in tree.children)

    def axis(self, tree: Tree[Token]) -> ast.Axis:
        first, *rest = tree.children
        match tree.data:
            case "named_axis":
                return ast.Axis(self.expr(rest[0]), name=str(first), span=self.span(tree))
            case "least_axis":
                sign, least = rest
                if sign != ">=":
                    self.diagnostics.report("E004", "an axis has a least length, written with `>=`", self.span(tree), help="write [N >= 2]")
                return ast.Axis(self.expr(first), least=self.expr(least), span=self.span(tree))
            case _:
                return ast.Axis(self.expr(first), span=self.span(tree))

    # -- statements --

    def statements(self, trees: list[Tree[Token]]) -> tuple[ast.Statement, ...]:
        return tuple(self.statement(t) for t in trees)

    def block(self, tree: Tree[Token]) -> tuple[ast.Statement, ...]:
        return self.statements([c for c in tree.children if c is not None and c.data != "docstring"])

    def statement(self, tree: Tree[Token]) -> ast.Statement:
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
                    str(role.children[0]), str(name), self.type(kind), None, self.distribution(law), span=self.span(name)
                )
            case "draw":
                name, kind, *law = children
                return ast.Draw(str(name), self.type(kind), self.distribution(law), span=self.span(name))
            case "repeat":
                variable, bound, count, carried, until, body = children
                if str(bound) != "<":
                    self.diagnostics.report("E004", "a repetition counts with `<`", self.span(bound), help="write `repeat l < n with ..`")
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
                return ast.Backward(str(gradient), tuple(self.backward_item(i) for i in items), span=self.span(gradient))
            case _:
                return ast.Ensures(_merge_lists([self.phrase(p) for p in children]), span=span)

    def backward_item(self, tree: Tree[Token]) -> ast.Derivative | ast.Definition:
        left, right = tree.children
        if tree.data == "step":
            return ast.Definition(self.exprs(left), self.exprs(right), span=self.covering([left, right]))
        return ast.Derivative(self.expr(left), self.expr(right), span=self.span(tree))

    def covering(self, children: list[Any]) -> Span:
        return self.span(children[0]).to(self.span(children[-1]))

    def distribution(self, parts: list[Any]) -> ast.Distribution:
        name, arguments = parts
        return ast.Distribution(str(name), self.arguments(arguments), span=self.span(name))

    def carried(self, tree: Tree[Token]) -> tuple[ast.Initial, ...]:
        return tuple(ast.Initial(str(c.children[0]), self.expr(c.children[1]), span=self.span(c)) for c in tree.children)

    def phrase(self, tree: Tree[Token]) -> ast.Phrase:
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

    def exprs(self, tree: Tree[Token]) -> tuple[ast.Expr, ...]:
        return tuple(self.expr(e) for e in tree.children)

    def expr(self, tree: Tree[Token]) -> ast.Expr:
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

    def entry(self, tree: Tree[Token]) -> ast.Entry:
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

    def arguments(self, tree: Tree[Token] | None) -> tuple[ast.Argument, ...]:
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


def _docstring(tree: Tree[Token] | None) -> str | None:
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
            phrase = ast.Phrase(last.words + phrase.words, span=last.span.to(phrase.span))
        merged.append(phrase)
    return tuple(merged)
