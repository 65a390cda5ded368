"""A simulated camera, for trying streams, live pages and fleets without cameras: it pans over a shipped image."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Final, cast, get_args

import numpy as np

from tcmoa_runtime.contract import TASKS, Task
from tcmoa_runtime.images import in_order, read_frame, resize_frame
from tcmoa_runtime.options.source import DEFAULT_RATE, SourceOptions
from tcmoa_runtime.shipped_pairs import shipped_pairs
from tcmoa_runtime.streams.interfaces import SourceError, SourceFrame
from tcmoa_runtime.typing import Frame, SourceName

SIZE: Final = (480, 640)
"""(height, width) of the frames."""
PERIOD_SECONDS: Final = 20.0
"""Time in which the camera pans to the other side and back."""

_ENLARGED: Final = 1.25
"""Size of the scene, in frames."""


class SimulatedCamera:
    """A live source of frames [480, 640, 3]: `simulated://x`, or another task's `simulated://mef/y`.

    Two of them, x and y of a task, show the same part of the scene at the same time: the position follows the clock.
    """

    live = True
    reconnects = 0

    def __init__(
        self, location: str, options: SourceOptions, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the image; `clock` returns seconds.

        Raises:
            SourceError: The location names no source of a task.
        """
        task, side = _parse(location)
        self.name, self.size = location, SIZE
        self.rate = options.rate or DEFAULT_RATE
        self.time_base = Fraction(1) / self.rate
        self.frames = 0
        self._clock = clock
        pair = shipped_pairs(task)[0]
        scene = read_frame(pair.x if side == "x" else pair.y)
        factor = _ENLARGED * max(size / axis for size, axis in zip(SIZE, scene.shape[:2], strict=True))
        height, width = (math.ceil(factor * axis) for axis in scene.shape[:2])
        self._scene = in_order(resize_frame(scene, (height, width)), options.channel_order)
        self._next: int | None = None
        self._closed = threading.Event()

    def read(self) -> SourceFrame | None:
        """Wait until the next frame is due and return it, without those that were due before; None when closed."""
        now = math.floor(self._clock() * self.rate)
        number = now if self._next is None else max(self._next, now)
        while (remaining := float(number * self.time_base) - self._clock()) > 0:
            if self._closed.wait(remaining):
                break
        if self._closed.is_set():
            return None
        self._next = number + 1
        self.frames += 1
        image = self._view(float(number * self.time_base))
        return SourceFrame(image, number, self.time_base, self._clock(), self.frames - 1)

    def close(self) -> None:
        """Wake a blocked `read`, and return no further frame."""
        self._closed.set()

    def _view(self, seconds: float) -> Frame:
        """Return what the camera sees at a time."""
        share = (1 - math.cos(2 * math.pi * seconds / PERIOD_SECONDS)) / 2
        (height, width), axes = SIZE, self._scene.shape
        top, left = round(share * (axes[0] - height)), round(share * (axes[1] - width))
        return np.ascontiguousarray(self._scene[top : top + height, left : left + width])


def _parse(location: str) -> tuple[Task, SourceName]:
    parts = location.partition("://")[2].split("/")
    task, side = parts if len(parts) == 2 else ("vif", *parts) if len(parts) == 1 else ("", "")
    if task not in TASKS or side not in get_args(SourceName):
        raise SourceError(
            "no such simulated camera; expected simulated://x, simulated://y, or another task's, e.g. simulated://mef/x",
            subject=location,
        )
    return task, cast(SourceName, side)
