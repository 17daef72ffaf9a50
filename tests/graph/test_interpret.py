"""The reference interpreter on graphs built by hand: values against closed forms, gradients against central differences."""

import copy
import math
import sys

import pytest

from lossdsl.graph.build import Graph
from lossdsl.graph.interpret import interpret
from lossdsl.graph.nodes import Dim
from lossdsl.graph.scalars import FLOATS, Multiprecision
from lossdsl.types.domains import ANY, Kind
from lossdsl.types.sizes import Size

mpmath = pytest.importorskip("mpmath")


def axis(name, copy_=0):
    return Dim(Size.of(name), copy_)


def variable(name, size=None, copy_=0):
    return Dim(Size.of(size if size is not None else name), copy_, index=True, label=name.lower())


B, C, D, K, N, T = map(axis, "BCDKNT")
SIZES = {"B": 2, "C": 3, "D": 2, "K": 4, "N": 3, "T": 4}


@pytest.fixture
def g():
    return Graph()


def real(g, name, *axes):
    return g.leaf("input", name, axes)


def whole(g, name, *axes):
    return g.leaf("input", name, axes, Kind.INT)


def value(root, axes=(), leaves=None, sizes=SIZES, **settings):
    return interpret([(root, tuple(axes))], leaves or {}, sizes, **settings).values[0]


def elements(nested, places=()):
    if isinstance(nested, list):
        for k, inner in enumerate(nested):
            yield from elements(inner, (*places, k))
    else:
        yield places, nested


def moved(nested, places, step):
    if not places:
        return nested + step
    out = copy.copy(nested)
    out[places[0]] = moved(nested[places[0]], places[1:], step)
    return out


def assert_gradient(root, leaves, wrt, axes=(), *, sizes=SIZES, seed=None, tolerance=1e-9, **settings):
    """Reverse mode against central differences with 60 digits; returns the gradients."""
    outcome = interpret([(root, tuple(axes))], leaves, sizes, wrt=wrt, seed=seed, **settings)
    with mpmath.workdps(60):
        exact = Multiprecision()
        weights = None if seed is None else dict(elements(seed))

        def objective(changed):
            result = value(root, axes, changed, sizes, math=exact, **settings)
            return sum((1 if weights is None else weights[p]) * v for p, v in elements(result))

        step = mpmath.mpf(10) ** -20
        for name in wrt:
            start = leaves[name]
            for places, found in elements(outcome.gradients[name]):
                up, down = (objective({**leaves, name: moved(start, places, s)}) for s in (step, -step))
                slope = (up - down) / (2 * step)
                assert float(found) == pytest.approx(float(slope), rel=tolerance, abs=tolerance), (name, places)
    return outcome.gradients


# ---- scalars and element-wise operations ----


def test_multiplication_and_sharing_of_a_node(g):
    x = real(g, "x", N)
    root = g.reduce("sum", (N,), g.apply("mul", x, x))
    outcome = interpret([(root, ())], {"x": [1, 2, 3]}, SIZES, wrt=["x"])
    assert outcome.values == [14.0]
    assert outcome.gradients == {"x": [2.0, 4.0, 6.0]}


def test_operands_align_by_identity_of_their_dims(g):
    root = g.apply("sub", real(g, "x", N, D), real(g, "c", D))
    leaves = {"x": [[1, 2], [3, 4], [5, 6]], "c": [10, 20]}
    assert value(root, (D, N), leaves) == [[-9, -7, -5], [-18, -16, -14]]
    assert interpret([(root, (N, D))], leaves, SIZES, wrt=["c"]).gradients["c"] == [-3, -3]


def test_seed_weights_the_elements_of_the_first_root(g):
    x = real(g, "x", N)
    root = g.apply("exp", x)
    outcome = interpret(
        [(root, (N,)), (g.apply("mul", root, root), (N,))], {"x": [0, 1, 2]}, SIZES, wrt=["x"], seed=[2, 0, -1]
    )
    assert outcome.values[1] == pytest.approx([1, math.e**2, math.e**4])
    assert outcome.gradients["x"] == pytest.approx([2, 0, -math.exp(2)])


def test_truth_values_count_and_whole_numbers_divide_to_reals(g):
    m = g.leaf("input", "m", (N,), Kind.BOOL)
    count = g.reduce("sum", (N,), m)
    assert value(count, (), {"m": [1, 0, 1]}) == 2
    assert value(g.apply("add", m, m), (N,), {"m": [True, False, True]}) == [2, 0, 2]
    half = value(g.apply("div", count, g.const(4)), (), {"m": [1, 0, 1]})
    assert half == 0.5
    assert isinstance(half, float)


@pytest.mark.parametrize("op", ["floor", "ceil", "round", "sign"])
def test_steps_and_comparisons_have_no_gradient(g, op):
    x = real(g, "x")
    root = g.apply("add", g.apply(op, x), g.apply("gt", x, g.const(0)))
    outcome = interpret([(root, ())], {"x": 1.25}, SIZES, wrt=["x"])
    assert outcome.gradients["x"] == 0
    assert outcome.values[0] == {"floor": 2, "ceil": 3, "round": 2, "sign": 2}[op]


