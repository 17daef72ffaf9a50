"""The rules: numerical stability, then algebra.

Every rule is an identity of real-valued programs under its side condition; what it changes is rounding, overflow and cost.
"""

from __future__ import annotations

import math

from lossdsl.graph import nodes as n
from lossdsl.graph.build import Graph
from lossdsl.graph.nodes import Dim, Node
from lossdsl.graph.ranges import Ranges
from lossdsl.graph.rewrite.engine import Rule
from lossdsl.types.domains import Kind

# ---- patterns ------------------------------------------------------------------------------


def _args(node: Node, op: str) -> tuple[Node, ...] | None:
    return node.args if isinstance(node, n.Apply) and node.op == op else None


def _is_number(node: Node, value: float) -> bool:
    return isinstance(node, n.Const) and node.kind is not Kind.BOOL and node.value == value


def _terms(node: Node) -> list[tuple[int, Node]]:
    """A sum as signed terms."""
    if isinstance(node, n.Apply) and node.op in ("add", "sub"):
        sign = 1 if node.op == "add" else -1
        return [*_terms(node.args[0]), *((s * sign, t) for s, t in _terms(node.args[1]))]
    if isinstance(node, n.Apply) and node.op == "neg":
        return [(-s, t) for s, t in _terms(node.args[0])]
    return [(1, node)]


def _log_of(g: Graph, r: Ranges, node: Node) -> Node | None:
    """log(node) without exponentiating first, where node is made of exponentials; None otherwise."""
    match node:
        case n.Apply(op="exp"):
            return node.args[0]
        case n.Apply(op="sigmoid"):
            return g.apply("log_sigmoid", node.args[0])
        case n.Apply(op="mul" | "div"):
            return _log_of_product(g, r, node)
        case n.Apply(op="add"):
            return _log_of_sum(g, r, node)
        case n.Along(op="softmax"):
            return g.along("log_softmax", node.along, node.body)
        case n.At(default=None):
            inner = _log_of(g, r, node.body)
            return None if inner is None else g.at(inner, dict(node.mapping))
        case n.Reduce(op="sum" | "mean"):
            return _log_of_reduction(g, r, node)
        case _:
            return None


def _log_of_product(g: Graph, r: Ranges, node: n.Apply) -> Node | None:
    logs = [_log_of(g, r, a) for a in node.args]
    if all(x is None for x in logs) or not all(r.interval(a).positive for a in node.args):
        return None
    left, right = (x if x is not None else g.apply("log", a) for x, a in zip(logs, node.args, strict=True))
    return g.apply("add" if node.op == "mul" else "sub", left, right)


def _log_of_sum(g: Graph, r: Ranges, node: n.Apply) -> Node | None:
    terms = _terms(node)
    if any(sign < 0 for sign, _ in terms):
        return None
    logs: list[Node] = []
    ones = 0
    found = False
    for _, term in terms:
        inner = _log_of(g, r, term)
        if inner is not None:
            found = True
            logs.append(inner)
        elif _is_number(term, 1):
            ones += 1
        elif r.interval(term).positive:
            logs.append(g.apply("log", term))
        else:
            return None
    if not found or ones > 1:
        return None
    total = logs[0]
    for other in logs[1:]:
        total = g.apply("logaddexp", total, other)
    return g.apply("softplus", total) if ones else total


def _log_of_reduction(g: Graph, r: Ranges, node: n.Reduce) -> Node | None:
    inner = _log_of(g, r, node.body)
    if inner is None:
        return None
    if node.guard is None:
        total = g.reduce("logsumexp", node.bound, inner)
        if node.op == "mean":
            for dim in node.bound:
                total = g.apply("sub", total, g.apply("log", g.size(dim.size)))
        return total
    if node.op == "mean" or node.default is not None:
        return None
    default = None if r.nonempty(node) else g.const(-math.inf)
    return g.reduce("logsumexp", node.bound, inner, node.guard, default)


# ---- stability -----------------------------------------------------------------------------


def _log(g: Graph, r: Ranges, node: Node) -> Node | None:
    args = _args(node, "log")
    return None if args is None else _log_of(g, r, args[0])


