"""Why a text is no program: one finding for a part that does not parse, in the words of whoever wrote it.

`before(..)` finds what makes every later word misleading: characters without meaning, strings and brackets without an end,
mixed indentation. `explain(..)` reads the place where the parser stopped. Both know the usual slips, above all those of
writers of Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from lossdsl.syntax.diagnostics import Diagnostics, Label, suggest
from lossdsl.syntax.source import Source, Span
from lossdsl.syntax.tokens import CLOSING, DECLARATIONS, OPENING, Part, Token

MAX_NESTING = 100

LOOK_ALIKES = {
    "−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "∕": "/", "≤": "<=", "≥": ">=", "≠": "!=", "∧": "and",
    "∨": "or", "¬": "not", "∈": ">= .. and <= ..", "“": '"', "”": '"', "„": '"', "‘": '"', "’": '"', "∞": "inf", "π": "pi", "∑": "sum[i](..)",
    "Σ": "sum[i](..)", "∏": "prod[i](..)", "√": "sqrt(x)", "→": "->", "≔": ":=", "²": "^2", "³": "^3", "‖": "norm(x)", "∥": "norm(x)", "½": "0.5",
    "\u00a0": "a plain space", "\u2003": "a plain space", "\u2009": "a plain space", "\u202f": "a plain space", "\u3000": "a plain space", "（": "(", "）": ")", "［": "[", "］": "]", "，": ",", "：": ":", "；": ";",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "eps", "ζ": "zeta", "η": "eta", "θ": "theta", "κ": "kappa", "λ": "lam", "μ": "mu",
    "µ": "mu", "ν": "nu", "ξ": "xi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "ℓ": "ell",
}  # fmt: skip
_INVISIBLE = {
    "\u200b": "remove it: it is an invisible space", "\u2060": "remove it: it is an invisible mark", "\u200d": "remove it: it is an invisible mark",
    "\ufeff": "remove it: it is an invisible byte-order mark", "\r": "end lines with \\n or \\r\\n",
}  # fmt: skip

_MEANINGLESS = {
    "&": ("`&` is no operator here", "write `and`"),
    "!": ("`!` is no operator here", "write `not x`, or x != y for unequal"),
    "?": ("`?` is no operator here", "a choice is written where(condition, a, b)"),
    "@": ("`@` is no operator here", "an inner product is dot(x, y), a matrix product sum[k](a[i, k] * b[k, j])"),
    "'": ("strings in single quotes do not exist", 'a docstring stands in """'),
    "{": ("braces do not exist here", "blocks are indented after a colon, and formulas are grouped with ( )"),
    "}": ("braces do not exist here", "blocks are indented after a colon, and formulas are grouped with ( )"),
    "\\": ("a backslash only stands at the end of a line, to go on in the next one", "integer division is //"),
    "$": ("`$` has no meaning here", "a program is plain text, not LaTeX: names are words such as tau"),
    "`": ("a backquote has no meaning here", "names stand as they are"),
}

FOREIGN = {
    "if": "a choice is written where(condition, a, b)",
    "elif": "a choice is written where(condition, a, b); several are nested",
    "for": "write a binder, sum[i](..) or mean[i](..), or a loop: repeat l < n with x = x0:",
    "while": "loops are bounded: repeat l < n with x = x0 until condition:",
    "return": "the last expression of a block is its value; write it alone",
    "yield": "the last expression of a block is its value; write it alone",
    "lambda": "give the formula a name: y[i] = .., or a def of its own",
    "import": "write: use preference: dpo",
    "from": "write: use preference: dpo",
    "class": "a bundle of tensors is a record; an objective is a loss",
    "struct": "a bundle of tensors is a record",
    "function": "a function is declared with def, an objective with loss",
    "func": "a function is declared with def, an objective with loss",
    "fun": "a function is declared with def, an objective with loss",
    "let": "a definition is written name = expression",
    "var": "a definition is written name = expression",
    "const": "a definition is written name = expression",
    "global": "what lives across steps is declared in the loss: state center: real[K] = 0",
    "nonlocal": "what lives across steps is declared in the loss: state center: real[K] = 0",
    "assert": "declare domains in types, tau: real > 0; promises stand in `ensures`",
    "raise": "declare domains in types, tau: real > 0; what is outside is refused by itself",
    "try": "there are no exceptions; guard a read, x[i] else 0, or choose with where",
    "pass": "a block ends with its value; one without a value does not exist",
    "print": "lossdsl explain shows types and values; programs print nothing",
    "break": "a loop stops early by its header: repeat l < n with x = x0 until condition:",
    "continue": "leave elements out with a guard: sum[i | condition](..)",
    "del": "names need not be removed",
    "is": "equality is written ==",
    "True": "truth values are conditions such as x > 0; a whole hyperparameter is switched with 0 and 1",
    "False": "truth values are conditions such as x > 0; a whole hyperparameter is switched with 0 and 1",
    "true": "truth values are conditions such as x > 0; a whole hyperparameter is switched with 0 and 1",
    "false": "truth values are conditions such as x > 0; a whole hyperparameter is switched with 0 and 1",
    "None": "every value is there; what an outside or empty read is says `else`: x[i] else 0",
    "torch": "operations have plain names: exp(x), mean[N](x)",
    "np": "operations have plain names: exp(x), mean[N](x)",
    "range": "a variable with its range is written sum[i: N](..); loops: repeat l < n with x = x0:",
    "len": "the name of an axis is its length: sum[N](x) / N",
    "zip": "read both with one index variable: sum[i](x[i] * y[i])",
    "enumerate": "an index variable is a number in formulas: sum[i](i * x[i])",
    "async": "there is nothing to wait for",
    "await": "there is nothing to wait for",
}

