"""Video files and network streams, by FFmpeg through PyAV."""

from __future__ import annotations

import threading
import time
from collections import deque
from fractions import Fraction
from typing import Any, Final

import numpy as np

from tcmoa_runtime.streams.interfaces import SourceError, SourceFrame, without_password
from tcmoa_runtime.streams.pyav import import_av, reason
from tcmoa_runtime.streams.sources import DEFAULT_RATE, SourceOptions
from tcmoa_runtime.streams.stretch import SmoothStretch
from tcmoa_runtime.typing import Frame

GREY: Final = frozenset({"gray", "gray8", "ya8"})
_DEEP_GREY: Final = ("gray9", "gray10", "gray12", "gray14", "gray16", "grayf")
MOST_ERRORS: Final = 500
"""Packets in a row that cannot be decoded before a file is given up."""

_LIVE_OPTIONS: Final = {"fflags": "nobuffer", "flags": "low_delay"}
"""Not for HTTP, which may be a file: what was read to learn the format is thrown away, and that may be all of it."""


class Video:
    """Frames of the first video stream, with the timestamps of the container.

    Grey pixel formats stay grey; grey of more than 8 bits is stretched; all else becomes colour in 8 bits by the matrix
    and range that the stream states. Frames are turned as the file asks. Damaged packets are left out and counted in
    `errors`.
    """

    reconnects = 0

    def __init__(self, url: str, options: SourceOptions, *, live: bool | None) -> None:
        """`live`: None asks the container, which has a length or has not. Raises SourceError, MissingError."""
        av = import_av()
        self._av = av
        self.name = without_password(url)
        self._url, self._options = url, options
        self._stretch = SmoothStretch(options.percentiles, time_constant=options.stretch_seconds)
        self.frames = self.errors = 0
        self._closing = threading.Event()
        self._reading = threading.Lock()
        self._ready: deque[Any] = deque()
        self._last_pts: int | None = None
        self._container: Any = self._open()
        try:
            self._start(live)
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> Any:
        options, limit = self._options, self._options.timeout_seconds
        given = dict(options.ffmpeg)
        network = "://" in self._url and not self._url.startswith("file:")
        if network:
            given = given if self._url.startswith("http") else {**_LIVE_OPTIONS, **given}
            if self._url.startswith("rtsp"):
                given.setdefault("rtsp_transport", "tcp")
        try:
            return self._av.open(
                self._url,
                "r",
                format=options.format,
                options=given,
                timeout=(limit, limit) if network else None,
            )
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise SourceError(f"{self.name}: cannot be opened: {reason(error, self._url)}") from error

    def _start(self, live: bool | None) -> None:
        streams = self._container.streams.video
        if not streams:
            kinds = sorted({stream.type for stream in self._container.streams})
            raise SourceError(f"{self.name}: holds no video, only {', '.join(kinds) or 'nothing'}")
        stream = streams[0]
        duration = self._container.duration
        self.live = live if live is not None else not (duration and duration > 0)
        # Threads by frame hold back as many frames as there are threads.
        stream.thread_type = "SLICE" if self.live else "AUTO"
        self.rate: Fraction | None = stream.average_rate or stream.base_rate
        self.time_base = Fraction(stream.time_base or 1 / (self.rate or DEFAULT_RATE))
        self._step = max(1, round(1 / (self.rate or DEFAULT_RATE) / self.time_base))
        self._packets = self._container.demux(stream)
        first = self._decoded()
        if first is None:
            raise SourceError(f"{self.name}: holds no frame that can be decoded")
        self._first: SourceFrame | None = self._as_source_frame(first)
        self.size = (self._first.image.shape[0], self._first.image.shape[1])

    def read(self) -> SourceFrame | None:
        """The next frame, waiting for it; None at the end. Raises SourceError when it cannot go on."""
        with self._reading:
            if self._closing.is_set():
                self._container.close()
                return None
            first, self._first = self._first, None
            if first is not None:
                return first
            frame = self._decoded()
            if self._closing.is_set():  # `close` found us reading
                self._container.close()
                return None
            return None if frame is None else self._as_source_frame(frame)

    def close(self) -> None:
        """Free the decoder: at once, or, while a `read` waits for the network, when that wakes."""
        self._closing.set()
        if self._reading.acquire(blocking=False):
            try:
                self._first = None
                self._container.close()
            finally:
                self._reading.release()

    def _decoded(self) -> Any:
        """The next frame of FFmpeg; None at the end."""
        failed = 0
        while not self._ready:
            try:
                packet = next(self._packets)
            except StopIteration:
                return None
            except (self._av.FFmpegError, OSError) as error:
                if isinstance(error, self._av.error.EOFError):
                    return None
                raise SourceError(
                    f"{self.name}: cannot be read any more: {reason(error, self._url)}"
                ) from error
            try:
                self._ready.extend(packet.decode())
            except self._av.FFmpegError as error:
                if isinstance(error, self._av.error.EOFError):
                    return None
                self.errors += 1
                failed += 1
                if failed >= MOST_ERRORS:
                    raise SourceError(
                        f"{self.name}: {failed} packets in a row cannot be decoded: {reason(error, self._url)}"
                    ) from error
            if self._closing.is_set():
                return None
        frame = self._ready.popleft()
        self.errors += bool(getattr(frame, "is_corrupt", False))
        return frame

    def _as_source_frame(self, frame: Any) -> SourceFrame:
        arrived = time.monotonic()
        pts = frame.pts
        if pts is None:
            pts = 0 if self._last_pts is None else self._last_pts + self._step
        elif frame.time_base and Fraction(frame.time_base) != self.time_base:
            pts = round(pts * Fraction(frame.time_base) / self.time_base)
        self._last_pts = pts
        image = self._image(frame, float(pts * self.time_base))
        self.frames += 1
        return SourceFrame(image, pts, self.time_base, arrived, self.frames - 1)

    def _image(self, frame: Any, at: float) -> Frame:
        pixels = frame.format.name
        if pixels in GREY:
            image = frame.to_ndarray(format="gray")
        elif pixels.startswith(_DEEP_GREY):
            image = self._stretch(frame.to_ndarray(format="gray16le"), at)
        else:
            image = frame.to_ndarray(format="bgr24" if self._options.channel_order == "bgr" else "rgb24")
        turns = round(getattr(frame, "rotation", 0) / 90) % 4
        return np.ascontiguousarray(np.rot90(image, turns) if turns else image)
