"""From text to tree: shapes of trees, and one clear finding for each thing that is no program."""

import time

import pytest

from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Diagnostics, render
from lossdsl.syntax.parser import MAX_DEPTH, MAX_TEXT, parse, parse_expression
from lossdsl.syntax.source import Source

HEADER = "loss f(x: real[N], y: real[N]; tau: real > 0 = 1):\n"


def read(text):
    diagnostics = Diagnostics()
    return parse(Source("t.loss", text), diagnostics), diagnostics.found


def sound(text):
    module, found = read(text)
    assert found == []
    return module


def only(text):
    _, found = read(text)
    assert len(found) == 1, "\n".join(map(render, found))
    return found[0]


def expression(text):
    diagnostics = Diagnostics()
    found = parse_expression(Source("-e", text), diagnostics)
    assert diagnostics.found == []
    return found


# ---- trees ---------------------------------------------------------------------------------


def sketch(expr):
    """An expression with all its brackets."""
    match expr:
        case ast.Number(text):
            return text
        case ast.Name(name):
            return name
        case ast.Group(inner):
            return f"{{{sketch(inner)}}}"
        case ast.Negative(operand):
            return f"(-{sketch(operand)})"
        case ast.Not(operand):
            return f"(not {sketch(operand)})"
        case ast.Binary(op, left, right):
            return f"({sketch(left)} {op} {sketch(right)})"
        case ast.Otherwise(value, default):
            return f"({sketch(value)} else {sketch(default)})"
        case ast.Member(base, field):
            return f"{sketch(base)}.{field}"
        case ast.Call(function, arguments):
            return f"{sketch(function)}({', '.join((a.name + '=' if a.name else '') + sketch(a.value) for a in arguments)})"
        case ast.Bracket(base, entries, guard):
            inner = ", ".join(map(entry, entries))
            return f"{sketch(base)}[{inner}{'' if guard is None else ' | ' + sketch(guard)}]"


def entry(item):
    match item:
        case ast.Index(value):
            return sketch(value)
        case ast.Keyed(name, value):
            return f"{name} = {sketch(value)}"
        case ast.Slice():
            return ":".join("" if e is None else sketch(e) for e in (item.start, item.stop, item.step))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b - c", "((a + b) - c)"),
        ("a + b * c", "(a + (b * c))"),
        ("a / b / c", "((a / b) / c)"),
        ("-x^2", "(-(x ^ 2))"),
        ("x^-1", "(x ^ (-1))"),
        ("x^y^z", "(x ^ (y ^ z))"),
        ("2 * -x", "(2 * (-x))"),
        ("a < b and not c or d", "(((a < b) and (not c)) or d)"),
        ("not a == b", "(not (a == b))"),
        ("(a)", "{a}"),
        ("f(x) else 0 + y", "((f(x) else 0) + y)"),
        ("x[i] else -1", "(x[i] else (-1))"),
        ("a else b else c", "(a else (b else c))"),
        ("p.q[i].r(s)", "p.q[i].r(s)"),
        ("mean[b, t: T | m[b]](x[b], k=1)", "mean[b, t:T: | m[b]](x[b], k=1)"),
        ("x[1:K, ::2, C = y]", "x[1:K:, ::2, C = y]"),
        ("a % b // c", "((a % b) // c)"),
        ("elsewhere + orbit", "(elsewhere + orbit)"),
        (".5 + 1e-6 + 50_000", "((.5 + 1e-6) + 50_000)"),
    ],
)
def test_precedence(text, tree):
    assert sketch(expression(text)) == tree


def test_an_expression_may_break_anywhere():
    assert sketch(expression("a +\n  b\n")) == "(a + b)"
    assert sketch(expression("f(a,\n  b)  # why\n")) == "f(a, b)"