METHODS = {
    "detach": "a value without gradient is stop(x)",
    "clone": "values do not change, so there is nothing to copy",
    "contiguous": "layouts are the compiler's business",
    "T": "axes have names, so nothing is ever transposed",
    "t": "axes have names, so nothing is ever transposed",
    "transpose": "axes have names, so nothing is ever transposed",
    "permute": "axes have names, so nothing is ever transposed",
    "view": "axes have names; index variables say what meets: s[i, j] = dot(z[i], w[j])",
    "reshape": "axes have names; index variables say what meets: s[i, j] = dot(z[i], w[j])",
    "flatten": "several axes are named together: mean[H, W](x)",
    "unsqueeze": "axes that only one operand has are carried along by name",
    "squeeze": "axes that only one operand has are carried along by name",
    "expand": "axes that only one operand has are carried along by name",
    "repeat": "axes that only one operand has are carried along by name",
    "shape": "the name of an axis is its length: 1 / N",
    "size": "the name of an axis is its length: 1 / N",
    "float": "truth values and whole numbers count as numbers in arithmetic",
    "long": "floor(x) and round(x) are whole",
    "int": "floor(x) and round(x) are whole",
    "bool": "a condition is a comparison: x > 0",
    "item": "a scalar is an ordinary value",
    "pow": "a power is written x^2",
    "square": "a power is written x^2",
    "masked_fill": "a choice is written where(condition, a, b)",
    "gather": "a tensor is read at indices: logits[i, labels[i]], or logits[C = labels]",
    "scatter": "a definition says every element: y[i] = where(i == k, a, b)",
    "clip": "write clamp(x, low, high)",
    "backward": "gradients are torch's; a declared derivative is a `backward g:` block in a def",
}
"""What stands for the usual methods and attributes of arrays."""

_LASTING = ("state", "param", "draw")
_HEADERS = (*DECLARATIONS, "repeat", "scan", "backward")


@dataclass(frozen=True)
class Finding:
    """What is to be reported."""

    code: str
    message: str
    span: Span
    help: str | None = None
    underline: str = ""
    labels: tuple[Label, ...] = field(default=())

    def report(self, diagnostics: Diagnostics) -> None:
        diagnostics.report(
            self.code, self.message, self.span, underline=self.underline, labels=self.labels, help=self.help
        )


# ---- before parsing ------------------------------------------------------------------------


def before(source: Source, part: Part) -> Finding | None:
    """What is wrong with the words alone, the first in the text."""
    found = [
        f for f in (_character(source, part), _brackets(source, part), _tabs(source, part), _margins(source, part)) if f
    ]
    return min(found, key=lambda f: f.span.start, default=None)


def _character(source: Source, part: Part) -> Finding | None:
    for k, token in enumerate(part.tokens):
        if token.kind == "open":
            start = Span(source, token.start, token.start + (3 if token.text.startswith('"""') else 1))
            if token.text.startswith('"""'):
                return Finding("E008", "this docstring is never closed", start, 'end it with """')
            return Finding(
                "E008", "this string is not closed on its line", start, 'a docstring of several lines stands in """'
            )
        if token.kind == "bad":
            return _bad(source, part, k)
    return None


def _bad(source: Source, part: Part, k: int) -> Finding:
    token = part.tokens[k]
    following = part.tokens[k + 1] if k + 1 < len(part.tokens) else None
    doubled = following is not None and following.text == token.text and following.start == token.end
    span = Span(source, token.start, following.end if doubled and following is not None else token.end)
    char = token.text
    if char == "!" and part.tokens[k + 1 : k + 2] and following is not None and following.text == "=":
        return Finding("E004", "`! =` is two words", span, "unequal is written !=")
    if char == "@" and token.first:
        return Finding("E009", "there are no decorators", span, "remove this line")
    if char == "\\" and following is not None and following.kind == "name" and following.start == token.end:
        return Finding(
            "E009",
            "a program is no LaTeX",
            Span(source, token.start, following.end),
            "a fraction is written a / b, a sum sum[i](..)",
        )
    if char == "{" and k > 0 and part.tokens[k - 1].text == "^":
        return Finding("E009", "braces do not exist here", span, "an exponent is written x^2, or x^(n + 1)")
    if char in _MEANINGLESS:
        message, hint = _MEANINGLESS[char]
        shown = message.replace(f"`{char}`", f"`{char * 2}`") if doubled else message
        return Finding("E009" if char in "&!?@" else "E004", shown, span, hint)
    return odd_character(source, token.start)


def odd_character(source: Source, at: int) -> Finding:
    """A character that no program holds."""
    char = source.text[at]
    hint = f"write {LOOK_ALIKES[char]}" if char in LOOK_ALIKES else _INVISIBLE.get(char)
    shown = f"`{char}` (U+{ord(char):04X})" if char.isprintable() and not char.isspace() else f"U+{ord(char):04X}"
    return Finding(
        "E002",
        f"the character {shown} cannot stand in a program",
        Span(source, at, at + 1),
        hint or "names are made of ASCII letters, digits and _; other characters may stand in comments and docstrings",
    )


