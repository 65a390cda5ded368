"""Training against flicker, and for prompts that steer: what the rule's picture alone does not teach.

- Twins are the same crop twice, with independent noise, as two frames of a video of a still scene. What changes between
  the two results beyond what changes in a source is flicker; it is measured as in `tcmoa_calibration.flicker`.
- A steered step adds a random number to all prompts (beta of Eq. 8), and its target moves as far towards the source
  that the number favors.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from tcmoa.model import to_luma

EXCESS: Final = "flicker"
PUMPING: Final = "pumping"

TWIN_TERMS: Final = {EXCESS: 50.0, PUMPING: 120.0}
"""Weights of the twins' losses, by name in the log."""

NOISE: Final = (0.4, 2.6)
"""Least and largest standard deviation of the noise of single pixels, in gray levels."""

BLOCK_NOISE: Final = 0.15
"""Standard deviation of noise of blocks of 8x8 pixels, as of video compression, relative to that of pixels."""

OFFSET: Final = 0.3
"""Standard deviation of the change of brightness of a whole frame, in gray levels."""

BLOCK: Final = 16
"""Side in pixels of the blocks whose means must not pump."""

MAX_SHIFT: Final = 0.7
"""Largest number that is added to the prompts."""

FULL_SHIFT: Final = 0.6
"""Number from which on the target is one source alone."""


def make_twins(images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Replace the second half of a batch by its first half, and add noise to sources.

    Args:
        images: x, y and the target, each [2n, C, H, W] in 0..1, H and W multiples of 8. Noise is added to x and y.

    Returns:
        The same, so that items i and n + i show the same crop.
    """
    half = images[0].shape[0] // 2
    x, y, *others = (image[:half].repeat(2, 1, 1, 1) for image in images)
    return _with_noise(x), _with_noise(y), *others


def _with_noise(image: Tensor) -> Tensor:
    count, _, height, width = image.shape
    plane = torch.randn(count, 1, height, width, device=image.device)
    blocks = torch.randn(count, 1, height // 8, width // 8, device=image.device) * BLOCK_NOISE
    deviation = NOISE[0] + (NOISE[1] - NOISE[0]) * torch.rand(count, 1, 1, 1, device=image.device)
    noise = deviation * (plane + F.interpolate(blocks, scale_factor=8.0, mode="nearest"))
    noise = noise + OFFSET * torch.randn(count, 1, 1, 1, device=image.device)
    return (image + noise / 255).clamp(0, 1)


def twin_terms(x: Tensor, y: Tensor, fused: Tensor) -> dict[str, Tensor]:
    """Return the weighted flicker between the two halves of a batch of twins, RGB [2n, 3, H, W] in 0..1."""
    changes = [first - second for first, second in (to_luma(image).chunk(2) for image in (x, y, fused))]
    means = [F.avg_pool2d(change, BLOCK) for change in changes]
    return {
        EXCESS: TWIN_TERMS[EXCESS] * _excess(*changes),
        PUMPING: TWIN_TERMS[PUMPING] * _excess(*means),
    }


def _excess(x: Tensor, y: Tensor, fused: Tensor) -> Tensor:
    return F.relu(fused.abs() - torch.maximum(x.abs(), y.abs())).mean()


def steer(x: Tensor, y: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """Draw a number to add to the prompts, and move the target towards x if it is positive, else towards y.

    Args:
        x: First source, [B, 3, H, W] in 0..1.
        y: Second source.
        target: The teacher's picture, luma [B, 1, H, W].

    Returns:
        The number, and the target that belongs to it.
    """
    shift = float((2 * torch.rand(()) - 1) * MAX_SHIFT)
    share = min(abs(shift) / FULL_SHIFT, 1.0)
    return shift, target + share * (to_luma(x if shift > 0 else y) - target)
