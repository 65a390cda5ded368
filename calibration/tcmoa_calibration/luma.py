"""Images as they come, checked; and luma with its fractions kept, to measure small parts of a grey level."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.metrics.frames import FULL_16_TO_8, Plane
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import LUMA, as_array


def check_image(image: Any, name: str, dtypes: tuple[type[np.generic], ...], wanted: str) -> NDArray[Any]:
    """[H, W], [H, W, 1] or [H, W, 3] of one of `dtypes` as [H, W] or [H, W, 3].

    Raises InputError, naming `name`, for another dtype (`wanted` says which it may be) or shape and for no pixels.
    """
    array = as_array(image, name)
    if array.dtype not in dtypes:
        raise InputError(f"{name} holds {array.dtype}: {wanted}; scale it to 0..255, round and convert it")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] != 3):
        raise InputError(f"{name} has shape {list(array.shape)}: expected [H, W], [H, W, 1] or [H, W, 3]")
    if array.size == 0:
        raise InputError(f"{name} has shape {list(array.shape)}: it holds no pixels")
    return array


def exact_luma(image: Any, name: str) -> Plane:
    """[H, W], [H, W, 1] or RGB [H, W, 3] to its luma (BT.601) [H, W] in grey levels 0..255, float64, not rounded.

    uint8 or uint16; the latter is divided by 257. Raises InputError, naming `name`, for another dtype or shape and for
    an image without pixels.
    """
    array = check_image(image, name, (np.uint8, np.uint16), "expected uint8 or uint16")
    unit = 1.0 if array.dtype == np.uint8 else 1 / FULL_16_TO_8
    luma: Plane = array * unit if array.ndim == 2 else array @ (np.asarray(LUMA) * unit)
    return luma