def _brackets(source: Source, part: Part) -> Finding | None:
    opened: list[tuple[Token, bool]] = []
    uneven: list[Label] = []
    for k, token in enumerate(part.tokens):
        if token.text in OPENING and token.kind == "op":
            interval = k > 0 and part.tokens[k - 1].text == "in"
            opened.append((token, interval))
            if len(opened) > MAX_NESTING:
                return Finding(
                    "E003",
                    f"brackets are nested more than {MAX_NESTING} deep",
                    token.span(source),
                    "give inner parts a name of their own",
                )
        elif token.text in CLOSING and token.kind == "op":
            if not opened:
                return Finding(
                    "E008",
                    f"this `{token.text}` closes nothing",
                    token.span(source),
                    f"remove it, or open it before: {CLOSING[token.text]}",
                )
            start, interval = opened.pop()
            if OPENING[start.text] != token.text and not interval:
                label = Label(start.span(source), "opened here")
                return Finding("E008", f"`{token.text}` stands where `{OPENING[start.text]}` is needed", token.span(source),
                               f"close the `{start.text}` first", labels=(label,))  # fmt: skip
            if OPENING[start.text] != token.text:
                uneven.append(Label(token.span(source), f"this ends the interval that begins with `{start.text}`"))
    if not opened:
        return None
    start = opened[-1][0]
    return Finding("E008", f"this `{start.text}` is never closed", start.span(source), f"end what it holds with {OPENING[start.text]}",
                   labels=tuple(uneven[-1:]))  # fmt: skip


def _tabs(source: Source, part: Part) -> Finding | None:
    kind: dict[str, Token] = {}
    for token in _line_starts(part):
        margin = _margin(source, token)
        used = ("a tab" if "\t" in margin else "") + ("spaces" if " " in margin else "")
        if not used:
            continue
        if used == "a tabspaces" or (kind and used not in kind):
            labels = tuple(Label(Span(source, t.start, t.end), f"indented with {u}") for u, t in list(kind.items())[:1])
            place = Span(source, token.start - len(margin), token.start)
            return Finding(
                "E005",
                "tabs and spaces are mixed in this indentation",
                place,
                "indent with four spaces everywhere",
                labels=labels,
            )
        kind.setdefault(used, token)
    return None


def _margins(source: Source, part: Part) -> Finding | None:
    """A line that goes back to a margin that no open block has."""
    margins = [len(_margin(source, part.tokens[0]).expandtabs(8)) if part.tokens else 0]
    for token in _line_starts(part):
        width = len(_margin(source, token).expandtabs(8))
        if width > margins[-1]:
            margins.append(width)
            continue
        while len(margins) > 1 and width < margins[-1]:
            margins.pop()
        if width != margins[-1]:
            return Finding("E005", "this line's indentation matches no open block", token.span(source),
                           "indent it like the first line of the block that it belongs to", underline=f"indented by {width}")  # fmt: skip
    return None


def _line_starts(part: Part) -> Iterable[Token]:
    """The first word of every logical line that begins a line."""
    if part.tokens:
        yield part.tokens[0]
    for one, two in pairwise(part.tokens):
        if two.logical != one.logical and two.first:
            yield two


def _margin(source: Source, token: Token) -> str:
    line = source.text.rfind("\n", 0, token.start) + 1
    return source.text[line : token.start]


# ---- where the parser stopped --------------------------------------------------------------


@dataclass(frozen=True)
class Stop:
    """Where the parser stopped: before the word at `k`, on a terminal of some kind.

    accepts: the terminals that it would have taken instead; words: the same for people.
    """

    source: Source
    part: Part
    k: int
    kind: str
    accepts: frozenset[str]
    words: tuple[str, ...]

    @property
    def at_end(self) -> bool:
        """Did it stop at the end of a line rather than at a word?"""
        return self.kind in ("_NL", "_DEDENT", "$END")

    @property
    def token(self) -> Token | None:
        return self.part.tokens[self.k] if self.k < len(self.part.tokens) else None

    @property
    def previous(self) -> Token | None:
        return self.part.tokens[self.k - 1] if self.k > 0 else None

    @property
    def line(self) -> tuple[Token, ...]:
        """The logical line on which it stopped."""
        here = self.previous if self.at_end else self.token or self.previous
        return tuple(t for t in self.part.tokens if here is not None and t.logical == here.logical)

    @property
    def header(self) -> str | None:
        """use, record, def or loss, where it stopped in the first line of a declaration."""
        line = self.line
        begins = len(line) > 1 and line[0].text in DECLARATIONS and line[1].kind in ("name", "string")
        return line[0].text if begins else None

    def span(self, *tokens: Token | None) -> Span:
        found = [t for t in tokens if t is not None]
        return Span(self.source, found[0].start, found[-1].end)

    def text(self, k: int) -> str:
        return self.part.tokens[k].text if 0 <= k < len(self.part.tokens) else ""

    def touches(self, k: int) -> bool:
        """Does the word at k follow the one before it without a blank?"""
        return 0 < k < len(self.part.tokens) and self.part.tokens[k - 1].end == self.part.tokens[k].start


def explain(stop: Stop) -> Finding:
    """The finding for the place where the parser stopped."""
    for look in _LOOKS:
        found = look(stop)
        if found is not None:
            return found
    return _plain(stop)


def _plain(stop: Stop) -> Finding:
    token, previous = stop.token, stop.previous
    hint = f"expected {_listing(stop.words)}" if stop.words else "see docs/language.md for what can stand here"
    if stop.at_end and previous is not None and stop.kind != "$END":
        return Finding("E004", "this line ends too early", _after(stop, previous), hint)
    if stop.at_end or token is None:
        return Finding("E004", "the text ends too early", _last(stop), hint)
    return Finding("E004", f"`{_shown(token.text)}` is not expected here", token.span(stop.source), hint)


def _shown(text: str) -> str:
    first = text.split("\n", 1)[0]
    return first if len(first) <= 40 and first == text else first[:40] + ".."


def _last(stop: Stop) -> Span:
    end = len(stop.source.text[: stop.part.end].rstrip())
    return Span(stop.source, max(end - 1, 0), max(end, 1))


