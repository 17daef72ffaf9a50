"""Functions that compiled programs call where torch has none with the language's meaning.

Each is written so that its source can stand in an emitted file by itself: plain torch, no imports of this package.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _tensors(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both operands as tensors; a plain number takes the other's dtype and device."""
    if not isinstance(a, Tensor):
        return torch.as_tensor(a, dtype=b.dtype, device=b.device), b
    if not isinstance(b, Tensor):
        return a, torch.as_tensor(b, dtype=a.dtype, device=a.device)
    return a, b


def maximum(a: Any, b: Any) -> Tensor:
    """The larger one; equal ones share the gradient."""
    return torch.maximum(*_tensors(a, b))


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller one; equal ones share the gradient."""
    return torch.minimum(*_tensors(a, b))


def logaddexp(a: Any, b: Any) -> Tensor:
    """log(exp(a) + exp(b))."""
    return torch.logaddexp(*_tensors(a, b))


def atan2(a: Any, b: Any) -> Tensor:
    """Angle of the point (b, a)."""
    return torch.atan2(*_tensors(a, b))


def clamp(x: Tensor, low: Any, high: Any) -> Tensor:
    """X moved into [low, high]; the bounds get no gradient."""
    low = low.detach() if isinstance(low, Tensor) else low
    high = high.detach() if isinstance(high, Tensor) else high
    if isinstance(low, Tensor) != isinstance(high, Tensor):
        low, high = (
            torch.as_tensor(low, dtype=x.dtype, device=x.device),
            torch.as_tensor(high, dtype=x.dtype, device=x.device),
        )
    return torch.clamp(x, low, high)


def sqrt(x: Tensor) -> Tensor:
    """Square root whose derivative at 0 is 0; what rounding made negative counts as 0."""
    flat = x <= 0
    return torch.where(flat, 0.0, torch.sqrt(torch.where(flat, 1.0, x)))


def _inner(x: Tensor) -> tuple[Tensor, Tensor]:
    edge = x.abs() >= 1
    return edge, torch.where(edge, 0.0, x)


def asin(x: Tensor) -> Tensor:
    """Arc sine whose derivative at -1 and 1 is 0."""
    edge, inside = _inner(x)
    return torch.where(edge, torch.asin(x.detach().clamp(-1, 1)), torch.asin(inside))


def acos(x: Tensor) -> Tensor:
    """Arc cosine whose derivative at -1 and 1 is 0."""
    edge, inside = _inner(x)
    return torch.where(edge, torch.acos(x.detach().clamp(-1, 1)), torch.acos(inside))


def entropy(x: Tensor) -> Tensor:
    """-x log x, 0 at 0 with derivative 0 there."""
    flat = x <= 0
    safe = torch.where(flat, 1.0, x)
    return torch.where(flat, 0.0, -safe * torch.log(safe))


def xlogy(x: Any, y: Any) -> Tensor:
    """X log y, 0 where x is 0; no gradient to y at 0."""
    x, y = _tensors(x, y)
    flat = y <= 0
    safe = torch.where(flat, 1.0, y)
    inside = x * torch.log(safe)
    return torch.where(flat, torch.special.xlogy(x.detach(), y.detach()), inside)


def power(x: Any, exponent: Any) -> Tensor:
    """x^exponent whose infinite derivatives at 0 are 0."""
    if not isinstance(exponent, Tensor) and (exponent >= 1 or exponent == 0):
        return torch.pow(x, exponent)
    x, exponent = _tensors(x, exponent)
    flat = x == 0
    safe = torch.where(flat, 1.0, x)
    steep = flat & (exponent < 1)
    return torch.where(
        steep, torch.pow(x.detach(), exponent.detach()), torch.pow(torch.where(steep, safe, x), exponent)
    )


def floordiv(a: Any, b: Any) -> Any:
    """Floor of the quotient of whole numbers."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return torch.div(a, b, rounding_mode="floor")
    return a // b