def test_stop_cuts(g):
    x = real(g, "x")
    root = g.apply("mul", x, g.apply("stop", x))
    assert interpret([(root, ())], {"x": 3}, SIZES, wrt=["x"]).gradients["x"] == 3


def test_equal_operands_of_max_share_the_gradient(g):
    root = g.apply("max", real(g, "x"), real(g, "y"))
    assert interpret([(root, ())], {"x": 1, "y": 1}, SIZES, wrt=["x", "y"]).gradients == {"x": 0.5, "y": 0.5}


def test_clamp_with_crossed_bounds_gives_the_upper_one(g):
    root = g.apply("clamp", real(g, "x"), g.const(2), g.const(1))
    assert [value(root, (), {"x": x}) for x in (0, 1.5, 3)] == [1, 1, 1]


@pytest.mark.parametrize(
    "op",
    ["exp", "expm1", "log", "log1p", "sqrt", "sigmoid", "tanh", "softplus", "log_sigmoid", "relu", "sin", "cosine", "tan", "atan",
     "asin", "acos", "sinh", "cosh", "erf", "erfc", "lgamma", "digamma", "abs", "neg", "entropy"],
)  # fmt: skip
@pytest.mark.parametrize("at", [0.3, 0.8])
def test_functions_of_one_element(g, op, at):
    assert_gradient(g.apply(op, real(g, "x")), {"x": at}, ["x"], tolerance=1e-8)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "pow", "min", "max", "atan2", "xlogy", "logaddexp"])
def test_functions_of_two_elements(g, op):
    assert_gradient(g.apply(op, real(g, "x"), real(g, "y")), {"x": 0.7, "y": 1.9}, ["x", "y"])


def test_where_evaluates_only_the_branch_taken(g):
    x, n = real(g, "x", N), g.iota(N)
    outside = g.at(x, {N: g.apply("sub", n, g.const(1))})
    root = g.apply("where", g.apply("gt", n, g.const(0)), outside, g.apply("neg", x))
    outcome = interpret([(root, (N,))], {"x": [1, 2, 3]}, SIZES, wrt=["x"])
    assert outcome.values == [[-1, 1, 2]]
    assert outcome.gradients["x"] == [0, 1, 0]
    with pytest.raises(IndexError, match="position -1"):
        value(outside, (N,), {"x": [1, 2, 3]})


def test_nothing_leaks_from_the_branch_not_taken(g):
    x = real(g, "x")
    root = g.apply("where", g.apply("gt", x, g.const(0)), g.apply("sqrt", g.apply("log", x)), g.const(0))
    outcome = interpret([(root, ())], {"x": -1}, SIZES, wrt=["x"])
    assert (outcome.values, outcome.gradients) == ([0.0], {"x": 0.0})


def test_and_looks_at_its_second_part_only_where_the_first_holds(g):
    x, n = real(g, "x", N), g.iota(N)
    before = g.at(x, {N: g.apply("sub", n, g.const(1))})
    root = g.apply("and", g.apply("gt", n, g.const(0)), g.apply("gt", x, before))
    assert value(root, (N,), {"x": [1, 2, 0]}) == [False, True, False]


# ---- reductions ----


def cross_entropy(g):
    logits, labels = real(g, "logits", N, C), whole(g, "labels", N)
    return g.reduce("mean", (N,), g.apply("sub", g.reduce("logsumexp", (C,), logits), g.at(logits, {C: labels})))


def test_cross_entropy_with_a_gather(g):
    leaves = {"logits": [[1.0, 2.0, -1.0], [0.5, 0.1, 0.0], [3.0, -3.0, 1.0]], "labels": [2, 0, 0]}
    root = cross_entropy(g)
    expected = sum(
        math.log(sum(map(math.exp, row))) - row[k] for row, k in zip(leaves["logits"], leaves["labels"], strict=True)
    )
    outcome = interpret([(root, ())], leaves, SIZES, wrt=["logits", "labels"])
    assert outcome.values[0] == pytest.approx(expected / 3)
    assert set(outcome.gradients) == {"logits"}
    for row, k, found in zip(leaves["logits"], leaves["labels"], outcome.gradients["logits"], strict=True):
        total = sum(map(math.exp, row))
        assert found == pytest.approx([(math.exp(x) / total - (j == k)) / 3 for j, x in enumerate(row)])


def supcon(g):
    """mean over i of a mean, over the others p of its class, of -log softmax over all others; 0 without such a p."""
    z, label = real(g, "z", N, D), whole(g, "label", N)
    i, p, a = variable("I", "N"), variable("P", "N", 1), variable("A", "N", 2)
    at = lambda x, v: g.at(x, {N: g.iota(v)})  # noqa: E731
    s = lambda u, v: g.reduce("sum", (D,), g.apply("mul", at(z, u), at(z, v)))  # noqa: E731
    other = lambda v: g.apply("ne", g.iota(v), g.iota(i))  # noqa: E731
    same = g.apply("eq", at(label, p), at(label, i))
    lse = g.reduce("logsumexp", (a,), s(i, a), other(a))
    inner = g.reduce("mean", (p,), g.apply("sub", lse, s(i, p)), g.apply("and", other(p), same), g.const(0))
    return g.reduce("mean", (i,), inner)


