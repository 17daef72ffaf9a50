"""Formulas: what a program looks like in LaTeX and in text."""

import re

import pytest

from lossdsl.checker.catalog import catalog
from lossdsl.checker.latex import Names, called, latex, text
from lossdsl.checker.notation import Latex, Piece, Text, split_name
from lossdsl.checker.program import elaborate
from lossdsl.checker.resolve import from_text, resolve
from lossdsl.syntax.diagnostics import Diagnostics


def formula(source, writer=text):
    """The formula of a program's text, or of a library name."""
    found = from_text(source) if "\n" in source else resolve(source)
    prelude = found.library.prelude()

    def program(module, function):
        return elaborate(module, function, prelude, Diagnostics())

    return writer(program(found.module, found.function), Names(program, prelude.functions))


def loss(parameters, *lines):
    return f"loss l({parameters}):\n" + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("parameters", "body", "expected"),
    [
        ("x: real[N]", "mean[N](x)", "1/N Σ_n x_n"),
        ("x: real[N, D]", "mean[N, D](x^2)", "1/(N·D) Σ_{n, d} x_nd^2"),
        ("x: real[N]", "sum[i, j](x[i] * x[j])", "Σ_{i, j} x_i·x_j"),
        ("x: real[N]", "mean[i, j](x[i] * x[j])", "1/N^2 Σ_{i, j} x_i·x_j"),
        ("x: real[N]", "sum[i, j | i != j](x[i] * x[j])", "Σ_{i ≠ j} x_i·x_j"),
        ("x: real[N]", "sum[i](sum[j | j < i](x[i] - x[j]))", "Σ_i Σ_{j < i} (x_i - x_j)"),
        ("x: real[N], m: bool[N]", "mean[n | m[n]](x[n]) else 0", "mean_{n: m_n} x_n or 0 if none"),
        ("x: real[N]", "mean[N](x - mean[N](x))", "1/N Σ_n (x_n - 1/N Σ_n' x_n')"),
        ("x: real[N]", "-sum[N](-x)", "-Σ_n (-x_n)"),
        ("x: real[N]; b: real", "-b * sum[N](x) + b / 2", "-b·Σ_n x_n + b/2"),
        ("a: real, b: real, c: real", "a - (b - c) + (a - b)", "a - (b - c) + a - b"),
        ("a: real, b: real, c: real", "a * (b + c) * -c", "a·(b + c)·(-c)"),
        ("a: real, b: real > 0, c: real", "a / (b * 2) * c", "a/(b·2)·c"),
        ("a: real, b: real", "(a + b)^2", "(a + b)^2"),
        ("a: real", "where(a > 0, a, 1 - a)", "{a if a > 0, else 1 - a}"),
        ("x: real[N, D]", "mean[N](norm(x))", "1/N Σ_n ‖x_n‖"),
        ("x: real[N, D]", "mean[N, D](normalize(x))", "1/(N·D) Σ_{n, d} (x_n/‖x_n‖)_d"),
        ("x: real[N, D], y: real[N, D]", "mean[N](sqdist(x, y))", "1/N Σ_n ‖x_n - y_n‖^2"),
        (
            "x: real[N, D], y: real[N, D]",
            "mean[N](dot(x, y) + cos(x, y))",
            "1/N Σ_n (⟨x_n, y_n⟩ + cos(x_n, y_n))",
        ),
        ("x: real", "cos(x)", "cos(x)"),
        ("x: real[N, C]", "mean[N](sum[C](softmax[C](x)^2))", "1/N Σ_n Σ_c softmax_C(x_n)_c^2"),
        ("x: real[N, C], y: int[N] < C", "mean[N](x[C = y])", "1/N Σ_n x[n, y_n]"),
        ("x: real[N]", "max[N](x) - min[i](x[i])", "max_n x_n - min_i x_i"),
        ("x: real[N]", "argmax[N](x)", "argmax_n x_n"),
        ("x: real[N]", "count[n](x[n] > 0) + sum[N](any[i](x[i] > x))", None),
        ("tau_s: real, k1: real, base_tau: real", "tau_s * k1 * base_tau", "τ_s·k_1·base_tau"),
        ("lam: real, eps: real", "lam - eps", "λ - ε"),
    ],
)
def test_text(parameters, body, expected):
    (line,) = formula(loss(parameters, body))
    assert expected is None or line.partition(" = ")[2] == expected


