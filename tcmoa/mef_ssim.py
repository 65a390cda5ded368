"""MEF-SSIM of Ma, Zeng and Wang, "Perceptual quality assessment for multi-exposure image fusion", TIP 2015."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import format_size

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001)
STABILIZER = (0.03 * 255) ** 2
MAX_POWER = 10.0


def gaussian_window(size: int = 11, sigma: float = 1.5) -> Tensor:
    """Return a normalized 1-D Gaussian [size]."""
    position = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    window = torch.exp(-(position**2) / (2 * sigma**2))
    return window / window.sum()


def blur(image: Tensor, window: Tensor) -> Tensor:
    """Filter [B, C, H, W] with a 1-D window along both axes, without padding."""
    channels = image.shape[1]
    kernel = window.to(image).expand(channels, 1, -1)
    image = F.conv2d(image, kernel[..., None], groups=channels)
    return F.conv2d(image, kernel[:, :, None], groups=channels)


def _one_scale(x: Tensor, y: Tensor, fused: Tensor, window: Tensor) -> Tensor:
    """Return the mean structural similarity [B] at one scale; all inputs are [B, 1, H, W] in 0..255."""
    mean_x, mean_y, mean_f = blur(x, window), blur(y, window), blur(fused, window)

    def covariance(a: Tensor, b: Tensor, mean_a: Tensor, mean_b: Tensor) -> Tensor:
        return blur(a * b, window) - mean_a * mean_b

    var_x = covariance(x, x, mean_x, mean_x).clamp(min=0)
    var_y = covariance(y, y, mean_y, mean_y).clamp(min=0)
    var_f = covariance(fused, fused, mean_f, mean_f).clamp(min=0)
    xy = covariance(x, y, mean_x, mean_y)
    xf, yf = covariance(x, fused, mean_x, mean_f), covariance(y, fused, mean_y, mean_f)

    # The square roots and ratios below depend on the sources only, so no gradient flows through them.
    # `tiny` is a variance of gray levels: above the rounding of float32 (4e-3 here), far below STABILIZER.
    tiny = 0.1
    norm_x, norm_y = (var_x + tiny).sqrt(), (var_y + tiny).sqrt()
    consistency = (var_x + var_y + 2 * xy).clamp(min=0).sqrt() / (norm_x + norm_y)
    power = torch.tan(math.pi / 2 * consistency.clamp(0, 1)).clamp(0, MAX_POWER)
    largest = torch.maximum(norm_x, norm_y)
    # Weights ||.||^p relative to the larger norm, so that the power cannot overflow.
    weight_x, weight_y = (norm_x / largest) ** power, (norm_y / largest) ** power
    total = weight_x + weight_y
    weight_x, weight_y = weight_x / total / norm_x, weight_y / total / norm_y
    length = weight_x**2 * var_x + weight_y**2 * var_y + 2 * weight_x * weight_y * xy
    length = length.clamp(min=1e-4).sqrt()
    covariance_f = largest * (weight_x * xf + weight_y * yf) / length
    quality = (2 * covariance_f + STABILIZER) / (largest**2 + var_f + STABILIZER)
    return quality.mean((1, 2, 3))


def mef_ssim(x: Tensor, y: Tensor, fused: Tensor) -> Tensor:
    """Return the multi-scale MEF-SSIM of each image [B]; 1 is the best value.

    Uses as many of the three scales as the size allows (11 pixels at each), with their weights renormalized.
    Gradients flow to `fused`.

    Args:
        x: Luma of the first source, [B, 1, H, W] in 0..1.
        y: Luma of the second source.
        fused: Luma of the result.

    Raises:
        InputError: A side is shorter than 11 pixels.
    """
    window = gaussian_window()
    scales = [s for s in range(len(SCALE_WEIGHTS)) if min(x.shape[-2:]) >> s >= window.numel()]
    if not scales:
        raise InputError(
            f"images of {format_size(x.shape[-2:])}; expected at least {window.numel()} pixels a side"
        )
    weights = torch.tensor([SCALE_WEIGHTS[s] for s in scales])
    weights = weights / weights.sum()
    # Variances do not depend on the offset; centered values lose fewer digits.
    x, y, fused = (image * 255 - 127.5 for image in (x, y, fused))
    result = torch.ones(x.shape[0], device=x.device)
    for scale in scales:
        if scale:
            x, y, fused = (F.avg_pool2d(image, 2) for image in (x, y, fused))
        result = result * _one_scale(x, y, fused, window).clamp(min=1e-3) ** weights[scale]
    return result
