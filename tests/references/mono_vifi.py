"""Mono-ViFI: depth from video by view synthesis and depth consistency (arXiv:2407.14126)."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Case, Draw, Hyper, Inputs, stateless

SCENE = {"min_depth": 0.1, "max_depth": 100.0}
SYNTHESIS = {"lam_smooth": 0.001, "ssim_weight": 0.85, **SCENE}


def depth(disp: Tensor, hyper: Hyper) -> Tensor:
    near, far = 1 / hyper["min_depth"], 1 / hyper["max_depth"]
    return 1 / (far + (near - far) * disp)


def _mirror(i: int, length: int) -> int:
    if i < 0:
        return -i
    return i if i < length else 2 * (length - 1) - i


def _box(x: Tensor) -> Tensor:
    h, w = x.shape[-2:]
    total = torch.zeros_like(x)
    for dh in (-1, 0, 1):
        rows = torch.tensor([_mirror(i + dh, h) for i in range(h)])
        for dw in (-1, 0, 1):
            columns = torch.tensor([_mirror(j + dw, w) for j in range(w)])
            total = total + x[..., rows, :][..., columns]
    return total / 9


def _photometric(x: Tensor, y: Tensor, ssim_weight: float) -> Tensor:
    c1, c2 = 0.01**2, 0.03**2
    mx, my = _box(x), _box(y)
    vx, vy, cxy = _box(x * x) - mx**2, _box(y * y) - my**2, _box(x * y) - mx * my
    ssim = (2 * mx * my + c1) * (2 * cxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    unlike = ((1 - ssim) / 2).clamp(0, 1)
    return ssim_weight * unlike.mean(1) + (1 - ssim_weight) * (x - y).abs().mean(1)


def _sample(image: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Bilinear values of an image [K, H, W] at points inside it, [K, points]."""
    h, w = image.shape[-2:]
    left, top = column.detach().floor().long(), row.detach().floor().long()
    right, bottom = (left + 1).clamp(max=w - 1), (top + 1).clamp(max=h - 1)
    across, down = column - left, row - top
    upper = (1 - across) * image[:, top, left] + across * image[:, top, right]
    lower = (1 - across) * image[:, bottom, left] + across * image[:, bottom, right]
    return (1 - down) * upper + down * lower


def _reproject(source: Tensor, disp: Tensor, pose: Tensor, cameras: tuple[Tensor, Tensor], hyper: Hyper) -> Tensor:
    """Images seen from the target; `cameras` holds the intrinsics and their inverses."""
    intr, inv_intr = cameras
    h, w = source.shape[-2:]
    pixels = torch.tensor([[u, v, 1] for v in range(h) for u in range(w)], dtype=source.dtype).T
    images = []
    for n in range(source.shape[0]):
        rays = inv_intr[n] @ pixels
        points = pose[n, :, :3] @ (depth(disp[n], hyper).reshape(-1) * rays) + pose[n, :, 3:]
        seen = intr[n] @ points
        column, row = seen[0] / (seen[2] + 1e-7), seen[1] / (seen[2] + 1e-7)
        values = _sample(source[n], column.clamp(0, w - 1), row.clamp(0, h - 1))
        images.append(values.reshape(source.shape[1], h, w))
    return torch.stack(images)


def _smoothness(disp: Tensor, image: Tensor) -> Tensor:
    e = disp / (disp.mean((-2, -1), keepdim=True) + 1e-7)
    across = (e[:, :, :-1] - e[:, :, 1:]).abs() * torch.exp(-(image[..., :-1] - image[..., 1:]).abs().mean(1))
    down = (e[:, :-1] - e[:, 1:]).abs() * torch.exp(-(image[..., :-1, :] - image[..., 1:, :]).abs().mean(1))
    return across.mean() + down.mean()


def _si_log(x: Tensor, y: Tensor, mask: Tensor, beta: float) -> Tensor:
    losses = []
    for n in range(x.shape[0]):
        m = mask[n].detach().to(x.dtype)
        e = m * (torch.log(x[n] + 1e-7) - torch.log(y[n] + 1e-7))
        q = m.sum() + 1e-8
        losses.append((e**2).sum() / q - beta * e.sum() ** 2 / q**2)
    return torch.stack(losses).mean()