def test_module():
    module = sound(
        '''"""Doc."""
use a.b: c, d as e

record P[B]:
    x: real[B] >= 0

loss f(p: P[B], g: fn(real[B]) -> real; k: int >= 1 < 9 = 2, tau: real in (0, 1] = 1) -> real[B]:
    """What it is."""
    param w: real[M = 2*N, D >= 2] ~ normal(0, std=1)
    state s: real = 0
    draw u: real[B] ~ uniform(0, 1)
    a, b = h(p)
    y[i, j: N] = a[i]
    s := 1
    s[i] := 1
    repeat l < k with v = 0 until v > 1:
        v = 1
    scan t: T backwards with v = 0:
        v = 1
    a
    backward r:
        q = r
        p[i]: q
    ensures convex in p, g, value >= 0, lipschitz(1) in p
'''
    )
    assert module.doc == "Doc."
    assert [(u.path, [(n.name, n.alias) for n in u.names]) for u in module.uses] == [
        (("a", "b"), [("c", None), ("d", "e")])
    ]
    (record,) = module.records
    assert record.fields[0].type.bounds[0].op == ">="
    (loss,) = module.losses
    assert [p.name for p in loss.parameters] == ["p", "g"]
    assert [p.name for p in loss.hyperparameters] == ["k", "tau"]
    assert loss.hyperparameters[1].type.interval
    assert [b.op for b in loss.hyperparameters[1].type.bounds] == [">", "<="]
    assert [type(s).__name__ for s in loss.body] == [
        "Lasting", "Lasting", "Draw", "Definition", "Definition", "Update", "Update", "Repeat", "Scan", "Value", "Backward", "Ensures",
    ]  # fmt: skip
    assert loss.body[0].type.axes[0].name == "M"
    assert loss.body[8].backwards
    assert [[w.text for w in p.words] for p in loss.body[-1].phrases] == [
        ["convex", "in", "p", "g"], ["value", ">="], ["lipschitz", "()", "in", "p"],
    ]  # fmt: skip


def test_layout_does_not_matter():
    one = sound("loss f(x: real[N]; tau: real = 1):\n    y = x / tau\n    mean[N](y)\n")
    two = sound(
        "# c\n\nloss f(\n  x: real[N],\n  ; tau: real = 1,\n)  :  # d\n  y = x \\\n   / tau\n  # e\n\n  mean[N](\ny)\n\n\n# f"
    )
    assert one == two


@pytest.mark.parametrize(
    "text", ["", "\n", "# only a comment", "\n\n  \n", '"""doc"""', "loss f():\n    1", "loss f(x: real):\n\tx\n"]
)
def test_small_texts(text):
    sound(text)


def test_line_ends_of_windows():
    assert sound("loss f(x: real):\r\n    x\r\n") == sound("loss f(x: real):\n    x\n")


# ---- several findings in one run -------------------------------------------------------------


def test_each_broken_declaration_is_reported_and_the_sound_ones_are_kept():
    module, found = read(
        '''"""Doc."""
use a: b

loss one(x: real:
    x

loss two(x: real):
    x + 1

loss three(x: real):
    y = (x
    y

record R
    x: real

def four(x: real):
    x ** 2

def five(x: real):
    x
'''
    )
    assert [(d.span.line, d.code) for d in found] == [(4, "E008"), (11, "E008"), (14, "E004"), (18, "E009")]
    assert [f.name for f in module.functions] == ["two", "five"]
    assert module.broken == {"one", "three", "R", "four"}
    assert module.doc == "Doc."
    assert len(module.uses) == 1


def test_spans_of_kept_declarations_are_right():
    module, _ = read("loss one(x: real:\n    x\n\nloss two(x: real):\n    x + 1\n")
    (two,) = module.functions
    assert two.name_span.text == "two"
    assert two.body[0].span.text == "x + 1"


def test_many_broken_declarations_are_bounded():
    _, found = read("".join(f"loss f{k}(x: real:\n    x\n\n" for k in range(300)))
    assert 10 <= len(found) <= 50


def test_lines_at_the_margin_below_a_broken_header_belong_to_it():
    assert only("loss f(x: real[N]):\nmean[N](x)\n").span.line == 1
    assert only("loss f(x: real[N])\ny = x\nmean[N](y)\n\nloss g(x: real):\n    x\n").span.line == 1


def test_a_docstring_without_end_is_found_where_it_begins():
    text = 'loss f(x: real):\n    """Never closed.\n    x\n\nloss g(x: real):\n    """Closed."""\n    x\n'
    module, found = read(text)
    assert [(d.span.line, d.message) for d in found] == [(2, "this docstring is never closed")]
    assert [f.name for f in module.functions] == ["g"]


def test_code_in_a_docstring_is_no_declaration():
    assert only('"""Example:\n\nloss g(x: real):\n    x\n"""\n\nloss f(x: real):\n    x x\n').span.line == 8