def _log1p(g: Graph, r: Ranges, node: Node) -> Node | None:
    args = _args(node, "log")
    if args is None:
        return None
    sum_ = _args(args[0], "add")
    if sum_ is not None:
        for one, other in (sum_, sum_[::-1]):
            if _is_number(one, 1):
                return g.apply("log1p", other)
    difference = _args(args[0], "sub")
    if difference is not None and _is_number(difference[0], 1):
        return g.apply("log1p", g.apply("neg", difference[1]))
    return None


def _log1p_of_exponentials(g: Graph, r: Ranges, node: Node) -> Node | None:
    args = _args(node, "log1p")
    inner = None if args is None else _log_of(g, r, args[0])
    return None if inner is None else g.apply("softplus", inner)


def _expm1(g: Graph, r: Ranges, node: Node) -> Node | None:
    args = _args(node, "sub")
    if args is None:
        return None
    left, right = _args(args[0], "exp"), _args(args[1], "exp")
    if left is not None and _is_number(args[1], 1):
        return g.apply("expm1", left[0])
    if right is not None and _is_number(args[0], 1):
        return g.apply("neg", g.apply("expm1", right[0]))
    return None


def _one_minus_sigmoid(g: Graph, r: Ranges, node: Node) -> Node | None:
    args = _args(node, "sub")
    inner = None if args is None else _args(args[1], "sigmoid")
    if args is None or inner is None or not _is_number(args[0], 1):
        return None
    return g.apply("sigmoid", g.apply("neg", inner[0]))


def _sigmoid(g: Graph, r: Ranges, node: Node) -> Node | None:
    """C / (1 + exp(x)) and exp(x) / (1 + exp(x))."""
    args = _args(node, "div")
    if args is None:
        return None
    sum_ = _args(args[1], "add")
    if sum_ is None:
        return None
    for one, other in (sum_, sum_[::-1]):
        inner = _args(other, "exp")
        if inner is None or not _is_number(one, 1):
            continue
        if args[0] is other:
            return g.apply("sigmoid", inner[0])
        logistic = g.apply("sigmoid", g.apply("neg", inner[0]))
        return logistic if _is_number(args[0], 1) else g.apply("mul", args[0], logistic)
    return None


def _double_negative(g: Graph, r: Ranges, node: Node) -> Node | None:
    args = _args(node, "log_sigmoid")
    inner = None if args is None else _args(args[0], "neg")
    return None if inner is None else g.apply("neg", g.apply("softplus", inner[0]))


def _softmax(g: Graph, r: Ranges, node: Node) -> Node | None:
    """exp(a) / (a sum of exponentials): softmax where they match, else the difference is exponentiated."""
    args = _args(node, "div")
    if args is None:
        return None
    product = _args(args[0], "mul")
    if product is not None:
        for factor, other in (product, product[::-1]):
            if _args(other, "exp") is not None:
                share = _softmax(g, r, g.apply("div", other, args[1]))
                return None if share is None else g.apply("mul", factor, share)
        return None
    top = _args(args[0], "exp")
    if top is None:
        return None
    below = args[1]
    if isinstance(below, n.Reduce) and below.op == "sum" and below.guard is None:
        inner = _args(below.body, "exp")
        if inner is not None:
            if inner[0] is top[0]:
                return g.along("softmax", below.bound, top[0])
            place = g.same_up_to_bound(inner[0], below.bound, top[0])
            if place is not None:
                return g.along("softmax", (place,), top[0])
    log = _log_of(g, r, below)
    return None if log is None else g.apply("exp", g.apply("sub", top[0], log))


def _variance(g: Graph, r: Ranges, node: Node) -> Node | None:
    """mean(x y) - mean(x) mean(y) as a mean of products of deviations."""
    args = _args(node, "sub")
    if args is None:
        return None
    mean = args[0]
    if not isinstance(mean, n.Reduce) or mean.op != "mean" or mean.guard is not None or _windowed(mean):
        return None
    factors = _pair(mean.body)
    means = _pair(args[1])
    if factors is None or means is None:
        return None
    for x, y in (factors, factors[::-1]):
        if all(_is_mean_of(m, v, mean.bound) for m, v in zip(means, (x, y), strict=True)):
            left, right = (g.apply("sub", v, m) for v, m in zip((x, y), means, strict=True))
            product = g.apply("pow", left, g.const(2)) if left is right else g.apply("mul", left, right)
            return g.reduce("mean", mean.bound, product)
    return None


