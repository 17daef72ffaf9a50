"""The canonical layout: it keeps meaning and comments, and is its own layout."""

import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lossdsl.resources import stdlib_root
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Diagnostics, render
from lossdsl.syntax.format import WIDTH, format_module, format_source
from lossdsl.syntax.parser import parse
from lossdsl.syntax.source import Source
from lossdsl.syntax.tokens import scan

from .strategies import expressions, layouts, modules


def read(text):
    diagnostics = Diagnostics()
    module = parse(Source("t.loss", text), diagnostics)
    assert diagnostics.found == [], text + "\n" + "\n".join(map(render, diagnostics.found))
    return module


def laid_out(text):
    diagnostics = Diagnostics()
    found = format_source(Source("t.loss", text), diagnostics)
    assert diagnostics.found == [], text + "\n" + "\n".join(map(render, diagnostics.found))
    return found


def comments(text):
    return sorted(t.text.rstrip() for t in scan(text) if t.is_comment)


def check(text):
    """The text is a layout of one program; its canonical layout has that program and those comments, and is canonical."""
    found = laid_out(text)
    with ast.deep_recursion():
        assert read(found) == read(text)
    assert comments(found) == comments(text)
    assert laid_out(found) == found
    assert all(line == line.rstrip() for line in found.split("\n") if '"' not in line)
    return found


def bare(node):
    """A tree without its Group nodes."""
    if isinstance(node, ast.Group):
        return bare(node.inner)
    if isinstance(node, tuple):
        return tuple(map(bare, node))
    if is_dataclass(node) and isinstance(node, ast.Node):
        parts = {
            f.name: bare(getattr(node, f.name))
            for f in fields(node)
            if f.name not in ("span", "name_span", "source", "broken")
        }
        return replace(node, **parts)
    return node


# ---- rules, by example -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a + b * c",
        "-x^2",
        "(x - y)^2",
        "x^-1",
        "2*N - 2",
        "2 * beta",
        "x[2*h + a, i]",
        "x[1:K, ::2, :-1, 0]",
        "x[a + 1 : b]",
        "x[: N - 1]",
        "logits[C = labels]",
        "f[C = K](x, tau=0.1)",
        "mean[i: N, j | i != j and m[i]](x[i, j]) else 0",
        "not a and b or c <= d",
        "where(x > 0, log(x), 0)",
        "pi.chosen[b].score",
        "f()",
    ],
)
def test_expressions_that_are_laid_out(text):
    assert laid_out(f"loss f(x: real):\n    {text}\n") == f"loss f(x: real):\n    {text}\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a+b*c", "a + b * c"),
        ("- x ^ 2", "-x^2"),
        ("2 * N", "2*N"),
        ("2*beta", "2 * beta"),
        ("x [ 1 : K ]", "x[1:K]"),
        ("mean[i:N|i!=j](x[ i ])else 0", "mean[i: N | i != j](x[i]) else 0"),
        ("f( x,tau = 0.1, )", "f(x, tau=0.1)"),
        ("logits[C=labels]", "logits[C = labels]"),
        ("not(a)", "not (a)"),
        ("(\n a\n  +b)", "(a + b)"),
    ],
)
def test_expressions_laid_out_anew(text, wanted):
    assert laid_out(f"loss f(x: real):\n    {text}\n") == f"loss f(x: real):\n    {wanted}\n"


