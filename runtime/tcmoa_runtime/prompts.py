"""Prompt control, Eq. 8: prompt' = mu + alpha * (prompt - mu) +- beta, per token.

`scale` is alpha and `shift` is beta: numbers for the whole frame, or maps [gh, gw] with one number per token.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcmoa_runtime.contract import MAX_PROMPT
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import as_array
from tcmoa_runtime.typing import Frame, FrameSize, PromptLike, PromptMap

MASK_NEUTRAL: Final = 128
"""Gray level of a painted mask that stands for beta = 0."""
MASK_LEVELS_PER_UNIT: Final = 256
"""Gray levels of a painted mask per unit of beta: 0 is -0.5, 255 is +0.496."""


def prompt_map(value: PromptLike, name: str, batch: int, grid: tuple[int, int]) -> PromptMap:
    """Expand a number, a map [gh, gw] or maps [B, gh, gw] to contiguous float32 [B, gh, gw].

    Args:
        value: Alpha or beta of Eq. 8.
        name: Name of the value in error messages.
        batch: B.
        grid: (gh, gw).

    Raises:
        InputError: Wrong shape or type, NaN, infinity, or a magnitude beyond `MAX_PROMPT`; the subject is `name`.
    """
    array = as_array(value, name)
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"holds {array.dtype}; expected a number or a map {list(grid)} of numbers", subject=name
        )
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinity, which is refused below
        array = array.astype(np.float32)
    if array.shape not in ((), grid, (1, *grid), (batch, *grid)):
        raise InputError(
            f"shape {list(array.shape)}; expected a number, a map {list(grid)} or maps {[batch, *grid]} "
            f"(one number per token)",
            subject=name,
        )
    if not np.isfinite(array).all():
        raise InputError("holds NaN or infinity; expected finite numbers", subject=name)
    if np.abs(array).max() > MAX_PROMPT:
        worst = float(array.flat[np.abs(array).argmax()])
        raise InputError(f"holds {worst:g}; expected {-MAX_PROMPT:g} to {MAX_PROMPT:g}", subject=name)
    return np.ascontiguousarray(np.broadcast_to(array, (batch, *grid)))


def pool_to_grid(image: NDArray[Any], grid: tuple[int, int], token: int | None) -> PromptMap:
    """Average an image [H, W] over each token.

    Args:
        image: [H, W]; an image of the size of the grid is returned as float32 without averaging.
        grid: (gh, gw).
        token: Side of a token in pixels; the last tokens may extend beyond the image. None divides the image evenly
            (graphs of fit `resize`).

    Returns:
        float32 [gh, gw].
    """
    values = np.asarray(image, np.float64)
    if values.shape == grid:
        return values.astype(np.float32)

    def edges(length: int, parts: int) -> NDArray[np.int64]:
        if token is not None:
            return np.minimum(np.arange(parts + 1) * token, length)
        return np.round(np.linspace(0, length, parts + 1)).astype(np.int64)

    rows, cols = edges(values.shape[0], grid[0]), edges(values.shape[1], grid[1])
    # If the image is smaller than the grid, a token without a pixel gets the pixel that it lies in.
    ends_r, ends_c = np.maximum(rows[1:], rows[:-1] + 1), np.maximum(cols[1:], cols[:-1] + 1)
    starts_r = np.minimum(rows[:-1], values.shape[0] - 1)
    starts_c = np.minimum(cols[:-1], values.shape[1] - 1)
    ends_r, ends_c = np.minimum(ends_r, values.shape[0]), np.minimum(ends_c, values.shape[1])
    table = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = (
        table[ends_r[:, None], ends_c]
        - table[starts_r[:, None], ends_c]
        - table[ends_r[:, None], starts_c]
        + table[starts_r[:, None], starts_c]
    )
    means = sums / ((ends_r - starts_r)[:, None] * (ends_c - starts_c))
    return np.asarray(means, np.float32)


def mask_share(
    mask: ArrayLike, name: str, size: FrameSize, grid: tuple[int, int], token: int | None
) -> PromptMap:
    """Compute the share of each token that a mask covers.

    Args:
        mask: [H, W] or [gh, gw], bool or 0..1.
        name: Name of the value in error messages.
        size: (H, W) of the frame.
        grid: (gh, gw).
        token: As for `pool_to_grid`.

    Returns:
        Shares 0..1, float32 [gh, gw].

    Raises:
        InputError: The mask has another size or other values; the subject is `name`.
    """
    array = as_array(mask, name)
    if array.shape not in (size, grid):
        raise InputError(
            f"shape {list(array.shape)}; expected {list(size)} (the frame) or {list(grid)} (the grid of tokens)",
            subject=name,
        )
    if array.dtype.kind not in "biuf" or not ((array >= 0) & (array <= 1)).all():
        raise InputError("holds values outside 0..1; expected bool, or shares from 0 to 1", subject=name)
    return pool_to_grid(array.astype(np.float64), grid, token)


def mask_to_shift(mask: Frame) -> NDArray[np.float64]:
    """Convert a painted mask, uint8 [H, W], to beta per pixel: black is -0.5 (favors y), 128 is 0, 255 is +0.496."""
    return (mask.astype(np.float64) - MASK_NEUTRAL) / MASK_LEVELS_PER_UNIT
