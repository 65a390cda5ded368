"""Extremes of the pictures that a wrapped network stretches, smoothed over time.

A network that stretches each picture by its own minimum and maximum changes the whole frame when one pixel does: video
flickers. Each frame is therefore stretched by the extremes of the frames before it, smoothed exponentially:

    held = held + (1 - exp(-dt / seconds)) * (own - held)

The first frame, and one after a gap, is stretched by its own extremes.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.options.option import check_seconds
from tcmoa_runtime.options.stream import MIN_HOLD_EXTREMES_SECONDS

MAX_GAP_SECONDS: Final = 1.0
"""After a longer gap the extremes of the frames before it are not used."""


class ExtremesFilter:
    """Smooths the extremes of one stream, in order; not thread-safe."""

    def __init__(self, seconds: float) -> None:
        """Create a filter.

        Args:
            seconds: Time constant, e.g. 2.

        Raises:
            InputError: `seconds` is not a number of 0.01 or more.
        """
        self._seconds = check_seconds("hold_extremes", seconds, minimum=MIN_HOLD_EXTREMES_SECONDS)
        self._held: NDArray[np.float64] | None = None
        self._last_time = 0.0

    def held_at(self, time: float) -> NDArray[np.float32] | None:
        """Return the extremes for a frame at `time` in seconds, float32 [S, 2]; None: its own."""
        if not 0 < time - self._last_time <= MAX_GAP_SECONDS:
            self._held = None
        return None if self._held is None else self._held.astype(np.float32)

    def add(self, own: NDArray[np.float32], time: float) -> None:
        """Add the extremes of a frame at `time`, float32 [S, 2]; those that are not finite are ignored."""
        elapsed, self._last_time = time - self._last_time, time
        if not np.isfinite(own).all():
            return
        if self._held is None:
            self._held = own.astype(np.float64)
        else:
            self._held += (1 - math.exp(-elapsed / self._seconds)) * (own - self._held)