def _after(stop: Stop, token: Token | None) -> Span:
    if token is None:
        return _last(stop)
    return Span(stop.source, token.end, token.end + 1)


def _listing(words: Iterable[str]) -> str:
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


_GROUPS: tuple[tuple[set[str], set[str], str], ...] = (
    ({"FN", "NAME"}, set(), "a type"),
    ({"USE", "RECORD", "DEF", "LOSS"}, set(), "a declaration"),
    ({"ENSURES", "REPEAT", "NAME"}, {"ENSURES", "REPEAT", "SCAN", "STATE", "PARAM", "DRAW", "BACKWARD", "NAME", "NUMBER", "LPAR", "MINUS", "NOT"}, "a statement"),
    ({"NAME", "NUMBER", "LPAR"}, {"MINUS", "NOT"}, "a formula"),
    ({"ADDITIVE", "MULTIPLICATIVE"}, {"BOUND", "EQUALITY", "CIRCUMFLEX", "AND", "OR", "ELSE", "DOT", "LPAR", "LSQB", "__ANON_1"}, "an operator"),
    ({"BOUND", "EQUALITY"}, {"AND", "OR"}, "a comparison"),
)  # fmt: skip
_NAMED = {
    "NAME": "a name", "NUMBER": "a number", "STRING": "a docstring", "_NL": "the end of the line", "_INDENT": "an indented block",
    "_DEDENT": "the end of the block", "$END": "the end of the text", "BOUND": "a bound such as > 0", "EQUALITY": "== or !=",
    "ADDITIVE": "+ or -", "MULTIPLICATIVE": "* or /",
}  # fmt: skip


def expectation(accepts: Iterable[str], literals: Mapping[str, str]) -> tuple[str, ...]:
    """What could stand somewhere, for people: operators and beginnings of formulas are gathered under one word."""
    left = set(accepts)
    words = []
    for needed, dropped, word in _GROUPS:
        if needed <= left:
            left -= needed | dropped
            words.append(word)
    rest = {_NAMED.get(name) or f"`{literals.get(name, name.lower())}`" for name in left}
    return (*words, *sorted(rest, key=lambda w: (not w.startswith("`"), w)))


# -- operators of other languages --


def _doubled(stop: Stop) -> Finding | None:
    """Two words that were meant as one."""
    pairs = {
        ("*", "*"): ("E009", "`**` is no operator here", "a power is written ^"),
        ("|", "|"): ("E009", "`||` is no operator here", "write `or`"),
        ("=", ">"): ("E004", "`=>` is no comparison", "greater or equal is written >="),
        ("=", "<"): ("E004", "`=<` is no comparison", "less or equal is written <="),
        ("<", ">"): ("E004", "`<>` is no comparison", "unequal is written !="),
        ("==", "="): ("E004", "`===` is no comparison", "equality is written =="),
        ("!=", "="): ("E004", "`!==` is no comparison", "unequal is written !="),
        ("+", "+"): ("E009", "`++` is no operator here", "values do not change once defined; a state is changed with :="),
        ("<", "-"): ("E004", "`<-` is no operator here", "a definition is written name = expression"),
        (":", ":"): ("E004", "`::` only stands in a slice, x[::2]", "types follow one colon"),
        ("*", "="): ("E009", "`*=` is no operator here", ""), ("+", "="): ("E009", "`+=` is no operator here", ""),
        ("-", "="): ("E009", "`-=` is no operator here", ""), ("/", "="): ("E009", "`/=` is no operator here", ""),
    }  # fmt: skip
    if (stop.text(stop.k), stop.text(stop.k + 1)) == ("|", "|") and _opens(stop):
        return _bars(stop)
    for k in (stop.k, stop.k + 1):
        found = pairs.get((stop.text(k - 1), stop.text(k)))
        if found and stop.touches(k):
            code, message, hint = found
            if not hint:
                hint = "values do not change once defined: give the new one a new name; a state is changed with :="
            return Finding(code, message, stop.span(stop.part.tokens[k - 1], stop.part.tokens[k]), hint)
    return None


def _opens(stop: Stop) -> bool:
    """Does it stop where a formula begins?"""
    left, token = stop.previous, stop.token
    return (
        left is None
        or token is None
        or left.logical != token.logical
        or left.text in ("(", "[", "=", ",", "+", "-", "*", "/")
    )


def _bars(stop: Stop) -> Finding:
    return Finding("E009", "bars are no absolute value", stop.span(stop.token), "write abs(x), or norm(x) for a vector")


def _bar(stop: Stop) -> Finding | None:
    if stop.text(stop.k) != "|" or stop.at_end:
        return None
    token = stop.token
    assert token is not None
    if _opens(stop):
        return _bars(stop)
    return Finding("E009", "`|` only stands in a binder, before its condition", token.span(stop.source),
                   "either of two conditions is written a or b; a condition on elements stands in the brackets: sum[i | x[i] > 0](..)")  # fmt: skip


def _equals(stop: Stop) -> Finding | None:
    token = stop.token
    if token is None or stop.at_end or token.text != "=":
        return None
    if token.depth > 0 or stop.line[0].text in ("repeat", "scan", "ensures"):
        return Finding("E004", "`=` compares nothing", token.span(stop.source), "equality is written ==")
    if any(t.text == "=" and t.depth == 0 for t in stop.line if t.start < token.start):
        return Finding(
            "E004",
            "a second `=` on one line",
            token.span(stop.source),
            "equality is written ==; two names are defined on two lines",
        )
    return None


