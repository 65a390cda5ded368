"""Raw video on stdin."""

from __future__ import annotations

import select
import sys
import threading
import time
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.streams.interfaces import SourceError, SourceFrame
from tcmoa_runtime.streams.sources import DEFAULT_RATE, RawFormat, SourceOptions
from tcmoa_runtime.streams.stretch import SmoothStretch
from tcmoa_runtime.typing import Frame

_PLAIN = {"rgb24": ("u1", 3), "bgr24": ("u1", 3), "gray": ("u1", 1), "gray8": ("u1", 1)}
_DEEP = {"gray16le": "<u2", "gray16be": ">u2", "gray10le": "<u2", "gray12le": "<u2", "gray14le": "<u2"}


class RawVideo:
    """Frames one after another, without a header, as `ffmpeg -f rawvideo -` writes them; `pts` counts them.

    Live, unless told otherwise. What is left of a frame at the end is dropped and counted in `errors`.
    """

    reconnects = 0

    def __init__(self, options: SourceOptions, stream: BinaryIO | None = None) -> None:
        """`stream` is stdin when not given. Raises InputError without a format, or with one that is not known."""
        if options.raw is None:
            raise InputError("-: raw video on stdin needs its format, as --raw-x 640x480:gray16le")
        self.name, self.live = "stdin", options.live is not False
        self.rate = options.rate or DEFAULT_RATE
        self.time_base = Fraction(1) / self.rate
        self.size = (options.raw.height, options.raw.width)
        self.frames = self.errors = 0
        self._format, self._order = options.raw, options.channel_order
        self._bytes = _bytes_of(options.raw)
        given: Any = sys.stdin.buffer if stream is None else stream
        # Unbuffered: `select` sees what the system holds, not what Python does.
        self._stream: Any = getattr(given, "raw", given)
        self._stretch = SmoothStretch(options.percentiles, time_constant=options.stretch_seconds)
        self._closed = threading.Event()

    def read(self) -> SourceFrame | None:
        """The next frame, waiting for it; None at the end."""
        data = bytearray(self._bytes)
        view, filled = memoryview(data), 0
        while filled < self._bytes:
            if not self._wait():
                return None
            try:
                got = self._stream.readinto(view[filled:])
            except (OSError, ValueError) as error:
                if self._closed.is_set():
                    return None
                raise SourceError(f"stdin: cannot be read: {error}") from error
            if not got:
                self.errors += bool(filled)
                return None
            filled += got
        pts = self.frames
        self.frames += 1
        image = self._as_frame(data, float(pts * self.time_base))
        return SourceFrame(image, pts, self.time_base, time.monotonic(), pts)

    def close(self) -> None:
        """Wake a waiting `read`; stdin itself stays open."""
        self._closed.set()

    def _wait(self) -> bool:
        """Wait for bytes; False when closed meanwhile."""
        try:
            descriptor = self._stream.fileno()
        except (AttributeError, OSError):
            return not self._closed.is_set()
        while not self._closed.is_set():
            if select.select([descriptor], [], [], 0.2)[0]:
                return True
        return False

    def _as_frame(self, data: bytearray, at: float) -> Frame:
        pixels, (height, width) = self._format.pixels, self.size
        if pixels in _DEEP:
            deep = np.frombuffer(data, _DEEP[pixels]).reshape(height, width)
            return self._stretch(deep.astype(np.uint16, copy=False), at)
        if pixels in _PLAIN:
            image = np.frombuffer(data, np.uint8).reshape(height, width, -1)
            if image.shape[2] == 1:
                return image[..., 0]
            same = (pixels == "bgr24") == (self._order == "bgr")
            return image if same else np.ascontiguousarray(image[..., ::-1])
        return _converted(data, self._format, self._order)


def _bytes_of(form: RawFormat) -> int:
    """Bytes of a frame; InputError on a format that is not known, MissingError where FFmpeg is needed to know it."""
    pixels = form.width * form.height
    if form.pixels in _PLAIN:
        return pixels * _PLAIN[form.pixels][1]
    if form.pixels in _DEEP:
        return pixels * 2
    if form.pixels in ("yuv420p", "nv12", "nv21"):
        if form.width % 2 or form.height % 2:
            raise InputError(
                f"raw format is {form.width}x{form.height}:{form.pixels}: expected an even size for it"
            )
        return pixels * 3 // 2
    if form.pixels in ("yuyv422", "uyvy422"):
        return pixels * 2
    known = ", ".join([*_PLAIN, *_DEEP, "yuv420p", "nv12", "nv21", "yuyv422", "uyvy422"])
    raise InputError(f"raw format has pixels {form.pixels!r}: expected one of {known}")


def _converted(data: bytearray, form: RawFormat, order: str) -> Frame:
    """YUV to colour, BT.601 limited range, as OpenCV does."""
    import cv2

    target = "RGB" if order == "rgb" else "BGR"
    names = {"yuv420p": "I420", "nv12": "NV12", "nv21": "NV21", "yuyv422": "YUY2", "uyvy422": "UYVY"}
    code = getattr(cv2, f"COLOR_YUV2{target}_{names[form.pixels]}")
    rows = form.height * 3 // 2 if form.pixels in ("yuv420p", "nv12", "nv21") else form.height
    shape = (rows, form.width) if rows != form.height else (rows, form.width, 2)
    return np.asarray(cv2.cvtColor(np.frombuffer(data, np.uint8).reshape(shape), code), np.uint8)
