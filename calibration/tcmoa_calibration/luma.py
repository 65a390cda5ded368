"""Images checked for the measurements of this package, and their luma.

Luma is Y' of BT.601 with the weights of `tcmoa_runtime.images.LUMA`, the same that the exported graphs use.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import LUMA, as_array
from tcmoa_runtime.typing import Frame, ImageLike

Plane: TypeAlias = NDArray[np.float64]
"""[H, W], gray levels from 0 to 255 or values computed from them."""

ImageArray: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""A checked image, [H, W] or RGB [H, W, 3]."""

FULL_16_TO_8: Final = 257
"""65535 / 255: divides the full range of 16 bits down to that of 8."""

_CONVERT: Final = "Scale it to 0..255, round and convert it to uint8"


def check_image(
    image: ImageLike, name: str, dtypes: tuple[type[np.generic], ...], *, drop_alpha: bool = False
) -> NDArray[Any]:
    """Check an image and return it as [H, W] or [H, W, 3].

    Args:
        image: An image [H, W], [H, W, 1] or [H, W, 3].
        name: Subject of the errors.
        dtypes: Types of values that are accepted.
        drop_alpha: Accept [H, W, 4], and drop the fourth channel.

    Raises:
        InputError: Another dtype or shape, or an image without pixels.
    """
    array = as_array(image, name)
    if array.dtype not in dtypes:
        is_float = array.dtype.kind == "f"
        holding = " with NaN or infinity" if is_float and not np.isfinite(array).all() else ""
        accepted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise InputError(f"{array.dtype}{holding}; expected {accepted}", subject=name, remedy=_CONVERT)
    shape = list(array.shape)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    elif drop_alpha and array.ndim == 3 and array.shape[2] == 4:
        array = array[..., :3]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] != 3):
        accepted = (
            "[H, W], [H, W, 1], [H, W, 3] or [H, W, 4]" if drop_alpha else "[H, W], [H, W, 1] or [H, W, 3]"
        )
        raise InputError(f"shape {shape}; expected {accepted}", subject=name)
    if array.size == 0:
        raise InputError(f"shape {shape}; expected at least one pixel", subject=name)
    return array


def reduce_to_uint8(image: ImageArray) -> Frame:
    """Convert an image to uint8: 16 bits are divided by 257 and rounded, 8 bits stay."""
    if image.dtype == np.uint16:
        return ((image.astype(np.uint32) + FULL_16_TO_8 // 2) // FULL_16_TO_8).astype(np.uint8)
    return image.astype(np.uint8, copy=False)


def rounded_luma(image: Frame) -> Plane:
    """Compute the luma of [H, W] or RGB [H, W, 3], rounded to whole gray levels as `rgb2gray` does."""
    if image.ndim == 2:
        return image.astype(np.float64)
    luma: Plane = np.floor(image.astype(np.float64) @ np.asarray(LUMA) + 0.5)
    return luma


def exact_luma(image: ImageLike, name: str) -> Plane:
    """Compute the luma of an image without rounding, to measure small parts of a gray level.

    Args:
        image: uint8 or uint16 (divided by 257), [H, W], [H, W, 1] or RGB [H, W, 3].
        name: Subject of the errors.

    Returns:
        Luma [H, W] in gray levels from 0 to 255.

    Raises:
        InputError: Another dtype or shape, or an image without pixels.
    """
    array = check_image(image, name, (np.uint8, np.uint16))
    unit = 1.0 if array.dtype == np.uint8 else 1 / FULL_16_TO_8
    luma: Plane = array * unit if array.ndim == 2 else array @ (np.asarray(LUMA) * unit)
    return luma
