"""Multiscale structural similarity as a training loss (arXiv:1511.06409)."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from .base import Case, Draw, Hyper, Inputs, stateless

COMMON = {"window": 11, "sigma": 1.5, "data_range": 1.0, "k1": 0.01, "k2": 0.03}
MAPPED = {"scales": 5, **COMMON}


@cache
def _blur_weights(length: int, reach: int, sigma: float) -> Tensor:
    """Weights [p, q] along one side: Gaussian in the offset, 0 outside the window, rows summing to one."""
    weights = torch.zeros(length, length, dtype=torch.float64)
    for p in range(length):
        for q in range(max(0, p - reach), min(length, p + reach + 1)):
            weights[p, q] = math.exp(-((q - p) ** 2) / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)


def _blur(image: Tensor, hyper: Hyper) -> Tensor:
    reach, sigma = (int(hyper["window"]) - 1) // 2, hyper["sigma"]
    tall, wide = (_blur_weights(length, reach, sigma).to(image.dtype) for length in image.shape[-2:])
    return torch.einsum("pq,...qs,rs->...pr", tall, image, wide)


def _terms(x: Tensor, y: Tensor, hyper: Hyper) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps at one scale."""
    c1, c2 = (hyper["k1"] * hyper["data_range"]) ** 2, (hyper["k2"] * hyper["data_range"]) ** 2
    mx, my = _blur(x, hyper), _blur(y, hyper)
    vx, vy = _blur(x * x, hyper) - mx * mx, _blur(y * y, hyper) - my * my
    cxy = _blur(x * y, hyper) - mx * my
    return (2 * mx * my + c1) / (mx * mx + my * my + c1), (2 * cxy + c2) / (vx + vy + c2)