def test_nested_guarded_reductions_with_else(g):
    leaves = {"z": [[1.0, 0.2], [0.4, -0.5], [0.3, 0.9]], "label": [0, 1, 0]}
    z, label = leaves["z"], leaves["label"]

    def s(i, j):
        return z[i][0] * z[j][0] + z[i][1] * z[j][1]

    def row(i):
        partners = [p for p in range(3) if p != i and label[p] == label[i]]
        total = math.log(sum(math.exp(s(i, a)) for a in range(3) if a != i))
        return sum(total - s(i, p) for p in partners) / len(partners) if partners else 0

    root = supcon(g)
    assert value(root, (), leaves) == pytest.approx(sum(map(row, range(3))) / 3)
    assert_gradient(root, leaves, ["z"])


def test_bodies_behind_a_failing_guard_are_not_evaluated(g):
    x, n = real(g, "x", N), g.iota(N)
    step = g.apply("sub", x, g.at(x, {N: g.apply("sub", n, g.const(1))}))
    root = g.reduce("sum", (N,), step, g.apply("gt", n, g.const(0)))
    assert value(root, (), {"x": [1, 5, 7]}) == 6


@pytest.mark.parametrize(("op", "empty"), [("sum", 0), ("prod", 1), ("any", False), ("all", True)])
def test_over_nothing_where_that_has_a_value(g, op, empty):
    never = g.apply("lt", g.iota(N), g.const(0))
    body = g.apply("gt", real(g, "x", N), g.const(0)) if op in ("any", "all") else real(g, "x", N)
    result = value(g.reduce(op, (N,), body, never), (), {"x": [1, 2, 3]})
    assert result == empty
    assert isinstance(result, bool if op in ("any", "all") else float)


@pytest.mark.parametrize("op", ["mean", "max", "min", "logsumexp", "argmax"])
def test_over_nothing_else_is_needed(g, op):
    x, y = real(g, "x", N), real(g, "y", B)
    never = g.apply("lt", x, y)
    leaves = {"x": [1, 2, 3], "y": [0, 2.5]}
    with pytest.raises(ValueError, match=f"{op} over nothing"):
        value(g.reduce(op, (N,), x, never), (B,), leaves)
    root = g.reduce(op, (N,), x, never, g.const(-7))
    assert value(root, (B,), leaves)[0] == -7


def test_argmax_under_a_guard_is_a_place_on_the_axis(g):
    x = real(g, "x", N)
    later = g.apply("gt", g.iota(N), g.const(0))
    assert value(g.reduce("argmax", (N,), x, later), (), {"x": [9, 1, 2]}) == 2
    assert value(g.reduce("argmin", (N,), x), (), {"x": [1, 1, 2]}) == 0


def test_the_first_winner_takes_the_gradient_last_dim_fastest(g):
    x = real(g, "x", N, D)
    leaves = {"x": [[0, 1], [3, 2], [1, 3]]}
    outcome = interpret([(g.reduce("max", (N, D), x), ())], leaves, SIZES, wrt=["x"])
    assert outcome.gradients["x"] == [[0, 0], [1, 0], [0, 0]]
    outcome = interpret([(g.reduce("max", (D, N), x), ())], leaves, SIZES, wrt=["x"])
    assert outcome.gradients["x"] == [[0, 0], [1, 0], [0, 0]]
    tie = {"x": [[0, 3], [3, 2], [1, 1]]}
    outcome = interpret([(g.reduce("max", (D, N), x), ())], tie, SIZES, wrt=["x"])
    assert outcome.gradients["x"] == [[0, 0], [1, 0], [0, 0]]


def test_an_infinite_gradient_does_not_reach_the_losers(g):
    x = real(g, "x", N)
    root = g.apply("log", g.reduce("min", (N,), x))
    assert interpret([(root, ())], {"x": [0, 1, 2]}, SIZES, wrt=["x"]).gradients["x"] == [math.inf, 0, 0]


@pytest.mark.parametrize("op", ["sum", "mean", "prod", "max", "min", "logsumexp"])
def test_gradients_of_reductions(g, op):
    x, w = real(g, "x", N, D), real(g, "w", D)
    root = g.apply("exp", g.reduce(op, (N,), g.apply("mul", x, w)))
    leaves = {"x": [[0.3, -1.2], [0.5, 0.7], [0.2, 1.1]], "w": [0.4, -0.6]}
    assert_gradient(root, leaves, ["x", "w"], (D,), seed=[0.5, 2.0])


# ---- along axes ----