# ---- messages: (line added to a body, code, part of the message, part of the help) ------------

SLIPS = [
    ("if x > 0:\n        x", "E009", "no `if`", "where("),
    ("if (x > 0):\n        x", "E009", "no `if`", "where("),
    ("a = x if x > 0 else y", "E009", "no `if`", "where("),
    ("elif x > 0:\n        x", "E009", "no `elif`", "where("),
    ("for i in range(10):\n        x", "E009", "no `for`", "sum[i]"),
    ("a = sum(x for x in y)", "E009", "no `for`", "sum[i]"),
    ("while x > 0:\n        x", "E009", "no `while`", "until"),
    ("return mean[N](x)", "E009", "no `return`", "last expression"),
    ("a = lambda z: z", "E009", "no `lambda`", "def"),
    ("import torch", "E009", "no `import`", "use preference"),
    ("let a = x", "E009", "no `let`", "name = expression"),
    ("print x", "E009", "no `print`", "explain"),
    ("assert x > 0", "E009", "no `assert`", "domains"),
    ("a = x is y", "E009", "no `is`", "=="),
    ("a = x ** 2", "E009", "`**`", "^"),
    ("a = x && y", "E009", "`&&`", "`and`"),
    ("a = x & y", "E009", "`&`", "`and`"),
    ("a = x || y", "E009", "`||`", "`or`"),
    ("a = x | y", "E009", "`|`", "a or b"),
    ("a = !x", "E009", "`!`", "not"),
    ("a = x > 0 ? x : y", "E009", "`?`", "where("),
    ("a = x @ y", "E009", "`@`", "dot("),
    ("a += x", "E009", "`+=`", ":="),
    ("a *= x", "E009", "`*=`", ":="),
    ("a = x in [0, 1]", "E009", "`in`", "x >= 0 and x <= 1"),
    ("a = mean[i | x[i] = 0](y[i])", "E004", "`=` compares nothing", "=="),
    ("a = f(x[0] = 1)", "E004", "`=` compares nothing", "=="),
    ("a = x === y", "E004", "`===`", "=="),
    ("a = x <> y", "E004", "`<>`", "!="),
    ("a = x => y", "E004", "`=>`", ">="),
    ("a = x =< y", "E004", "`=<`", "<="),
    ("a = b = x", "E004", "second `=`", "=="),
    ("a = 0 < x < 1", "E004", "do not chain", "a < b and b < c"),
    ("a = x == y == 1", "E004", "do not chain", "and"),
    ("a = x -> y", "E004", "`->`", "where("),
    ("a = 2x", "E004", "side by side", "2*x"),
    ("a = x y", "E004", "an operator is missing before `y`", "a * b"),
    ("a = f(x y)", "E004", "an operator or a comma is missing before `y`", "a * b"),
    ("a = 1.2.3", "E004", "missing before `.3`", ""),
    ("a = x * not y", "E004", "`not` stands in the middle", "(not c)"),
    ("a = {x}", "E004", "braces", "( )"),
    ("a = 'text'", "E004", "single quotes", '"""'),
    ('a = "text"', "E004", "docstring", "comment"),
    ("a = x $ y", "E004", "`$`", "plain text"),
    ("a = x \\ y", "E004", "backslash", "//"),
    ("a = x; b = y", "E004", "`;`", "new line"),
    ("a = f(x; tau=0.1)", "E004", "`;`", "comma"),
    ("a = f(x, tau: 0.1)", "E004", "not `:`", "tau=.."),
    ("a = f(x, tau := 0.1)", "E004", "`:=`", "="),
    ("a = b := x", "E004", "`:=`", "="),
    ("a: real[N] = x", "E004", "without a type", "a = .."),
    ("a = x +\n    y", "E004", "ends after `+`", "brackets"),
    ("a = x^", "E004", "ends after `^`", ""),
    ("a =", "E004", "ends after `=`", ""),
    ("a = x\n        + y", "E004", "cannot begin with `+`", "brackets"),
    ("a = x\n    * y", "E004", "cannot begin with `*`", "brackets"),
    ("a = x\n        b = y", "E005", "deeper", "colon"),
    ("a = x\n  b = y", "E005", "no open block", "first line"),
    ("a = x\n\tb = y", "E005", "tabs and spaces", "four spaces"),
    ("a = mean[N](x)\n    else 0", "E004", "`else` begins no line", "same line"),
    ("a = mean[N](x) else", "E004", "ends after `else`", ""),
    ("else:\n        x", "E004", "`else`", "where("),
    ("a = (x + 1", "E008", "`(` is never closed", ")"),
    ("a = mean[N](softplus(x)", "E008", "`(` is never closed", ")"),
    ("a = x[1, 2", "E008", "`[` is never closed", "]"),
    ("a = x)", "E008", "`)` closes nothing", "("),
    ("a = f(x[i)", "E008", "`)` stands where `]`", "close"),
    ('"""text', "E008", "docstring is never closed", '"""'),
    ('"text', "E008", "not closed on its line", '"""'),
    ("a = τ * x", "E002", "`τ` (U+03C4)", "tau"),
    ("a = x − y", "E002", "U+2212", "write -"),
    ("a = x ≤ y", "E002", "U+2264", "<="),
    ("a = x\u00a0+ y", "E002", "U+00A0", "space"),
    ("a = x\u200b + y", "E002", "U+200B", "invisible"),
    ("a = \x07", "E002", "U+0007", "ASCII"),
    ("def g(z: real):\n        z", "E004", "inside another", "left margin"),
    ("state c = 0", "E004", "state c has no type", "state c: real = 0"),
    ("state c: real", "E004", "no first value", "= 0"),
    ("draw d: real[N]", "E004", "no distribution", "normal"),
    ("draw d: real[N] = 0", "E004", "no distribution", "normal"),
    ("state = x", "E004", "`state` begins a statement", "another name"),
    ("stat c: real = 0", "E004", "no statement begins with `stat`", "state"),
    ("repeat 10:\n        x = x", "E004", "how a repeat begins", "repeat l < n with"),
    ("repeat l < 10:\n        x = x", "E004", "carries no values", "repeat l < n with x = x0:"),
    ("repeat l < 10 with a = 0\n        a = x", "E004", "colon after the header of this repeat", "`:`"),
    ("repeat l in 10 with a = 0:\n        a = x", "E004", "`in`", "repeat l < n"),
    ("scan t in N with a = 0:\n        a = x", "E004", "`in`", "scan t: T"),
    ("scan t: N:\n        a = x", "E004", "carries no values", "with a = 0"),
    ("scan t: N with a = 0:\n    a", "E004", "this scan has no block", "indented"),
    ("backward g\n        x: g", "E004", "colon after the header of this backward", "`:`"),
    ("ensures", "E004", "ends too early", "bound"),
    ("a = mean[i: N | ](x[i])", "E004", "`]` is not expected", "formula"),
    ("a = f(x,, y)", "E004", "`,` is not expected", "formula"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "message", "cure"), SLIPS, ids=lambda v: None)