def halve(image: Tensor) -> Tensor:
    """Means of 2x2 blocks; an odd last row or column is dropped."""
    rows, columns = 2 * (image.shape[-2] // 2), 2 * (image.shape[-1] // 2)
    image = image[..., :rows, :columns]
    corners = [image[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return torch.stack(corners).mean(0)


def similarity(x: Tensor, y: Tensor, hyper: Hyper) -> Tensor:
    """The multiscale map at the resolution of the images."""
    height, width = x.shape[-2:]
    result = torch.ones_like(x)
    for j in range(int(hyper["scales"])):
        luminance, structure = _terms(x, y, hyper)
        factor = structure * luminance if j == hyper["scales"] - 1 else structure
        rows = torch.tensor([min(h // 2**j, x.shape[-2] - 1) for h in range(height)])
        columns = torch.tensor([min(w // 2**j, x.shape[-1] - 1) for w in range(width)])
        result = result * factor[..., rows, :][..., columns]
        x, y = halve(x), halve(y)
    return result


def _per_image(inputs: Inputs, hyper: Hyper) -> Tensor:
    return -similarity(inputs["x"], inputs["y"], hyper).mean(1).sum((-2, -1))


def ms_ssim_map(inputs: Inputs, hyper: Hyper) -> Tensor:
    return similarity(inputs["x"], inputs["y"], hyper)


def ms_ssim(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _per_image(inputs, hyper).mean()


def el_vae(inputs: Inputs, hyper: Hyper) -> Tensor:
    mu, logvar = inputs["mu"], inputs["logvar"]
    divergence: Tensor = -(1 + logvar - mu**2 - torch.exp(logvar)).sum(1) / 2
    return (hyper["scale"] * _per_image(inputs, hyper) + divergence).mean()


def ms_ssim_image(inputs: Inputs, hyper: Hyper) -> Tensor:
    exponents = inputs["exponents"].detach().tolist()
    reach = (int(hyper["window"]) - 1) // 2
    values = []
    for x, y in zip(inputs["x"].flatten(0, 1), inputs["y"].flatten(0, 1), strict=True):
        factors, dead = [], False
        for j, exponent in enumerate(exponents):
            luminance, structure = _terms(x, y, hyper)
            whole = luminance * structure if j == len(exponents) - 1 else structure
            # The renormalised blur is the plain one where the window lies inside the image.
            height, width = x.shape
            average = whole[reach : height - reach, reach : width - reach].mean()
            dead = dead or average.item() <= 0
            factors.append((average, exponent))
            x, y = halve(x), halve(y)  # noqa: PLW2901
        product = torch.zeros_like(factors[0][0])
        if not dead:
            product = product + 1
            for average, exponent in factors:
                product = product * average**exponent
        values.append(product)
    return 1 - torch.stack(values).mean()


def _images(draw: Draw, shape: tuple[int, ...], noise: float, high: float = 1.0) -> Inputs:
    """Smooth random images and noisy copies."""
    n, k, h, w = shape
    coarse = draw.uniform(n, k, h // 2 + 1, w // 2 + 1)
    y = coarse.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., :h, :w]
    return {"x": high * (y + draw.normal(n, k, h, w, scale=noise)), "y": high * y}


def _map_cases(seed: int, dtype: torch.dtype) -> list[Case]:
    def case(name: str, step: int, shape: tuple[int, ...], noise: float, hyper: Hyper) -> Case:
        draw = Draw(seed + step, dtype)
        inputs = _images(draw, shape, noise, hyper.get("data_range", 1.0))
        return Case(name, inputs, hyper, differentiable=("x", "y"))

    same = _images(Draw(seed + 5, dtype), (1, 2, 7, 6), 0.0)
    turned = _images(Draw(seed + 6, dtype), (3, 1, 8, 10), 0.0)
    turned["x"] = 1 - turned["y"]
    return [
        case("defaults", 0, (2, 3, 16, 17), 0.1, {}),
        case("odd sides", 1, (3, 1, 9, 13), 0.2, {"scales": 3, "window": 5, "sigma": 1.0}),
        case("single scale", 2, (1, 4, 6, 5), 0.3, {"scales": 1, "window": 3, "k1": 0.05, "k2": 0.1}),
        case("bytes", 3, (2, 1, 12, 10), 0.1, {"scales": 2, "window": 7, "data_range": 255.0}),
        case("one pixel windows", 4, (1, 2, 4, 8), 0.2, {"scales": 2, "window": 1}),
        Case("equal images", same, {"scales": 2, "window": 5}, differentiable=("x", "y")),
        Case("negative", turned, {"scales": 1, "window": 5}, differentiable=("x", "y")),
    ]


def ms_ssim_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _map_cases(3600, dtype)


def ms_ssim_map_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    return _map_cases(3620, dtype)


def el_vae_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, shape: tuple[int, ...], d: int, hyper: Hyper) -> Case:
        draw = Draw(seed, dtype)
        inputs = _images(draw, shape, 0.15)
        inputs["mu"], inputs["logvar"] = draw.normal(shape[0], d), draw.normal(shape[0], d, scale=0.7)
        return Case(name, inputs, hyper, differentiable=("x", "y", "mu", "logvar"))

    prior = _images(Draw(3644, dtype), (2, 1, 6, 5), 0.1)
    prior["mu"], prior["logvar"] = torch.zeros(2, 3, dtype=dtype), torch.zeros(2, 3, dtype=dtype)
    return [
        case("defaults", 3640, (2, 1, 17, 16), 5, {}),
        case("weighted", 3641, (3, 2, 8, 9), 4, {"scale": 0.05, "scales": 2, "window": 5}),
        case("single scale", 3642, (4, 3, 6, 7), 2, {"scale": 3.0, "scales": 1, "window": 3, "sigma": 0.8}),
        case("one image", 3643, (1, 2, 10, 6), 8, {"scales": 3, "data_range": 2.0}),
        Case("posterior is the prior", prior, {"scales": 2}, differentiable=("x", "y", "mu", "logvar")),
    ]


def ms_ssim_image_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, shape: tuple[int, ...], exponents: list[float], hyper: Hyper) -> Case:
        draw, noise = Draw(seed, dtype), 0.2 if hyper.get("window") == 3 else 0.1
        inputs = {**_images(draw, shape, noise), "exponents": draw.real(exponents)}
        return Case(name, inputs, hyper, differentiable=("x", "y"))

    usual = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    clamped = _images(Draw(3665, dtype), (3, 1, 10, 12), 0.05)
    clamped["x"][1] = 1 - clamped["x"][1]
    clamped["exponents"] = Draw(0, dtype).real([0.4, 0.6])
    return [
        case("usual windows", 3660, (3, 1, 23, 25), usual[:2], {}),
        case("five scales", 3661, (1, 2, 50, 49), usual, {"window": 3}),
        case("unit exponents", 3662, (4, 1, 12, 14), [1.0, 1.0, 1.0], {"window": 3, "sigma": 0.9}),
        case("single scale", 3663, (2, 3, 7, 6), [0.5], {"window": 5, "k1": 0.03, "k2": 0.05}),
        case("odd sides", 3664, (3, 1, 11, 13), [0.3, 1.7], {"window": 5, "data_range": 2.0}),
        Case("one image clamped to zero", clamped, {"window": 5}, differentiable=("x", "y")),
    ]


REFERENCES = {
    "ms_ssim": stateless(ms_ssim, MAPPED, ms_ssim_cases),
    "ms_ssim_map": stateless(ms_ssim_map, MAPPED, ms_ssim_map_cases, per_sample=True),
    "el_vae": stateless(el_vae, {"scale": 1.0, **MAPPED}, el_vae_cases),
    "ms_ssim_image": stateless(ms_ssim_image, COMMON, ms_ssim_image_cases),
}