ALONG_INPUT = [0.4, -1.0, 2.0, 0.3]


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "sort", "cumsum", "cumprod", "cummax", "logcumsumexp"])
def test_gradients_along_an_axis(g, op):
    root = g.along(op, (T,), real(g, "x", T))
    assert_gradient(root, {"x": ALONG_INPUT}, ["x"], (T,), seed=[1.0, -2.0, 0.5, 3.0])


def test_values_along_an_axis(g):
    x = real(g, "x", T)
    of = lambda op: value(g.along(op, (T,), x), (T,), {"x": ALONG_INPUT})  # noqa: E731
    assert of("sort") == [-1.0, 0.3, 0.4, 2.0]
    assert of("argsort") == [1, 3, 0, 2]
    assert of("rank") == [2, 0, 3, 1]
    assert of("cummax") == [0.4, 0.4, 2.0, 2.0]
    assert of("cumsum") == pytest.approx([0.4, -0.6, 1.4, 1.7])


def test_rank_is_stable_and_has_no_gradient(g):
    x = real(g, "x", T)
    root = g.apply("mul", x, g.along("rank", (T,), x))
    outcome = interpret([(root, (T,))], {"x": [1, 0, 1, 0]}, SIZES, wrt=["x"])
    assert outcome.values == [[2, 0, 3, 0]]
    assert outcome.gradients["x"] == [2, 0, 3, 1]


def test_several_axes_are_normalised_jointly(g):
    x = real(g, "x", B, N, D)
    leaves = {"x": [[[1.0, 2.0], [0.0, -1.0], [0.5, 0.3]], [[0.0, 0.0], [1.0, 1.0], [4.0, -2.0]]]}
    root = g.along("softmax", (N, D), x)
    found = value(root, (B, N, D), leaves)
    for rows, given in zip(found, leaves["x"], strict=True):
        total = sum(math.exp(v) for row in given for v in row)
        assert rows == [pytest.approx([math.exp(v) / total for v in row]) for row in given]
    seed = [[[1.0, 0.0], [2.0, 1.0], [0.0, -1.0]], [[0.5, 0.0], [0.0, 3.0], [1.0, 1.0]]]
    assert_gradient(root, leaves, ["x"], (B, N, D), seed=seed)


def test_counting_along_an_axis_gives_whole_numbers(g):
    m = g.leaf("input", "m", (T,), Kind.BOOL)
    found = value(g.along("cumsum", (T,), m), (T,), {"m": [True, False, True, True]})
    assert found == [1, 1, 2, 3]
    assert not any(isinstance(v, bool) for v in found)


# ---- reading at other positions ----


def test_a_window_reads_shifted_positions(g):
    x, w = real(g, "x", T), real(g, "w", D)
    h = Dim(Size.of("T") - Size.of("D") + 1, index=True, label="h")
    read = g.at(x, {T: g.apply("add", g.iota(h), g.iota(D))})
    root = g.reduce("sum", (D,), g.apply("mul", w, read))
    leaves = {"x": [1.0, 2.0, 4.0, 8.0], "w": [1.0, -3.0]}
    assert value(root, (h,), leaves) == [-5, -10, -20]
    assert_gradient(root, leaves, ["x", "w"], (h,), seed=[1.0, 10.0, 100.0])


def test_outside_reads_give_the_default(g):
    x, default = real(g, "x", T), real(g, "e")
    shift = lambda by: g.at(x, {T: g.apply("add", g.iota(T), g.const(by))}, default)  # noqa: E731
    root = g.apply("mul", shift(-1), shift(2))
    leaves = {"x": [1.0, 2.0, 3.0, 5.0], "e": 10.0}
    assert value(root, (T,), leaves) == [30, 5, 20, 30]
    assert_gradient(root, leaves, ["x", "e"], (T,))


def test_of_a_read_and_its_default_only_one_is_evaluated(g):
    y, n, k = real(g, "y", D), g.iota(N), whole(g, "k", N)
    above = g.reduce("mean", (D,), y, g.apply("gt", y, n))  # nothing at n = 2
    below = g.reduce("mean", (D,), y, g.apply("lt", y, n))  # nothing at n = 0
    root = g.at(above, {N: k}, below)
    assert value(root, (N,), {"y": [0.5, 1.5], "k": [0, 1, 5]}) == [1, 1.5, 1]


def test_the_diagonal(g):
    m = axis("N", 1)
    x, i = real(g, "x", N, m), variable("I", "N")
    root = g.at(x, {N: g.iota(i), m: g.iota(i)})
    leaves = {"x": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    outcome = interpret([(root, (i,))], leaves, SIZES, wrt=["x"], seed=[1, 2, 3])
    assert outcome.values == [[1, 5, 9]]
    assert outcome.gradients["x"] == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]


def test_indices_are_read_where_the_reading_stands(g):
    """Swapping two dims substitutes both at once."""
    m = axis("N", 1)
    x = real(g, "x", N, m)
    root = g.at(x, {N: g.iota(m), m: g.iota(N)})
    assert value(root, (N, m), {"x": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}) == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]