def test_slips_in_a_body(line, code, message, cure):
    found = only(f"{HEADER}    {line}\n    x\n")
    assert found.code == code
    assert message in found.message
    assert cure in (found.help or "")
    assert found.span.line <= 3
    assert "ANON" not in render(found)
    assert "_NL" not in render(found)


HEADERS = [
    ("loss f(x):", "parameter x has no type", "x: real"),
    ("loss f(self, x: real):", "parameter self has no type", "self: real"),
    ("loss f(x: real; tau):", "hyperparameter tau has no type", "tau: real > 0"),
    ("loss f(x: real; tau = 1):", "hyperparameter tau has no type", "tau: real > 0"),
    ("loss f(x: real)", "the colon after the header of this loss is missing", "`:`"),
    ("loss f(x: real) -> real", "the colon after the header of this loss is missing", "`:`"),
    ("def f(x: real) = x", "no equation", "colon"),
    ("loss f(x: real): x", "on the line of its header", "new line"),
    ("loss f[N](x: real[N]):", "at its name", "parameters"),
    ("loss f(x: real; t: real; u: real):", "second `;`", "one `;`"),
    ("def f(x: real, *, t: real):", "`*`", "`;`"),
    ("loss f:", "no parameters", "loss f(x: real[N]):"),
    ("loss (x: real):", "no name", "loss f(x: real[N]):"),
    ("loss f(x: real[n):", "`)` stands where `]`", "close"),
    ("loss f(x: real[]):", "empty shape", "real alone"),
    ("loss f(x: real(N)):", "round brackets", "real[N]"),
    ("loss f(x: real in 0, 1):", "no brackets", "[0, 1]"),
    ("loss f(x: real in [0 1]):", "comma", "[0, 1]"),
    ("loss f(x: real in [0, 1):", "never closed", ")"),
    ("loss f(x: 3):", "`3` is not expected", "a type"),
    ("losss f(x: real):", "begins with `losss`", "loss?"),
    ("function f(x: real):", "no `function`", "def"),
    ("class F:", "no `class`", "record"),
    ("@jit", "no decorators", "remove"),
    ("record P[B]", "colon", "`:`"),
    ("record P(B):", "round brackets", "record P[B]:"),
    ("record P[B]:\n    x", "field x has no type", "x: real[B]"),
    ("record P[B]:\n    x: real,", "comma after a field", "own"),
    ("record P[B]:\n    x: real = 0", "default for a field", ""),
    ("use preference", "does not say what it uses", "use preference: name"),
    ("use preference dpo", "does not say what it uses", "use preference: dpo"),
    ("use papers/rpo: rpo", "`/`", "papers.rpo"),
    ("use 'rpo': rpo", "single quotes", '"""'),
    ('use "rpo": rpo', "quotes", "preference.loss"),
    ("use rpo: *", "everything", "list them"),
    ("use rpo: (a, b)", "without brackets", "list them"),
    ("use rpo: a,", "comma", "one line"),
    ("from preference import dpo", "no `from`", "use preference: dpo"),
    ("y = 3", "outside of any declaration", "indent"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "message", "cure"), HEADERS, ids=lambda v: None)
