"""Classical fusion methods to hold a model against: no weights, nothing to choose, a fraction of a second.

    from tcmoa_calibration.baselines import BASELINES

    fused = BASELINES["laplacian"].fuse(x, y)

x and y are uint8, RGB [H, W, 3] or grey [H, W] or [H, W, 1], of one size from 1x1 up; the fused image is uint8, RGB
[H, W, 3] where a source has three channels, else [H, W]. The same images give the same result, from any thread.
Swapping x and y changes nothing but ties of `patches`, which go to x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.luma import check_image
from tcmoa_runtime.contract import PATCH
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import LUMA, Frame

MOST_LEVELS: Final = 5
"""Halvings of a Laplacian pyramid at most; detail up to about 64 pixels wide is then chosen, not averaged."""

LEAST_SIDE: Final = 8
"""Pixels that the shorter side of a pyramid's coarsest level has at least, unless the image itself has fewer."""

_Wide = NDArray[np.float32]


@dataclass(frozen=True)
class Baseline:
    """One entry of BASELINES."""

    name: str
    what: str
    """One line: the method and its source."""
    method: Callable[[Frame, Frame], Frame]
    """Two images of one shape, [H, W] or [H, W, 3], to the fused one of that shape."""

    def fuse(self, x: Any, y: Any) -> Frame:
        """Fuse two uint8 images [H, W], [H, W, 1] or [H, W, 3] into uint8 [H, W] or [H, W, 3].

        Raises InputError for another dtype or shape, an empty image, and sources of different sizes.
        """
        x, y = _check(x, "x"), _check(y, "y")
        if x.shape[:2] != y.shape[:2]:
            (hx, wx), (hy, wy) = x.shape[:2], y.shape[:2]
            raise InputError(
                f"x is {wx}x{hx} and y is {wy}x{hy} pixels: expected sources of one size; resize one of them first"
            )
        if x.ndim != y.ndim:
            x, y = _in_colour(x), _in_colour(y)
        return self.method(np.ascontiguousarray(x), np.ascontiguousarray(y))


def average(x: Frame, y: Frame) -> Frame:
    """(x + y) / 2, halves rounded up."""
    return ((x.astype(np.uint16) + y + 1) // 2).astype(np.uint8)


def maximum(x: Frame, y: Frame) -> Frame:
    """The larger of x and y, each channel by itself."""
    return np.maximum(x, y)


def laplacian(x: Frame, y: Frame) -> Frame:
    """Laplacian pyramids (Burt, Adelson 1983), of each detail the stronger one (Burt 1984), coarsest level averaged.

    Halved as long as the shorter side of the result keeps LEAST_SIDE pixels, MOST_LEVELS times at most: images under
    15 pixels are averaged. The stronger detail is the one with the larger sum of magnitudes over channels, so that R,
    G and B of a place come from one source and no false colours arise; equal ones are averaged.
    """
    from_x, from_y = _pyramid(x), _pyramid(y)
    fused = _mean(from_x[-1], from_y[-1])
    for detail_x, detail_y in zip(from_x[-2::-1], from_y[-2::-1], strict=True):
        lead = _strength(detail_x) - _strength(detail_y)
        detail = np.where(lead > 0, detail_x, np.where(lead < 0, detail_y, _mean(detail_x, detail_y)))
        fused = _twice_as_large(fused, detail) + detail
    return _to_uint8(fused)


def mertens(x: Frame, y: Frame) -> Frame:
    """Exposure fusion (Mertens, Kautz, Van Reeth 2007) as OpenCV has it, all three measures to the power of 1.

    That is the paper's choice; OpenCV's own default leaves out well-exposedness. Saturation is left out where one
    source has no colour at all: it would be 0 there, and with it every weight of, say, an infrared image. Grey is
    fused as R = G = B, since exposedness is a product over channels.
    """
    import cv2

    saturation = float(_has_colour(x) and _has_colour(y))
    merge = cv2.createMergeMertens(1.0, saturation, 1.0)  # one per call: it is not known to be thread-safe
    fused = np.asarray(merge.process([_in_colour(x), _in_colour(y)]), np.float32) * np.float32(255)
    return _to_uint8(fused if x.ndim == 3 else fused[..., 0])


def patches(x: Frame, y: Frame) -> Frame:
    """Each 16x16 patch from the source with the larger peak |Sobel x| + |Sobel y| of luma in it; x where they tie.

    The grid starts at the top left; patches at the right and lower border may be smaller. The image's border is
    repeated for the gradient. The reference for multi-focus pairs: of two focused images the sharper, patch by patch.
    """
    from_x = _peaks(x) >= _peaks(y)
    h, w = x.shape[:2]
    mask = from_x.repeat(PATCH, axis=0)[:h].repeat(PATCH, axis=1)[:, :w]
    return np.where(mask if x.ndim == 2 else mask[..., None], x, y)


BASELINES: Final[dict[str, Baseline]] = {
    entry.name: entry
    for entry in (
        Baseline("average", "mean of both sources, rounded", average),
        Baseline("maximum", "larger value of both sources, per channel", maximum),
        Baseline("laplacian", "Laplacian pyramid, stronger detail kept (Burt, Adelson 1983)", laplacian),
        Baseline("mertens", "exposure fusion (Mertens 2007)", mertens),
        Baseline("patches", "each 16x16 patch from the source with the larger peak gradient", patches),
    )
}
"""Every method by its name."""


def _check(image: Any, name: str) -> Frame:
    return check_image(image, name, (np.uint8,), "baselines take uint8")


def _in_colour(image: Frame) -> Frame:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _has_colour(image: Frame) -> bool:
    return image.ndim == 3 and bool(np.any(image != image[..., :1]))


def _to_uint8(image: _Wide) -> Frame:
    rounded: Frame = np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)
    return rounded