def test_a_repeated_gather_adds_up(g):
    x, k = real(g, "x", N), whole(g, "k", T)
    outcome = interpret([(g.at(x, {N: k}), (T,))], {"x": [5, 6, 7], "k": [1, 1, 0, 1]}, SIZES, wrt=["x"])
    assert outcome.values == [[6, 6, 5, 6]]
    assert outcome.gradients["x"] == [1, 3, 0]


def test_lengths_positions_and_hyperparameters_as_numbers(g):
    tau = g.hyper("tau", 0.5, ANY, Kind.REAL)
    steps = g.hyper("steps", 2, ANY, Kind.INT)
    root = g.apply("add", g.apply("mul", g.size(Size.of("N") * 2), tau), g.apply("mul", g.iota(N), steps))
    assert value(root, (N,)) == [3, 5, 7]
    assert value(root, (N,), hypers={"tau": 1.0, "steps": 10}) == [6, 16, 26]
    grown = Dim(Size.of("N") + Size.of("steps"))
    assert value(g.apply("add", g.iota(grown), steps), (grown,), hypers={"steps": 1}) == [1, 2, 3, 4]
    with pytest.raises(KeyError, match="hyperparameter beta"):
        value(g.hyper("beta", None, ANY, Kind.REAL))


def test_concat_and_stack(g):
    x, y, s = real(g, "x", N), real(g, "y", B), real(g, "s")
    joined = Dim(Size.of("N") + Size.of("B") + 1)
    root = g.concat(joined, [(x, N), (s, None), (y, B)])
    leaves = {"x": [1.0, 2.0, 3.0], "y": [4.0, 5.0], "s": 9.0}
    assert value(root, (joined,), leaves) == [1, 2, 3, 9, 4, 5]
    assert_gradient(g.apply("mul", root, root), leaves, ["x", "y", "s"], (joined,))


# ---- scatter and solvers ----


def test_scatter_replaces_rows_and_the_last_one_wins(g):
    base, new, index = real(g, "base", K, D), real(g, "new", N, D), whole(g, "index", N)
    root = g.scatter(base, K, index, new, (N,))
    leaves = {"base": [[0.0, 1.0]] * 4, "new": [[10.0, 11.0], [20.0, 21.0], [30.0, 31.0]], "index": [2, 0, 2]}
    assert value(root, (K, D), leaves) == [[20, 21], [0, 1], [30, 31], [0, 1]]
    gradients = assert_gradient(g.apply("mul", root, root), leaves, ["base", "new"], (K, D))
    assert gradients["new"][0] == [0, 0]
    assert gradients["base"][0] == [0, 0]


def test_scatter_outside_the_axis(g):
    root = g.scatter(real(g, "base", K), K, whole(g, "index", N), real(g, "new", N), (N,))
    with pytest.raises(IndexError, match="position 4"):
        value(root, (K,), {"base": [0] * 4, "new": [1, 2, 3], "index": [0, 4, 1]})


def test_linear_assignment_in_each_batch(g):
    score = real(g, "score", B, N, C)
    chosen = g.solve("linear_assignment", [(score, (N, C))], (N,), Kind.INT)
    root = g.at(score, {C: chosen})
    leaves = {"score": [[[1, 5, 0], [2, 5, 0], [0, 0, 1]], [[0, 0, 9], [0, 9, 0], [9, 0, 0]]]}
    assert value(chosen, (B, N), leaves) == [[1, 0, 2], [2, 1, 0]]
    gradient = interpret([(root, (B, N))], leaves, SIZES, wrt=["score"]).gradients["score"]
    assert gradient == [[[0, 1, 0], [1, 0, 0], [0, 0, 1]], [[0, 0, 1], [0, 1, 0], [1, 0, 0]]]


def test_quadratic_assignment_and_ties(g):
    m, c = axis("N", 1), axis("C", 1)
    edge = g.const(0.0)
    args = [(real(g, "vertex", N, C), (N, C)), (edge, (N, m, C, c))]
    chosen = g.solve("quadratic_assignment", args, (N,), Kind.INT)
    assert value(chosen, (N,), {"vertex": [[0, 0, 0]] * 3}) == [0, 1, 2]
    assert value(chosen, (N,), {"vertex": [[0, 0, 1], [0, 0, 0], [0, 0, 0]]}) == [2, 0, 1]


def test_a_function_argument_has_a_value_but_no_gradient(g):
    x = real(g, "x", B, N)
    root = g.solve("fn:net", [(x, (N,))], (D,), Kind.REAL)
    functions = {"net": lambda row: [sum(row), row[0]]}
    leaves = {"x": [[1, 2, 3], [4, 5, 6]]}
    assert value(root, (B, D), leaves, functions=functions) == [[6, 1], [15, 4]]
    with pytest.raises(NotImplementedError, match="net"):
        interpret([(root, (B, D))], leaves, SIZES, functions=functions, wrt=["x"])
    stopped = g.apply("add", g.apply("stop", root), g.reduce("sum", (N,), x))
    outcome = interpret([(stopped, (B, D))], leaves, SIZES, functions=functions, wrt=["x"])
    assert outcome.gradients["x"] == [[2, 2, 2], [2, 2, 2]]


