"""Video files and network streams, by FFmpeg through PyAV."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from tcmoa_runtime.location import connection_remedy, redact
from tcmoa_runtime.options.source import DEFAULT_RATE, SourceOptions
from tcmoa_runtime.streams.interfaces import IncompleteSourceError, SourceError, SourceFrame
from tcmoa_runtime.streams.pyav import describe_error, import_av
from tcmoa_runtime.streams.sources.completeness import Extent
from tcmoa_runtime.streams.sources.orientation import as_shown, orientation_of
from tcmoa_runtime.streams.stretch import SmoothStretch
from tcmoa_runtime.typing import Frame

MAX_ERRORS: Final = 500
"""Number of consecutive packets that cannot be decoded before reading ends with an error."""

_GRAY_8_BIT: Final = frozenset({"gray", "gray8", "ya8"})
_GRAY_16_BIT: Final = ("gray9", "gray10", "gray12", "gray14", "gray16", "grayf")
_LIVE_OPTIONS: Final = {"fflags": "nobuffer", "flags": "low_delay"}
"""Not for HTTP, which may be a file: the packets read to detect the format are discarded, possibly all of them."""


class Video:
    """Frames of the first video stream, with the timestamps of the container.

    Gray pixel formats stay gray, with more than 8 bits stretched to 8. All other formats become 8-bit color by the
    matrix and range that the stream states. Frames are rotated and mirrored as the container says. Damaged packets are
    skipped and counted in `errors`.

    Attributes:
        sample_aspect_ratio: Width of a pixel divided by its height.
        frames_expected: Number of frames that the container promises, if fewer could be decoded, else 0.
    """

    reconnects = 0

    def __init__(
        self,
        url: str,
        options: SourceOptions,
        *,
        live: bool | None,
        name: str | None = None,
        on_phase: Callable[[str], None] = lambda _phase: None,
    ) -> None:
        """Open a file or URL and decode its first frame.

        Args:
            url: URL; that of a file is `location.file_url`.
            options: How it is opened.
            live: Whether it is live; None: if its container states no duration.
            name: Name in messages, the URL without its secrets by default.
            on_phase: Called with what opening waits for.

        Raises:
            SourceError: It cannot be opened, or has no frame that can be decoded.
            MissingError: PyAV is not installed.
        """
        av = import_av()
        self._av = av
        self.name = redact(url if name is None else name)
        self._url, self._options = url, options
        self._stretch = SmoothStretch(options.stretch, time_constant=options.stretch_seconds)
        self.frames = self.errors = self.frames_expected = 0
        self._on_phase = on_phase
        self._closing = threading.Event()
        self._reading = threading.Lock()
        self._decoded: deque[Any] = deque()
        self._last_pts: int | None = None
        self._container: Any = self._open()
        try:
            self._start(live)
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> Any:
        timeout = self._options.timeout
        settings = dict(self._options.ffmpeg)
        input_format = settings.pop("format", None)
        is_network = "://" in self._url and not self._url.startswith("file:")
        if is_network:
            settings = settings if self._url.startswith("http") else {**_LIVE_OPTIONS, **settings}
            if self._url.startswith("rtsp"):
                settings.setdefault("rtsp_transport", "tcp")
        try:
            return self._av.open(
                self._url,
                "r",
                format=input_format,
                options=settings,
                timeout=(timeout, timeout) if is_network else None,
            )
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise self._error("cannot be opened", error) from error

    def _start(self, live: bool | None) -> None:
        streams = self._container.streams.video
        if not streams:
            kinds = sorted({stream.type for stream in self._container.streams})
            raise SourceError(f"no video, only {', '.join(kinds) or 'nothing'}", subject=self.name)
        stream = streams[0]
        duration = self._container.duration
        self.live = live if live is not None else not (duration and duration > 0)
        # Frame threading delays the output by one frame per thread.
        stream.thread_type = "SLICE" if self.live else "AUTO"
        self.rate: Fraction | None = stream.average_rate or stream.base_rate
        self.time_base = Fraction(stream.time_base or 1 / (self.rate or DEFAULT_RATE))
        self._step = max(1, round(1 / (self.rate or DEFAULT_RATE) / self.time_base))
        self._packets = self._container.demux(stream)
        self._extent = Extent(self._container, stream, float(self._step * self.time_base))
        self._on_phase("waiting for a key frame")
        first = self._decode_next()
        if first is None:
            raise SourceError("no frame that can be decoded", subject=self.name)
        self.sample_aspect_ratio = _pixel_shape(first, stream)
        self._first: SourceFrame | None = self._to_source_frame(first)
        self.size = (self._first.image.shape[0], self._first.image.shape[1])

    def read(self) -> SourceFrame | None:
        """Wait for the next frame and return it; None at the end.

        Raises:
            SourceError: The video cannot be read any further.
        """
        with self._reading:
            if self._closing.is_set():
                self._container.close()
                return None
            first, self._first = self._first, None
            if first is not None:
                return first
            frame = self._decode_next()
            if self._closing.is_set():  # `close` was called meanwhile
                self._container.close()
                return None
            if frame is None:
                self._check_complete()
                return None
            return self._to_source_frame(frame)

    def close(self) -> None:
        """Free the decoder: at once, or when a blocked `read` returns."""
        self._closing.set()
        if self._reading.acquire(blocking=False):
            try:
                self._first = None
                self._container.close()
            finally:
                self._reading.release()

    def _decode_next(self) -> Any:
        """Return the next frame of FFmpeg; None at the end."""
        failures = 0
        while not self._decoded:
            try:
                packet = next(self._packets)
            except StopIteration:
                return None
            except (self._av.FFmpegError, OSError) as error:
                if isinstance(error, self._av.error.EOFError):
                    return None
                raise self._error("reading failed", error) from error
            try:
                self._decoded.extend(packet.decode())
            except self._av.FFmpegError as error:
                if isinstance(error, self._av.error.EOFError):
                    return None
                self.errors += 1
                failures += 1
                if failures >= MAX_ERRORS:
                    raise self._error(f"{failures} consecutive packets cannot be decoded", error) from error
            if self._closing.is_set():
                return None
        frame = self._decoded.popleft()
        self.errors += bool(getattr(frame, "is_corrupt", False))
        return frame

    def _check_complete(self) -> None:
        """Raise IncompleteSourceError if a file ends before the end that its container states."""
        if self.live:
            return
        self.frames_expected = self._extent.frames_promised(self.frames)
        if self.frames_expected:
            damaged = f", and {self.errors} packets could not be decoded" if self.errors else ""
            reached = f"{self.frames} of {self.frames_expected} frames ({self._extent.describe()})"
            raise IncompleteSourceError(
                f"ends early, after {reached}{damaged}; expected a complete file",
                subject=self.name,
                remedy="Copy or record it again.",
            )

    def _error(self, problem: str, error: BaseException) -> SourceError:
        return SourceError(
            f"{problem}: {describe_error(error, self._url)}",
            subject=self.name,
            remedy=connection_remedy(self._url),
        )

    def _to_source_frame(self, frame: Any) -> SourceFrame:
        arrived = time.monotonic()
        pts = frame.pts
        if pts is None:
            pts = 0 if self._last_pts is None else self._last_pts + self._step
        elif frame.time_base and Fraction(frame.time_base) != self.time_base:
            pts = round(pts * Fraction(frame.time_base) / self.time_base)
        self._last_pts = pts
        self._extent.add(float(pts * self.time_base), frame)
        image = self._to_image(frame, float(pts * self.time_base))
        self.frames += 1
        return SourceFrame(image, pts, self.time_base, arrived, self.frames - 1)

    def _to_image(self, frame: Any, at: float) -> Frame:
        pixels = frame.format.name
        if pixels in _GRAY_8_BIT:
            image = frame.to_ndarray(format="gray")
        elif pixels.startswith(_GRAY_16_BIT):
            image = self._stretch(frame.to_ndarray(format="gray16le"), at)
        else:
            image = frame.to_ndarray(format=f"{self._options.channel_order}24")
        return as_shown(image, orientation_of(frame))


def _pixel_shape(frame: Any, stream: Any) -> Fraction:
    """Return the width of a pixel divided by its height, in the orientation in which frames are shown."""
    ratio = stream.sample_aspect_ratio or getattr(stream.codec_context, "sample_aspect_ratio", None)
    if not ratio or ratio <= 0:
        return Fraction(1)
    return 1 / Fraction(ratio) if orientation_of(frame).transpose else Fraction(ratio)
