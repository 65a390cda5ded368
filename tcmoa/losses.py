"""Image losses of the three tasks and the regulariser of the prompts, with the published weights.

One thing differs: gradients are compared in each direction on its own, not as the sum of both, in which an edge
that rises in one direction and falls in the other vanishes.

Images are RGB in 0..1, [B, 3, H, W], after the prediction was resized back to the frame; not clipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tcmoa.mef_ssim import blur, gaussian_window, mef_ssim
from tcmoa_runtime.contract import PATCH

LUMA = (0.2989, 0.587, 0.114)
_GRADIENT = ((-0.2, 0.0, 0.2), (-1.0, 0.0, 1.0), (-0.2, 0.0, 0.2))
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def luma(image: Tensor) -> Tensor:
    """[B, 3, H, W] to [B, 1, H, W]."""
    return (image * image.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def _filter_both(image: Tensor, kernel: Sequence[Sequence[float]]) -> Tensor:
    """Horizontal and vertical response to a 3x3 kernel, summed over channels: [B, 2, H, W]."""
    horizontal = image.new_tensor(kernel)
    weight = torch.stack((horizontal, horizontal.T))[:, None].expand(-1, image.shape[1], -1, -1)
    return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), weight)


def signed_gradients(image: Tensor) -> Tensor:
    """Signed horizontal and vertical gradients, summed over RGB: [B, 2, H, W]."""
    return _filter_both(image, _GRADIENT)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM [] (Wang 2004): Gaussian window 11, sigma 1.5, dynamic range 1, no padding."""
    window = gaussian_window()
    mean_a, mean_b = blur(a, window), blur(b, window)
    var_a, var_b = blur(a * a, window) - mean_a**2, blur(b * b, window) - mean_b**2
    covariance = blur(a * b, window) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (score / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def ssim_loss(x: Tensor, y: Tensor, fused: Tensor) -> Tensor:
    """1 - SSIM, mean over both sources."""
    return 1 - (ssim(x, fused) + ssim(y, fused)) / 2


def gradient_max_loss(x: Tensor, y: Tensor, fused: Tensor) -> Tensor:
    """L1 between the result's signed gradients and, per pixel, the source gradient of larger magnitude."""
    gx, gy = signed_gradients(x), signed_gradients(y)
    return F.l1_loss(signed_gradients(fused), torch.where(gx.abs() >= gy.abs(), gx, gy))


def sharper_patches(x: Tensor, y: Tensor) -> Tensor:
    """The image that takes each 16x16 patch from the source with the larger peak |Sobel x| + |Sobel y| of luma.

    Height and width must be multiples of 16.
    """
    peaks = [
        F.max_pool2d(_filter_both(luma(source), _SOBEL).abs().sum(1, keepdim=True), PATCH)
        for source in (x, y)
    ]
    from_x = F.interpolate((peaks[0] >= peaks[1]).float(), scale_factor=float(PATCH), mode="nearest")
    return from_x * x + (1 - from_x) * y


def prompt_regulariser(prompts: Sequence[tuple[Tensor, Tensor]], encoder_moas: int) -> Tensor:
    """Eq. 7: the two prompts of a token should add up to 1; 0.75 encoder + 0.25 decoder."""
    errors = torch.stack([((px + py - 1) ** 2).mean() for px, py in prompts])
    return 0.75 * errors[:encoder_moas].mean() + 0.25 * errors[encoder_moas:].mean()


def warmup_loss(task: str, x: Tensor, y: Tensor, fused: Tensor) -> dict[str, Tensor]:
    """Weighted image losses by name for the warm-up epochs of `task`."""
    if task == "mff":
        target = sharper_patches(x, y)
        return {"pixel": F.l1_loss(fused, target), "ssim": 1 - ssim(target, fused)}
    return {"pixel": 3 * F.l1_loss(fused, (x + y) / 2), "ssim": ssim_loss(x, y, fused)}


def task_loss(task: str, x: Tensor, y: Tensor, fused: Tensor) -> dict[str, Tensor]:
    """Weighted image losses by name after warm-up; their sum is the task's loss but for the regulariser."""
    if task == "vif":
        return {
            "gradient": 4.5 * gradient_max_loss(x, y, fused),
            "pixel": 1.5 * F.l1_loss(fused, torch.maximum(x, y)),
            "ssim": 2 * ssim_loss(x, y, fused),
        }
    if task == "mef":
        return {
            "gradient": 5.4 * gradient_max_loss(x, y, fused),
            "pixel": 5.4 * F.l1_loss(fused, (x + y) / 2),
            "ssim": 3.6 * (1 - mef_ssim(luma(x), luma(y), luma(fused)).mean()),
        }
    target = sharper_patches(x, y)
    return {
        "gradient": 60 * F.l1_loss(signed_gradients(fused), signed_gradients(target)),
        "pixel": 20 * F.l1_loss(fused, target),
        "ssim": 3 * (1 - ssim(target, fused)),
    }


REGULARISER_WEIGHT = {"vif": 1.0, "mef": 1.8, "mff": 1.0}
"""Weight of the prompt regulariser beside `task_loss`."""
