"""Closed forms, in torch, of the image losses: name -> (form, inputs, other hyperparameters)."""

import torch
import torch.nn.functional as F


def bell(window, sigma, like):
    d = torch.arange(window, dtype=like.dtype) - (window - 1) / 2
    return torch.exp(-(d**2) / (2 * sigma**2))


def convolved(image, kernel):
    """Kernel sums inside images [N, K, H, W]."""
    n, k, h, w = image.shape
    return F.conv2d(image.reshape(n * k, 1, h, w), kernel[None, None]).unflatten(0, (n, k))


def ssim(x, y, window=11, sigma=1.5, data_range=1.0, k1=0.01, k2=0.03):
    g = bell(window, sigma, x)
    kernel = torch.outer(g, g) / torch.outer(g, g).sum()
    mx, my = convolved(x, kernel), convolved(y, kernel)
    vx, vy = convolved(x**2, kernel) - mx**2, convolved(y**2, kernel) - my**2
    cxy = convolved(x * y, kernel) - mx * my
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    return 1 - ((2 * mx * my + c1) * (2 * cxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


def total_variation(x):
    return x.diff(dim=-2).abs().mean() + x.diff(dim=-1).abs().mean()


def gradient_loss(x, y):
    return total_variation(x - y)


def edges(image):
    kernel = torch.tensor([[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]], dtype=image.dtype)
    return torch.hypot(convolved(image, kernel), convolved(image, kernel.T))


def sobel_loss(x, y):
    return F.l1_loss(edges(x), edges(y))


def charbonnier_image(x, y, eps=0.001):
    return torch.sqrt((x - y) ** 2 + eps**2).mean()


def psnr(x, y, data_range=1.0, floor_mse=1e-10):
    mse = ((x - y) ** 2).flatten(1).mean(1).clamp(min=floor_mse)
    return (20 * torch.log10(torch.tensor(data_range, dtype=x.dtype)) - 10 * torch.log10(mse)).mean()


def box_mean(x, reach=1):
    padded = F.pad(x[None, None], (reach,) * 4, mode="reflect")
    return F.avg_pool2d(padded, 2 * reach + 1, stride=1)[0, 0]


def gaussian_mean(x, window=11, sigma=1.5):
    g = bell(window, sigma, x)
    kernel, reach = torch.outer(g, g)[None, None], window // 2
    both = F.conv2d(torch.stack([x, torch.ones_like(x)])[:, None], kernel, padding=reach)
    return both[0, 0] / both[1, 0]


def filtered(x, down, across):
    return F.conv2d(x[None, None], torch.outer(down, across)[None, None])[0, 0]


def halved(x):
    return F.avg_pool2d(x[None, None], 2)[0, 0]


def enlarged(coarse, like, factor=2):
    rows = (torch.arange(like.shape[0]) // factor).clamp(max=coarse.shape[0] - 1)
    columns = (torch.arange(like.shape[1]) // factor).clamp(max=coarse.shape[1] - 1)
    return coarse[rows][:, columns]


def bilinear(x, row, column):
    h, w = x.shape
    grid = torch.stack([2 * column / (w - 1) - 1, 2 * row / (h - 1) - 1])
    return F.grid_sample(x[None, None], grid[None, None, None], padding_mode="border", align_corners=True).reshape(())


def edge_smoothness(disp, image):
    down = disp.diff(dim=0).abs() * torch.exp(-image.diff(dim=1).abs().mean(0))
    across = disp.diff(dim=1).abs() * torch.exp(-image.diff(dim=2).abs().mean(0))
    return down.mean() + across.mean()


def pair(draw, *shape):
    x = draw.uniform(*(shape or (2, 3, 14, 13)))
    return {"x": x, "y": x + draw.normal(*x.shape, scale=0.2)}


def small(draw):
    return pair(draw, 3, 2, 5, 6)


def one(draw):
    return {"x": draw.normal(3, 2, 5, 6)}


def plane(draw):
    return {"x": draw.normal(7, 5)}


LOSSES = {
    "ssim": (ssim, pair, {"window": 5, "sigma": 0.8, "data_range": 2.0, "k1": 0.1, "k2": 0.05}),
    "total_variation": (total_variation, one, {}),
    "gradient_loss": (gradient_loss, small, {}),
    "sobel_loss": (sobel_loss, small, {}),
    "charbonnier_image": (charbonnier_image, small, {"eps": 0.3}),
    "psnr": (psnr, small, {"data_range": 255.0}),
    "box_mean": (box_mean, plane, {"reach": 2}),
    "gaussian_mean": (gaussian_mean, plane, {"window": 3, "sigma": 0.7}),
    "filtered": (
        filtered,
        lambda draw: {**plane(draw), "down": draw.normal(3), "across": draw.normal(2)},
        {},
    ),
    "halved": (halved, plane, {}),
    "enlarged": (
        enlarged,
        lambda draw: {"coarse": draw.normal(2, 3), "like": draw.normal(5, 7)},
        {"factor": 3},
    ),
    "bilinear": (
        bilinear,
        lambda draw: {
            "x": draw.normal(4, 6),
            "row": draw.uniform(1, low=-1, high=4).squeeze(),
            "column": draw.uniform(1, low=-2, high=7).squeeze(),
        },
        {},
    ),
    "edge_smoothness": (
        edge_smoothness,
        lambda draw: {"disp": draw.uniform(5, 4), "image": draw.uniform(3, 5, 4)},
        {},
    ),
}