def test_a_whole_file():
    text = '''# License.

"""What the file holds.

title: T
"""
use   a . b:c,d   as e
use f: g


record P [B]:
  chosen: real[B]   # log-probability of the preferred answer
  rejected : real[B]# of the other

# About f.

# Directly above.
def f(x:real[N>=2,M=2*N],g:fn(real[N])->real;tau:real>0=0.1 ,k:int in[1,3)=2,)->real[N]  :
  """Doc   kept."""


  # a comment
  state s:real[N]=0
  draw u : real [N]~normal( 0,1 )
  y[i,j:N]=x[i]

  s[i] := 1
  repeat l<k with v=0,w=1 until v>1:
     v = w   # why
     # at the end of the loop
  scan t:N backwards with a=0 :
     a=x[t]
  y
  ensures convex   in x,g,value>=0, lipschitz( 1 )in x
  # at the end of f
# last
'''
    assert (
        check(text)
        == '''# License.

"""What the file holds.

title: T
"""

use a.b: c, d as e
use f: g

record P[B]:
    chosen: real[B]    # log-probability of the preferred answer
    rejected: real[B]  # of the other

# About f.

# Directly above.
def f(x: real[N >= 2, M = 2*N], g: fn(real[N]) -> real; tau: real > 0 = 0.1, k: int in [1, 3) = 2) -> real[N]:
    """Doc   kept."""

    # a comment
    state s: real[N] = 0
    draw u: real[N] ~ normal(0, 1)
    y[i, j: N] = x[i]

    s[i] := 1
    repeat l < k with v = 0, w = 1 until v > 1:
        v = w  # why
        # at the end of the loop
    scan t: N backwards with a = 0:
        a = x[t]
    y
    ensures convex in x, g, value >= 0, lipschitz(1) in x
    # at the end of f

# last
'''.replace(
            "def f(x: real[N >= 2, M = 2*N], g: fn(real[N]) -> real; tau: real > 0 = 0.1, k: int in [1, 3) = 2) -> real[N]:",
            "def f(\n    x: real[N >= 2, M = 2*N], g: fn(real[N]) -> real;\n    tau: real > 0 = 0.1, k: int in [1, 3) = 2\n) -> real[N]:",
        )
    )


LONG = [
    (
        "mean[i](mean[p | p != i and labels[p] == labels[i]](logsumexp[a | a != i](s[i, a]) - s[i, p] + margin) else 0)",
        """\
    mean[i](mean[p | p != i and labels[p] == labels[i]](
        logsumexp[a | a != i](s[i, a]) - s[i, p] + margin
    ) else 0)
""",
    ),
    (
        "total = mean[N](first_long_name * second_long_name) + beta * mean[N](third_long_name * fourth_name + fifth_name)",
        """\
    total = mean[N](first_long_name * second_long_name) + beta * mean[N](
        third_long_name * fourth_name + fifth_name
    )
    total
""",
    ),
    (
        "where(first_condition > second_threshold, first_value * second_value, first_value + second_value * third_value)",
        """\
    where(
        first_condition > second_threshold,
        first_value * second_value,
        first_value + second_value * third_value
    )
""",
    ),
    (
        "some_function(first_argument, second_argument, third_argument, fourth_argument, beta=beta, gamma=gamma, eta=eta)",
        """\
    some_function(
        first_argument, second_argument, third_argument, fourth_argument, beta=beta, gamma=gamma,
        eta=eta
    )
""",
    ),
    (
        "mean[N](first_long_name * second_long_name + third_long_name * fourth_long_name - fifth_long_name * sixth_long_name)",
        """\
    mean[N](
        first_long_name * second_long_name
        + third_long_name * fourth_long_name
        - fifth_long_name * sixth_long_name
    )
""",
    ),
]


@pytest.mark.parametrize(("text", "wanted"), LONG, ids=range(len(LONG)))
def test_long_formulas_break_inside_brackets(text, wanted):
    tail = "    total\n" if text.startswith("total") else ""
    assert check(f"loss f(x: real):\n    {text}\n{tail}") == f"loss f(x: real):\n{wanted}"


def test_long_headers():
    parameters = ", ".join(f"parameter_{k}: real[N, D]" for k in range(6))
    found = check(f"loss f({parameters}; beta: real > 0 = 0.1, eta: real >= 0 = 0.005):\n    x\n")
    assert (
        found
        == """\
loss f(
    parameter_0: real[N, D], parameter_1: real[N, D], parameter_2: real[N, D],
    parameter_3: real[N, D], parameter_4: real[N, D], parameter_5: real[N, D];
    beta: real > 0 = 0.1, eta: real >= 0 = 0.005
):
    x
"""
    )


