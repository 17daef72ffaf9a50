"""Two ways to write mathematics: LaTeX, and plain text with Unicode signs.

A piece is a text and how tightly it binds, so that whoever uses it knows whether it needs brackets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from lossdsl.ops.elementwise import ELEMENTWISE

LOOSE, OR, AND, NOT, COMPARE, SUM, BIG, PRODUCT, POWER, ATOM = range(10)
"""How tightly a piece binds. BIG: a sum sign or a function name that takes all factors to its right."""


class Piece(NamedTuple):
    """A text and how tightly it binds."""

    text: str
    binds: int = ATOM


GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε", "zeta": "ζ",
    "eta": "η", "theta": "θ", "kappa": "κ", "lam": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π",
    "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
}  # fmt: skip
_LATEX_GREEK = {
    "eps": "varepsilon",
    "epsilon": "varepsilon",
    "lam": "lambda",
    "phi": "varphi",
}

_LEVELS = {
    "add": SUM, "sub": SUM, "mul": PRODUCT, "mod": PRODUCT, "neg": SUM, "expm1": SUM, "and": AND, "or": OR,
    "lt": COMPARE, "le": COMPARE, "gt": COMPARE, "ge": COMPARE, "eq": COMPARE, "ne": COMPARE,
    "not": NOT, "pow": POWER, "exp": POWER,
}  # fmt: skip
_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_HOLES = re.compile(r"\{\{|\}\}|\{(\d)\}")
_GROUPED = {("{", "}"), ("(", ")"), ("(", ","), (",", ")"), (",", ","), ("|", "|"), ("[", "]")}


def split_name(name: str) -> tuple[str, list[str]]:
    """A name as a symbol with indices: tau_s is τ with s, k1 is k with 1; other words stay whole."""
    head, *rest = name.strip("_").split("_") if name.strip("_") else [name]
    match = re.fullmatch(r"([A-Za-z]+?)(\d+)", head)
    if match and (len(match.group(1)) == 1 or match.group(1) in GREEK):
        head, rest = match.group(1), [match.group(2), *rest]
    if rest and len(head) > 1 and head not in GREEK:
        return name, []
    return head, [part for part in rest if part]


class Notation:
    """What both ways share."""

    minus = "-"
    times = " "
    gets = "="
    becomes = ":="
    drawn = "~"
    infinity = "inf"

    def symbol(self, name: str, indices: Sequence[str] = ()) -> str:
        """A name with indices below it."""
        head, parts = split_name(name)
        return self.below(self.letters(head), [*map(self.letters, parts), *indices])

    def member(self, base: str, name: str, indices: Sequence[str]) -> str:
        """A field of a record."""
        return self.below(self.symbol(base), [self.letters(name), *indices])

    def letters(self, word: str) -> str:
        """A word on its own."""
        raise NotImplementedError

    def below(self, base: str, indices: Sequence[str]) -> str:
        """A base with indices."""
        raise NotImplementedError

    def number(self, text: str) -> Piece:
        """A number as written in a program."""
        raise NotImplementedError

    def brackets(self, text: str) -> str:
        """In round brackets."""
        raise NotImplementedError

    def operation(self, op: str, args: Sequence[Piece]) -> Piece:
        """An element-wise operation of the table."""
        raise NotImplementedError

    def call(self, name: str, arguments: Sequence[str], indices: Sequence[str] = ()) -> Piece:
        """A function by its name."""
        raise NotImplementedError

    def big(self, op: str, index: Sequence[str], conditions: Sequence[str], count: str | None, body: Piece) -> Piece:
        """A binder. index: what it runs over; count: how many those are, where that is known."""
        raise NotImplementedError

    def along(self, op: str, over: Sequence[str], body: Piece) -> Piece:
        """An operation that keeps its axis."""
        raise NotImplementedError

    def fenced(self, kind: str, body: str) -> str:
        """A norm, an inner product, a floor."""
        raise NotImplementedError

    def words(self, text: str) -> str:
        """Prose between symbols."""
        raise NotImplementedError

    def indent(self, text: str) -> str:
        """A line inside a loop."""
        raise NotImplementedError

    def cosine(self, args: Sequence[Piece]) -> Piece:
        """The cosine of the angle between two vectors."""
        raise NotImplementedError

    def at_least(self, piece: Piece, level: int) -> str:
        """The piece, bracketed where it binds less than that."""
        return piece.text if piece.binds >= level else self.brackets(piece.text)

    def factors(self, sizes: Sequence[str]) -> str:
        """A product of lengths."""
        written = {s: s.replace("*", self.times) for s in sizes}
        if len(sizes) == 1:
            return written[sizes[0]]
        whole = {s: t if re.fullmatch(r"\w+", s) else self.brackets(t) for s, t in written.items()}
        counts = {s: sizes.count(s) for s in sizes}
        return self.times.join(f"{whole[s]}^{k}" if k > 1 else whole[s] for s, k in counts.items())

    def arithmetic(self, op: str, args: Sequence[Piece]) -> Piece | None:
        """Sums, products and comparisons, where minus signs and brackets need care."""
        match op:
            case "neg":
                return Piece(self.minus + self.at_least(args[0], BIG), SUM)
            case "add" | "sub":
                left, right = args[0].text, self.at_least(args[1], SUM if op == "add" else BIG)
                if right.startswith(self.minus):
                    right = self.brackets(right)
                if args[0].binds < SUM:
                    left = self.brackets(left)
                return Piece(f"{left} {'+' if op == 'add' else self.minus} {right}", SUM)
            case "mul":
                if args[0].binds == SUM and _negated(args[0].text, self.minus):
                    inner = Piece(args[0].text[len(self.minus) :], PRODUCT)
                    return self.arithmetic("neg", [self.operation("mul", [inner, args[1]])])
                right = self.at_least(args[1], BIG)
                return Piece(self.at_least(args[0], PRODUCT) + self.joint(right) + right, PRODUCT)
            case _:
                return None

    def joint(self, right: str) -> str:
        """What stands between two factors."""
        del right
        return self.times


def _negated(text: str, minus: str) -> bool:
    """Is a text one negated product: a minus sign in front and no sum at its top level?"""
    if not text.startswith(minus):
        return False
    depth = 0
    for k, char in enumerate(text[len(minus) :]):
        depth += (char in "([{⟨") - (char in ")]}⟩")
        if depth == 0 and char in "+-−" and k > 0:
            return False
    return True


# ---- LaTeX ---------------------------------------------------------------------------------


class Latex(Notation):
    """LaTeX for a display of mathematics."""

    times = " \\, "
    gets = "&="
    becomes = "&\\leftarrow"
    drawn = "&\\sim"
    infinity = "\\infty"

    def letters(self, word: str) -> str:
        if word in GREEK:
            return "\\" + _LATEX_GREEK.get(word, word)
        if len(word) == 1 or word.isdigit():
            return word
        return f"\\mathrm{{{_escaped(word)}}}"

    def below(self, base: str, indices: Sequence[str]) -> str:
        if not indices:
            return base
        short = all(re.fullmatch(r"[A-Za-z]'*", i) for i in indices)
        return f"{base}_{{{('' if short else ', ').join(indices)}}}"

    def number(self, text: str) -> Piece:
        plain = text.replace("_", "\\,")
        mantissa, _, exponent = plain.lower().partition("e")
        if not exponent:
            return Piece(plain)
        power = f"10^{{{int(exponent)}}}"
        return Piece(power, POWER) if mantissa in ("1", "1.0") else Piece(f"{mantissa} \\cdot {power}", PRODUCT)

    def brackets(self, text: str) -> str:
        return f"\\left({text}\\right)"

    def joint(self, right: str) -> str:
        return " \\cdot " if right[:1].isdigit() else self.times

    def operation(self, op: str, args: Sequence[Piece]) -> Piece:
        found = self.arithmetic(op, args)
        if found is not None:
            return found
        if op == "exp" and (len(args[0].text) > 40 or "\\frac" in args[0].text or "\\sum" in args[0].text):
            return Piece(f"\\exp{self.brackets(args[0].text)}", BIG)
        if op == "pow":
            return Piece(f"{self.at_least(args[0], ATOM)}^{{{args[1].text}}}", POWER)
        if op in ("floordiv", "mod", *_COMPARISONS, "and", "or", "not"):
            level = _LEVELS.get(op, LOOSE)
            args = [Piece(self.at_least(a, level + (k > 0 or op in _COMPARISONS)), ATOM) for k, a in enumerate(args)]
        return self._filled(op, args)

    def _filled(self, op: str, args: Sequence[Piece]) -> Piece:
        """The operation's own LaTeX with its holes filled, each bracketed unless the template encloses it."""
        template = ELEMENTWISE[op].latex
        out, place, loose = "", 0, False
        for match in _HOLES.finditer(template):
            out += template[place : match.start()]
            place = match.end()
            if match.group(1) is None:
                out += match.group()[0]
                continue
            before = out.rstrip()[-1:]
            after = template[place:].lstrip()[:1]
            piece = args[int(match.group(1))]
            enclosed = (before, after) in _GROUPED or out.endswith("\\lfloor ") or "cases" in template
            loose = loose or not enclosed
            out += piece.text if enclosed else self.at_least(piece, ATOM)
        out += template[place:]
        return Piece(out, _LEVELS.get(op, BIG if loose else ATOM))

    def call(self, name: str, arguments: Sequence[str], indices: Sequence[str] = ()) -> Piece:
        head = f"\\operatorname{{{_escaped(name)}}}"
        inside = self.brackets(", ".join(arguments))
        return Piece(self.below(head + inside, indices))

    def big(self, op: str, index: Sequence[str], conditions: Sequence[str], count: str | None, body: Piece) -> Piece:
        under = ", ".join(index)
        if conditions:
            rows = " \\\\ ".join([under, *conditions])
            under = f"\\substack{{{rows}}}"
        taken = self.at_least(body, BIG)
        match op:
            case "sum" | "prod":
                return Piece(f"\\{op}_{{{under}}} {taken}", BIG)
            case "mean" if count is not None:
                return Piece(f"\\frac{{1}}{{{count}}} \\sum_{{{under}}} {taken}", BIG)
            case "logsumexp":
                return Piece(f"\\log \\sum_{{{under}}} {self.operation('exp', [body]).text}", BIG)
            case "max" | "min":
                return Piece(f"\\{op}_{{{under}}} {taken}", BIG)
            case "argmax" | "argmin":
                return Piece(f"\\operatorname*{{arg\\,{op[3:]}}}_{{{under}}} {taken}", BIG)
            case "any" | "all":
                sign = "\\exists" if op == "any" else "\\forall"
                return Piece(f"{sign}\\, {', '.join([*index, *conditions])} :\\, {body.text}", LOOSE)
            case "count":
                inside = " \\wedge ".join([*conditions, body.text])
                return Piece(f"\\#\\left\\{{{', '.join(index)} :\\, {inside}\\right\\}}")
            case "var" | "std":
                head = "\\operatorname*{Var}" if op == "var" else "\\operatorname*{Std}"
                return Piece(f"{head}_{{{under}}} \\left[{body.text}\\right]")
            case "norm":
                return Piece(f"\\left\\lVert {body.text} \\right\\rVert_{{{under}}}")
            case _:
                return Piece(f"\\operatorname*{{{_escaped(op)}}}_{{{under}}} {taken}", BIG)

    def along(self, op: str, over: Sequence[str], body: Piece) -> Piece:
        head = {"log_softmax": "\\log\\operatorname{softmax}"}.get(op, f"\\operatorname{{{op}}}")
        return Piece(f"{head}_{{{', '.join(over)}}}{self.brackets(body.text)}")

    def fenced(self, kind: str, body: str) -> str:
        left, right = {
            "norm": ("\\lVert", "\\rVert"),
            "dot": ("\\langle", "\\rangle"),
            "set": ("\\{", "\\}"),
        }[kind]
        return f"\\left{left} {body} \\right{right}"

    def words(self, text: str) -> str:
        return f"\\text{{{text}}}"

    def indent(self, text: str) -> str:
        return f"\\quad {text}"

    def cosine(self, args: Sequence[Piece]) -> Piece:
        return Piece(f"\\cos{self.brackets(', '.join(a.text for a in args))}")


