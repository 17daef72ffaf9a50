"""The element-wise operations, one declaration each."""

from __future__ import annotations

import math
from typing import Any

from lossdsl.ops.table import Elementwise
from lossdsl.types import domains as dom
from lossdsl.types.domains import ANY, INF, NONNEGATIVE, POSITIVE, TRUTH, Interval

_UP = ("increasing",)
_DOWN = ("decreasing",)


def _increasing(f: Any, low: float = -INF, high: float = INF, reached: bool = False) -> Any:
    """The range of an increasing f with infimum low and supremum high."""

    def range_(a: Interval) -> Interval:
        ends = []
        for end, limit in ((a.low, low), (a.high, high)):
            try:
                ends.append(limit if math.isinf(end) else min(max(f(end), low), high))
            except (OverflowError, ValueError):
                ends.append(limit)
        return Interval(
            ends[0], ends[1],
            math.isfinite(ends[0]) and (a.low_open or a.low == -INF) and not reached,
            math.isfinite(ends[1]) and (a.high_open or a.high == INF) and not reached,
        )  # fmt: skip

    return range_


def _always(interval: Interval) -> Any:
    return lambda *_: interval


def _abs_range(a: Interval) -> Interval:
    if a.low >= 0:
        return a
    if a.high <= 0:
        return dom.negative(a)
    reach = max((-a.low, not a.low_open), (a.high, not a.high_open))
    return Interval(0, reach[0], a.nonzero, not reach[1], a.nonzero)


def _power_range(a: Interval, b: Interval) -> Interval:
    exponent = b.point
    if exponent == 0:
        return dom.point(1.0)
    if (
        exponent is not None
        and math.isfinite(exponent)
        and exponent == int(exponent)
        and exponent > 0
        and int(exponent) % 2 == 0
    ):
        base = _abs_range(a)
        return Interval(
            _pow(base.low, exponent), _pow(base.high, exponent), base.low_open, base.high_open, base.excludes_zero
        )
    if (
        exponent is not None
        and math.isfinite(exponent)
        and exponent == int(exponent)
        and exponent < 0
        and a.excludes_zero
    ):
        return dom.reciprocal(_power_range(a, dom.point(-exponent)))
    if exponent is not None and math.isfinite(exponent) and exponent == int(exponent) and exponent > 0:
        low, high = (math.copysign(_pow(abs(e), exponent), e) for e in (a.low, a.high))
        return Interval(low, high, a.low_open, a.high_open, a.excludes_zero)
    if a.positive:
        if exponent is not None and exponent > 0:
            return Interval(_pow(a.low, exponent), _pow(a.high, exponent), a.low_open or a.low == 0, a.high_open)
        if exponent is not None:
            return dom.reciprocal(_power_range(a, dom.point(-exponent)))
        if a.high <= 1 and b.low >= 0:
            return Interval(0, 1, low_open=True)
        return POSITIVE
    if a.low >= 0:
        if b.low >= 0 and a.high <= 1:
            return Interval(0, 1)
        return NONNEGATIVE
    return ANY


def _pow(base: float, exponent: float) -> float:
    if math.isinf(base):
        return INF if exponent > 0 else 0.0
    try:
        return float(base**exponent)
    except (OverflowError, ZeroDivisionError):
        return INF


def _power_region(a: Interval, b: Interval) -> tuple[tuple[str | None, ...], str | None]:
    exponent = b.point
    if exponent is None:
        return (None, None), None
    if exponent == 1:
        return ("increasing", "constant"), "affine"
    if exponent == 0:
        return ("constant", "constant"), "affine"
    even = math.isfinite(exponent) and exponent == int(exponent) and int(exponent) % 2 == 0
    if even and exponent > 0:
        direction = "increasing" if a.low >= 0 else "decreasing" if a.high <= 0 else None
        return (direction, "constant"), "convex"
    if a.low >= 0:
        if exponent > 0:
            return ("increasing", "constant"), "convex" if exponent > 1 else "concave"
        return ("decreasing", "constant"), "convex"
    return (None, "constant"), None


def _xlogy_range(a: Interval, b: Interval) -> Interval:
    if a == b and a.low >= 0:
        return Interval(
            -1 / math.e, INF if a.high == INF else max(a.high * math.log(a.high) if a.high > 0 else 0.0, 0.0)
        )
    inside = dom.multiply(a, _log_range(b))
    return inside.join(dom.point(0.0))


