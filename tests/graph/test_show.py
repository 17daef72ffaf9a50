"""The index graph as text."""

import lossdsl
from lossdsl.checker.resolve import build, from_text
from lossdsl.graph.build import Graph
from lossdsl.graph.nodes import Dim
from lossdsl.graph.show import show_graph
from lossdsl.types.sizes import Size


def lines(body, parameters="x: real[N, D], y: int[N] < D"):
    source = f"loss l({parameters}):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    program = build(from_text(source), {})
    results = [("value ", v.node, v.axes) for v in program.values]
    results += [(f"{name} :", node, ()) for name, node in program.updates.items()]
    return [" ".join(line.split()) for line in show_graph(results)]


def test_reads_reductions_and_defaults():
    out = lines("mean[n | y[n] > 0](x[n, y[n]]) else 1")
    assert out == [
        "%1 x [N, D] real",
        "%2 y [N] int",
        "%3 %2[N: n] [n] int",
        "%4 %1[D: %3, N: n] [n] real",
        "%5 gt %3 0 [n] bool",
        "%6 mean[n | %5] %4 else 1 real",
        "value = %6",
    ]


def test_index_variables_of_one_name_are_told_apart():
    graph = Graph()
    length = Size.of("N")
    first, second = (Dim(length, copy, index=True, label="i") for copy in (0, 1))
    node = graph.apply("sub", graph.iota(first), graph.iota(second))
    assert show_graph([("value ", node, ())])[0].split() == ["%1", "sub", "i", "i'1", "[i,", "i'1]", "int"]


def test_positions_lengths_and_constants_stand_in_place():
    out = lines("sum[i](i * x[i, 0]) / N")
    assert any("mul i %" in line for line in out)
    assert any(line.endswith("real") and "|N|" in line for line in out)


def test_loops_scans_states_and_draws():
    text = "\n".join(
        lines(
            "state c: real[N] = 0\ndraw e: real[N] ~ normal(0, 1)\n"
            "repeat l < 3 with a = e until max[N](a) > 1:\n    a = a / 2\n"
            "scan t: N backwards with b = 0:\n    b = a[t] + b / 2\n"
            "c := c + a\nsum[N](b)"
        )
    )
    assert "state c [N] real" in text
    assert "draw e [N] real" in text
    assert "repeat l.1 < 3 with a.2 = %" in text
    assert " until %" in text
    assert "backwards with b." in text
    assert "c := %" in text


def test_declared_derivatives_solvers_concat_and_scatter():
    text = "\n".join(
        lines(
            "state q: real[Q, D] = 0\nv = concat(x, x)\nm = linear_assignment(x)\nq[y] := x\n"
            "sum[N, D](x) + sum[i, d](v[i, d]) + sum[i](m[i])",
            "x: real[N, D], y: int[N] < Q",
        )
    )
    for word in ("concat[2*N]", "linear_assignment %", " := %", "over N"):
        assert word in text


def test_every_library_program_can_be_shown():
    for name in lossdsl.available(tag="preference"):
        program = lossdsl.load(name).program
        assert show_graph([("value ", v.node, v.axes) for v in program.values])