def _chained(stop: Stop) -> Finding | None:
    token = stop.token
    if token is None or stop.at_end or token.text not in ("<", "<=", ">", ">=", "==", "!="):
        return None
    earlier = [
        t
        for t in stop.line
        if t.start < token.start and t.depth == token.depth and t.text in ("<", "<=", ">", ">=", "==", "!=")
    ]
    if not earlier:
        return None
    return Finding("E004", "comparisons do not chain", token.span(stop.source), "write both and join them: a < b and b < c",
                   labels=(Label(earlier[-1].span(stop.source), "the first comparison"),))  # fmt: skip


def _membership(stop: Stop) -> Finding | None:
    for k in (stop.k, stop.k - 1):
        if (
            stop.text(k) == "in"
            and not (stop.at_end and k == stop.k)
            and stop.line
            and stop.line[0].text not in ("ensures", *DECLARATIONS)
        ):
            token = stop.part.tokens[k]
            if stop.line[0].text in ("scan", "repeat"):
                return Finding(
                    "E004",
                    "a loop's header has no `in`",
                    token.span(stop.source),
                    "write scan t: T with a = 0: or repeat l < n with x = x0:",
                )
            if _innermost(stop) == "[":
                return Finding(
                    "E009",
                    "`in` does not bind a variable",
                    token.span(stop.source),
                    "a variable with its range is written sum[i: N](..)",
                )
            return Finding("E009", "`in` only stands in types and in `ensures`", token.span(stop.source),
                           "write x >= 0 and x <= 1")  # fmt: skip
    return None


# -- words of other languages --


def _foreign(stop: Stop) -> Finding | None:
    line = stop.line
    if not line:
        return None
    places = [k for k in (stop.k - 1, stop.k) if 0 <= k < len(stop.part.tokens) and not (stop.at_end and k == stop.k)]
    words = [stop.part.tokens[k] for k in places]
    if len(line) > 1 and (line[1].kind in ("name", "number", "string") or line[1].text in ("(", ":", "-")):
        words.append(line[0])
    for word in words:
        if word.text in FOREIGN and word.kind == "name":
            return Finding(
                "E009", f"there is no `{word.text}` in the language", word.span(stop.source), FOREIGN[word.text]
            )
    return None


def _stray_else(stop: Stop) -> Finding | None:
    line = stop.line
    if line and line[0].text == "else":
        return Finding("E004", "`else` begins no line", line[0].span(stop.source),
                       "it follows its binder or read on the same line, mean[i | c](..) else 0; a choice is written where(c, a, b)")  # fmt: skip
    for k in (stop.k, stop.k - 1):
        if stop.text(k) == "else" and not stop.at_end:
            return Finding("E004", "`else` does not belong here", stop.part.tokens[k].span(stop.source),
                           "it follows a binder or a read directly: mean[i | c](..) else 0, x[i] else 0; a choice is written where(c, a, b)")  # fmt: skip
    return None


# -- headers --


def _header(stop: Stop) -> Finding | None:
    if stop.header is None:
        return None
    word, token = stop.line[0], stop.token
    if stop.source.line_column(word.start)[1] > 1 and word is not stop.part.tokens[0]:
        return Finding(
            "E004",
            f"this {word.text} stands inside another declaration",
            word.span(stop.source),
            "declarations stand at the left margin",
        )
    if word.text == "use":
        return _use(stop)
    if stop.at_end:
        return None
    assert token is not None
    if token.kind == "string":
        return Finding("E009", "there is no text in a program", token.span(stop.source),
                       "what is chosen beforehand is a number, a hyperparameter, or another loss")  # fmt: skip
    if word.text in ("def", "loss"):
        if token.text == "->" and stop.text(stop.k - 1) == ":":
            return Finding(
                "E004",
                "the result's type stands behind the colon",
                token.span(stop.source),
                "write it before: loss f(x: real[N]) -> real[N]:",
            )
        if token.text == "[" and stop.accepts == {"LPAR"}:
            return Finding("E004", "a function's axes are not declared at its name", token.span(stop.source),
                           "the shapes of its parameters declare them: loss f(x: real[N, D])")  # fmt: skip
        if (
            stop.accepts <= {"COLON"}
            and token.depth == 1
            and stop.previous is not None
            and stop.previous.kind == "name"
        ):
            return _untyped(stop, stop.previous)
        if stop.accepts == {"LPAR"}:
            return Finding("E004", f"the {word.text} {stop.text(stop.k - 1)} has no parameters", _after(stop, stop.previous),
                           f"write {word.text} {stop.text(stop.k - 1)}(x: real[N]):")  # fmt: skip
        shape = _shape(stop)
        if shape is not None:
            return shape
        if token.text == "=" and token.depth == 0:
            return Finding(
                "E004",
                "a function is no equation",
                token.span(stop.source),
                "its header ends with a colon, its body stands below, indented",
            )
        if token.text == ";" and token.depth == 1:
            return Finding(
                "E004",
                "a second `;`",
                token.span(stop.source),
                "tensors stand before the one `;`, hyperparameters after it",
            )
        if token.text == "*" and token.depth == 1:
            return Finding(
                "E009",
                "`*` does not stand among parameters",
                token.span(stop.source),
                "hyperparameters, given by keyword, stand after a `;`",
            )
    return None


def _one_line(stop: Stop) -> Finding | None:
    token, previous, line = stop.token, stop.previous, stop.line
    if token is None or previous is None or stop.at_end or not line or line[0].text not in _HEADERS:
        return None
    if "_NL" in stop.accepts and previous.text == ":" and previous.depth == 0 and token.logical == previous.logical:
        return Finding(
            "E004",
            "the block begins on the line of its header",
            token.span(stop.source),
            "begin a new line after the colon, indented",
        )
    return None


