"""Visual information fidelity in the pixel domain (Sheikh and Bovik, TIP 2006), as a loss for fusion."""

from __future__ import annotations

import torch
from torch import Tensor

from tcmoa.mef_ssim import blur, gaussian_window
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import format_size

NOISE = 2.0
"""Variance of the visual system's noise, in squared gray levels."""
SCALES = 3
"""The metric has four scales; the fourth would see only a few pixels of a training crop."""
FLOOR = 1e-2
"""Added to variances in denominators and logarithms: keeps gradients finite on flat areas."""


def information_fidelity(source: Tensor, fused: Tensor) -> Tensor:
    """Return the share of the source's information that the result carries, [B].

    It is 1 for the source itself and above 1 for more contrast. Uses as many of the scales as the size allows.

    Args:
        source: Luma of a source, [B, 1, H, W] in 0..1.
        fused: Luma of the result, of the same shape.

    Raises:
        InputError: A side is shorter than 17 pixels.
    """
    a, b = source * 255, fused * 255
    carried = total = a.new_zeros(a.shape[0])
    for scale in range(SCALES):
        size = 2 ** (4 - scale) + 1
        window = gaussian_window(size, size / 5)
        if scale:
            a, b = (image[:, :, ::2, ::2] for image in blur(torch.cat((a, b)), window).chunk(2))
        if min(a.shape[-2:]) < size:
            if not scale:
                raise InputError(
                    f"images of {format_size(source.shape[-2:])}; expected at least {size} pixels a side"
                )
            break
        mean_a, mean_b, aa, bb, ab = blur(torch.cat((a, b, a * a, b * b, a * b)), window).chunk(5)
        var_a, var_b = (aa - mean_a**2).clamp(min=0), (bb - mean_b**2).clamp(min=0)
        covariance = ab - mean_a * mean_b
        gain = (covariance / (var_a + FLOOR)).clamp(min=0)
        rest = (var_b - gain * covariance).clamp(min=FLOOR)
        carried = carried + torch.log1p(gain**2 * var_a / (rest + NOISE)).sum((1, 2, 3))
        total = total + torch.log1p(var_a / NOISE).sum((1, 2, 3))
    return (carried + FLOOR) / (total + FLOOR)