def mod(a: Any, b: Any) -> Any:
    """Remainder of the floor division."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return torch.remainder(a, b)
    return a % b


def reflect(i: Any, length: Any) -> Any:
    """Position mirrored at both ends of 0 .. length-1 without repeating them."""
    if not isinstance(i, Tensor):
        i = abs(i)
        i = 2 * (length - 1) - i if i > length - 1 else i
        return min(max(i, 0), length - 1)
    i = i.abs()
    i = torch.where(i > length - 1, 2 * (length - 1) - i, i)
    return i.clamp(0, length - 1)


def checked(value: Any, name: str, lengths: tuple[Any, ...]) -> Tensor:
    """What a function argument gave, if it is a tensor of the declared shape; an unknown length is None."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must give a tensor, it gave a {type(value).__name__}")
    fits = value.ndim == len(lengths) and all(k is None or k == n for k, n in zip(lengths, value.shape, strict=True))
    if not fits:
        raise ValueError(f"{name} must give a tensor of shape {list(lengths)}, it gave {list(value.shape)}")
    return value


def put_rows(base: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Base with the rows at index replaced."""
    return torch.index_put(base, (index,), rows.to(base.dtype))


def argmax(x: Tensor, dim: int) -> Tensor:
    """Place of the first largest."""
    return torch.max(x.detach(), dim=dim)[1]


def argmin(x: Tensor, dim: int) -> Tensor:
    """Place of the first smallest."""
    return torch.min(x.detach(), dim=dim)[1]


def norm(x: Tensor, dim: Any) -> Tensor:
    """Euclidean norm along dim; derivative 0 at the zero vector. Single precision is squared in double, so nothing under- or overflows."""
    if x.dtype is torch.float32:
        wide: Tensor = torch.linalg.vector_norm(x, dim=dim, dtype=torch.float64)
        return wide.to(x.dtype)
    plain: Tensor = torch.linalg.vector_norm(x, dim=dim)
    return plain


def never_empty(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """X with a zero appended along axes of length 0, whose reduction a default then replaces."""
    for dim in dims:
        if x.shape[dim] == 0:
            shape = list(x.shape)
            shape[dim] = 1
            x = x.new_zeros(shape)
    return x


def window_sum(x: Tensor, weight: Tensor, start: int, step: int, length: int) -> Tensor:
    """sum_a weight[a] * x[.., start + step*h + a] for h < length, along the last axis; x [.., L], weight [A]."""
    weight = weight.to(x.dtype)
    reach = step * (length - 1) + 1
    if weight.shape[0] <= 32:  # faster than a convolution, and exact where a device rounds those
        total = weight[0] * x[..., start : start + reach : step]
        for a in range(1, weight.shape[0]):
            total = torch.addcmul(total, weight[a], x[..., start + a : start + a + reach : step])
        return total
    used = x[..., start : start + reach + weight.shape[0] - 1]
    flat = used.reshape(-1, 1, used.shape[-1])
    out = F.conv1d(flat, weight.reshape(1, 1, -1), stride=step)
    return out.reshape(*x.shape[:-1], length)


def linear_assignment(score: Tensor) -> Tensor:
    """The distinct columns, one a row, with the largest total; score [.., N, M], N <= M. Needs scipy."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError("linear_assignment needs scipy: pip install scipy") from error
    if score.shape[-2] > score.shape[-1]:
        raise ValueError(
            f"linear_assignment needs at most as many rows as columns, got {score.shape[-2]} and {score.shape[-1]}"
        )
    flat = score.detach().reshape(-1, *score.shape[-2:]).double().cpu().numpy()
    columns = [torch.as_tensor(linear_sum_assignment(one, maximize=True)[1]) for one in flat]
    return torch.stack(columns).reshape(score.shape[:-1]).to(score.device)


def quadratic_assignment(vertex: Tensor, edge: Tensor) -> Tensor:
    """The columns p maximising sum_i vertex[i, p_i] + sum_ij edge[i, j, p_i, p_j]; exact to 8 nodes, local search beyond.

    vertex [.., N, M], edge [.., N, N, M, M].
    """
    n, m = vertex.shape[-2:]
    if n > m:
        raise ValueError(f"quadratic_assignment needs at most as many rows as columns, got {n} and {m}")
    flat_v = vertex.detach().reshape(-1, n, m)
    flat_e = edge.detach().reshape(-1, n, n, m, m)
    found = [
        _exact_assignment(v, e) if m <= 8 else _local_assignment(v, e) for v, e in zip(flat_v, flat_e, strict=True)
    ]
    return torch.stack(found).reshape(vertex.shape[:-1])


def _assignment_score(v: Tensor, e: Tensor, columns: Tensor) -> Tensor:
    """The objective for a batch of assignments; columns [K, N]."""
    rows = torch.arange(v.shape[0], device=v.device)
    linear = v[rows, columns].sum(-1)
    pairs = e[rows[:, None], rows[None, :], columns[:, :, None], columns[:, None, :]]
    return linear + pairs.sum((-2, -1))


def _exact_assignment(v: Tensor, e: Tensor) -> Tensor:
    from itertools import permutations

    columns = torch.tensor(list(permutations(range(int(v.shape[1])), int(v.shape[0]))), device=v.device)
    return columns[torch.max(_assignment_score(v, e, columns), dim=0)[1]]


def _local_assignment(v: Tensor, e: Tensor) -> Tensor:
    """Best pairwise exchange until none helps, from the linear solution."""
    n = v.shape[0]
    current = linear_assignment(v)
    best = _assignment_score(v, e, current[None])[0]
    pairs = torch.combinations(torch.arange(n, device=v.device), 2)
    for _ in range(10 * n):
        candidates = current.repeat(len(pairs), 1)
        swapped = candidates.gather(1, pairs.flip(1))
        candidates.scatter_(1, pairs, swapped)
        scores = _assignment_score(v, e, candidates)
        value, place = torch.max(scores, dim=0)
        if not value > best:
            break
        best, current = value, candidates[place]
    return current


def scalar_where(condition: Any, a: Any, b: Any) -> Any:
    """A choice between plain numbers."""
    return a if condition else b


def scalar_and(a: Any, b: Any) -> Any:
    """Both, for plain truth values."""
    return bool(a) and bool(b)


def scalar_or(a: Any, b: Any) -> Any:
    """At least one, for plain truth values."""
    return bool(a) or bool(b)


def scalar_not(a: Any) -> Any:
    """Not, for a plain truth value."""
    return not a


def scalar_sign(a: Any) -> Any:
    """-1, 0 or 1."""
    return (a > 0) - (a < 0)


def scalar_abs(a: Any) -> Any:
    """Absolute value."""
    return abs(a)


def scalar_relu(a: Any) -> Any:
    """max(a, 0)."""
    return max(a, 0)


def scalar_reflect(i: Any, length: Any) -> Any:
    """As reflect, for plain numbers."""
    return reflect(i, length)


def finished(done: Tensor) -> bool:
    """May a loop end early? Only where asking costs no graph break."""
    if torch.compiler.is_compiling() or type(done) is not Tensor:
        return False
    return bool(done.all())


def sampled(
    law: str, values: list[float], shape: list[int], dtype: torch.dtype, device: torch.device, generator: Any = None
) -> Tensor:
    """A sample of a named distribution."""
    empty = torch.empty(shape, dtype=dtype, device=device)
    match law:
        case "normal":
            return empty.normal_(generator=generator) * values[1] + values[0]
        case "uniform":
            return empty.uniform_(generator=generator) * (values[1] - values[0]) + values[0]
        case "bernoulli":
            return empty.bernoulli_(values[0], generator=generator)
        case "exponential":
            return empty.exponential_(values[0], generator=generator)
        case _:
            return values[0] - values[1] * torch.log(empty.exponential_(generator=generator))
