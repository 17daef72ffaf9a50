"""Well-typed programs, generated: every one must be accepted, and every backend must agree on it.

A program is text. Each part is made with its axes and its sign known, so that domains hold by construction.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

INPUTS = {
    "x": ("real[N, C]", ("N", "C"), "any"),
    "y": ("real[N, D]", ("N", "D"), "any"),
    "w": ("real[C]", ("C",), "any"),
    "u": ("real[M, D]", ("M", "D"), "any"),
    "p": ("real[N, C] > 0", ("N", "C"), "pos"),
    "q": ("prob[N, C]", ("N", "C"), "unit"),
    "s": ("real", (), "any"),
    "k": ("int[N] < C", ("N",), "int"),
    "m": ("bool[N, C]", ("N", "C"), "bool"),
}
UNARY = ["-{}", "tanh({})", "sigmoid({})", "softplus({})", "relu({})", "abs({})", "exp(-abs({}))", "({})^2", "sin({})", "atan({})",
         "log_sigmoid({})", "sqrt(({})^2 + 1)", "log(1 + ({})^2)", "log(1 + exp({}))", "1 - sigmoid({})", "stop({})", "erf({})", "clamp({}, -1, 1)"]  # fmt: skip
POSITIVE = {
    "sigmoid({})": "unit",
    "softplus({})": "pos",
    "exp(-abs({}))": "unit",
    "sqrt(({})^2 + 1)": "pos",
    "1 - sigmoid({})": "unit",
}
REDUCERS = ["sum", "mean", "max", "min", "logsumexp", "var"]
KEEPERS = ["softmax", "log_softmax", "sort", "cumsum"]


@dataclass
class Made:
    """A piece of text with what is known of its value."""

    text: str
    axes: frozenset[str]
    sign: str = "any"


@dataclass
class Writer:
    """Draws pieces; `lines` holds definitions made on the way."""

    draw: st.DrawFn
    lines: list[str] = field(default_factory=list)
    names: dict[str, Made] = field(default_factory=dict)

    def leaf(self) -> Made:
        known = [Made(n, frozenset(a), sign) for n, (_, a, sign) in INPUTS.items() if sign in ("any", "pos", "unit")]
        return self.draw(
            st.sampled_from(
                [*known, *self.names.values(), Made("tau", frozenset(), "pos"), Made("0.5", frozenset(), "unit")]
            )
        )

    def condition(self, depth: int) -> Made:
        kind = self.draw(st.sampled_from(["mask", "compare", "not"]))
        if kind == "mask" or depth <= 0:
            return Made("m", frozenset(("N", "C")))
        if kind == "not":
            inner = self.condition(depth - 1)
            return Made(f"(not {inner.text})", inner.axes)
        a, b = self.real(depth - 1), self.real(0)
        return Made(f"({a.text} {self.draw(st.sampled_from(['<', '>=']))} {b.text})", a.axes | b.axes)

    def real(self, depth: int) -> Made:
        if depth <= 0:
            return self.leaf()
        kind = self.draw(st.sampled_from(
            ["unary", "unary", "binary", "binary", "divide", "reduce", "reduce", "guard", "keep", "where", "gather", "pairs", "log", "name", "shift"]))  # fmt: skip
        return getattr(self, f"_{kind}")(depth)

    def _unary(self, depth: int) -> Made:
        form = self.draw(st.sampled_from(UNARY))
        inner = self.real(depth - 1)
        return Made(f"({form.format(inner.text)})", inner.axes, POSITIVE.get(form, "any"))

    def _binary(self, depth: int) -> Made:
        a, b = self.real(depth - 1), self.real(depth - 1)
        form = self.draw(
            st.sampled_from(["({} + {})", "({} - {})", "({} * {})", "min({}, {})", "max({}, {})", "logaddexp({}, {})"])
        )
        sign = (
            "pos"
            if form == "({} + {})"
            and {a.sign, b.sign} <= {"pos", "unit"}
            and "pos" in (a.sign, b.sign)
            and "q" not in a.text + b.text
            else "any"
        )
        return Made(form.format(a.text, b.text), a.axes | b.axes, sign)

    def _divide(self, depth: int) -> Made:
        a, b = self.real(depth - 1), self.real(depth - 1)
        return Made(f"({a.text} / (({b.text})^2 + 1))", a.axes | b.axes)

    def _log(self, depth: int) -> Made:
        inner = self.real(depth - 1)
        form = self.draw(
            st.sampled_from(["log(1e-3 + ({})^2)", "log(softplus({}))", "log(sigmoid({}))", "log(exp({}) + 1)"])
        )
        return Made(f"({form.format(inner.text)})", inner.axes)

    def _reduce(self, depth: int) -> Made:
        inner = self.real(depth - 1)
        if not inner.axes:
            return inner
        over = self.draw(st.lists(st.sampled_from(sorted(inner.axes)), min_size=1, max_size=2, unique=True))
        op = self.draw(st.sampled_from(REDUCERS))
        return Made(f"{op}[{', '.join(over)}]({inner.text})", inner.axes - set(over))

    def _guard(self, depth: int) -> Made:
        inner, condition = self.real(depth - 1), self.condition(depth - 1)
        axes = inner.axes | condition.axes
        over = self.draw(st.lists(st.sampled_from(sorted(axes)), min_size=1, max_size=2, unique=True)) if axes else []
        if not over:
            return inner
        op = self.draw(st.sampled_from(["sum", "mean", "max", "min", "logsumexp"]))
        return Made(f"({op}[{', '.join(over)} | {condition.text}]({inner.text}) else 0)", axes - set(over))

    def _keep(self, depth: int) -> Made:
        inner = self.real(depth - 1)
        if not inner.axes:
            return inner
        op = self.draw(st.sampled_from(KEEPERS))
        return Made(f"{op}[{self.draw(st.sampled_from(sorted(inner.axes)))}]({inner.text})", inner.axes)

    def _where(self, depth: int) -> Made:
        condition, a, b = self.condition(depth - 1), self.real(depth - 1), self.real(depth - 1)
        return Made(f"where({condition.text}, {a.text}, {b.text})", condition.axes | a.axes | b.axes)

    def _gather(self, depth: int) -> Made:
        inner = self.real(depth - 1)
        if "C" not in inner.axes:
            return inner
        return Made(f"({inner.text})[C = k]", (inner.axes - {"C"}) | {"N"})

    def _pairs(self, depth: int) -> Made:
        form = self.draw(st.sampled_from([
            "mean[i](logsumexp[j](dot(y[i], u[j])))", "sum[i, j | i != j](tanh(dot(y[i], y[j])))", "mean[i](max[j | j != i](sqdist(y[i], y[j])) else 0)",
            "mean[i](mean[j | j != i and k[i] == k[j]](cos(y[i], y[j])) else 0)", "sum[i](dot(u[i], u[i]))", "mean[i](x[i, k[i]])"]))  # fmt: skip
        return Made(f"({form})", frozenset())

    def _shift(self, depth: int) -> Made:
        form = self.draw(st.sampled_from([
            "sum[n, a: 2](x[n, 0] * (w[a] else 0))", "mean[t](w[t] * (w[t + 1] else 0))", "sum[t: C](w[C - 1 - t] * w[t])",
            "sum[n: N](y[n, 0] - (y[n - 1, 0] else 2))"]))  # fmt: skip
        return Made(f"({form})", frozenset())

    def _name(self, depth: int) -> Made:
        inner = self.real(depth - 1)
        name = f"v{len(self.names)}"
        self.lines.append(f"{name} = {inner.text}")
        self.names[name] = Made(name, inner.axes, inner.sign)
        return self.names[name]


@st.composite
def programs(draw: st.DrawFn, depth: int = 4) -> str:
    """The text of a loss `f` over all of INPUTS that yields a scalar."""
    writer = Writer(draw)
    value = writer.real(depth)
    total = f"mean[{', '.join(sorted(value.axes))}]({value.text})" if value.axes else value.text
    inputs = ", ".join(f"{name}: {kind}" for name, (kind, _, _) in INPUTS.items())
    body = "\n".join(f"    {line}" for line in [*writer.lines, total])
    return f"loss f({inputs}; tau: real > 0 = 0.7):\n{body}\n"
