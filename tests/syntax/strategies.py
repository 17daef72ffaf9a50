"""Random syntax trees, and random layouts of a text.

The trees are such as the parser could yield, up to brackets: a tree may lack `Group` nodes where the text needs brackets.
"""

from __future__ import annotations

from hypothesis import strategies as st

from lossdsl.syntax import ast
from lossdsl.syntax.source import Source, Span
from lossdsl.syntax.tokens import scan

NOWHERE = Span(Source("made", ""), 0, 0)
NAMES = ["x", "y", "tau", "labels", "p_1", "logits", "elsewhere", "orbit", "notable", "index", "z"]
AXES = ["N", "D", "K", "T", "Batch"]
NUMBERS = ["0", "1", "2", "0.5", "1e-6", "50_000", ".5", "3.", "1E+3"]

names = st.sampled_from(NAMES)
axis_names = st.sampled_from(AXES)


def made(kind, *args, **kwargs):
    """A strategy for nodes of a kind from strategies for its parts."""
    return st.builds(lambda *a, **k: kind(*a, **k, span=NOWHERE), *args, **kwargs)


def tuples(items, low=0, high=3):
    return st.lists(items, min_size=low, max_size=high).map(tuple)


def optional(items):
    return st.none() | items


def _grow(inner):
    entries = (
        made(ast.Index, inner)
        | made(ast.Slice, optional(inner), optional(inner), optional(inner))
        | made(ast.Keyed, axis_names | names, inner)
    )
    brackets = made(ast.Bracket, inner, tuples(entries, 1), optional(inner))
    binders = made(ast.Bracket, made(ast.Name, names), tuples(entries, 1, 2), optional(inner))
    operators = st.sampled_from(["+", "-", "*", "/", "//", "%", "^", "<", "<=", ">", ">=", "==", "!=", "and", "or"])
    return st.one_of(
        made(ast.Binary, operators, inner, inner),
        made(ast.Binary, st.just("*"), made(ast.Number, st.just("2")), made(ast.Name, axis_names | names)),
        made(ast.Negative, inner),
        made(ast.Not, inner),
        made(ast.Group, inner),
        made(ast.Member, inner, names),
        made(ast.Otherwise, inner, inner),
        brackets,
        made(
            ast.Call, made(ast.Name, names) | binders | inner, tuples(made(ast.Argument, optional(names), inner), 0, 4)
        ),
    )


atoms = made(ast.Name, names | axis_names) | made(ast.Number, st.sampled_from(NUMBERS))
expressions = st.recursive(atoms, _grow, max_leaves=12)
small = st.recursive(atoms, _grow, max_leaves=3)

axes = (
    made(ast.Axis, made(ast.Name, axis_names))
    | made(ast.Axis, small)
    | made(ast.Axis, made(ast.Name, axis_names), least=small)
    | made(ast.Axis, small, name=axis_names)
)
kinds = st.sampled_from(["real", "int", "bool", "sign", "prob", "unit", "Policy"])
bounds = made(ast.Bound, st.sampled_from(["<", "<=", ">", ">="]), small)
intervals = st.tuples(
    made(ast.Bound, st.sampled_from([">", ">="]), small), made(ast.Bound, st.sampled_from(["<", "<="]), small)
)
arrays = made(ast.ArrayType, kinds, tuples(axes), tuples(bounds, 0, 2)) | made(
    ast.ArrayType, kinds, tuples(axes), intervals, st.just(True)
)
types = arrays | made(ast.FunctionType, tuples(arrays, 0, 2), arrays)

arguments = tuples(made(ast.Argument, optional(names), small))
distributions = made(ast.Distribution, st.sampled_from(["normal", "uniform", "gumbel"]), arguments)
targets = made(ast.Name, names) | made(
    ast.Bracket, made(ast.Name, names),
    tuples(made(ast.Index, made(ast.Name, names)) | made(ast.Slice, made(ast.Name, names), small, st.none()), 1), st.none(),
)  # fmt: skip
definitions = made(ast.Definition, tuples(targets, 1, 2), tuples(expressions, 1, 2))
initials = tuples(made(ast.Initial, names, small), 1, 2)

words = st.one_of(
    st.sampled_from(
        [
            [("convex", None), ("in", None), ("x", None), ("y", None)],
            [("calibrated", None)],
            [("lipschitz", "()"), ("in", None), ("x", None)],
            [
                ("invariant", None),
                ("to", None),
                ("shift", None),
                ("of", None),
                ("x", None),
                ("over", None),
                ("N", None),
            ],
            [("symmetric", None), ("in", None), ("x", None), ("y", None), ("z", None)],
            [("value", None), (">=", ">=")],
            [("calibrated", None), ("in", None), ("m", None)],
        ]
    )
)


