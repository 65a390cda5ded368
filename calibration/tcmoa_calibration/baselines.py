"""Classical fusion methods to compare a model with: no weights, no parameters, a fraction of a second.

    from tcmoa_calibration.baselines import BASELINES

    fused = BASELINES["laplacian"].fuse(x, y)

x and y are uint8, RGB [H, W, 3] or gray [H, W] or [H, W, 1], of the same size from 1x1 up. The fused image is uint8,
RGB [H, W, 3] if a source has three channels, else [H, W]. Results are deterministic, in every thread. Swapping x and
y changes only ties of `patches`, which go to x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.luma import check_image
from tcmoa_runtime.contract import PATCH
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import LUMA
from tcmoa_runtime.options.evaluate import BaselineName
from tcmoa_runtime.typing import Frame, ImageLike

MAX_LEVELS: Final = 5
"""Halvings of a Laplacian pyramid: detail up to about 64 px wide is selected, wider detail is averaged."""

MIN_SIDE: Final = 8
"""Shorter side of the coarsest level of a pyramid in pixels; smaller images are not halved."""

_FloatImage: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Baseline:
    """A classical fusion method.

    Attributes:
        name: Name in BASELINES.
        description: The method and its source, in one line.
        method: Fuses two images of one shape, [H, W] or [H, W, 3].
    """

    name: BaselineName
    description: str
    method: Callable[[Frame, Frame], Frame]

    def fuse(self, x: ImageLike, y: ImageLike) -> Frame:
        """Fuse two images.

        Args:
            x: First source, uint8 [H, W], [H, W, 1] or RGB [H, W, 3].
            y: Second source, of the same height and width.

        Returns:
            uint8 [H, W, 3] if a source has three channels, else [H, W].

        Raises:
            InputError: Another dtype or shape, an image without pixels, or sources of different sizes.
        """
        first, second = (check_image(image, name, (np.uint8,)) for image, name in ((x, "x"), (y, "y")))
        if first.shape[:2] != second.shape[:2]:
            (hx, wx), (hy, wy) = first.shape[:2], second.shape[:2]
            raise InputError(
                f"x is {wx}x{hx}, y is {wy}x{hy}; expected sources of one size",
                remedy="Resize one of them first",
            )
        if first.ndim != second.ndim:
            first, second = _to_color(first), _to_color(second)
        return self.method(np.ascontiguousarray(first), np.ascontiguousarray(second))


def average(x: Frame, y: Frame) -> Frame:
    """Average the sources, (x + y) / 2, with halves rounded up."""
    return ((x.astype(np.uint16) + y + 1) // 2).astype(np.uint8)


def maximum(x: Frame, y: Frame) -> Frame:
    """Select the larger value of x and y in each channel."""
    return np.maximum(x, y)


def laplacian(x: Frame, y: Frame) -> Frame:
    """Fuse Laplacian pyramids: the stronger detail is selected, the coarsest level is averaged.

    The image is halved while the shorter side keeps MIN_SIDE pixels, MAX_LEVELS times at most: images under 15 pixels
    are averaged. The stronger detail has the larger sum of magnitudes over channels, so that R, G and B of a pixel
    come from one source and no false colors appear; equal details are averaged.

    Source: Burt, Adelson 1983 (pyramid); Burt 1984 (selection).
    """
    from_x, from_y = _pyramid(x), _pyramid(y)
    fused = _mean(from_x[-1], from_y[-1])
    for detail_x, detail_y in zip(from_x[-2::-1], from_y[-2::-1], strict=True):
        lead = _strength(detail_x) - _strength(detail_y)
        detail = np.where(lead > 0, detail_x, np.where(lead < 0, detail_y, _mean(detail_x, detail_y)))
        fused = _upsample(fused, detail) + detail
    return _to_uint8(fused)


def mertens(x: Frame, y: Frame) -> Frame:
    """Fuse by exposure fusion as implemented in OpenCV, with all three measures to the power of 1 as in the paper.

    (OpenCV's own default leaves out well-exposedness.) Saturation is left out if a source has no color: it would be 0
    and make every weight of e.g. an infrared image 0. Gray images are fused as R = G = B, because exposedness is a
    product over channels.

    Source: Mertens, Kautz, Van Reeth 2007.
    """
    import cv2

    saturation = float(_has_color(x) and _has_color(y))
    merge = cv2.createMergeMertens(1.0, saturation, 1.0)  # one for each call: not documented as thread-safe
    fused = np.asarray(merge.process([_to_color(x), _to_color(y)]), np.float32) * np.float32(255)
    return _to_uint8(fused if x.ndim == 3 else fused[..., 0])


def patches(x: Frame, y: Frame) -> Frame:
    """Select each 16x16 patch from the source with the larger peak of |Sobel x| + |Sobel y| of luma; x in a tie.

    The grid starts at the top left; patches at the right and bottom may be smaller. The border is repeated for the
    gradient. A reference for multi-focus pairs: the sharper source, patch by patch.
    """
    from_x = _peaks(x) >= _peaks(y)
    h, w = x.shape[:2]
    mask = from_x.repeat(PATCH, axis=0)[:h].repeat(PATCH, axis=1)[:, :w]
    return np.where(mask if x.ndim == 2 else mask[..., None], x, y)


BASELINES: Final[dict[str, Baseline]] = {
    baseline.name: baseline
    for baseline in (
        Baseline("average", "mean of both sources, rounded", average),
        Baseline("maximum", "larger value of both sources, per channel", maximum),
        Baseline("laplacian", "Laplacian pyramid, stronger detail selected (Burt, Adelson 1983)", laplacian),
        Baseline("mertens", "exposure fusion (Mertens 2007)", mertens),
        Baseline("patches", "each 16x16 patch from the source with the larger peak gradient", patches),
    )
}
"""Every method by its name."""


def _to_color(image: Frame) -> Frame:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _has_color(image: Frame) -> bool:
    return image.ndim == 3 and bool(np.any(image != image[..., :1]))


def _to_uint8(image: _FloatImage) -> Frame:
    rounded: Frame = np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)
    return rounded


def _mean(a: _FloatImage, b: _FloatImage) -> _FloatImage:
    return (a + b) * np.float32(0.5)


def _pyramid(image: Frame) -> list[_FloatImage]:
    """Return the details from fine to coarse, then the coarsest level."""
    import cv2

    levels: list[_FloatImage] = []
    rest: _FloatImage = image.astype(np.float32)
    while len(levels) < MAX_LEVELS and (min(rest.shape[:2]) + 1) // 2 >= MIN_SIDE:
        half = np.asarray(cv2.pyrDown(rest), np.float32)
        levels.append(rest - _upsample(half, rest))
        rest = half
    return [*levels, rest]


def _upsample(image: _FloatImage, like: _FloatImage) -> _FloatImage:
    import cv2

    h, w = like.shape[:2]
    return np.asarray(cv2.pyrUp(image, dstsize=(w, h)), np.float32)


def _strength(detail: _FloatImage) -> _FloatImage:
    """Sum magnitudes over channels, to [H, W] or [H, W, 1]."""
    size: _FloatImage = np.abs(detail)
    return size if detail.ndim == 2 else size.sum(axis=2, keepdims=True)


def _peaks(image: Frame) -> NDArray[np.float64]:
    """Return the largest |Sobel x| + |Sobel y| of each patch, [ceil(H / 16), ceil(W / 16)], in 1/1000 gray level.

    Whole numbers, so that rounding does not decide between two flat patches.
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