def _mean(a: _Wide, b: _Wide) -> _Wide:
    return (a + b) * np.float32(0.5)


def _pyramid(image: Frame) -> list[_Wide]:
    """Details from fine to coarse, then what is left: [H, W(, 3)], half of that, ..."""
    import cv2

    levels: list[_Wide] = []
    left: _Wide = image.astype(np.float32)
    while len(levels) < MOST_LEVELS and (min(left.shape[:2]) + 1) // 2 >= LEAST_SIDE:
        half = np.asarray(cv2.pyrDown(left), np.float32)
        levels.append(left - _twice_as_large(half, left))
        left = half
    return [*levels, left]


def _twice_as_large(image: _Wide, like: _Wide) -> _Wide:
    import cv2

    h, w = like.shape[:2]
    return np.asarray(cv2.pyrUp(image, dstsize=(w, h)), np.float32)


def _strength(detail: _Wide) -> _Wide:
    """Sum of magnitudes over channels, in the shape [H, W] or [H, W, 1]."""
    size: _Wide = np.abs(detail)
    return size if detail.ndim == 2 else size.sum(axis=2, keepdims=True)


def _peaks(image: Frame) -> NDArray[np.float64]:
    """[ceil(H / 16), ceil(W / 16)], the largest |Sobel x| + |Sobel y| in each patch, in thousandths of a grey level.

    Whole numbers, lest rounding decide between two flat patches.
    """
    import cv2

    thousandths = np.round(np.asarray(LUMA) * 1000)  # 299, 587, 114
    luma = image @ thousandths if image.ndim == 3 else image * thousandths.sum()
    across, down = (
        np.asarray(cv2.Sobel(luma, cv2.CV_64F, *order, borderType=cv2.BORDER_REPLICATE))
        for order in ((1, 0), (0, 1))
    )
    h, w = luma.shape
    rows, columns = -(-h // PATCH), -(-w // PATCH)
    edges = np.pad(np.abs(across) + np.abs(down), ((0, rows * PATCH - h), (0, columns * PATCH - w)))
    peaks: NDArray[np.float64] = edges.reshape(rows, PATCH, columns, PATCH).max(axis=(1, 3))
    return peaks