def test_slips_in_headers(header, message, cure):
    text = header if header.startswith(("use", "record", "from", "@", "y")) else header + "\n    x"
    module, found = read(f"loss a(x: real):\n    x\n\n{text}\n\nloss b(x: real):\n    x\n")
    assert len(found) == 1, "\n".join(map(render, found))
    assert message in found[0].message
    assert cure in (found[0].help or "")
    assert found[0].span.line >= 4
    assert {"a", "b"} <= {f.name for f in module.functions}


def test_brackets_say_where_they_were_opened():
    found = only("loss f(x: real):\n    g(\n        x[0,\n        1)\n    )\n")
    assert found.span.line == 4
    assert [(label.span.line, label.text) for label in found.labels] == [(3, "opened here")]


def test_keywords_end_where_words_end():
    assert only(f"{HEADER}    x elsey\n").message == "an operator is missing before `elsey`"
    assert only(f"{HEADER}    x orbit\n").message == "an operator is missing before `orbit`"
    sound(f"{HEADER}    orbit = x\n    orbit\n")


def test_expressions():
    diagnostics = Diagnostics()
    for text in ("a b", "a +", "(a", "a)", "", "τ", "a = b", "mean[N](x", "a if b else c"):
        assert parse_expression(Source("-e", text), diagnostics) is None
    assert len(diagnostics.found) == 9


# ---- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "formula",
    ["(" * 3000 + "x" + ")" * 3000, "x" + " + x" * 3000, "-" * 3000 + "x", "not " * 3000 + "x", "x" + "[0" * 3000 + "]" * 3000,
     "x" + ".a" * 3000, "x" + "^x" * 3000, "x" + " else x" * 3000, "(" * 101 + "x" + ")" * 101],
    ids=lambda f: f[:4],
)  # fmt: skip
def test_depth_is_bounded(formula):
    assert only(f"loss f(x: real):\n    {formula}\n").code == "E003"


def test_deep_but_allowed():
    sound("loss f(x: real):\n    x" + " + x" * (MAX_DEPTH - 20) + "\n")
    sound("loss f(x: real):\n    " + "(" * 99 + "x" + ")" * 99 + "\n")


def test_length_is_bounded():
    assert only("#" * (MAX_TEXT + 1)).code == "E001"


@pytest.mark.parametrize(
    "text",
    [
        '"' * 3001,
        "(\n" * 3000,
        "loss f(\n" * 300,
        '"""\n' * 301,
        "\\\n" * 3000,
        "a\n" * 3000,
        " \n" * 50_000,
        "\t" * 50_000,
    ],
)
def test_odd_texts_take_little_time(text):
    start = time.perf_counter()
    read(text)
    assert time.perf_counter() - start < 5
