"""Removal of flicker: where nothing moves, the fused image changes no more than its sources do.

A fusion model decides anew in each frame, and a close decision flips with the noise of the sensor. The change of the
output that exceeds the change of both sources is therefore undone, and decays exponentially:

    d  = previous output - fused                                        luma of a pixel, gray levels
    m  = the larger change of luma of x and of y since the last frame
    s  = 1 where both are still (|G * change| below MOTION_LEVELS / 2, G a Gaussian of sigma 2), 0 from MOTION_LEVELS
    output = fused + s * exp(-dt / seconds) * sign(d) * max(|d| - m, 0), equal for all channels

Where something moves, s is 0 and the output is the fused image bit by bit. The filter works on images and so with every
backend. Smoothing the prompts over time is no alternative: one alpha and beta for all TC-MoAs makes flicker worse.

Two clips of fixed cameras (M3SVD, 320x240, the `tiny` model, 0.5 s), by `tcmoa_calibration.flicker`: pumping falls from
0.086 and 0.130 to 0.025 and 0.019, excess from 0.238 and 0.302 to 0.135 and 0.156, at a PSNR of 51 dB to the unfiltered
output.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.images import resize_frame
from tcmoa_runtime.options.option import check_seconds
from tcmoa_runtime.options.stream import MIN_DEFLICKER_SECONDS
from tcmoa_runtime.typing import ChannelOrder, Frame

MOTION_LEVELS: Final = 4.0
"""Gray levels of blurred change from which a pixel counts as moving; noise of 5 levels blurs to 1."""
SIGMA_PX: Final = 2.0
MARGIN_PX: Final = 3
"""Size of the dilation around motion, in pixels of half the frame size."""
MAX_GAP_SECONDS: Final = 1.0
"""After a longer gap the previous frame is not used."""

_Plane: TypeAlias = NDArray[np.float32]


class FlickerFilter:
    """Flicker filter for the frames of one stream, in order; not thread-safe."""

    def __init__(self, seconds: float, channel_order: ChannelOrder) -> None:
        """Create a filter.

        Args:
            seconds: Time constant with which a suppressed change decays, e.g. 0.5.
            channel_order: Channel order of the frames.

        Raises:
            InputError: `seconds` is not a number of 0.01 or more.
        """
        self._seconds = check_seconds("deflicker", seconds, minimum=MIN_DEFLICKER_SECONDS)
        self._order = channel_order
        self._last_output: _Plane | None = None
        self._last_lumas: tuple[Frame, Frame] | None = None
        self._last_time = 0.0

    def reset(self) -> None:
        """Forget the previous frame, e.g. after a frame that was not fused or a change of the prompt."""
        self._last_output = self._last_lumas = None

    def filter(self, x: Frame, y: Frame, fused: Frame, time: float) -> Frame:
        """Filter a fused frame.

        Args:
            x: First source, uint8 [H', W', C].
            y: Second source, uint8 [H', W', C].
            fused: Fused frame, uint8 [H, W, 3].
            time: Time of the frame in seconds.

        Returns:
            uint8 [H, W, 3].
        """
        lumas = self._luma(x, fused), self._luma(y, fused)
        output = self._luma(fused, fused).astype(np.float32)
        last_lumas, last_output, elapsed = self._last_lumas, self._last_output, time - self._last_time
        self._last_lumas, self._last_time, self._last_output = lumas, time, output
        if (
            last_lumas is None
            or last_output is None
            or last_output.shape != output.shape
            or not 0 < elapsed <= MAX_GAP_SECONDS
        ):
            return fused
        limit, still = _change_limit(last_lumas, lumas)
        correction = last_output - output
        correction -= np.clip(correction, -limit, limit)
        correction *= still
        correction *= np.float32(math.exp(-elapsed / self._seconds))
        self._last_output = output + correction
        return _add_to_channels(fused, correction)

    def _luma(self, source: Frame, fused: Frame) -> Frame:
        """Return the luma of a source, uint8 [H, W], at the size of the fused frame."""
        import cv2

        if source.shape[:2] != fused.shape[:2]:
            source = resize_frame(source, (fused.shape[0], fused.shape[1]))
        if source.ndim == 2 or source.shape[2] == 1:
            return source.reshape(source.shape[:2])
        code: Any = cv2.COLOR_RGB2GRAY if self._order == "rgb" else cv2.COLOR_BGR2GRAY
        return np.asarray(cv2.cvtColor(source, code), np.uint8)


def _change_limit(before: tuple[Frame, Frame], now: tuple[Frame, Frame]) -> tuple[_Plane, _Plane]:
    """Return m and s, both [H, W]; motion is detected at half the size, where half the sigma is equivalent."""
    import cv2

    height, width = now[0].shape
    half_size = max(1, width // 2), max(1, height // 2)
    changes = [np.subtract(a, b, dtype=np.float32) for a, b in zip(now, before, strict=True)]
    small = [cv2.resize(change, half_size, interpolation=cv2.INTER_AREA) for change in changes]
    blurred = [np.abs(cv2.GaussianBlur(change, (0, 0), SIGMA_PX / 2)) for change in small]
    motion = cv2.dilate(np.maximum(*blurred), np.ones((MARGIN_PX, MARGIN_PX), np.uint8))
    still = np.clip(2 - np.asarray(motion, np.float32) * np.float32(2 / MOTION_LEVELS), 0, 1)
    full = cv2.resize(still, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.maximum(*(np.abs(change) for change in changes)), np.asarray(full, np.float32)


def _add_to_channels(frame: Frame, plane: _Plane) -> Frame:
    """Add a plane [H, W] to each channel, rounded and clipped."""
    import cv2

    rounded = np.rint(plane).astype(np.int16)
    return np.asarray(cv2.add(frame, cv2.merge([rounded] * 3), dtype=cv2.CV_8U), np.uint8)