# ---- declared derivatives ----


def test_straight_through(g):
    x = real(g, "x", N)
    hard, soft = g.leaf("carry", "hard", (N,)), g.leaf("carry", "soft", (N,))
    arrived = g.leaf("gradient", "g", (N,))
    step = g.apply("sign", x)
    node = g.custom(hard, ((hard, step), (soft, g.apply("tanh", x))), arrived, (None, arrived))
    root = g.reduce("sum", (N,), g.apply("mul", node, g.const(3)))
    outcome = interpret([(root, ())], {"x": [0.5, -1.0, 2.0]}, SIZES, wrt=["x"])
    assert outcome.values == [3]
    assert outcome.gradients["x"] == pytest.approx([3 / math.cosh(v) ** 2 for v in (0.5, -1.0, 2.0)])


def test_a_declared_gradient_may_mix_positions_and_lack_or_sum_axes(g):
    """x gets the total of what arrives (no axis), s gets a sum over an axis that it does not have."""
    x, s = real(g, "x", N), real(g, "s")
    px, ps, arrived = g.leaf("carry", "px", (N,)), g.leaf("carry", "ps", ()), g.leaf("gradient", "g", (N,))
    total = g.reduce("sum", (N,), arrived)
    node = g.custom(g.apply("mul", px, ps), ((px, x), (ps, s)), arrived, (total, g.apply("mul", arrived, px)))
    outcome = interpret([(node, (N,))], {"x": [1, 2, 3], "s": 5}, SIZES, wrt=["x", "s"], seed=[1, 10, 100])
    assert outcome.values == [[5, 10, 15]]
    assert outcome.gradients == {"x": [111, 111, 111], "s": 321}


def test_a_declared_gradient_sees_all_that_arrives(g):
    x = real(g, "x", N)
    p, arrived = g.leaf("carry", "p", (N,)), g.leaf("gradient", "g", (N,))
    node = g.custom(p, ((p, g.apply("mul", x, g.const(2))),), arrived, (g.apply("mul", arrived, p),))
    last = g.at(node, {N: g.const(2)})
    root = g.apply("add", g.reduce("sum", (N,), g.apply("mul", node, node)), g.apply("mul", last, g.const(10)))
    # arrives: 2*value, and 10 more at the last; times the argument; times 2 through the argument
    outcome = interpret([(root, ())], {"x": [1, 2, 3]}, SIZES, wrt=["x"])
    assert outcome.gradients["x"] == [2 * 4 * 1 * 2, 2 * 4 * 4 * 2, (12 + 10) * 6 * 2]


def test_a_declared_derivative_behind_a_guard(g):
    x, n = real(g, "x", N), g.iota(N)
    p, arrived = g.leaf("carry", "p", (N,)), g.leaf("gradient", "g", (N,))
    before = g.at(x, {N: g.apply("sub", n, g.const(1))})
    node = g.custom(g.apply("exp", p), ((p, before),), arrived, (g.apply("mul", arrived, p),))
    root = g.apply("where", g.apply("gt", n, g.const(0)), node, g.const(0))
    outcome = interpret([(root, (N,))], {"x": [1, 2, 3]}, SIZES, wrt=["x"])
    assert outcome.values[0] == pytest.approx([0, math.e, math.e**2])
    assert outcome.gradients["x"] == [1, 2, 0]


def test_a_declared_derivative_in_a_loop(g):
    """x <- 2x three times, with a declared slope of 10 instead of 2."""
    x = real(g, "x", N)
    a, count = g.leaf("carry", "a", (N,)), g.leaf("iter", "l", (), Kind.INT)
    p, arrived = g.leaf("carry", "p", (N,)), g.leaf("gradient", "g", (N,))
    step = g.custom(g.apply("mul", p, g.const(2)), ((p, a),), arrived, (g.apply("mul", arrived, g.const(10)),))
    (root,) = g.loop(count, g.const(3), (a,), (x,), (step,))
    outcome = interpret([(root, (N,))], {"x": [1, 2, 3]}, SIZES, wrt=["x"])
    assert outcome.values == [[8, 16, 24]]
    assert outcome.gradients["x"] == [1000, 1000, 1000]


# ---- loops ----


def newton(g, rounds, until=None):
    """The square root of c by Newton's steps from c; until |change| < until."""
    c = real(g, "c", N)
    x, counter = g.leaf("carry", "x", (N,)), g.leaf("iter", "l", (), Kind.INT)
    step = g.apply("div", g.apply("add", x, g.apply("div", c, x)), g.const(2.0))
    stop = None if until is None else g.apply("lt", g.apply("abs", g.apply("sub", step, x)), g.const(until))
    (root,) = g.loop(counter, g.const(rounds), (x,), (c,), (step,), stop)
    return root


