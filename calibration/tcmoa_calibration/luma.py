"""Luma with its fractions kept, for what is measured in small parts of a grey level."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcmoa_calibration.metrics.frames import FULL_16_TO_8, Plane
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import LUMA, as_array


def exact_luma(image: Any, name: str) -> Plane:
    """[H, W], [H, W, 1] or RGB [H, W, 3] to its luma (BT.601) [H, W] in grey levels 0..255, float64, not rounded.

    uint8 or uint16; the latter is divided by 257. Raises InputError, naming `name`, for another dtype or shape and for
    an image without pixels.
    """
    array = as_array(image, name)
    if array.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{name} holds {array.dtype}: expected uint8 or uint16; scale it to 0..255, round and convert it"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] != 3):
        raise InputError(f"{name} has shape {list(array.shape)}: expected [H, W], [H, W, 1] or [H, W, 3]")
    if array.size == 0:
        raise InputError(f"{name} has shape {list(array.shape)}: it holds no pixels")
    unit = 1.0 if array.dtype == np.uint8 else 1 / FULL_16_TO_8
    luma: Plane = array * unit if array.ndim == 2 else array @ (np.asarray(LUMA) * unit)
    return luma
