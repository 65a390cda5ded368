"""Visual information fidelity in the pixel domain (Sheikh and Bovik, TIP 2006), as a loss for fusion."""

from __future__ import annotations

import torch
from torch import Tensor

from tcmoa.mef_ssim import blur, gaussian_window

NOISE = 2.0
"""Variance of the visual system's noise, in squared grey levels."""
SCALES = 3
"""As the metric has four, its first three: the fourth would see a handful of pixels of a training crop."""
FLOOR = 1e-2
"""Added to variances that stand below a fraction or in a logarithm: finite gradients on flat areas."""


def information_fidelity(source: Tensor, fused: Tensor) -> Tensor:
    """Share of the source's information that the result carries, [B]: 1 for the source itself, more with more contrast.

    Luma in 0..1, [B, 1, H, W]; as many of the scales as the size allows. Raises ValueError below 17 pixels a side.
    """
    a, b = source * 255, fused * 255
    carried = whole = a.new_zeros(a.shape[0])
    for scale in range(SCALES):
        size = 2 ** (4 - scale) + 1
        window = gaussian_window(size, size / 5)
        if scale:
            a, b = (image[:, :, ::2, ::2] for image in blur(torch.cat((a, b)), window).chunk(2))
        if min(a.shape[-2:]) < size:
            if not scale:
                raise ValueError(
                    f"images of {tuple(source.shape[-2:])} are smaller than the window of {size}"
                )
            break
        mean_a, mean_b, aa, bb, ab = blur(torch.cat((a, b, a * a, b * b, a * b)), window).chunk(5)
        var_a, var_b = (aa - mean_a**2).clamp(min=0), (bb - mean_b**2).clamp(min=0)
        covariance = ab - mean_a * mean_b
        gain = (covariance / (var_a + FLOOR)).clamp(min=0)
        rest = (var_b - gain * covariance).clamp(min=FLOOR)
        carried = carried + torch.log1p(gain**2 * var_a / (rest + NOISE)).sum((1, 2, 3))
        whole = whole + torch.log1p(var_a / NOISE).sum((1, 2, 3))
    return (carried + FLOOR) / (whole + FLOOR)