@st.composite
def phrases(draw):
    found = []
    for text, amount in draw(words):
        if amount == "()":
            found += [ast.Word(text, span=NOWHERE), ast.Word("()", draw(small), span=NOWHERE)]
        else:
            found.append(ast.Word(text, draw(small) if amount else None, span=NOWHERE))
    return ast.Phrase(tuple(found), span=NOWHERE)


def statements(loops=True):
    plain = [
        made(ast.Value, tuples(expressions, 1, 2)),
        definitions,
        made(ast.Update, targets, expressions),
        made(ast.Lasting, st.sampled_from(["state", "param"]), names, arrays, expressions, st.none()),
        made(ast.Lasting, st.sampled_from(["state", "param"]), names, arrays, st.none(), distributions),
        made(ast.Draw, names, arrays, distributions),
        made(ast.Ensures, tuples(phrases(), 1, 2)),
    ]
    if loops:
        body = tuples(statements(loops=False), 1)
        derivatives = made(ast.Derivative, targets, expressions)
        plain += [
            made(ast.Repeat, names, small, initials, optional(expressions), body),
            made(ast.Scan, names, small, st.booleans(), initials, body),
            made(ast.Backward, names, tuples(derivatives | definitions, 1)),
        ]
    return st.one_of(plain)


docs = optional(st.sampled_from(["One line.", "", "Two\n\n    lines, # no comment.\n    ", 'With "quotes" inside.']))
parameters = made(ast.Parameter, names, types, optional(small))
fields = made(ast.Field, names, types)
records = made(ast.Record, st.sampled_from(["Policy", "Batch_2"]), tuples(axes), tuples(fields, 1))
uses = made(ast.Use, tuples(names, 1, 2), tuples(made(ast.Used, names, optional(names)), 1))
functions = made(
    ast.Function, st.sampled_from(["def", "loss"]), names, tuples(parameters, 0, 4), tuples(parameters, 0, 3), optional(types), docs,
    tuples(statements(), 1, 4), name_span=st.just(NOWHERE),
)  # fmt: skip
modules = made(
    ast.Module, st.just(NOWHERE.source), docs, tuples(uses, 0, 2), tuples(records, 0, 1), tuples(functions, 0, 3)
)


# ---- other layouts of a text -------------------------------------------------------------------


@st.composite
def layouts(draw, text):
    """The same words with other blanks, line ends and trailing commas, and with comments everywhere."""
    tokens = scan(text)
    gaps = st.sampled_from([" ", " ", " ", "  ", "\n", "\n\n      ", "  # inside\n", "\n  # own\n "])
    ends = st.sampled_from(
        [
            "\n",
            "\n",
            "\n",
            "\n\n",
            "\n\n\n",
            "  # behind\n",
            " #tight\n\n",
            "\n# left\n",
            "\n        # right\n",
            "\n    # mid\n\n    # mid 2\n",
        ]
    )
    out = [draw(st.sampled_from(["", "", "# head\n", "\n\n# head\n\n"]))]
    previous = None
    for token in tokens:
        margin = text[text.rfind("\n", 0, token.start) + 1 : token.start]
        if previous is None:
            pass
        elif token.logical != previous.logical:
            out += [draw(ends), margin]
        elif token.depth > 0 and not previous.is_comment:
            closes = token.text in (")", "]")
            between = text[previous.end : token.start]
            if (
                closes
                and previous.text not in ("(", "[", ",")
                and token.text == ")"
                and _takes_comma(tokens, token)
                and draw(st.booleans())
            ):
                out.append(",")
            out.append(draw(gaps) if draw(st.integers(0, 4)) == 0 else between)
        else:
            out.append(text[previous.end : token.start])
        out.append(token.text)
        previous = token
    out.append(draw(st.sampled_from(["\n", "", "\n\n", "  # end\n", "\n# end", "\n    # end\n# end 2\n"])))
    return "".join(out)


def _takes_comma(tokens, closing):
    """May a comma stand before this bracket: does it close the parameters of a function?"""
    if closing.depth != 1:
        return False
    line = [t for t in tokens if t.logical == closing.logical]
    first = next((t for t in line if t.text == ")" and t.depth == 1), None)
    return line[0].text in ("def", "loss") and first is closing
