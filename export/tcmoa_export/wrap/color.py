"""Luma and chroma of BT.601 as matrices, which the graph and the plain computation share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.images import LUMA
from tcmoa_runtime.options.wrap import LumaKind

Matrix = NDArray[np.float32]

_R, _G, _B = LUMA


@dataclass(frozen=True)
class ColorSpace:
    """Luma and chroma of RGB frames in 0..255.

    luma = rgb @ luma + offset; chroma = rgb @ chroma + luma_of_chroma * luma, with 0 for gray;
    rgb = scale * (luma - offset) + chroma @ back.

    Attributes:
        luma: float32 [3, 1].
        offset: Luma of black.
        chroma: Cb and Cr, float32 [3, 2].
        luma_of_chroma: Share of the luma in both, float32 [2].
        scale: Steps of RGB for a step of luma.
        back: float32 [2, 3].
        in_8_bits: Whether luma, chroma and RGB are whole numbers in between.
        fixed_point: Steps of 1 in which each product is rounded, before the sum is truncated; 0 where the sum of exact
            products is rounded.
    """

    luma: Matrix
    offset: float
    chroma: Matrix
    luma_of_chroma: Matrix
    scale: float
    back: Matrix
    in_8_bits: bool
    fixed_point: int = 0


def _matrix(values: Sequence[float] | Sequence[Sequence[float]]) -> Matrix:
    return np.asarray(values, np.float32)


def _full(*, in_8_bits: bool) -> ColorSpace:
    """JPEG's: chroma of full range, Cb and Cr of BT.601 times 255."""
    cb, cr = 0.5 / (1 - _B), 0.5 / (1 - _R)
    return ColorSpace(
        luma=_matrix([[_R], [_G], [_B]]),
        offset=0.0,
        chroma=_matrix([[-_R * cb, (1 - _R) * cr], [-_G * cb, -_G * cr], [(1 - _B) * cb, -_B * cr]]),
        luma_of_chroma=_matrix([0, 0]),
        scale=1.0,
        back=_matrix([[0, -_B / _G / cb, 1 / cb], [1 / cr, -_R / _G / cr, 0]]),
        in_8_bits=in_8_bits,
    )


def _pillow() -> ColorSpace:
    """PIL's convert("YCbCr"): products in steps of 1/64, sums truncated."""
    return replace(
        _full(in_8_bits=True),
        chroma=_matrix([[-0.16874, 0.5], [-0.33126, -0.41869], [0.5, -0.08131]]),
        back=_matrix([[0, -0.34414, 1.772], [1.402, -0.71414, 0]]),
        fixed_point=64,
    )


def _opencv() -> ColorSpace:
    """cv2.cvtColor of uint8: chroma is computed from the rounded luma, with OpenCV's constants."""
    return ColorSpace(
        luma=_matrix([[_R], [_G], [_B]]),
        offset=0.0,
        chroma=_matrix([[0, 0.713], [0.0, 0.0], [0.564, 0]]),
        luma_of_chroma=_matrix([-0.564, -0.713]),
        scale=1.0,
        back=_matrix([[0, -0.344, 1.773], [1.403, -0.714, 0]]),
        in_8_bits=True,
    )


def _limited(*, in_8_bits: bool) -> ColorSpace:
    """BT.601 in its limited range, as MATLAB's rgb2ycbcr: luma 16 to 235, chroma 16 to 240."""
    full = _full(in_8_bits=in_8_bits)
    luma, chroma = np.float32(219 / 255), np.float32(224 / 255)
    return ColorSpace(
        luma=full.luma * luma,
        offset=16.0,
        chroma=full.chroma * chroma,
        luma_of_chroma=full.luma_of_chroma,
        scale=255 / 219,
        back=full.back / chroma,
        in_8_bits=in_8_bits,
    )


COLOR_SPACES: Final[dict[LumaKind, ColorSpace]] = {
    "full": _full(in_8_bits=False),
    "limited": _limited(in_8_bits=False),
    "opencv": _opencv(),
    "pillow": _pillow(),
    "matlab": _limited(in_8_bits=True),
}
"""By the convention `luma`."""

CHROMA_EPSILON: Final = 1e-6
"""Least sum of saturations: gray in both sources stays gray."""

SPAN_EPSILON: Final = 1e-12
"""Least span of values that are stretched: a picture of one value becomes black."""