def _windowed(node: n.Reduce) -> bool:
    """Does the body read windows? Their deviations would have to be materialised."""
    bound = set(node.bound)
    return any(
        isinstance(item, n.At)
        and any(isinstance(i, n.Apply) and i.dims & bound and len(i.dims) > 1 for _, i in item.mapping)
        for item in n.topological([node.body])
    )


def _pair(node: Node) -> tuple[Node, Node] | None:
    if isinstance(node, n.Apply) and node.op == "pow" and _is_number(node.args[1], 2):
        return node.args[0], node.args[0]
    if isinstance(node, n.Apply) and node.op == "mul":
        return node.args[0], node.args[1]
    return None


def _is_mean_of(mean: Node, body: Node, bound: tuple[Dim, ...]) -> bool:
    return (
        isinstance(mean, n.Reduce)
        and mean.op == "mean"
        and mean.guard is None
        and mean.body is body
        and set(mean.bound) == set(bound)
    )


def _norm(g: Graph, r: Ranges, node: Node) -> Node | None:
    args = _args(node, "sqrt")
    if args is None or not isinstance(args[0], n.Reduce) or args[0].op != "sum" or args[0].guard is not None:
        return None
    factors = _pair(args[0].body)
    if factors is None or factors[0] is not factors[1] or factors[0].kind is not Kind.REAL:
        return None
    return g.reduce("norm", args[0].bound, factors[0])


def _gathered_log_softmax(g: Graph, r: Ranges, node: Node) -> Node | None:
    """One entry of a log-softmax is a score minus the normaliser; the rest need not exist."""
    if not isinstance(node, n.At) or node.default is not None:
        return None
    body = node.body
    if not isinstance(body, n.Along) or body.op != "log_softmax":
        return None
    mapping = dict(node.mapping)
    if not set(body.along) <= set(mapping) or any(mapping[d].dims & set(body.along) for d in body.along):
        return None
    if any(isinstance(mapping[d], n.Iota) for d in body.along):
        return None
    rest = {d: i for d, i in mapping.items() if d not in body.along}
    total = g.at(g.reduce("logsumexp", body.along, body.body), rest)
    return g.apply("sub", g.at(body.body, mapping), total)


def _entropy(g: Graph, r: Ranges, node: Node) -> Node | None:
    """X log x, which is 0 at 0."""
    args = _args(node, "mul")
    if args is not None:
        for x, other in (args, args[::-1]):
            inner = _args(other, "log")
            if inner is not None and inner[0] is x:
                return g.apply("neg", g.apply("entropy", x))
    args = _args(node, "xlogy")
    if args is not None and args[0] is args[1]:
        return g.apply("neg", g.apply("entropy", args[0]))
    return None


def _logistic_side(node: Node) -> tuple[Node, int, int] | None:
    """Node as outer * log(sigmoid(inner * x)): (x, inner, outer), both signs."""
    sign = 1
    while isinstance(node, n.Apply) and node.op == "neg":
        node, sign = node.args[0], -sign
    if not isinstance(node, n.Apply) or node.op not in ("softplus", "log_sigmoid"):
        return None
    x, inner = node.args[0], 1
    while isinstance(x, n.Apply) and x.op == "neg":
        x, inner = x.args[0], -inner
    return (x, inner, sign) if node.op == "log_sigmoid" else (x, -inner, -sign)