def _view_synthesis(view: Inputs, hyper: Hyper) -> Tensor:
    disp, target, source, noise = view["disp"], view["target"], view["source"], view["noise"].detach()
    cameras = view["intr"], view["inv_intr"]
    still, moved = [], []
    for s in range(source.shape[0]):
        still.append(_photometric(source[s], target, hyper["ssim_weight"]) + 1e-5 * noise[:, s])
        rebuilt = _reproject(source[s], disp, view["pose"][s], cameras, hyper)
        moved.append(_photometric(rebuilt, target, hyper["ssim_weight"]))
    best = torch.stack(still + moved).min(0).values
    mask: Tensor = view["mask"].detach().to(disp.dtype)
    return (best * mask).mean() + hyper["lam_smooth"] * _smoothness(disp, target)


def photometric(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _photometric(inputs["x"], inputs["y"], hyper["ssim_weight"])


def reproject(inputs: Inputs, hyper: Hyper) -> Tensor:
    cameras = inputs["intr"], inputs["inv_intr"]
    return _reproject(inputs["source"], inputs["disp"], inputs["pose"], cameras, hyper)


def smoothness(inputs: Inputs, hyper: Hyper) -> Tensor:
    del hyper
    return _smoothness(inputs["disp"], inputs["image"])


def si_log(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _si_log(inputs["x"], inputs["y"], inputs["mask"], hyper["beta"])


def mono_vifi(inputs: Inputs, hyper: Hyper) -> Tensor:
    camera = {key: inputs[key] for key in ("intr", "inv_intr")}
    full = torch.ones_like(inputs["disp"][0])
    base, consistency = [], []
    for v in range(inputs["target"].shape[0]):
        plain = {"target": inputs["target"][v], "source": inputs["source"], "pose": inputs["pose"][v]}
        warped = {
            "target": inputs["target_aff"][v],
            "source": inputs["source_aff"],
            "pose": inputs["pose_aff"][v],
        }
        kinds = [
            (inputs["disp"], plain, full),
            (inputs["disp_mf"], plain, full),
            (inputs["disp_aff"], warped, inputs["mask_rec"]),
        ]
        for number, (disp, images, mask) in enumerate(kinds):
            view = {**camera, **images, "disp": disp[v], "mask": mask, "noise": inputs["noise"][number, v]}
            base.append(_view_synthesis(view, hyper))
        single, multi = depth(inputs["disp"][v], hyper), depth(inputs["disp_mf"][v], hyper)
        back = inputs["scale"].detach()[:, None, None] * inputs["depth_aff"][v]
        consistency.append(_si_log(single, multi, full, hyper["beta"]))
        consistency.append(_si_log(back, multi, inputs["mask_cons"], hyper["beta"]))
        consistency.append(_si_log(back, single, inputs["mask_cons"], hyper["beta"]))
    return torch.stack(base).sum() + hyper["lam"] * torch.stack(consistency).sum()


def _camera(draw: Draw, n: int, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Intrinsics of n cameras with their inverses."""
    intr = torch.zeros(n, 3, 3, dtype=torch.float64)
    jitter = draw.uniform(n, 4, low=0.9, high=1.1).to(torch.float64)
    intr[:, 0, 0], intr[:, 1, 1] = 0.8 * w * jitter[:, 0], 0.9 * h * jitter[:, 1]
    intr[:, 0, 2], intr[:, 1, 2] = w / 2 * jitter[:, 2], h / 2 * jitter[:, 3]
    intr[:, 2, 2] = 1
    return intr.to(draw.dtype), torch.linalg.inv(intr).to(draw.dtype)


def _poses(draw: Draw, *shape: int, turn: float = 0.05, move: float = 0.05) -> Tensor:
    """Small rotations (about every axis, to first order) and shifts."""
    a = draw.normal(*shape, 3, scale=turn)
    pose = draw.normal(*shape, 3, 4, scale=move)
    pose[..., :3] = torch.eye(3, dtype=draw.dtype)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        pose[..., i, j] = -a[..., k]
        pose[..., j, i] = a[..., k]
    return pose


def _picture(draw: Draw, *shape: int) -> Tensor:
    return _box(draw.uniform(*shape, low=0.05, high=0.95))


def _mask(draw: Draw, n: int, h: int, w: int, as_bool: bool) -> Tensor:
    bits = draw.bits(n, h, w, chance=0.7)
    bits[:, h // 2, w // 2] = True
    return bits if as_bool else bits.long()


def mono_vifi_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], as_bool: bool, hyper: Hyper) -> Case:
        v, s, n, k, h, w = sizes
        draw = Draw(seed, dtype)
        intr, inv_intr = _camera(draw, n, h, w)
        inputs = {
            "target": _picture(draw, v, n, k, h, w),
            "source": _picture(draw, s, n, k, h, w),
            "disp": draw.uniform(v, n, h, w, low=0.05, high=0.6),
            "disp_mf": draw.uniform(v, n, h, w, low=0.05, high=0.6),
            "pose": _poses(draw, v, s, n),
            "intr": intr,
            "inv_intr": inv_intr,
            "target_aff": _picture(draw, v, n, k, h, w),
            "source_aff": _picture(draw, s, n, k, h, w),
            "disp_aff": draw.uniform(v, n, h, w, low=0.05, high=0.6),
            "pose_aff": _poses(draw, v, s, n),
            "mask_rec": _mask(draw, n, h, w, as_bool),
            "depth_aff": draw.uniform(v, n, h, w, low=0.2, high=2.0),
            "scale": draw.uniform(n, low=0.7, high=1.6),
            "mask_cons": _mask(draw, n, h, w, not as_bool),
            "noise": draw.normal(3, v, n, s, h, w),
        }
        inputs["depth_aff"] = inputs["depth_aff"] * inputs["mask_cons"].to(dtype)
        if name == "nothing covered":
            inputs["mask_cons"] = torch.zeros_like(inputs["mask_cons"])
        constant = ("mask_rec", "mask_cons", "scale", "noise")
        return Case(name, inputs, hyper, differentiable=tuple(key for key in inputs if key not in constant))

    near = {"min_depth": 0.3, "max_depth": 10.0}
    return [
        case("defaults", 3501, (3, 2, 1, 4, 5, 6), True, {}),
        case("one source", 3502, (2, 1, 5, 6, 7, 8), False, {"lam": 1.0, "lam_smooth": 0.1}),
        case(
            "indoors",
            3505,
            (1, 3, 2, 4, 6, 5),
            True,
            {**near, "ssim_weight": 0.5},
        ),
        case("nothing covered", 3504, (1, 2, 4, 3, 6, 5), False, {"beta": 1.0, "lam": 0.5}),
    ]


def view_synthesis_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper, *, as_bool: bool = True) -> Case:
        s, n, k, h, w = sizes
        draw = Draw(seed, dtype)
        intr, inv_intr = _camera(draw, n, h, w)
        inputs = {
            "disp": draw.uniform(n, h, w, low=0.05, high=0.7),
            "target": _picture(draw, n, k, h, w),
            "source": _picture(draw, s, n, k, h, w),
            "pose": _poses(draw, s, n),
            "intr": intr,
            "inv_intr": inv_intr,
            "mask": _mask(draw, n, h, w, as_bool),
            "noise": draw.normal(n, s, h, w),
        }
        if name == "static camera":
            inputs["source"] = inputs["target"][None] + draw.normal(s, n, k, h, w, scale=1e-3)
        return Case(name, inputs, hyper, differentiable=tuple(inputs)[:6])

    return [
        case("defaults", 3511, (2, 1, 3, 5, 6), {}),
        case("absolute error only", 3516, (1, 2, 4, 6, 5), {"ssim_weight": 0.0}, as_bool=False),
        case("smooth", 3513, (3, 2, 1, 4, 7), {"lam_smooth": 0.5, "min_depth": 0.5, "max_depth": 20.0}),
        case("static camera", 3514, (2, 3, 1, 5, 4), {"ssim_weight": 1.0}, as_bool=False),
    ]


def photometric_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper) -> Case:
        n, k, h, w = sizes
        draw = Draw(seed, dtype)
        inputs = {"x": _picture(draw, n, k, h, w), "y": _picture(draw, n, k, h, w)}
        return Case(name, inputs, hyper, differentiable=("x", "y"))

    return [
        case("defaults", 3521, (2, 3, 6, 7), {}),
        case("structure only", 3522, (1, 4, 5, 3), {"ssim_weight": 1.0}),
        case("absolute error only", 3523, (3, 1, 4, 8), {"ssim_weight": 0.0}),
        case("smallest image", 3524, (4, 1, 2, 3), {"ssim_weight": 0.4}),
    ]


def reproject_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], move: float, hyper: Hyper) -> Case:
        n, k, h, w = sizes
        draw = Draw(seed, dtype)
        intr, inv_intr = _camera(draw, n, h, w)
        inputs = {
            "source": _picture(draw, n, k, h, w),
            "disp": draw.uniform(n, h, w, low=0.05, high=0.9),
            "pose": _poses(draw, n, move=move),
            "intr": intr,
            "inv_intr": inv_intr,
        }
        if name == "leaves the image":
            inputs["pose"][:, :2, 3] += 2.0
        return Case(name, inputs, hyper, differentiable=tuple(inputs))

    return [
        case("defaults", 3531, (2, 4, 5, 6), 0.05, {}),
        case("leaves the image", 3532, (1, 2, 7, 5), 0.6, {"min_depth": 1.0, "max_depth": 8.0}),
        case("far", 3533, (3, 1, 4, 8), 0.3, {"min_depth": 2.0, "max_depth": 80.0}),
        case("small", 3534, (4, 5, 2, 3), 0.05, {"max_depth": 30.0}),
    ]


def smoothness_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...]) -> Case:
        n, k, h, w = sizes
        draw = Draw(seed, dtype)
        inputs = {"disp": draw.uniform(n, h, w, low=0.05, high=0.9), "image": draw.uniform(n, k, h, w)}
        return Case(name, inputs, differentiable=("disp", "image"))

    return [
        case("colour", 3541, (2, 3, 5, 6)),
        case("grey", 3542, (3, 1, 4, 7)),
        case("one sample", 3543, (1, 4, 8, 5)),
        case("thin", 3544, (5, 3, 2, 4)),
    ]


def si_log_cases(dtype: torch.dtype = torch.float64) -> list[Case]:
    def case(name: str, seed: int, sizes: tuple[int, ...], hyper: Hyper, *, as_bool: bool = True) -> Case:
        n, h, w = sizes
        draw = Draw(seed, dtype)
        inputs = {
            "x": draw.uniform(n, h, w, low=0.1, high=5.0),
            "y": draw.uniform(n, h, w, low=0.1, high=5.0),
            "mask": _mask(draw, n, h, w, as_bool),
        }
        if name == "zero depth outside":
            inputs["x"] = inputs["x"] * inputs["mask"].to(dtype)
            inputs["mask"][1] = 0
        return Case(name, inputs, hyper, differentiable=("x", "y"))

    return [
        case("defaults", 3551, (2, 5, 4), {}),
        case("plain square", 3552, (3, 4, 6), {"beta": 0.0}, as_bool=False),
        case("scale free", 3553, (1, 7, 3), {"beta": 1.0}),
        case("zero depth outside", 3554, (4, 3, 5), {"beta": 0.8}, as_bool=False),
    ]


def view_synthesis(inputs: Inputs, hyper: Hyper) -> Tensor:
    return _view_synthesis(inputs, hyper)


REFERENCES = {
    "mono_vifi": stateless(mono_vifi, {"lam": 0.2, "beta": 0.5, **SYNTHESIS}, mono_vifi_cases),
    "view_synthesis": stateless(view_synthesis, SYNTHESIS, view_synthesis_cases),
    "photometric": stateless(photometric, {"ssim_weight": 0.85}, photometric_cases, per_sample=True),
    "reproject": stateless(reproject, SCENE, reproject_cases, per_sample=True),
    "smoothness": stateless(smoothness, {}, smoothness_cases),
    "si_log": stateless(si_log, {"beta": 0.5}, si_log_cases),
}
