"""Raw video on stdin."""

from __future__ import annotations

import select
import sys
import threading
import time
from fractions import Fraction
from typing import Any, BinaryIO, Final

import numpy as np

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.source import DEFAULT_RATE, RawFormat, SourceOptions
from tcmoa_runtime.streams.interfaces import SourceError, SourceFrame
from tcmoa_runtime.streams.stretch import SmoothStretch
from tcmoa_runtime.typing import ChannelOrder, Frame

_CHANNELS_8_BIT: Final = {"rgb24": 3, "bgr24": 3, "gray": 1, "gray8": 1}
_DTYPES_16_BIT: Final = {
    "gray16le": "<u2",
    "gray16be": ">u2",
    "gray10le": "<u2",
    "gray12le": "<u2",
    "gray14le": "<u2",
}
_YUV_420: Final = {"yuv420p": "I420", "nv12": "NV12", "nv21": "NV21"}
_YUV_422: Final = {"yuyv422": "YUY2", "uyvy422": "UYVY"}
"""FFmpeg's names of YUV formats, and OpenCV's."""


class RawVideo:
    """Frames without headers, as `ffmpeg -f rawvideo -` writes them; `pts` is the frame number.

    An incomplete frame at the end is dropped and counted in `errors`.
    """

    reconnects = 0

    def __init__(self, options: SourceOptions, stream: BinaryIO | None = None) -> None:
        """Prepare to read `stream`, stdin by default; live unless `options.live` is False.

        Raises:
            InputError: The format is missing or unknown.
        """
        if options.raw is None:
            raise InputError(
                "raw video without a format",
                subject="-",
                remedy="Set {raw}.",
                settings={"raw": RawFormat(640, 480, "gray16le")},
            )
        self.name, self.live = "stdin", options.live is not False
        self.rate = options.rate or DEFAULT_RATE
        self.time_base = Fraction(1) / self.rate
        self.size = (options.raw.height, options.raw.width)
        self.frames = self.errors = 0
        self._format, self._order = options.raw, options.channel_order
        self._num_bytes = _bytes_per_frame(options.raw)
        given: Any = sys.stdin.buffer if stream is None else stream
        # Unbuffered: `select` does not see what Python has buffered.
        self._stream: Any = getattr(given, "raw", given)
        self._stretch = SmoothStretch(options.stretch, time_constant=options.stretch_seconds)
        self._closed = threading.Event()

    def read(self) -> SourceFrame | None:
        """Wait for the next frame and return it; None at the end.

        Raises:
            SourceError: The stream cannot be read.
        """
        data = bytearray(self._num_bytes)
        view, filled = memoryview(data), 0
        while filled < self._num_bytes:
            if not self._wait_for_bytes():
                return None
            try:
                num_read = self._stream.readinto(view[filled:])
            except (OSError, ValueError) as error:
                if self._closed.is_set():
                    return None
                raise SourceError(f"cannot be read: {error}", subject=self.name) from error
            if not num_read:
                self.errors += bool(filled)
                return None
            filled += num_read
        pts = self.frames
        self.frames += 1
        image = self._to_frame(data, float(pts * self.time_base))
        return SourceFrame(image, pts, self.time_base, time.monotonic(), pts)

    def close(self) -> None:
        """Wake a blocked `read`; the stream itself stays open."""
        self._closed.set()

    def _wait_for_bytes(self) -> bool:
        """Wait for bytes; False when closed meanwhile."""
        try:
            descriptor = self._stream.fileno()
        except (AttributeError, OSError):
            return not self._closed.is_set()
        while not self._closed.is_set():
            if select.select([descriptor], [], [], 0.2)[0]:
                return True
        return False

    def _to_frame(self, data: bytearray, at: float) -> Frame:
        pixels, (height, width) = self._format.pixels, self.size
        if pixels in _DTYPES_16_BIT:
            deep = np.frombuffer(data, _DTYPES_16_BIT[pixels]).reshape(height, width)
            return self._stretch(deep.astype(np.uint16, copy=False), at)
        if pixels in _CHANNELS_8_BIT:
            image = np.frombuffer(data, np.uint8).reshape(height, width, -1)
            if image.shape[2] == 1:
                return image[..., 0]
            is_in_order = (pixels == "bgr24") == (self._order == "bgr")
            return image if is_in_order else np.ascontiguousarray(image[..., ::-1])
        return _yuv_to_color(data, self._format, self._order)


def _bytes_per_frame(raw_format: RawFormat) -> int:
    """Return the size of a frame in bytes; InputError on an unknown format or a size that it does not allow."""
    num_pixels = raw_format.width * raw_format.height
    if raw_format.pixels in _CHANNELS_8_BIT:
        return num_pixels * _CHANNELS_8_BIT[raw_format.pixels]
    if raw_format.pixels in _DTYPES_16_BIT or raw_format.pixels in _YUV_422:
        return num_pixels * 2
    if raw_format.pixels in _YUV_420:
        if raw_format.width % 2 or raw_format.height % 2:
            raise InputError(f"{raw_format}; expected an even size for {raw_format.pixels}", subject="raw")
        return num_pixels * 3 // 2
    known = ", ".join([*_CHANNELS_8_BIT, *_DTYPES_16_BIT, *_YUV_420, *_YUV_422])
    raise InputError(f"pixel format {raw_format.pixels!r}; expected one of {known}", subject="raw")


def _yuv_to_color(data: bytearray, raw_format: RawFormat, order: ChannelOrder) -> Frame:
    """Convert YUV (BT.601, limited range) to uint8 [H, W, 3] with OpenCV."""
    import cv2

    names = {**_YUV_420, **_YUV_422}
    code = getattr(cv2, f"COLOR_YUV2{order.upper()}_{names[raw_format.pixels]}")
    height, width = raw_format.height, raw_format.width
    shape = (height * 3 // 2, width) if raw_format.pixels in _YUV_420 else (height, width, 2)
    return np.asarray(cv2.cvtColor(np.frombuffer(data, np.uint8).reshape(shape), code), np.uint8)
