"""10 to 16 bits of a thermal camera in the 8 of a frame, without pumping: the stretch follows the scene slowly."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.images import DEFAULT_PERCENTILES, check_percentiles
from tcmoa_runtime.streams.interfaces import seconds
from tcmoa_runtime.typing import Frame

STRETCH_SECONDS: Final = 1.0
"""Time constant with which the range follows the scene."""
CUT: Final = 0.5
"""A range that moves by more than this share of its width is another scene, and followed at once."""


class SmoothStretch:
    """Percentiles of each frame become black and white, as `images.stretch_to_uint8` does, smoothed over time.

    The range follows exponentially by frame time. It is taken over at once in the first frame, and where it jumps
    (`CUT`). A constant frame is black at first; later, as when a thermal camera closes its shutter to recalibrate, it
    is shown by the range in force and leaves that alone.
    """

    def __init__(
        self, percentiles: tuple[float, float] = DEFAULT_PERCENTILES, *, time_constant: float = STRETCH_SECONDS
    ) -> None:
        """`time_constant` in seconds, 0 for none. Raises InputError on wrong numbers."""
        self._percentiles = check_percentiles(percentiles)
        self._time_constant = seconds(time_constant, "stretch")
        self._range: tuple[float, float] | None = None
        self._at = 0.0

    def __call__(self, image: NDArray[np.uint16], at: float) -> Frame:
        """A uint16 image [H, W] or [H, W, C] and its time in seconds, to uint8 of the same shape."""
        low, high = percentiles_of(image, self._percentiles)
        if high <= low:
            low, high = float(image.min()), float(image.max())
        self._follow(low, high, at)
        return _scaled(image, *(self._range or (low, high)))

    def _follow(self, low: float, high: float, at: float) -> None:
        before, passed = self._range, max(0.0, at - self._at)
        self._at = at
        if high <= low:
            return
        if before is not None and self._time_constant > 0:
            width = before[1] - before[0]
            if max(abs(low - before[0]), abs(high - before[1])) <= CUT * width:
                share = 1 - math.exp(-passed / self._time_constant)
                low, high = (old + share * (new - old) for old, new in zip(before, (low, high), strict=True))
        self._range = (low, high)


def percentiles_of(image: NDArray[np.uint16], percentiles: tuple[float, float]) -> tuple[float, float]:
    """Two percentiles of a uint16 image, to within one of its levels; by a histogram, in about a millisecond."""
    import cv2

    counts = cv2.calcHist([image.reshape(-1, 1)], [0], None, [65536], [0, 65536]).ravel()
    total = np.cumsum(counts, dtype=np.float64)
    low, high = (np.searchsorted(total, p / 100 * (image.size - 1), side="right") for p in percentiles)
    return float(low), float(high)


def _scaled(image: NDArray[np.uint16], low: float, high: float) -> Frame:
    import cv2

    if high <= low:
        return np.zeros(image.shape, np.uint8)
    factor = 255 / (high - low)
    # Clipped first, as OpenCV takes the absolute value of what lies below black.
    inside: Any = np.clip(image, math.ceil(low), math.floor(high))
    shown = cv2.convertScaleAbs(inside, alpha=factor, beta=-low * factor)
    return np.asarray(shown, np.uint8).reshape(image.shape)