def _binary_cross_entropy(g: Graph, r: Ranges, node: Node) -> Node | None:
    """T log sigmoid(x) + (1 - t) log sigmoid(-x) is t x - softplus(x), and so with the opposite sign."""
    if not isinstance(node, n.Apply) or node.op not in ("add", "sub"):
        return None
    signed = ((node.args[0], 1), (node.args[1], 1 if node.op == "add" else -1))
    for (first, first_sign), (second, second_sign) in (signed, signed[::-1]):
        one, two = _args(first, "mul"), _args(second, "mul")
        if one is None or two is None:
            continue
        for t, side in (one, one[::-1]):
            for rest, opposite in (two, two[::-1]):
                here, there, difference = _logistic_side(side), _logistic_side(opposite), _args(rest, "sub")
                if (
                    here is None
                    or there is None
                    or difference is None
                    or not _is_number(difference[0], 1)
                    or difference[1] is not t
                ):
                    continue
                outer = here[2] * first_sign
                if here[0] is there[0] and here[1] == -there[1] and outer == there[2] * second_sign:
                    x = here[0] if here[1] > 0 else g.apply("neg", here[0])
                    positive = g.apply("sub", g.apply("mul", t, x), g.apply("softplus", x))
                    return positive if outer > 0 else g.apply("neg", positive)
    return None


# ---- algebra -------------------------------------------------------------------------------


def _guard_implied(g: Graph, r: Ranges, node: Node) -> Node | None:
    """Under its own guard, where(guard, a, b) is a."""
    if not isinstance(node, n.Reduce) or node.guard is None:
        return None
    args = _args(node.body, "where")
    if args is None or args[0] is not node.guard:
        return None
    return g.reduce(node.op, node.bound, args[1], node.guard, node.default)


def _cancel(g: Graph, r: Ranges, node: Node) -> Node | None:
    args = _args(node, "sub")
    if args is not None and args[0] is args[1] and args[0].kind is not Kind.BOOL:
        return g.const(0 if args[0].kind is Kind.INT else 0.0)
    return None


def _inverse(g: Graph, r: Ranges, node: Node) -> Node | None:
    args = _args(node, "exp")
    inner = None if args is None else _args(args[0], "log")
    return None if inner is None else inner[0]


def _powers(g: Graph, r: Ranges, node: Node) -> Node | None:
    args = _args(node, "pow")
    if args is None or args[0].kind is Kind.BOOL:
        return None
    if _is_number(args[1], 1):
        return args[0]
    if _is_number(args[1], 0.5):
        return g.apply("sqrt", args[0])
    if _is_number(args[1], -1):
        return g.apply("div", g.const(1), args[0])
    return None


def _hoist(g: Graph, r: Ranges, node: Node) -> Node | None:
    """Signs and terms that do not vary along the reduced dims leave a sum or mean."""
    if (
        not isinstance(node, n.Reduce)
        or node.op not in ("sum", "mean")
        or node.guard is not None
        or node.body.kind is not Kind.REAL
    ):
        return None
    bound = set(node.bound)
    negated = _args(node.body, "neg")
    if negated is not None:
        return g.apply("neg", g.reduce(node.op, node.bound, negated[0]))
    if node.op == "mean" and isinstance(node.body, n.Apply) and node.body.op in ("add", "sub"):
        left, right = node.body.args
        if not left.dims & bound or not right.dims & bound:
            return g.apply(
                node.body.op, *(a if not a.dims & bound else g.reduce("mean", node.bound, a) for a in (left, right))
            )
    return None


def _signs(g: Graph, r: Ranges, node: Node) -> Node | None:
    """Signs move outwards: a - (-b) is a + b, (-a) b is -(a b), softplus(-x) is -log sigmoid(x)."""
    args = _args(node, "sub")
    inner = None if args is None else _args(args[1], "neg")
    if args is not None and inner is not None:
        return g.apply("add", args[0], inner[0])
    args = _args(node, "add")
    inner = None if args is None else _args(args[1], "neg")
    if args is not None and inner is not None:
        return g.apply("sub", args[0], inner[0])
    for op in ("mul", "div"):
        args = _args(node, op)
        for place, argument in enumerate(args or ()):
            inner = _args(argument, "neg")
            if args is not None and inner is not None and argument.kind is Kind.REAL:
                return g.apply("neg", g.apply(op, *(inner[0] if k == place else a for k, a in enumerate(args))))
    args = _args(node, "mul")
    if args is not None and isinstance(args[0], n.Const) and args[0].kind is Kind.REAL and args[0].value < 0:
        return g.apply("neg", g.apply("mul", g.const(-args[0].value), args[1]))
    args = _args(node, "softplus")
    inner = None if args is None else _args(args[0], "neg")
    return None if inner is None else g.apply("neg", g.apply("log_sigmoid", inner[0]))


