"""Cameras of Video4Linux2, through OpenCV: PyAV's wheels have no capture devices."""

from __future__ import annotations

import re
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from tcmoa_runtime.options.source import SourceOptions
from tcmoa_runtime.streams.interfaces import SourceError, SourceFrame
from tcmoa_runtime.streams.stretch import SmoothStretch

_MICROSECOND: Final = Fraction(1, 1_000_000)


class Camera:
    """A camera, /dev/videoN; `pts` is the arrival time in microseconds of `time.monotonic`.

    8-bit and 16-bit gray stay gray (16 bits are stretched). OpenCV converts all other formats to color. The options
    `width` and `height` of `ffmpeg`, and the rate, are requested from the camera.
    """

    live, time_base, reconnects = True, _MICROSECOND, 0

    def __init__(self, device: str, options: SourceOptions) -> None:
        """Open the camera and wait for its first frame.

        Raises:
            SourceError: The device is missing or busy, or gives no frame.
        """
        import cv2

        match = re.fullmatch(r"/dev/video(\d+)", device)
        if match is None or not Path(device).exists():
            raise SourceError(
                "no such camera", subject=device, remedy="List the cameras with `ls /dev/video*`."
            )
        self.name = device
        self.frames = self.errors = 0
        self._order = options.channel_order
        self._stretch = SmoothStretch(options.stretch, time_constant=options.stretch_seconds)
        self._closing = threading.Event()
        self._reading = threading.Lock()
        self._capture: Any = cv2.VideoCapture(int(match[1]), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceError(
                "cannot be opened",
                subject=device,
                remedy="Close other programs that use the camera, and check that your user is in the group video.",
            )
        for name, prop in (("width", cv2.CAP_PROP_FRAME_WIDTH), ("height", cv2.CAP_PROP_FRAME_HEIGHT)):
            if name in options.ffmpeg:
                self._capture.set(prop, float(options.ffmpeg[name]))
        if options.rate is not None:
            self._capture.set(cv2.CAP_PROP_FPS, float(options.rate))
        # One buffer: with more, `read` returns frames that have waited.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        rate = float(self._capture.get(cv2.CAP_PROP_FPS) or 0)
        self.rate = Fraction(rate).limit_denominator(1001) if rate > 0 else None
        try:
            self._first: SourceFrame | None = self._capture_frame()
        except SourceError:
            self._capture.release()
            raise
        self.size = (self._first.image.shape[0], self._first.image.shape[1])

    def read(self) -> SourceFrame | None:
        """Wait for the next frame and return it; None when closed.

        Raises:
            SourceError: The camera gives no frame.
        """
        with self._reading:
            if self._closing.is_set():
                return None
            frame, self._first = self._first, None
            frame = self._capture_frame() if frame is None else frame
            if self._closing.is_set():
                self._capture.release()
                return None
            return frame

    def close(self) -> None:
        """Release the camera: at once, or when a blocked `read` returns."""
        self._closing.set()
        if self._reading.acquire(blocking=False):
            try:
                self._capture.release()
            finally:
                self._reading.release()

    def _capture_frame(self) -> SourceFrame:
        has_frame, image = self._capture.read()
        arrived = time.monotonic()
        if not has_frame or image is None:
            raise SourceError("the camera gives no frame", subject=self.name)
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.dtype == np.uint16:
            image = self._stretch(image, arrived)
        elif image.ndim == 3 and self._order == "rgb":  # OpenCV captures BGR
            image = image[..., ::-1]
        self.frames += 1
        pts = round(arrived / _MICROSECOND)
        return SourceFrame(np.ascontiguousarray(image), pts, _MICROSECOND, arrived, self.frames - 1)
