"""Image losses of the three tasks and the regularizer of the prompts.

The loss of a task is a weighted sum of TERMS; PUBLISHED contains the paper's weights, and [losses] of a configuration
replaces them. One thing differs from the paper: horizontal and vertical gradients are compared separately. In their sum
an edge that rises in one direction and falls in the other vanishes. The terms `ssim_luma`, `edges`, `fidelity`, `seams`
and `chroma_x` are not in the paper.

Images are RGB in 0..1, [B, 3, H, W], at the size of the frame, not clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from tcmoa.fidelity import information_fidelity
from tcmoa.mef_ssim import blur, gaussian_window, mef_ssim
from tcmoa_runtime.contract import PATCH, WINDOW
from tcmoa_runtime.errors import InputError

RGB2GRAY = (0.2989, 0.587, 0.114)
"""Weights of R, G and B in MATLAB's rgb2gray, rounded as in its documentation.

`tcmoa_runtime.images.LUMA` (BT.601, 0.299) would change the losses with which the shipped weights were trained.
"""
_GRADIENT = ((-0.2, 0.0, 0.2), (-1.0, 0.0, 1.0), (-0.2, 0.0, 0.2))
WINDOW_PIXELS = WINDOW * PATCH // 2
"""Side of a window of the published size in frame pixels, with the x2 upsampling."""
STRIP = 4
"""Width in pixels of the strips that are compared on both sides of a border."""
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def luma(image: Tensor) -> Tensor:
    """Convert RGB [B, 3, H, W] to luma [B, 1, H, W]."""
    return (image * image.new_tensor(RGB2GRAY).view(3, 1, 1)).sum(1, keepdim=True)


def _filter_both(image: Tensor, kernel: Sequence[Sequence[float]]) -> Tensor:
    """Return the horizontal and vertical responses to a 3x3 kernel, summed over channels: [B, 2, H, W]."""
    horizontal = image.new_tensor(kernel)
    weight = torch.stack((horizontal, horizontal.T))[:, None].expand(-1, image.shape[1], -1, -1)
    return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), weight)


def signed_gradients(image: Tensor) -> Tensor:
    """Return the signed horizontal and vertical gradients, summed over RGB: [B, 2, H, W]."""
    return _filter_both(image, _GRADIENT)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean SSIM [] (Wang 2004): Gaussian window of 11, sigma 1.5, dynamic range 1, no padding."""
    window = gaussian_window()
    mean_a, mean_b = blur(a, window), blur(b, window)
    var_a, var_b = blur(a * a, window) - mean_a**2, blur(b * b, window) - mean_b**2
    covariance = blur(a * b, window) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (score / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def ssim_loss(x: Tensor, y: Tensor, fused: Tensor) -> Tensor:
    """Return 1 - SSIM, the mean over both sources."""
    return 1 - (ssim(x, fused) + ssim(y, fused)) / 2


def gradient_max_loss(x: Tensor, y: Tensor, fused: Tensor) -> Tensor:
    """Return the L1 distance of the result's signed gradients from the stronger source gradient at each pixel."""
    gx, gy = signed_gradients(x), signed_gradients(y)
    return F.l1_loss(signed_gradients(fused), torch.where(gx.abs() >= gy.abs(), gx, gy))


def sharper_patches(x: Tensor, y: Tensor) -> Tensor:
    """Compose an image from the sharper source in each 16x16 patch.

    Sharper is the source with the larger peak of |Sobel x| + |Sobel y| of luma. Height and width must be multiples
    of 16.
    """
    peaks = [
        F.max_pool2d(_filter_both(luma(source), _SOBEL).abs().sum(1, keepdim=True), PATCH)
        for source in (x, y)
    ]
    from_x = F.interpolate((peaks[0] >= peaks[1]).float(), scale_factor=float(PATCH), mode="nearest")
    return from_x * x + (1 - from_x) * y


def prompt_regularizer(prompts: Sequence[tuple[Tensor, Tensor]], encoder_moas: int) -> Tensor:
    """Return the loss of Eq. 7: the two prompts of a token should add up to 1. 0.75 encoder + 0.25 decoder."""
    errors = torch.stack([((px + py - 1) ** 2).mean() for px, py in prompts])
    return 0.75 * errors[:encoder_moas].mean() + 0.25 * errors[encoder_moas:].mean()


def edge_loss(x: Tensor, y: Tensor, fused: Tensor) -> Tensor:
    """Return 1 - Qabf of luma: the lost share of the sources' edges (Xydeas and Petrovic 2000).

    It differs from `tcmoa_calibration.metrics.qabf` in a minimum of the edge strengths and in the unsigned angle
    between gradients by atan2; both keep the gradient of the loss finite on flat images and parallel edges.
    """
    flow = [_filter_both(luma(image) * 255, _SOBEL) for image in (x, y, fused)]
    strength = [(g.square().sum(1) + 1e-3).sqrt() for g in flow]
    kept, total = x.new_zeros(()), x.new_zeros(())
    for source in (0, 1):
        ratio = torch.minimum(strength[source] / strength[2], strength[2] / strength[source])
        along = (flow[source] * flow[2]).sum(1).abs()
        across = (flow[source][:, 0] * flow[2][:, 1] - flow[source][:, 1] * flow[2][:, 0]).abs()
        aligned = 1 - torch.atan2(across, along + 1e-3) * (2 / math.pi)
        quality = 0.9994 * torch.sigmoid(15 * (ratio - 0.5)) * 0.9879 * torch.sigmoid(22 * (aligned - 0.8))
        kept = kept + (quality * strength[source]).sum()
        total = total + strength[source].sum()
    return 1 - kept / total


def fidelity_loss(x: Tensor, y: Tensor, fused: Tensor) -> Tensor:
    """Return 1 - information fidelity of luma, the mean over both sources; negative for more contrast than theirs."""
    both = [information_fidelity(luma(source), luma(fused)).mean() for source in (x, y)]
    return 1 - (both[0] + both[1]) / 2


def seam_loss(
    x: Tensor, y: Tensor, fused: Tensor, window: int = WINDOW_PIXELS, shift: int = WINDOW_PIXELS // 2
) -> Tensor:
    """Return the mean tone step at the borders of windows that exceeds the step of both sources there.

    A step is the difference, in each channel, between the means of two strips of 4x8 pixels on both sides of a border.
    Borders of shifted windows count too. The loss is 0 for images without such steps or without a border.

    Args:
        x: First source.
        y: Second source.
        fused: The result.
        window: Side of a window in pixels, a multiple of 4.
        shift: Shift of the shifted windows in pixels, a multiple of 4.

    Raises:
        InputError: `window` or `shift` is not a multiple of 4.
    """
    if window % STRIP or shift % STRIP:
        raise InputError(f"windows of {window} pixels, shifted by {shift}; expected multiples of {STRIP}")
    total, count = fused.new_zeros(()), 0
    for transposed in (False, True):
        strips = [
            F.avg_pool2d(image.mT if transposed else image, (2 * STRIP, STRIP)) for image in (x, y, fused)
        ]  # [B, 3, H/8, W/4]
        for first in {shift, window} - {0}:
            border, every = first // STRIP, window // STRIP
            of_x, of_y, of_fused = (
                (s[..., border::every] - s[..., border - 1 : -1 : every]).abs() for s in strips
            )
            total = total + (of_fused - torch.maximum(of_x, of_y)).clamp(min=0).sum()
            count += of_fused.numel()
    return total / max(count, 1)


def chroma_loss(x: Tensor, _: Tensor, fused: Tensor) -> Tensor:
    """Return the L1 distance between the chroma (RGB minus luma) of the result and of x."""
    return F.l1_loss(fused - luma(fused), x - luma(x))


Term: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def _against_sharper(distance: Callable[[Tensor, Tensor], Tensor]) -> Term:
    return lambda x, y, fused: distance(fused, sharper_patches(x, y))


TERMS: Final[dict[str, Term]] = {
    "gradient_max": gradient_max_loss,
    "gradient_sharper": _against_sharper(
        lambda fused, target: F.l1_loss(signed_gradients(fused), signed_gradients(target))
    ),
    "pixel_max": lambda x, y, fused: F.l1_loss(fused, torch.maximum(x, y)),
    "pixel_average": lambda x, y, fused: F.l1_loss(fused, (x + y) / 2),
    "pixel_sharper": _against_sharper(F.l1_loss),
    "ssim": ssim_loss,
    "ssim_luma": lambda x, y, fused: ssim_loss(luma(x), luma(y), luma(fused)),
    "ssim_sharper": _against_sharper(lambda fused, target: 1 - ssim(target, fused)),
    "mef_ssim": lambda x, y, fused: 1 - mef_ssim(luma(x), luma(y), luma(fused)).mean(),
    "edges": edge_loss,
    "fidelity": fidelity_loss,
    "seams": seam_loss,
    "chroma_x": chroma_loss,
}
"""Losses by name: functions of x, y and the result, RGB in 0..1 [B, 3, H, W], to a scalar.

The ideal value is 0, which `ssim` and `edges` do not reach for two different sources."""

LossWeights: TypeAlias = Mapping[str, float]
"""Weights of TERMS by name."""

WARMUP: Final[Mapping[str, LossWeights]] = {
    "vif": {"pixel_average": 3, "ssim": 1},
    "mef": {"pixel_average": 3, "ssim": 1},
    "mff": {"pixel_sharper": 1, "ssim_sharper": 1},
}
"""Published weights of TERMS in the first epochs, by task."""

PUBLISHED: Final[Mapping[str, LossWeights]] = {
    "vif": {"gradient_max": 4.5, "pixel_max": 1.5, "ssim": 2},
    "mef": {"gradient_max": 5.4, "pixel_average": 5.4, "mef_ssim": 3.6},
    "mff": {"gradient_sharper": 60, "pixel_sharper": 20, "ssim_sharper": 3},
}
"""Published weights of TERMS after WARMUP, by task."""


def weighted_terms(
    weights: LossWeights,
    x: Tensor,
    y: Tensor,
    fused: Tensor,
    *,
    window: int = WINDOW_PIXELS,
    shift: int = WINDOW_PIXELS // 2,
) -> dict[str, Tensor]:
    """Return the terms named in `weights`, each times its weight; their sum is the image loss.

    `window` and `shift` are `TCMoA.window_pixels` and `TCMoA.shift_pixels`, for the term `seams`.
    """
    terms: dict[str, Term] = {**TERMS, "seams": partial(seam_loss, window=window, shift=shift)}
    return {name: weight * terms[name](x, y, fused) for name, weight in weights.items()}


REGULARIZER: Final = "prompts"
"""Name of the prompt regularizer in a configuration and in the log."""
REGULARIZER_WEIGHT = {"vif": 1.0, "mef": 1.8, "mff": 1.0}
"""Published weight of the prompt regularizer, by task."""