def _untyped(stop: Stop, name: Token) -> Finding:
    hyper = any(t.text == ";" and t.depth == 1 for t in stop.line if t.start < name.start)
    shown = (
        f"{name.text}: real > 0 = 0.1"
        if hyper
        else f"{name.text}: real for a number, {name.text}: real[N] for a tensor"
    )
    return Finding(
        "E004",
        f"the {'hyperparameter' if hyper else 'parameter'} {name.text} has no type",
        name.span(stop.source),
        f"write {shown}",
    )


def _shape(stop: Stop) -> Finding | None:
    """Slips inside a type."""
    token, previous = stop.token, stop.previous
    if token is None or previous is None or stop.at_end:
        return None
    kind = stop.text(stop.k - 2) if previous.text == "[" else previous.text
    if previous.text == "[" and token.text == "]":
        return Finding("E004", "an empty shape", stop.span(previous, token), f"a scalar is written {kind} alone")
    if token.text == "(" and {"LSQB", "BOUND"} <= stop.accepts:
        return Finding(
            "E004",
            "this shape stands in round brackets",
            token.span(stop.source),
            f"write {kind}[N], or {kind} in (0, 1) for a domain",
        )
    if token.kind == "name" and stop.text(stop.k + 1) == ":" and "COMMA" in stop.accepts:
        return Finding(
            "E004",
            f"a comma is missing before `{token.text}`",
            stop.span(previous, token),
            "parameters are separated by commas",
        )
    if token.kind == "name" and {"COMMA", "BOUND"} <= stop.accepts:
        return Finding("E004", f"`{token.text}` is no domain", token.span(stop.source), "write > 0, >= 0, or in [0, 1]")
    if previous.text == "," and token.text in ("<", "<=", ">", ">="):
        return Finding(
            "E004",
            "the bounds of a type are not separated by commas",
            token.span(stop.source),
            "write real >= 0 < 1, or real in [0, 1)",
        )
    if stop.accepts == {"LSQB", "LPAR"} and previous.text == "in":
        return Finding(
            "E004",
            "this interval has no brackets",
            token.span(stop.source),
            "write real in [0, 1], or (0, 1) without its ends",
        )
    if token.text == "->":
        return Finding(
            "E004",
            "`->` does not belong to this type",
            token.span(stop.source),
            "a function handed in is written fn(real[N]) -> real[N]",
        )
    return None


def _fields(stop: Stop) -> Finding | None:
    """Slips in a record."""
    token, previous = stop.token, stop.previous
    if stop.part.keyword != "record" or previous is None:
        return None
    if previous.first and previous.kind == "name" and stop.accepts == {"COLON"}:
        return Finding(
            "E004",
            f"the field {previous.text} has no type",
            previous.span(stop.source),
            f"write {previous.text}: real[B]",
        )
    if token is None or stop.at_end:
        return None
    if token.text == "(" and stop.accepts == {"LSQB", "COLON"}:
        return Finding(
            "E004",
            "the axes of this record stand in round brackets",
            token.span(stop.source),
            f"write record {previous.text}[B]:",
        )
    if token.text == ",":
        return Finding("E004", "a comma after a field", token.span(stop.source), "each stands on a line of its own")
    if token.text == "=":
        return Finding(
            "E004", "a default for a field", token.span(stop.source), "a record only says which tensors belong together"
        )
    return _shape(stop)


def _unnamed(stop: Stop) -> Finding | None:
    token, previous = stop.token, stop.previous
    if (
        previous is None
        or previous.text not in DECLARATIONS
        or stop.accepts != {"NAME"}
        or stop.k != 1
        or (token is not None and token.kind == "string")
    ):
        return None
    place = _after(stop, previous) if stop.at_end or token is None else token.span(stop.source)
    example = {"use": "use preference: dpo", "record": "record Policy[B]:"}.get(
        previous.text, f"{previous.text} f(x: real[N]):"
    )
    return Finding("E004", f"this {previous.text} has no name", place, f"write {example}")


def _use(stop: Stop) -> Finding | None:
    token = stop.token
    if token is not None and token.text in ("/", "\\", "-") and not stop.at_end:
        return Finding(
            "E004",
            f"`{token.text}` cannot stand in the name of a file to use",
            token.span(stop.source),
            "papers/rpo.loss is used as: use papers.rpo: rpo",
        )
    if token is not None and token.kind == "string" and not stop.at_end:
        return Finding(
            "E004",
            "the name of a file to use stands in quotes",
            token.span(stop.source),
            "preference.loss is used as: use preference: dpo",
        )
    if token is not None and token.text == "*" and not stop.at_end:
        return Finding(
            "E004",
            "a use line cannot take everything",
            token.span(stop.source),
            "list them: use preference: Policy, dpo",
        )
    if token is not None and token.text in ("(", "[") and not stop.at_end:
        return Finding(
            "E004",
            "the names of a use line stand without brackets",
            token.span(stop.source),
            "list them: use preference: Policy, dpo",
        )
    if "COLON" in stop.accepts:
        path = [t.text for t in stop.line[1:] if t.kind == "name" and t.text != "import"]
        shown = path[0] if path else "preference"
        names = [n for n in path[1:] if n != "as"] or ["name"]
        return Finding(
            "E004",
            "this line does not say what it uses from the file",
            stop.span(stop.line[0], stop.line[-1]),
            f"write: use {shown}: {', '.join(names)}",
        )
    return None


def _missing_colon(stop: Stop) -> Finding | None:
    """A header without its colon, at the end of its line or before the block that follows."""
    line = stop.line
    if not (stop.at_end and line and (stop.header or line[0].text in ("repeat", "scan", "backward"))):
        return None
    if "COLON" in stop.accepts and not _needs_with(stop):
        return Finding(
            "E004",
            f"the colon after the header of this {line[0].text} is missing",
            _after(stop, line[-1]),
            "end the line with `:`",
        )
    return None