def _program(body: str, parameters: str = "x: real[N, C]", result: str = " -> real[N]") -> str:
    return f"loss f({parameters}){result}:\n    {body}\n"


_POSITIVE = "x: real[N, C] > 0"

RULES: tuple[Rule, ...] = (
    Rule("log-of-exponentials", "log of sums, products and quotients of exponentials, softmax and sigmoid without exponentiating.",
         _log, _program("log(sum[C](exp(x)))")),
    Rule("log1p-of-exponentials", "log1p(exp(x)) is softplus(x).", _log1p_of_exponentials, _program("sum[C](log1p(exp(x)))")),
    Rule("log1p", "log(1 + x) and log(1 - x) keep small x.", _log1p, _program("sum[C](log(1 + x))", _POSITIVE)),
    Rule("expm1", "exp(x) - 1 and 1 - exp(x) keep small x.", _expm1, _program("sum[C](exp(x) - 1)")),
    Rule("one-minus-sigmoid", "1 - sigmoid(x) is sigmoid(-x).", _one_minus_sigmoid, _program("sum[C](1 - sigmoid(x))")),
    Rule("sigmoid", "1 / (1 + exp(-x)) cannot overflow as sigmoid(x).", _sigmoid, _program("sum[C](1 / (1 + exp(-x)))")),
    Rule("log-sigmoid-of-negative", "log sigmoid(-x) is -softplus(x).", _double_negative, _program("sum[C](log(sigmoid(-x)))")),
    Rule("softmax", "exp(x) over a sum of exponentials is a softmax.", _softmax, _program("sum[C](x * exp(x) / sum[C](exp(x)))")),
    Rule("variance", "mean(x y) - mean(x) mean(y) does not cancel as a mean of products of deviations.", _variance,
         _program("mean[C](x^2) - mean[C](x)^2")),
    Rule("norm", "sqrt(sum(x^2)) neither overflows nor underflows as a norm.", _norm, _program("sqrt(sum[C](x^2))")),
    Rule("gathered-log-softmax", "an entry of log_softmax is x[k] - logsumexp(x).", _gathered_log_softmax,
         _program("l = log_softmax[C](x)\n    l[n, y[n]]".replace("l[n, y[n]]", "v[n] = l[n, y[n]]\n    v"), "x: real[N, C], y: int[N] < C")),
    Rule("entropy", "x log x is 0 at 0.", _entropy, _program("sum[C](xlogy(x, x))", "x: prob[N, C]")),
    Rule("binary-cross-entropy", "t softplus(-x) + (1 - t) softplus(x) is softplus(x) - t x.", _binary_cross_entropy,
         _program("sum[C](-(t * log(sigmoid(x)) + (1 - t) * log(1 - sigmoid(x))))", "x: real[N, C], t: real[N, C] in [0, 1]")),
    Rule("cancel", "x - x is 0.", _cancel, _program("sum[C](x - x)")),
    Rule("exp-of-log", "exp(log(x)) is x.", _inverse, _program("sum[C](exp(log(x)))", _POSITIVE)),
    Rule("powers", "x^1, x^0.5 and x^-1 have operations of their own.", _powers, _program("sum[C](x^0.5)", _POSITIVE)),
    Rule("hoist", "signs and constant terms leave sums and means.", _hoist, _program("mean[C](-x)")),
    Rule("guard-implied", "under a guard, where(guard, a, b) is a.", _guard_implied,
         _program("sum[c | x[N, c] > 0](where(x[N, c] > 0, x[N, c], 0))")),
    Rule("signs", "a - (-b) is a + b, (-a) b is -(a b), softplus(-x) is -log sigmoid(x).", _signs, _program("sum[C](x - (-x^3))")),
)  # fmt: skip
"""All rules, in the order in which they are tried."""
