"""How a frame of any size is brought to whole attention windows: sizes and positions, no pixels."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from tcmoa_runtime.contract import token_grid
from tcmoa_runtime.errors import InputError

WindowFit: TypeAlias = Literal["pad", "crops", "resize"]
"""Pad the edge to whole windows, fuse crops of 448x448, or resize to whole windows."""

CROP = 448
"""Side of the authors' crops in pixels."""


def choose_fit(height: int, width: int, *, as_published: bool) -> WindowFit:
    """Return `pad`, or with `as_published` the authors' choice: `crops` where they fit, else `resize`."""
    if not as_published:
        return "pad"
    return "crops" if height > CROP and width > CROP else "resize"


def crop_starts(length: int) -> list[int]:
    """Return the first pixel of each crop along an axis; the last crop is aligned to the border.

    Raises:
        InputError: The axis is shorter than a crop.
    """
    if length < CROP:
        raise InputError(f"{length} pixels along an axis; expected at least {CROP}, the side of a crop")
    starts = list(range(0, length - CROP + 1, CROP))
    if starts[-1] + CROP < length:
        starts.append(length - CROP)
    return starts


def padded_size(height: int, width: int, window: int) -> tuple[int, int]:
    """Round both sides up to whole windows of `window` pixels."""
    return math.ceil(height / window) * window, math.ceil(width / window) * window


def resized_size(height: int, width: int, window: int) -> tuple[int, int]:
    """Round both sides to the nearest whole windows of `window` pixels, at least one."""
    return max(1, round(height / window)) * window, max(1, round(width / window)) * window


def grid_of_frame(height: int, width: int, fit: WindowFit, *, upsample: bool, window: int) -> tuple[int, int]:
    """Return the grid (gh, gw) of the prompt maps: tokens that cover the frame, with `resize` the resized frame."""
    if fit == "resize":
        height, width = resized_size(height, width, window)
    return token_grid(height, width, upsample)
