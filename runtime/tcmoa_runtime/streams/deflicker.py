"""Against flicker: where nothing moves, the fused picture may change no more than its sources do.

A fusion chooses anew in each frame, and a choice that hangs by a thread tips over with the sensor's noise. What the
output would change beyond both of its sources is therefore taken back, and let through little by little:

    d  = previous output - fused                                        luma of a pixel, grey levels
    m  = the larger change of luma of x and of y since the last frame
    s  = 1 where both are still (|G * change| below MOVES / 2, G a Gaussian of sigma 2), 0 from MOVES up
    output = fused + s * exp(-dt / seconds) * sign(d) * max(|d| - m, 0), the same in each channel

Where something moves s is 0: the picture is the fused one, bit by bit, edges as sharp as they were. It works on
pictures, so behind every backend. Smoothing the prompts instead was measured and made things worse: one alpha and beta
for all TC-MoAs draws each of them to their common mean.

On two clips of fixed cameras (M3SVD, 320x240, `tiny`, 0.5 s), by `tcmoa_calibration.flicker`: pumping 0.086 and 0.130
become 0.025 and 0.019, excess 0.238 and 0.302 become 0.135 and 0.156, the output stays 51 dB from the unfiltered one.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.images import resize_frame
from tcmoa_runtime.streams.interfaces import seconds as checked_seconds
from tcmoa_runtime.typing import Frame

MOVES: Final = 4.0
"""Grey levels of blurred change from which a place moves; noise of 5 levels a pixel becomes 1."""
SIGMA: Final = 2.0
REACH: Final = 3
"""Pixels of half the size across that what moves keeps free around it."""
FORGETS_SECONDS: Final = 1.0
"""After a longer gap the frame before says nothing any more."""

_Plane = NDArray[np.float32]


class FlickerFilter:
    """The filter, for frames of one stream in order; not for several threads at once."""

    def __init__(self, seconds: float, channel_order: str) -> None:
        """`seconds`: the time constant in which a change is let through; 0.5 is a good one.

        `channel_order` of the frames: rgb or bgr. Raises InputError.
        """
        self._seconds = checked_seconds(seconds, "steady", least=0.01)
        self._order = channel_order
        self._late: _Plane | None = None
        self._lumas: tuple[Frame, Frame] | None = None
        self._time = 0.0

    def reset(self) -> None:
        """Forget what was, as after a frame that was not fused or a change of the prompt that should show."""
        self._late = self._lumas = None

    def filter(self, x: Frame, y: Frame, fused: Frame, time: float) -> Frame:
        """The output uint8 [H, W, 3] for a fused frame uint8 [H, W, 3] of x and y, at `time` seconds."""
        lumas = self._luma(x, fused), self._luma(y, fused)
        shown = self._luma(fused, fused).astype(np.float32)
        before, late, since = self._lumas, self._late, time - self._time
        self._lumas, self._time, self._late = lumas, time, shown
        if before is None or late is None or late.shape != shown.shape or not 0 < since <= FORGETS_SECONDS:
            return fused
        limit, still = _limit(before, lumas)
        beyond = late - shown
        beyond -= np.clip(beyond, -limit, limit)
        beyond *= still
        beyond *= np.float32(math.exp(-since / self._seconds))
        self._late = shown + beyond
        return _brightened(fused, beyond)

    def _luma(self, source: Frame, fused: Frame) -> Frame:
        import cv2

        if source.shape[:2] != fused.shape[:2]:
            source = resize_frame(source, (fused.shape[0], fused.shape[1]))
        if source.ndim == 2 or source.shape[2] == 1:
            return source.reshape(source.shape[:2])
        code: Any = cv2.COLOR_RGB2GRAY if self._order == "rgb" else cv2.COLOR_BGR2GRAY
        return np.asarray(cv2.cvtColor(source, code), np.uint8)


def _limit(before: tuple[Frame, Frame], now: tuple[Frame, Frame]) -> tuple[_Plane, _Plane]:
    """m and s, both [H, W]; stillness is judged at half the size, which is as good for half the sigma."""
    import cv2

    height, width = now[0].shape
    half = max(1, width // 2), max(1, height // 2)
    changes = [np.subtract(a, b, dtype=np.float32) for a, b in zip(now, before, strict=True)]
    small = [cv2.resize(change, half, interpolation=cv2.INTER_AREA) for change in changes]
    blurred = [np.abs(cv2.GaussianBlur(change, (0, 0), SIGMA / 2)) for change in small]
    moved = cv2.dilate(np.maximum(*blurred), np.ones((REACH, REACH), np.uint8))
    still = np.clip(2 - np.asarray(moved, np.float32) * np.float32(2 / MOVES), 0, 1)
    whole = cv2.resize(still, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.maximum(*(np.abs(change) for change in changes)), np.asarray(whole, np.float32)


def _brightened(frame: Frame, by: _Plane) -> Frame:
    """Add [H, W] to all channels, rounded and clipped."""
    import cv2

    whole = np.rint(by).astype(np.int16)
    return np.asarray(cv2.add(frame, cv2.merge([whole] * 3), dtype=cv2.CV_8U), np.uint8)
