"""The phrases of `ensures`: is each one that the language knows, of things that the function has?"""

from __future__ import annotations

from collections.abc import Iterable

from lossdsl.checker.context import Context
from lossdsl.checker.expressions import CONSTANTS
from lossdsl.checker.reads import walk
from lossdsl.checker.values import Program, Scope
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Stop, suggest

_OF_INPUTS = ("convex", "concave", "affine", "increasing", "decreasing")
_WITH_CONSTANT = ("lipschitz", "smooth")
_FIRST = (*_OF_INPUTS, *_WITH_CONSTANT, "calibrated", "proper", "strictly", "value", "invariant", "symmetric")
_FORMS = {
    "calibrated": "calibrated, or calibrated in m",
    "proper": "proper in p, or strictly proper in p",
    "strictly": "strictly proper in p",
    "value": "value >= 0",
    "invariant": "invariant to shift of x over C, to scale of z, or to permutation of N",
    "symmetric": "symmetric in z, w",
}


def check(ctx: Context, scope: Scope, program: Program) -> None:
    """Report every phrase that promises nothing."""
    for phrase in program.ensures:
        try:
            _Phrase(ctx, scope, program, phrase).check()
        except Stop:
            continue


class _Phrase:
    def __init__(self, ctx: Context, scope: Scope, program: Program, phrase: ast.Phrase) -> None:
        self.ctx = ctx
        self.scope = scope
        self.phrase = phrase
        self.left = list(phrase.words)
        self.function = program.name
        function = program.function
        self.names = {p.name for p in (*function.parameters, *function.hyperparameters)}
        self.names |= {s.name for s in function.body if isinstance(s, ast.Lasting | ast.Draw)}
        self.numbers = {p.name for p in function.hyperparameters} | set(scope.axes) | set(CONSTANTS)

    def check(self) -> None:
        """One phrase: its first word tells what follows."""
        first = self.left[0]
        word = first.text
        match word:
            case _ if word in _OF_INPUTS:
                self.words(word, "in")
                self.inputs()
            case _ if word in _WITH_CONSTANT:
                self.words(word)
                self.constant()
                self.words("in")
                self.inputs()
            case "calibrated":
                self.words(word)
                if self.left:
                    self.words("in")
                    self.inputs(most=1)
            case "proper" | "strictly":
                self.words(*(("strictly", "proper") if word == "strictly" else ("proper",)), "in")
                self.inputs(most=1)
            case "value":
                self.words(word)
                self.bounds()
            case "invariant":
                self.invariant()
            case "symmetric":
                self.words(word, "in")
                self.inputs(least=2)
            case _:
                near = suggest(word, _FIRST)
                known = ", ".join(_FIRST)
                raise self.ctx.stop(
                    "E056", f"nothing is promised by `{word}`", first.span,
                    help=f"did you mean {near}?" if near else f"promises begin with {known}",
                )  # fmt: skip

    # -- parts of a phrase --

    def malformed(self) -> Stop:
        word = self.phrase.words[0].text
        form = _FORMS.get(word, f"{word}(L) in x" if word in _WITH_CONSTANT else f"{word} in x, y")
        return self.ctx.stop(
            "E056", f"this promise with `{word}` is not complete", self.phrase.span, help=f"write {form}"
        )

    def words(self, *wanted: str) -> None:
        """The next words, which must be these."""
        for word in wanted:
            if not self.left or self.left[0].text != word:
                raise self.malformed()
            self.left.pop(0)

    def inputs(self, least: int = 1, most: int | None = None) -> None:
        """The rest of the phrase: names of what the function takes."""
        self._listed(self.left, self.names, f"{self.function} takes nothing named", least, most)

    def axes(self) -> None:
        """The rest of the phrase: axes."""
        self._listed(self.left, self.scope.axes, f"{self.function} has no axis", 1, None)

    def _listed(
        self, found: list[ast.Word], known: Iterable[str], complaint: str, least: int, most: int | None
    ) -> None:
        known = list(known)
        if len(found) < least or (most is not None and len(found) > most):
            raise self.malformed()
        for word in found:
            if word.text not in known or word.amount is not None:
                near = suggest(word.text, known)
                raise self.ctx.stop(
                    "E056", f"{complaint} {word.text}", word.span,
                    help=f"did you mean {near}?" if near else f"there is {', '.join(known) or 'none'}",
                )  # fmt: skip

    def constant(self) -> None:
        if not self.left or self.left[0].text != "()":
            raise self.malformed()
        self.number(self.left.pop(0).amount)

    def bounds(self) -> None:
        if not self.left:
            raise self.malformed()
        for word in self.left:
            if word.amount is None or word.text not in ("<", "<=", ">", ">="):
                raise self.malformed()
            self.number(word.amount)

    def number(self, amount: ast.Expr | None) -> None:
        """What a constant is made of: numbers, hyperparameters and lengths."""
        for item in walk(amount) if amount is not None else ():
            called = any(isinstance(c, ast.Call) and c.function is item for c in walk(amount)) if amount else False
            if isinstance(item, ast.Name) and not called and item.id not in self.numbers:
                raise self.ctx.stop(
                    "E056", f"a promise cannot depend on {item.id}", item.span,
                    help="its constants are made of numbers, hyperparameters and lengths",
                )  # fmt: skip

    def invariant(self) -> None:
        self.words("invariant", "to")
        if not self.left:
            raise self.malformed()
        match self.left[0].text:
            case "shift":
                self.words("shift", "of")
                over = next((k for k, w in enumerate(self.left) if w.text == "over"), None)
                if over is None:
                    raise self.malformed()
                self._listed(self.left[:over], self.names, f"{self.function} takes nothing named", 1, None)
                self.left = self.left[over + 1 :]
                self.axes()
            case "scale":
                self.words("scale", "of")
                self.inputs()
            case "permutation":
                self.words("permutation", "of")
                self.axes()
            case _:
                raise self.malformed()