def test_a_loop_repeats(g):
    assert value(newton(g, 8), (N,), {"c": [4, 9, 2]}) == pytest.approx([2, 3, math.sqrt(2)])
    assert value(newton(g, 0), (N,), {"c": [4, 9, 2]}) == [4, 9, 2]


def test_gradients_flow_through_carried_values(g):
    gradients = assert_gradient(newton(g, 6), {"c": [4.0, 9.0, 2.0]}, ["c"], (N,))
    assert gradients["c"] == pytest.approx([1 / 4, 1 / 6, 1 / math.sqrt(8)], rel=1e-4)


def test_until_is_tested_after_each_round_for_each_element(g):
    c, limit = real(g, "c", N), real(g, "limit", N)
    x, counter = g.leaf("carry", "x", (N,)), g.leaf("iter", "l", (), Kind.INT)
    step = g.apply("mul", x, g.const(2))
    (root,) = g.loop(counter, g.const(5), (x,), (c,), (step,), g.apply("ge", step, limit))
    leaves = {"c": [1.0, 1.0, 1.0], "limit": [0.0, 5.0, 1000.0]}
    outcome = interpret([(root, (N,))], leaves, SIZES, wrt=["c"])
    assert outcome.values == [[2, 8, 32]]  # the first round always runs; the last is never stopped
    assert outcome.gradients["c"] == [2, 8, 32]


def test_an_until_without_axes_stops_all(g):
    c = real(g, "c", N)
    x, counter = g.leaf("carry", "x", (N,)), g.leaf("iter", "l", (), Kind.INT)
    step = g.apply("add", x, g.apply("add", g.const(1), counter))
    stop = g.apply("gt", g.reduce("max", (N,), step), g.const(5))
    (root,) = g.loop(counter, g.const(9), (x,), (c,), (step,), stop)
    assert value(root, (N,), {"c": [0, 1, 2]}) == [6, 7, 8]


def test_two_carried_values_change_together(g):
    x, y, counter = g.leaf("carry", "x", ()), g.leaf("carry", "y", ()), g.leaf("iter", "l", (), Kind.INT)
    body = (y, g.apply("add", x, y))
    first, second = g.loop(counter, g.const(6), (x, y), (real(g, "a"), real(g, "b")), body)
    root = g.apply("mul", first, second)
    leaves = {"a": 0.0, "b": 1.0}
    assert value(root, (), leaves) == 8 * 13
    assert_gradient(root, leaves, ["a", "b"])


def discounted(g, backwards):
    delta, counter, a = real(g, "delta", B, T), g.leaf("iter", "t", (), Kind.INT), g.leaf("carry", "a", (B,))
    step = g.apply("add", g.at(delta, {T: counter}), g.apply("mul", real(g, "gamma"), a))
    zero = g.const(0.0)
    (root,) = g.loop(counter, g.size(T.size), (a,), (zero,), (step,), axis=T, backwards=backwards)
    return root


def test_a_scan_stacks_its_values(g):
    leaves = {"delta": [[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 16.0]], "gamma": 0.5}
    assert value(discounted(g, backwards=False), (B, T), leaves) == [[1, 2.5, 4.25, 6.125], [0, 0, 0, 16]]
    assert value(discounted(g, backwards=True), (B, T), leaves) == [[3.25, 4.5, 5, 4], [2, 4, 8, 16]]


@pytest.mark.parametrize("backwards", [False, True])
def test_gradients_of_a_scan(g, backwards):
    leaves = {"delta": [[1.0, 2.0, 3.0, 4.0], [0.5, -1.0, 0.3, 1.6]], "gamma": 0.9}
    seed = [[1.0, -1.0, 2.0, 0.5], [0.1, 0.0, 3.0, 1.0]]
    assert_gradient(discounted(g, backwards), leaves, ["delta", "gamma"], (B, T), seed=seed)


def test_a_loop_within_a_loop(g):
    """Outer: y <- 1 + (y doubled `n` times) for the outer counter n."""
    x, y = g.leaf("carry", "x", ()), g.leaf("carry", "y", ())
    inner_counter, outer_counter = g.leaf("iter", "k", (), Kind.INT), g.leaf("iter", "l", (), Kind.INT)
    (doubled,) = g.loop(inner_counter, outer_counter, (x,), (y,), (g.apply("mul", x, g.const(2)),))
    (root,) = g.loop(outer_counter, g.const(3), (y,), (real(g, "s"),), (g.apply("add", doubled, g.const(1)),))
    outcome = interpret([(root, ())], {"s": 5}, SIZES, wrt=["s"])
    assert outcome.values == [((5 + 1) * 2 + 1) * 4 + 1]
    assert outcome.gradients["s"] == 8


