"""Cameras of Video4Linux2, through OpenCV: PyAV's wheels have no capture devices."""

from __future__ import annotations

import re
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from tcmoa_runtime.streams.interfaces import SourceError, SourceFrame
from tcmoa_runtime.streams.sources import SourceOptions
from tcmoa_runtime.streams.stretch import SmoothStretch

_MICROSECOND: Final = Fraction(1, 1_000_000)


class Camera:
    """A camera by its device, /dev/videoN; `pts` are microseconds of `time.monotonic` at arrival.

    8 and 16 bits of grey stay grey (16 are stretched); all else comes as OpenCV converts it. `ffmpeg` options `width`
    and `height` are asked of the camera, as is the rate. Tested without a camera only.
    """

    live, time_base, reconnects = True, _MICROSECOND, 0

    def __init__(self, device: str, options: SourceOptions) -> None:
        """Raises SourceError where the device is missing, busy, or gives no frame."""
        import cv2

        match = re.fullmatch(r"/dev/video(\d+)", device)
        if match is None or not Path(device).exists():
            raise SourceError(f"{device}: no such camera; `ls /dev/video*` tells which there are")
        self.name = device
        self.frames = self.errors = 0
        self._order = options.channel_order
        self._stretch = SmoothStretch(options.percentiles, time_constant=options.stretch_seconds)
        self._closing = threading.Event()
        self._reading = threading.Lock()
        self._capture: Any = cv2.VideoCapture(int(match[1]), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceError(
                f"{device}: cannot be opened; it may be in use, or not yours to open (group video)"
            )
        for name, place in (("width", cv2.CAP_PROP_FRAME_WIDTH), ("height", cv2.CAP_PROP_FRAME_HEIGHT)):
            if name in options.ffmpeg:
                self._capture.set(place, float(options.ffmpeg[name]))
        if options.rate is not None:
            self._capture.set(cv2.CAP_PROP_FPS, float(options.rate))
        # One buffer: the newest frame, not one that waited for us.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        told = float(self._capture.get(cv2.CAP_PROP_FPS) or 0)
        self.rate = Fraction(told).limit_denominator(1001) if told > 0 else None
        try:
            self._first: SourceFrame | None = self._grab()
        except SourceError:
            self._capture.release()
            raise
        self.size = (self._first.image.shape[0], self._first.image.shape[1])

    def read(self) -> SourceFrame | None:
        """The next frame, waiting for it; None when closed. Raises SourceError when the camera gives none."""
        with self._reading:
            if self._closing.is_set():
                return None
            frame, self._first = self._first, None
            frame = self._grab() if frame is None else frame
            if self._closing.is_set():
                self._capture.release()
                return None
            return frame

    def close(self) -> None:
        """Free the camera: at once, or when a waiting `read` wakes."""
        self._closing.set()
        if self._reading.acquire(blocking=False):
            try:
                self._capture.release()
            finally:
                self._reading.release()

    def _grab(self) -> SourceFrame:
        there, image = self._capture.read()
        arrived = time.monotonic()
        if not there or image is None:
            raise SourceError(f"{self.name}: gives no frame")
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.dtype == np.uint16:
            image = self._stretch(image, arrived)
        elif image.ndim == 3 and self._order == "rgb":
            image = image[..., ::-1]
        self.frames += 1
        pts = round(arrived / _MICROSECOND)
        return SourceFrame(np.ascontiguousarray(image), pts, _MICROSECOND, arrived, self.frames - 1)