_log_range = _increasing(lambda x: math.log(x) if x > 0 else -INF)


def _gamma_derivative(m: Any, y: Any, x: Any) -> tuple[Any, ...]:
    return (m.digamma(x),)


def _half(m: Any, first: bool, tie: bool) -> Any:
    return m.number(0.5) if tie else m.number(1 if first else 0)


def _op(*args: Any, **kw: Any) -> Elementwise:
    return Elementwise(*args, **kw)


def _truth(test: Any) -> Any:
    return lambda m, a, b: test(a, b)


_DECLARED = [
    _op("add", 2, "Sum.", "{0} + {1}", lambda m, a, b: a + b, lambda m, y, a, b: (1, 1), dom.add, "{0} + {1}", kind="same",
        monotone=("increasing", "increasing"), curvature="affine"),
    _op("sub", 2, "Difference.", "{0} - {1}", lambda m, a, b: a - b, lambda m, y, a, b: (1, -1), dom.subtract, "{0} - {1}", kind="same",
        monotone=("increasing", "decreasing"), curvature="affine"),
    _op("mul", 2, "Product.", "{0} {1}", lambda m, a, b: a * b, lambda m, y, a, b: (b, a), dom.multiply, "{0} * {1}", kind="same"),
    _op("div", 2, "Quotient; the divisor must exclude 0.", "\\frac{{{0}}}{{{1}}}", lambda m, a, b: m.divide(a, b),
        lambda m, y, a, b: (m.divide(1, b), -m.divide(y, b)), dom.divide, "{0} / {1}", domain=(None, Interval(nonzero=True))),
    _op("neg", 1, "Negation.", "-{0}", lambda m, a: -a, lambda m, y, a: (-1,), dom.negative, "-{0}", kind="same", monotone=_DOWN, curvature="affine"),
    _op("pow", 2, "Power; a base that may be negative needs a whole constant exponent.", "{0}^{{{1}}}", lambda m, a, b: m.power(a, b),
        lambda m, y, a, b: (m.power_slope(a, b), m.power_log(y, a)), _power_range, "torch.pow({0}, {1})", region=_power_region),
    _op("floordiv", 2, "Floor of the quotient of whole numbers; the divisor must be positive.", "\\lfloor {0} / {1} \\rfloor",
        lambda m, a, b: a // b, None,
        lambda a, b: Interval(math.floor(a.low / b.high) if a.low >= 0 and math.isfinite(a.low) else -INF,
                              math.floor(a.high / max(b.low, 1)) if math.isfinite(a.high) else INF),
        "torch.div({0}, {1}, rounding_mode='floor')", kind="int", domain=(None, POSITIVE)),
    _op("mod", 2, "Remainder of the floor division; the divisor must be positive.", "{0} \\bmod {1}", lambda m, a, b: a % b,
        None, lambda a, b: Interval(0, b.high, False, True) if b.positive else ANY, "torch.remainder({0}, {1})", kind="int", domain=(None, POSITIVE)),
    _op("abs", 1, "Absolute value; derivative 0 at 0.", "|{0}|", lambda m, a: abs(a), lambda m, y, a: (m.sign(a),), _abs_range, "torch.abs({0})",
        kind="same", curvature="convex", region=lambda a: (("increasing" if a.low >= 0 else "decreasing" if a.high <= 0 else None,), "convex")),
    _op("sign", 1, "-1, 0 or 1.", "\\operatorname{{sign}} {0}", lambda m, a: m.sign(a), None,
        lambda a: Interval(1 if a.positive else 0 if a.low >= 0 else -1, -1 if a.negative else 0 if a.high <= 0 else 1), "torch.sign({0})", monotone=_UP),
    _op("exp", 1, "Exponential.", "e^{{{0}}}", lambda m, a: m.exp(a), lambda m, y, a: (y,), _increasing(math.exp, 0), "torch.exp({0})",
        monotone=_UP, curvature="convex"),
    _op("expm1", 1, "exp(x) - 1, accurate near 0.", "e^{{{0}}} - 1", lambda m, a: m.expm1(a), lambda m, y, a: (m.exp(a),), _increasing(math.expm1, -1),
        "torch.expm1({0})", monotone=_UP, curvature="convex"),
    _op("log", 1, "Natural logarithm of a positive number.", "\\log {0}", lambda m, a: m.log(a), lambda m, y, a: (m.divide(1, a),), _log_range,
        "torch.log({0})", domain=(POSITIVE,), monotone=_UP, curvature="concave"),
    _op("log1p", 1, "log(1 + x), accurate near 0.", "\\log(1 + {0})", lambda m, a: m.log1p(a), lambda m, y, a: (m.divide(1, 1 + a),),
        _increasing(lambda x: math.log1p(x) if x > -1 else -INF), "torch.log1p({0})", domain=(Interval(-1, INF, low_open=True),), monotone=_UP, curvature="concave"),
    _op("sqrt", 1, "Square root; its derivative counts as 0 at 0.", "\\sqrt{{{0}}}", lambda m, a: m.sqrt(a),
        lambda m, y, a: (m.divide(0.5, y) if y > 0 else 0 * y,), _increasing(lambda x: math.sqrt(max(x, 0.0)), 0, reached=False), "torch.sqrt({0})",
        domain=(NONNEGATIVE,), singular=0.0, monotone=_UP, curvature="concave"),
    _op("sigmoid", 1, "1 / (1 + exp(-x)).", "\\sigma({0})", lambda m, a: m.sigmoid(a), lambda m, y, a: (y * m.sigmoid(-a),),
        lambda a: Interval(0, 1, True, True).meet(_increasing(lambda x: 1 / (1 + math.exp(-x)), 0, 1)(a)), "torch.sigmoid({0})", monotone=_UP,
        region=lambda a: (_UP, "convex" if a.high <= 0 else "concave" if a.low >= 0 else None)),
    _op("tanh", 1, "Hyperbolic tangent.", "\\tanh {0}", lambda m, a: m.tanh(a), lambda m, y, a: (m.sech2(a),), _increasing(math.tanh, -1, 1),
        "torch.tanh({0})", monotone=_UP, region=lambda a: (_UP, "convex" if a.high <= 0 else "concave" if a.low >= 0 else None)),
    _op("softplus", 1, "log(1 + exp(x)).", "\\operatorname{{softplus}}({0})", lambda m, a: m.softplus(a), lambda m, y, a: (m.sigmoid(a),),
        _increasing(lambda x: max(x, 0) + math.log1p(math.exp(-abs(x))), 0), "-F.logsigmoid(-{0})", monotone=_UP, curvature="convex"),
    _op("log_sigmoid", 1, "log of the logistic function.", "\\log\\sigma({0})", lambda m, a: -m.softplus(-a), lambda m, y, a: (m.sigmoid(-a),),
        _increasing(lambda x: -max(-x, 0) - math.log1p(math.exp(-abs(x))), -INF, 0), "F.logsigmoid({0})", monotone=_UP, curvature="concave"),
    _op("relu", 1, "max(x, 0); derivative 0 at 0.", "\\max({0}, 0)", lambda m, a: a if a > 0 else 0 * a, lambda m, y, a: (m.number(1 if a > 0 else 0),),
        _increasing(lambda x: max(x, 0.0), 0, reached=True), "torch.relu({0})", monotone=_UP, curvature="convex"),
    _op("sin", 1, "Sine.", "\\sin {0}", lambda m, a: m.sin(a), lambda m, y, a: (m.cos(a),), _always(Interval(-1, 1)), "torch.sin({0})"),
    _op("cosine", 1, "Cosine (written cos(x)).", "\\cos {0}", lambda m, a: m.cos(a), lambda m, y, a: (-m.sin(a),), _always(Interval(-1, 1)), "torch.cos({0})"),
    _op("tan", 1, "Tangent.", "\\tan {0}", lambda m, a: m.tan(a), lambda m, y, a: (1 + y * y,), _always(ANY), "torch.tan({0})"),
    _op("atan", 1, "Arc tangent.", "\\arctan {0}", lambda m, a: m.atan(a), lambda m, y, a: (m.divide(1, 1 + a * a),),
        _increasing(math.atan, -math.pi / 2, math.pi / 2), "torch.atan({0})", monotone=_UP,
        region=lambda a: (_UP, "convex" if a.high <= 0 else "concave" if a.low >= 0 else None)),
    _op("atan2", 2, "Angle of the point (x, y) = (second, first argument).", "\\operatorname{{atan2}}({0}, {1})", lambda m, a, b: m.atan2(a, b),
        lambda m, y, a, b: m.atan2_slopes(a, b), _always(Interval(-math.pi, math.pi)), "torch.atan2({0}, {1})"),
    _op("asin", 1, "Arc sine; derivative 0 at -1 and 1.", "\\arcsin {0}", lambda m, a: m.asin(a), lambda m, y, a: (m.arc_slope(a),),
        _increasing(lambda x: math.asin(min(max(x, -1), 1)), reached=True), "torch.asin({0})", domain=(Interval(-1, 1),), singular=1.0, monotone=_UP),
    _op("acos", 1, "Arc cosine; derivative 0 at -1 and 1.", "\\arccos {0}", lambda m, a: m.acos(a), lambda m, y, a: (-m.arc_slope(a),),
        _always(Interval(0, math.pi)), "torch.acos({0})", domain=(Interval(-1, 1),), singular=1.0, monotone=_DOWN),
    _op("sinh", 1, "Hyperbolic sine.", "\\sinh {0}", lambda m, a: m.sinh(a), lambda m, y, a: (m.cosh(a),), _increasing(math.sinh), "torch.sinh({0})", monotone=_UP),
    _op("cosh", 1, "Hyperbolic cosine.", "\\cosh {0}", lambda m, a: m.cosh(a), lambda m, y, a: (m.sinh(a),), _always(Interval(1, INF)), "torch.cosh({0})",
        curvature="convex", region=lambda a: (("increasing" if a.low >= 0 else "decreasing" if a.high <= 0 else None,), "convex")),
    _op("erf", 1, "Error function.", "\\operatorname{{erf}}({0})", lambda m, a: m.erf(a), lambda m, y, a: (m.erf_slope(a),), _increasing(math.erf, -1, 1),
        "torch.erf({0})", monotone=_UP, region=lambda a: (_UP, "convex" if a.high <= 0 else "concave" if a.low >= 0 else None)),
    _op("erfc", 1, "1 - erf(x), accurate for large x.", "\\operatorname{{erfc}}({0})", lambda m, a: m.erfc(a), lambda m, y, a: (-m.erf_slope(a),),
        _always(Interval(0, 2, True, True)), "torch.erfc({0})", monotone=_DOWN),
    _op("lgamma", 1, "log of the gamma function of a positive number.", "\\log\\Gamma({0})", lambda m, a: m.lgamma(a), _gamma_derivative,
        _always(Interval(-0.1214862905358497, INF)), "torch.lgamma({0})", domain=(POSITIVE,), curvature="convex"),
    _op("digamma", 1, "Derivative of lgamma, for a positive number.", "\\psi({0})", lambda m, a: m.digamma(a), lambda m, y, a: (m.trigamma(a),),
        _always(ANY), "torch.digamma({0})", domain=(POSITIVE,), monotone=_UP, curvature="concave"),
    _op("floor", 1, "Largest whole number not above x.", "\\lfloor {0} \\rfloor", lambda m, a: m.floor(a), None,
        _increasing(math.floor, reached=True), "torch.floor({0})", kind="int", monotone=_UP),
    _op("ceil", 1, "Smallest whole number not below x.", "\\lceil {0} \\rceil", lambda m, a: -m.floor(-a), None,
        _increasing(math.ceil, reached=True), "torch.ceil({0})", kind="int", monotone=_UP),
    _op("round", 1, "Nearest whole number, ties to even.", "\\operatorname{{round}}({0})", lambda m, a: m.round(a), None,
        _increasing(round, reached=True), "torch.round({0})", kind="int", monotone=_UP),
    _op("min", 2, "The smaller one; equal ones share the gradient.", "\\min({0}, {1})", lambda m, a, b: a if a <= b else b,
        lambda m, y, a, b: (_half(m, a < b, a == b), _half(m, b < a, a == b)), dom.minimum, "torch.minimum({0}, {1})", kind="same",
        monotone=("increasing", "increasing"), curvature="concave"),
    _op("max", 2, "The larger one; equal ones share the gradient.", "\\max({0}, {1})", lambda m, a, b: a if a >= b else b,
        lambda m, y, a, b: (_half(m, a > b, a == b), _half(m, b > a, a == b)), dom.maximum, "torch.maximum({0}, {1})", kind="same",
        monotone=("increasing", "increasing"), curvature="convex"),
    _op("clamp", 3, "x moved into [low, high]; derivative 1 on the closed interval, 0 outside; none for the bounds.",
        "\\operatorname{{clamp}}({0}, {1}, {2})", lambda m, x, a, b: b if x > b or a > b else a if x < a else x,
        lambda m, y, x, a, b: (m.number(1 if a <= x <= b else 0), 0, 0),
        lambda x, a, b: dom.minimum(dom.maximum(x, a), b), "torch.clamp({0}, {1}, {2})", kind="same", monotone=("increasing", "increasing", "increasing")),
    _op("reflect", 2, "Whole position mirrored at both ends of 0 .. n-1 without repeating them, kept inside.", "\\operatorname{{reflect}}({0}, {1})",
        lambda m, i, n: m.reflect(i, n), None, lambda i, n: Interval(0, max(n.high - 1, 0)), "rt.reflect({0}, {1})", kind="int"),
    _op("xlogy", 2, "x log y, and 0 where x = 0.", "{0} \\log {1}", lambda m, x, y: m.xlogy(x, y),
        lambda m, z, x, y: (m.log(y) if y > 0 else 0 * x, m.divide(x, y) if y > 0 else 0 * x), _xlogy_range, "torch.special.xlogy({0}, {1})",
        domain=(None, NONNEGATIVE), singular=0.0),
    _op("entropy", 1, "-x log x, and 0 at 0; its derivative counts as 0 there.", "-{0} \\log {0}", lambda m, x: -m.xlogy(x, x),
        lambda m, y, x: (-m.log(x) - 1 if x > 0 else 0 * x,), lambda a: dom.negative(_xlogy_range(a, a)), "torch.special.entr({0})",
        domain=(NONNEGATIVE,), singular=0.0, curvature="concave"),
    _op("logaddexp", 2, "log(exp(a) + exp(b)).", "\\log(e^{{{0}}} + e^{{{1}}})", lambda m, a, b: m.logaddexp(a, b),
        lambda m, y, a, b: (m.exp(a - y), m.exp(b - y)), lambda a, b: Interval(max(a.low, b.low)), "torch.logaddexp({0}, {1})",
        monotone=("increasing", "increasing"), curvature="convex"),
    _op("stop", 1, "x without gradient.", "\\operatorname{{sg}}[{0}]", lambda m, a: a, None, lambda a: a, "{0}.detach()", kind="same"),
    _op("lt", 2, "Less.", "{0} < {1}", _truth(lambda a, b: a < b), None, _always(TRUTH), "{0} < {1}", kind="bool"),
    _op("le", 2, "Less or equal.", "{0} \\le {1}", _truth(lambda a, b: a <= b), None, _always(TRUTH), "{0} <= {1}", kind="bool"),
    _op("gt", 2, "Greater.", "{0} > {1}", _truth(lambda a, b: a > b), None, _always(TRUTH), "{0} > {1}", kind="bool"),
    _op("ge", 2, "Greater or equal.", "{0} \\ge {1}", _truth(lambda a, b: a >= b), None, _always(TRUTH), "{0} >= {1}", kind="bool"),
    _op("eq", 2, "Equal.", "{0} = {1}", _truth(lambda a, b: a == b), None, _always(TRUTH), "{0} == {1}", kind="bool"),
    _op("ne", 2, "Unequal.", "{0} \\ne {1}", _truth(lambda a, b: a != b), None, _always(TRUTH), "{0} != {1}", kind="bool"),
    _op("and", 2, "Both.", "{0} \\wedge {1}", _truth(lambda a, b: bool(a) and bool(b)), None, _always(TRUTH), "{0} & {1}", kind="bool"),
    _op("or", 2, "At least one.", "{0} \\vee {1}", _truth(lambda a, b: bool(a) or bool(b)), None, _always(TRUTH), "{0} | {1}", kind="bool"),
    _op("not", 1, "Not.", "\\neg {0}", lambda m, a: not a, None, _always(TRUTH), "~{0}", kind="bool"),
    _op("where", 3, "The second where the first holds, else the third.", "\\begin{{cases}} {1} & {0} \\\\ {2} \\end{{cases}}",
        lambda m, c, a, b: a if c else b, lambda m, y, c, a, b: (0, m.number(1 if c else 0), m.number(0 if c else 1)),
        lambda c, a, b: a.join(b), "torch.where({0}, {1}, {2})", kind="same"),
]  # fmt: skip

ELEMENTWISE: dict[str, Elementwise] = {op.name: op for op in _DECLARED}
"""Every element-wise operation by name."""
