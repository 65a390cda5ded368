"""Prompt control, Eq. 8: prompt' = mu + alpha*(prompt - mu) +- beta, per token.

`scale` is alpha and `shift` is beta: numbers for the whole frame, or maps [gh, gw] with one number per token.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import Frame, as_array

Map = NDArray[np.float32]

LARGEST = 16.0
"""Beyond this alpha or beta, either way, the image is long destroyed, and 16-bit arithmetic may overflow."""

MASK_ZERO = 128
"""Grey level of a painted mask that stands for beta = 0."""
MASK_UNIT = 256
"""Grey levels of a painted mask per unit of beta: 0 is -0.5, 255 is +0.496."""


def prompt_map(value: Any, name: str, batch: int, grid: tuple[int, int]) -> Map:
    """A number, a map [gh, gw] or maps [B, gh, gw] as contiguous float32 [B, gh, gw].

    Raises InputError naming `name` on another shape, on text and the like, on NaN or infinity, and beyond
    `LARGEST`.
    """
    array = as_array(value, name)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {array.dtype}: expected a number or a map {list(grid)} of numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and is refused as that
        array = array.astype(np.float32)
    if array.shape not in ((), grid, (1, *grid), (batch, *grid)):
        raise InputError(
            f"{name} has shape {list(array.shape)}: expected a number, a map {list(grid)} "
            f"or maps {[batch, *grid]} (one number per token)"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinity: expected finite numbers")
    if np.abs(array).max() > LARGEST:
        worst = float(array.flat[np.abs(array).argmax()])
        raise InputError(f"{name} holds {worst:g}: expected {-LARGEST:g} to {LARGEST:g}")
    return np.ascontiguousarray(np.broadcast_to(array, (batch, *grid)))


def pool_to_grid(image: NDArray[Any], grid: tuple[int, int], token: int | None) -> Map:
    """Mean of an image [H, W] over each token, float32 [gh, gw].

    With `token` a token is that many pixels square and the last ones may cover the frame in part; without, the
    image is divided evenly (fit `resize`). An image of the grid's own size is taken as it is.
    """
    values = np.asarray(image, np.float64)
    if values.shape == grid:
        return values.astype(np.float32)

    def edges(length: int, parts: int) -> NDArray[np.int64]:
        if token is not None:
            return np.minimum(np.arange(parts + 1) * token, length)
        return np.round(np.linspace(0, length, parts + 1)).astype(np.int64)

    rows, cols = edges(values.shape[0], grid[0]), edges(values.shape[1], grid[1])
    # An image smaller than the grid leaves tokens without a pixel of their own: they take the one they lie in.
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


def mask_share(mask: Any, name: str, size: tuple[int, int], grid: tuple[int, int], token: int | None) -> Map:
    """How much of each token a mask covers, float32 [gh, gw]; the mask is [H, W] or [gh, gw], bool or 0..1.

    Raises InputError naming `name` when it has another size or holds something else.
    """
    array = as_array(mask, name)
    if array.shape not in (size, grid):
        raise InputError(
            f"{name} has shape {list(array.shape)}: expected the frame's {list(size)} or the grid's {list(grid)}"
        )
    if array.dtype.kind not in "biuf" or not ((array >= 0) & (array <= 1)).all():
        raise InputError(f"{name} holds something else than 0..1: expected bool, or shares from 0 to 1")
    return pool_to_grid(array.astype(np.float64), grid, token)


def mask_to_shift(mask: Frame) -> NDArray[np.float64]:
    """A painted mask, uint8 [H, W], as beta per pixel: black -0.5 (towards y), 128 none, white +0.5 (towards x)."""
    return (mask.astype(np.float64) - MASK_ZERO) / MASK_UNIT


def parse_number(text: str, name: str) -> float:
    """A finite number from the command line, or InputError."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{name} is {text!r}: expected a number") from None
    if not math.isfinite(value):
        raise InputError(f"{name} is {text}: expected a finite number")
    return value