def _needs_with(stop: Stop) -> bool:
    return "WITH" in stop.accepts


def _keyword(stop: Stop) -> Finding | None:
    """A value under a name that begins a statement."""
    line = stop.line
    if len(line) < 2 or stop.token is not line[1] or line[0].text not in (*_LASTING, *_HEADERS, "ensures"):
        return None
    if line[1].text not in ("=", ":=", "[", "(", ".", ",", "+", "-", "*", "/", "^"):
        return None
    return Finding("E004", f"`{line[0].text}` begins a statement of its own kind", line[0].span(stop.source),
                   f"give the value another name; elsewhere in a formula {line[0].text} would be a plain name")  # fmt: skip


def _loop(stop: Stop) -> Finding | None:
    line = stop.line
    if not line or line[0].text not in ("repeat", "scan") or (stop.previous is None):
        return None
    how = "repeat l < n with x = x0:" if line[0].text == "repeat" else "scan t: T with a = 0:"
    span = stop.span(line[0], line[-1])
    if _needs_with(stop):
        return Finding("E004", f"this {line[0].text} carries no values", span, f"name them: {how}")
    if stop.accepts == {"EQUAL"} and stop.previous.kind == "name":
        name = stop.previous
        return Finding(
            "E004",
            f"{name.text} is carried without a first value",
            name.span(stop.source),
            f"write with {name.text} = ..",
        )
    if "with" not in [t.text for t in line if stop.token is None or t.start < stop.token.start]:
        return Finding("E004", f"this is not how a {line[0].text} begins", span, f"write {how}")
    return None


def _lasting(stop: Stop) -> Finding | None:
    line = stop.line
    if not line or line[0].text not in _LASTING or len(line) < 2 or line[1].kind != "name":
        return None
    role, name = line[0].text, line[1].text
    example = {"state": "= 0", "param": "= 0", "draw": "~ normal(0, 1)"}[role]
    if "COLON" in stop.accepts and stop.previous is line[1]:
        return Finding(
            "E004",
            f"the {role} {name} has no type",
            stop.span(line[0], line[1]),
            f"write {role} {name}: real {example}",
        )
    if "TILDE" in stop.accepts and (stop.at_end or stop.text(stop.k) == "="):
        if role == "draw":
            return Finding(
                "E004",
                f"the draw {name} has no distribution",
                stop.span(line[0], line[-1]),
                f"write draw {name}: real[N] ~ normal(0, 1)",
            )
        if stop.at_end:
            return Finding("E004", f"the {role} {name} has no first value", stop.span(line[0], line[-1]),
                           f"write {role} {name}: real[K] = 0, or ~ normal(0, 0.02)")  # fmt: skip
    return None


# -- blocks and lines --


def _no_block(stop: Stop) -> Finding | None:
    previous = stop.previous
    if "_INDENT" not in stop.accepts or previous is None:
        return None
    header = next(t for t in stop.part.tokens if t.logical == previous.logical)
    name = f"this {header.text}" if header.text in _HEADERS else "this header"
    return Finding(
        "E004",
        f"{name} has no block",
        _after(stop, previous),
        "the lines that belong to it stand below, indented by four spaces",
    )


def _block(stop: Stop) -> Finding | None:
    token, previous = stop.token, stop.previous
    if token is None or previous is None or stop.at_end or token.logical == previous.logical:
        return None
    if token.text == "//":
        return Finding("E009", "`//` begins no comment", token.span(stop.source), "comments begin with #")
    if token.kind == "op" and token.text not in ("(", "[", "-"):
        return Finding("E004", f"a line cannot begin with `{token.text}`", token.span(stop.source),
                       "a formula goes on in the next line only inside brackets: put it in ( )")  # fmt: skip
    if stop.kind == "_INDENT":
        return Finding("E005", "this line is indented deeper than the one above", token.span(stop.source),
                       "a block follows a colon only; a formula goes on in the next line only inside brackets")  # fmt: skip
    return None


def _outside(stop: Stop) -> Finding | None:
    """A line at the left margin that declares nothing."""
    token = stop.token
    if token is None or stop.at_end or "LOSS" not in stop.accepts or not token.first:
        return None
    near = suggest(token.text, DECLARATIONS) if token.kind == "name" else None
    if near is not None and stop.k + 1 < len(stop.part.tokens) and stop.part.tokens[stop.k + 1].kind == "name":
        return Finding(
            "E004", f"no declaration begins with `{token.text}`", token.span(stop.source), f"did you mean {near}?"
        )
    return misplaced(stop.source, token)


def misplaced(source: Source, token: Token) -> Finding:
    """A line at the left margin, by its first word."""
    if token.kind == "string":
        return Finding("E004", "the file's docstring stands first in the file", Span(source, token.start, token.start + 3),
                       "a function's docstring stands first in its block, indented")  # fmt: skip
    return Finding("E004", "this line stands outside of any declaration", token.span(source),
                   "indent it if it belongs to the one above; at the left margin stand use, record, def and loss")  # fmt: skip