def _escaped(word: str) -> str:
    return word.replace("_", "\\_")


# ---- text ----------------------------------------------------------------------------------

_SIGNS = {
    "lt": "<",
    "le": "≤",
    "gt": ">",
    "ge": "≥",
    "eq": "=",
    "ne": "≠",
    "and": "and",
    "or": "or",
    "mod": "mod",
}
_SHAPES = {
    "abs": "|{}|",
    "sigmoid": "σ({})",
    "stop": "sg[{}]",
    "floor": "⌊{}⌋",
    "ceil": "⌈{}⌉",
    "sqrt": "√({})",
}


class Text(Notation):
    """One line of text, with Unicode signs."""

    times = "·"
    minus = "-"
    gets = "="
    becomes = "←"
    drawn = "~"
    infinity = "∞"

    def letters(self, word: str) -> str:
        return GREEK.get(word, word)

    def symbol(self, name: str, indices: Sequence[str] = ()) -> str:
        head, parts = split_name(name)
        base = "_".join([self.letters(head), *map(self.letters, parts)])
        return f"{base}[{', '.join(indices)}]" if parts and indices else self.below(base, indices)

    def member(self, base: str, name: str, indices: Sequence[str]) -> str:
        return self.below(f"{self.symbol(base)}.{name}", indices)

    def below(self, base: str, indices: Sequence[str]) -> str:
        if not indices:
            return base
        if all(re.fullmatch(r"\w'*", i) for i in indices):
            return f"{base}_{''.join(indices)}"
        return f"{base}[{', '.join(indices)}]"

    def number(self, text: str) -> Piece:
        return Piece(text)

    def brackets(self, text: str) -> str:
        return f"({text})"

    def operation(self, op: str, args: Sequence[Piece]) -> Piece:
        found = self.arithmetic(op, args)
        if found is not None:
            return found
        match op:
            case "div" if args[0].binds == SUM and _negated(args[0].text, self.minus):
                inner = Piece(args[0].text[len(self.minus) :], PRODUCT)
                return self.operation("neg", [self.operation("div", [inner, args[1]])])
            case "div" | "floordiv":
                sign = "/" if op == "div" else "//"
                return Piece(f"{self.at_least(args[0], PRODUCT)}{sign}{self.at_least(args[1], POWER)}", PRODUCT)
            case "pow":
                return Piece(f"{self.at_least(args[0], ATOM)}^{self.at_least(args[1], ATOM)}", POWER)
            case "not":
                return Piece(f"not {self.at_least(args[0], COMPARE)}", NOT)
            case "where":
                return Piece(f"{{{args[1].text} if {args[0].text}, else {args[2].text}}}")
            case "relu":
                return Piece(f"max({args[0].text}, 0)")
            case "xlogy":
                return Piece(f"{self.at_least(args[0], ATOM)} log {self.at_least(args[1], ATOM)}", BIG)
            case _ if op in _SIGNS:
                level = _LEVELS[op]
                left, right = (
                    self.at_least(args[0], level + (op in _COMPARISONS)),
                    self.at_least(args[1], level + 1),
                )
                return Piece(f"{left} {_SIGNS[op]} {right}", level)
            case _ if op in _SHAPES:
                return Piece(_SHAPES[op].format(args[0].text))
            case _:
                return self.call("cos" if op == "cosine" else op, [a.text for a in args])

    def call(self, name: str, arguments: Sequence[str], indices: Sequence[str] = ()) -> Piece:
        return Piece(self.below(f"{name}({', '.join(arguments)})", indices))

    def big(self, op: str, index: Sequence[str], conditions: Sequence[str], count: str | None, body: Piece) -> Piece:
        over = ", ".join(index) + (": " + " and ".join(conditions) if conditions else "")
        under = f"_{over}" if re.fullmatch(r"\w'*", over) else f"_{{{over}}}"
        taken = self.at_least(body, BIG)
        match op:
            case "sum":
                return Piece(f"Σ{under} {taken}", BIG)
            case "prod":
                return Piece(f"Π{under} {taken}", BIG)
            case "mean" if count is not None:
                share = count if re.fullmatch(r"\w+(\^\d)?", count) else self.brackets(count)
                return Piece(f"1/{share} Σ{under} {taken}", BIG)
            case "logsumexp":
                return Piece(f"log Σ{under} exp({body.text})", BIG)
            case "any" | "all":
                sign = "∃" if op == "any" else "∀"
                return Piece(f"{sign} {over}: {body.text}", LOOSE)
            case "count":
                return Piece(f"#{{{', '.join(index)}: {' and '.join([*conditions, body.text])}}}")
            case "norm":
                return Piece(f"‖{body.text}‖{under}")
            case _:
                return Piece(f"{op}{under} {taken}", BIG)

    def along(self, op: str, over: Sequence[str], body: Piece) -> Piece:
        joined = over[0] if len(over) == 1 else f"{{{', '.join(over)}}}"
        return Piece(f"{op}_{joined}({body.text})")

    def fenced(self, kind: str, body: str) -> str:
        left, right = {"norm": ("‖", "‖"), "dot": ("⟨", "⟩"), "set": ("{", "}")}[kind]
        return f"{left}{body}{right}"

    def words(self, text: str) -> str:
        return text

    def indent(self, text: str) -> str:
        return f"    {text}"

    def cosine(self, args: Sequence[Piece]) -> Piece:
        return self.call("cos", [a.text for a in args])