def test_only_what_is_read_of_a_loop_is_evaluated(g):
    x, n = real(g, "x", N), g.iota(N)
    a, counter = g.leaf("carry", "a", (N,)), g.leaf("iter", "l", (), Kind.INT)
    before = g.at(x, {N: g.apply("sub", n, g.const(1))})
    (looped,) = g.loop(counter, g.const(2), (a,), (x,), (g.apply("add", a, before),))
    root = g.apply("where", g.apply("gt", n, g.const(0)), looped, g.const(0))
    assert value(root, (N,), {"x": [1, 2, 3]}) == [0, 4, 7]


def test_many_rounds(g):
    x, counter = g.leaf("carry", "x", ()), g.leaf("iter", "l", (), Kind.INT)
    (root,) = g.loop(
        counter, g.const(5000), (x,), (real(g, "a"),), (g.apply("add", x, g.apply("mul", x, g.const(1e-4))),)
    )
    outcome = interpret([(root, ())], {"a": 1}, SIZES, wrt=["a"])
    assert outcome.values[0] == pytest.approx(1.0001**5000)
    assert outcome.gradients["a"] == pytest.approx(1.0001**5000)


def test_a_deep_graph_and_the_recursion_limit(g):
    node = real(g, "x")
    for _ in range(20_000):
        node = g.apply("neg", g.apply("add", node, g.const(1)))
    before = sys.getrecursionlimit()
    outcome = interpret([(node, ())], {"x": 1}, SIZES, wrt=["x"])
    assert outcome.gradients["x"] == 1
    assert sys.getrecursionlimit() == before


# ---- inputs ----


def test_wrong_lengths_and_missing_leaves_are_said(g):
    x = real(g, "x", N)
    with pytest.raises(ValueError, match="x should have length 3 here, not 2"):
        value(x, (N,), {"x": [1, 2]})
    with pytest.raises(ValueError, match="more axes"):
        value(x, (N,), {"x": [[1], [2], [3]]})
    with pytest.raises(KeyError, match="no value for x"):
        value(x, (N,), {})


def test_a_root_without_one_of_its_axes_is_said(g):
    with pytest.raises(RuntimeError, match="without a position along N"):
        value(real(g, "x", N), (), {"x": [1, 2, 3]})


def test_a_leaf_that_nothing_reads_has_gradient_zero(g):
    outcome = interpret([(g.const(1.0), ())], {"x": [[1, 2], [3, 4]]}, SIZES, wrt=["x"])
    assert outcome.gradients["x"] == [[0, 0], [0, 0]]


def test_empty_axes(g):
    x = real(g, "x", N)
    assert value(x, (N,), {"x": []}, {"N": 0}) == []
    outcome = interpret([(g.reduce("sum", (N,), x), ())], {"x": []}, {"N": 0}, wrt=["x"])
    assert (outcome.values, outcome.gradients) == ([0.0], {"x": []})


# ---- multiprecision ----


@pytest.mark.parametrize("at", [1e4, -1e4, 0.0, 50.0, -50.0])
@pytest.mark.parametrize("op", ["softplus", "log_sigmoid", "sigmoid", "tanh"])
def test_floats_agree_with_multiprecision_at_extremes(g, op, at):
    root = g.apply(op, real(g, "x"))
    with mpmath.workdps(50):
        exact = interpret([(root, ())], {"x": at}, SIZES, math=Multiprecision(), wrt=["x"])
        found = interpret([(root, ())], {"x": at}, SIZES, wrt=["x"])
        assert found.values[0] == pytest.approx(float(exact.values[0]), rel=1e-12)
        assert found.gradients["x"] == pytest.approx(float(exact.gradients["x"]), rel=1e-12)


def test_logsumexp_and_cross_entropy_of_large_numbers(g):
    leaves = {"logits": [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4]], "labels": [1, 0, 2]}
    root = cross_entropy(g)
    with mpmath.workdps(50):
        exact = interpret([(root, ())], leaves, SIZES, math=Multiprecision(), wrt=["logits"])
        assert isinstance(exact.values[0], mpmath.mpf)
        found = interpret([(root, ())], leaves, SIZES, math=FLOATS, wrt=["logits"])
        assert found.values[0] == pytest.approx(float(exact.values[0]), rel=1e-13)
        for row, other in zip(found.gradients["logits"], exact.gradients["logits"], strict=True):
            assert row == pytest.approx([float(v) for v in other], abs=1e-11)


def test_whole_numbers_stay_whole_in_multiprecision(g):
    x = real(g, "x")
    root = g.at(real(g, "t", N), {N: g.apply("floor", x)})
    assert value(root, (), {"x": 1.5, "t": [1, 2, 3]}, math=Multiprecision()) == 2


# ---- scalar functions at their ends ----


def test_floats_overflow_and_poles():
    assert FLOATS.power(-1e200, 3) == -math.inf
    assert FLOATS.power(-1e200, 2) == math.inf
    assert FLOATS.power(10, 400) == math.inf
    assert FLOATS.lgamma(0.0) == FLOATS.lgamma(1e308) == math.inf
    assert all(math.isnan(f(math.inf)) for f in (FLOATS.sin, FLOATS.cos, FLOATS.tan))