@pytest.mark.parametrize(
    ("parameters", "body", "expected"),
    [
        ("x: real[N]", "mean[N](x)", "\\frac{1}{N} \\sum_{n} x_{n}"),
        ("x: real[N]", "logsumexp[N](x)", "\\log \\sum_{n} e^{x_{n}}"),
        ("a: real, b: real > 0", "a / b", "\\frac{a}{b}"),
        ("a: real", "sqrt(a^2)", "\\sqrt{a^{2}}"),
        ("a: real", "abs(a) + exp(a)", "|a| + e^{a}"),
        ("a: real > 0, b: real > 0", "log(a + b)", "\\log \\left(a + b\\right)"),
        ("a: real", "a * 1e-6 + 2.5e3", "a \\cdot 10^{-6} + 2.5 \\cdot 10^{3}"),
        ("score: real, tau_min: real", "score * tau_min", "\\mathrm{score} \\, \\tau_{\\mathrm{min}}"),
        ("a: real", "stop(a)", "\\operatorname{sg}[a]"),
        (
            "s: real[N, N], y: int[N]",
            "sum[i](sum[p | p != i and y[p] == y[i]](s[i, p]))",
            "\\sum_{i} \\sum_{\\substack{p \\ne i \\\\ y_{p} = y_{i}}} s_{ip}",
        ),
        ("a: real", "where(a > 0, a, 0)", "\\begin{cases} a & a > 0 \\\\ 0 \\end{cases}"),
    ],
)
def test_latex(parameters, body, expected):
    rows = formula(loss(parameters, body), latex).splitlines()
    assert (rows[0], rows[-1]) == ("\\begin{aligned}", "\\end{aligned}")
    assert rows[1].partition("&= ")[2] == expected


def test_definitions_state_draws_loops_and_derivatives():
    assert formula("dino")[0] == "state center = 0 at first"
    assert formula("dino")[2].startswith("center ← momentum·center + ")
    assert formula("ensloss")[0] == "noise ~ normal(0, 1)"
    loop = formula(loss("x: real[N]", "repeat l < 3 with a = x until sum[N](a) > 1:", "    a = a / 2", "sum[N](a)"))
    assert loop[0] == "for l < 3 from a = x until Σ_n a_n > 1"
    assert loop[1] == "    a ← a/2"
    scan = formula(loss("x: real[T]", "scan t: T backwards with a = 0:", "    a = x[t] + a", "sum[T](a)"))
    assert scan[0] == "for t backwards along T from a = 0"
    own = "def l(hard: real, soft: real):\n    hard\n    backward g:\n        soft: 2 * g\n"
    found = from_text(own, "l")
    back = text(elaborate(found.module, found.function, None, Diagnostics()), Names(lambda *_: None, {}))
    assert back == ["l(hard, soft) = hard", "backwards, from g", "    gradient of soft = 2·g"]


def test_records_are_written_with_their_fields():
    assert formula("sft") == ["sft(π) = -1/B Σ_b π.chosen_b"]
    assert "\\pi_{\\mathrm{chosen}, b}" in formula("sft", latex)


def test_an_index_stands_behind_a_call_that_keeps_its_axis():
    assert "preference(π, ref)_b" in formula("dpo")[-1]


@pytest.mark.parametrize("name", [e.name for e in catalog()])
def test_the_whole_library_has_formulas(name):
    lines = formula(name)
    assert lines
    for line in lines:
        assert line.count("(") == line.count(")"), line
    written = formula(name, latex)
    assert len(re.findall(r"\\left(?!arrow)", written)) == written.count("\\right")
    bare = re.sub(r"\\[{}]", "", written)
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0
    assert "_ {" not in written


def test_a_deep_formula_is_written():
    deep = "x" + " + x" * 300
    assert formula(loss("x: real", deep))[0].count("x") == 302


def test_called_names_in_the_order_of_reading():
    found = resolve("rpo")
    assert called(found.function) == ["dpo", "sft"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("tau", ("tau", [])),
        ("tau_s", ("tau", ["s"])),
        ("k1", ("k", ["1"])),
        ("x_old_2", ("x", ["old", "2"])),
        ("base_tau", ("base_tau", [])),
        ("l1_weight", ("l", ["1", "weight"])),
        ("labels", ("labels", [])),
        ("_", ("_", [])),
    ],
)
def test_names_as_symbols(name, parts):
    assert split_name(name) == parts


@pytest.mark.parametrize("notation", [Latex(), Text()])
def test_brackets_go_where_they_are_needed(notation):
    total = notation.operation("add", [Piece("a"), Piece("b")])
    assert notation.operation("mul", [total, Piece("c")]).text.startswith(notation.brackets("a + b"))
    difference = notation.operation("sub", [Piece("a"), total])
    assert difference.text == f"a - {notation.brackets('a + b')}"
    assert notation.operation("neg", [total]).text == f"-{notation.brackets('a + b')}"