def test_comments_inside_brackets():
    found = check(
        """\
loss f(
    # the tensors
    x: real[N],   # one
    y: real[N], w: real[N],  # two and three
    ; tau: real > 0 = 1,  # a temperature
    # nothing more
):
    mean[N](  # over all
        x
        # between
        + y,
    )
    z = g(x, # first
      y)  # behind
    z
"""
    )
    assert (
        found
        == """\
loss f(
    # the tensors
    x: real[N],              # one
    y: real[N], w: real[N];  # two and three
    tau: real > 0 = 1  # a temperature
    # nothing more
):
    mean[N](  # over all
        x
        # between
        + y
    )
    z = g(
        x,  # first
        y
    )  # behind
    z
""".replace("    tau: real > 0 = 1  # a temperature", "    tau: real > 0 = 1        # a temperature")
    )


def test_comments_behind_neighbouring_lines_stand_below_each_other():
    found = check("loss f(x: real):\n    a = 1 # a\n    bcd = 2 # b\n\n    e = 3 # c\n    e\n")
    assert found == "loss f(x: real):\n    a = 1    # a\n    bcd = 2  # b\n\n    e = 3  # c\n    e\n"


def test_use_lines_come_first():
    found = check("loss f(x: real):\n    x\n\n# takes g\nuse a: g\n")
    assert found == "# takes g\nuse a: g\n\nloss f(x: real):\n    x\n"


def test_only_comments():
    assert check("# a\n\n\n# b") == "# a\n\n# b\n"
    assert check("") == ""
    assert check("\n\n") == ""


def test_a_broken_text_is_reported_and_not_laid_out():
    diagnostics = Diagnostics()
    assert format_source(Source("t.loss", "loss f(x: real:\n    x\n\nloss g(x: real):\n    x\n"), diagnostics) is None
    assert len(diagnostics.found) == 1


def test_continued_lines():
    assert check("loss f(x: real):\n    y = x \\\n      + 1\n    y\n") == "loss f(x: real):\n    y = x + 1\n    y\n"


def test_deep_trees():
    for formula in (
        "-" * 380 + "x",
        "not " * 380 + "x",
        "x" + "^x" * 190,
        "x" + " else x" * 190,
        "(" * 99 + "x" + ")" * 99,
        "x" + " + x" * 380,
    ):
        check(f"loss f(x: real):\n    {formula}\n")


def test_examples_of_the_page_are_canonical():
    page = (Path(__file__).parents[2] / "docs" / "layout.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```loss\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(examples) == 2
    assert [laid_out(text) for text in examples] == examples


# ---- for all programs ---------------------------------------------------------------------------

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Shrinking a program takes minutes; the smallest of a few failing ones is found by reading."""

PROGRAMS = sorted([*stdlib_root().rglob("*.loss"), *Path(__file__).parents[1].glob("programs/accepted/*.loss")])


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_programs_at_hand(path):
    check(path.read_text(encoding="utf-8"))


@settings(max_examples=150)
@given(modules)
def test_any_tree_is_laid_out_and_read_back(module):
    text = format_module(module)
    assert bare(read(text)) == bare(module)
    assert laid_out(text) == text


@settings(max_examples=200)
@given(expressions)
def test_any_expression_is_laid_out_and_read_back(expr):
    value = ast.Value((expr,), span=expr.span)
    made = ast.Function("def", "f", (), (), None, None, (value,), span=expr.span, name_span=expr.span)
    text = format_module(ast.Module(expr.span.source, None, (), (), (made,), span=expr.span))
    (found,) = read(text).functions[0].body
    assert bare(found) == bare(value)
    assert laid_out(text) == text


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], phases=PHASES)
@given(st.data())
def test_any_layout_becomes_canonical(data):
    text = format_module(data.draw(modules))
    other = data.draw(layouts(text))
    found = check(other)
    assert read(found) == read(text)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], phases=PHASES)
@given(st.data())
def test_any_layout_of_the_library_becomes_canonical(data):
    text = laid_out(data.draw(st.sampled_from(PROGRAMS)).read_text(encoding="utf-8"))
    check(data.draw(layouts(text)))


def test_only_what_no_bracket_encloses_exceeds_the_width():
    found = laid_out(
        "loss f(x: real):\n    y = "
        + " + ".join(f"term_{k}" for k in range(30))
        + "\n    g("
        + ", ".join(["argument"] * 40)
        + ")\n"
    )
    long = [line for line in found.split("\n") if len(line) > WIDTH]
    assert [line.split()[0] for line in long] == ["y"]