def _line_end(stop: Stop) -> Finding | None:
    previous = stop.previous
    if not stop.at_end or previous is None:
        return None
    if previous.text == "," and stop.header == "use":
        return Finding(
            "E004",
            "this line ends after a comma",
            previous.span(stop.source),
            "the names of a use line stand on one line",
        )
    if previous.text == "%" and stop.text(stop.k - 2)[:1].isdigit():
        return Finding(
            "E004", "`%` is the remainder of a division", previous.span(stop.source), "fifty percent is written 0.5"
        )
    if previous.text in (
        "+",
        "-",
        "*",
        "/",
        "//",
        "%",
        "^",
        "<",
        "<=",
        ">",
        ">=",
        "==",
        "!=",
        "and",
        "or",
        "not",
        "=",
        ":=",
        ",",
        "else",
        "until",
    ):
        return Finding("E004", f"this line ends after `{previous.text}`, which needs something on its right", previous.span(stop.source),
                       "a formula goes on in the next line only inside brackets: put it in ( )")  # fmt: skip
    return None


def _inside(stop: Stop) -> Finding | None:
    """Things that do not belong into a body or a formula."""
    token, previous, line = stop.token, stop.previous, stop.line
    if token is None or stop.at_end or previous is None:
        return None
    if token.kind == "string" and token.depth > 0:
        return Finding("E009", "there is no text in a program", token.span(stop.source),
                       "what is chosen beforehand is a number, a hyperparameter, or another function")  # fmt: skip
    if token.kind == "string":
        return Finding(
            "E004",
            "a docstring stands first in its block, and text nowhere else",
            stop.span(token),
            "explain with a comment: # ..",
        )
    if token.text == ";" and token.depth == 0 and line[-1] is token:
        return Finding("E004", "a statement does not end with `;`", token.span(stop.source), "remove it")
    if token.text == ";" and token.depth == 0:
        return Finding("E004", "statements are not joined by `;`", token.span(stop.source), "begin a new line")
    if token.text == ":" and token.depth == 0 and line[-1] is token and len(line) > 2:
        return Finding(
            "E004",
            "this line takes no colon",
            token.span(stop.source),
            "only headers end with one: loss, def, record, repeat, scan, backward",
        )
    if token.text == "[" and "NAME" in stop.accepts:
        return Finding(
            "E009", "there are no lists", token.span(stop.source), "stack(a, b) makes a tensor of several values"
        )
    if token.text == ";" and token.depth > 0:
        return Finding(
            "E004",
            "`;` only stands between the parameters of a declaration",
            token.span(stop.source),
            "in a call write a comma: f(x, tau=0.1)",
        )
    if token.text == ":" and token.depth == 0 and len(line) > 1 and line[1] is token and line[0].kind == "name":
        return Finding(
            "E004",
            "a definition is written without a type",
            token.span(stop.source),
            f"write {line[0].text} = ..; what lives across steps is a state, param or draw",
        )
    if token.text == ":" and token.depth > 0 and previous.kind == "name" and _innermost(stop) == "(":
        return Finding(
            "E004",
            "a keyword argument is written with `=`, not `:`",
            token.span(stop.source),
            f"write {previous.text}=..",
        )
    if token.text == ":=" and token.depth > 0:
        return Finding(
            "E004",
            "`:=` stands in a statement of its own",
            token.span(stop.source),
            "a keyword argument and a default are written with =",
        )
    if token.text == ":=":
        return Finding(
            "E004",
            "`:=` changes a state, in a statement of its own",
            token.span(stop.source),
            "a definition and a first value are written with =",
        )
    if token.text == "->":
        return Finding(
            "E004",
            "`->` only stands in headers and function types",
            token.span(stop.source),
            "a choice is written where(condition, a, b)",
        )
    return None


def _innermost(stop: Stop) -> str:
    opened: list[str] = []
    for token in stop.part.tokens[: stop.k]:
        if token.text in OPENING:
            opened.append(token.text)
        elif token.text in CLOSING and opened:
            opened.pop()
    return opened[-1] if opened else ""


def _side_by_side(stop: Stop) -> Finding | None:
    """Two values without an operator between them."""
    token, previous = stop.token, stop.previous
    if token is None or previous is None or stop.at_end or token.logical != previous.logical:
        return None
    if "ADDITIVE" not in stop.accepts and "MULTIPLICATIVE" not in stop.accepts:
        return None
    if token.kind not in ("name", "number") and token.text != "(":
        return None
    both = stop.span(previous, token)
    if previous.kind == "name" and token.kind == "name" and stop.line and previous is stop.line[0]:
        near = suggest(
            previous.text, ["repeat", "scan", "state", "param", "draw", "ensures", "backward", *DECLARATIONS]
        )
        if near:
            return Finding(
                "E004",
                f"no statement begins with `{previous.text}`",
                previous.span(stop.source),
                f"did you mean {near}?",
            )
    if previous.kind == "number" and token.kind == "name" and stop.touches(stop.k):
        return Finding(
            "E004", "a number and a name stand side by side", both, f"a product is written {previous.text}*{token.text}"
        )
    if "not" in (token.text, previous.text):
        return Finding(
            "E004",
            "`not` stands in the middle of a formula",
            (token if token.text == "not" else previous).span(stop.source),
            "put it in brackets with what it negates: (not c)",
        )
    if any(
        two.text in OPENING and one.text == "in" and two.depth == token.depth - 1
        for one, two in pairwise(stop.part.tokens[: stop.k])
    ):
        return Finding("E004", "the ends of an interval are separated by a comma", both, "write real in [0, 1]")
    what = "an operator or a comma" if token.depth else "an operator"
    return Finding(
        "E004",
        f"{what} is missing before `{token.text}`",
        both,
        "a product is written a * b, an index x[i], an argument f(x)",
    )


_LOOKS: tuple[Callable[[Stop], Finding | None], ...] = (
    _no_block, _doubled, _stray_else, _foreign, _outside, _unnamed, _fields, _membership, _header, _one_line, _missing_colon, _keyword, _loop, _lasting,
    _bar, _chained, _equals, _block, _line_end, _inside, _side_by_side,
)  # fmt: skip
