"""What flows through a stream, and its two ends: frames, sources and sinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import ChannelOrder, Frame, FrameSize

Status: TypeAlias = Literal["fused", "held-x", "held-y", "passed-x", "passed-y"]
"""How an output was made: from two frames in step, with an old frame of one source, or from one source unfused."""


class SourceError(InputError):
    """A source cannot be opened or read; the subject is its name."""


class IncompleteSourceError(SourceError):
    """A file ends before the end that its container states."""


class SinkError(InputError):
    """A sink cannot be opened, written or finished; the subject is its name."""


class SinkClosedError(SinkError):
    """The viewer has closed a sink, e.g. a window: it gets no more frames, which is no failure."""


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """A decoded frame of a source.

    Attributes:
        image: uint8 [H, W, 3] in the channel order that the source was opened with, or uint8 [H, W] of a gray source;
            10 to 16 bits have been stretched. Read-only by convention: other threads may hold it.
        pts: Presentation time in units of `time_base`, on the source's own clock.
        time_base: Unit of `pts`, in seconds.
        arrived: `time.monotonic()` when the frame was ready to be decoded.
        index: Number of the frame within its source, from 0; reconnects do not reset it.
    """

    image: Frame
    pts: int
    time_base: Fraction
    arrived: float
    index: int

    @property
    def time(self) -> float:
        """`pts` in seconds, on the source's own clock."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True, slots=True)
class FusedFrame:
    """A frame of the output.

    Attributes:
        image: uint8 [H, W, 3] in the channel order of the bundle.
        pts: Presentation time in units of `time_base`, on the clock of the leading source; increases with each frame.
        time_base: Unit of `pts`, in seconds.
        index: Number of the frame within the output, from 0.
        status: How the frame was made.
        x: Frame of x; None if there was none yet, or none recent enough.
        y: Frame of y; None as for `x`.
        age_x: Seconds from the capture of x to the end of fusing. For files, time between x and the leading frame.
        age_y: The same for y.
        latency: Seconds from the arrival of the newer input to the end of fusing. For files, the time of fusing.
        prompt: Prompts after Eq. 8, float32 [K, 2, gh, gw], if the bundle outputs them and the frame was fused.
        reused: Whether image and prompt are those of the last fused frame, because both sources have not changed.
    """

    image: Frame
    pts: int
    time_base: Fraction
    index: int
    status: Status
    x: SourceFrame | None
    y: SourceFrame | None
    age_x: float | None
    age_y: float | None
    latency: float
    prompt: NDArray[np.float32] | None = None
    reused: bool = False

    @property
    def time(self) -> float:
        """`pts` in seconds."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """What a sink receives.

    Attributes:
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        channel_order: Channel order of the frames.
        time_base: Unit of `pts`, in seconds.
        rate: Frames per second, None if unknown.
        live: Whether frames come in real time.
        sample_aspect_ratio: Width of a pixel divided by its height, as x states it.
    """

    height: int
    width: int
    channel_order: ChannelOrder
    time_base: Fraction
    rate: Fraction | None
    live: bool
    sample_aspect_ratio: Fraction = Fraction(1)


class Source(Protocol):
    """A sequence of frames in the order of time, already opened.

    `read` and `close` may be called from different threads; `close` makes a blocked `read` return None or raise soon.
    """

    @property
    def name(self) -> str:
        """Path or URL as the user gave it, by `location.redact`."""
        ...

    @property
    def live(self) -> bool:
        """Whether frames arrive in real time and become stale, as from a camera, or wait to be read, as in a file."""
        ...

    @property
    def size(self) -> FrameSize:
        """(height, width) of the first frame."""
        ...

    @property
    def rate(self) -> Fraction | None:
        """Frames per second, None if unknown."""
        ...

    @property
    def time_base(self) -> Fraction:
        """Unit of `pts`, in seconds."""
        ...

    def read(self) -> SourceFrame | None:
        """Wait for the next frame and return it; None at the end.

        Raises:
            SourceError: The source cannot be read any further.
        """
        ...

    def close(self) -> None:
        """Free all resources; may be called twice."""
        ...


def has_shared_clock(source: Source) -> bool:
    """Whether a source counts `pts` on a clock that the other one shares, as folders paired by name do."""
    return bool(getattr(source, "has_shared_clock", False))


@runtime_checkable
class Sink(Protocol):
    """A consumer of fused frames: `open` once, `write` in order, `close` once, all from one thread."""

    @property
    def name(self) -> str:
        """Path or URL as the user gave it, by `location.redact`."""
        ...

    @property
    def lossless(self) -> bool:
        """Whether every frame is needed (files), or only the newest (windows, pages)."""
        ...

    def open(self, stream_format: StreamFormat) -> None:
        """Prepare for frames of this format.

        Raises:
            SinkError: The sink cannot be opened.
        """
        ...

    def write(self, frame: FusedFrame) -> None:
        """Write a frame.

        Raises:
            SinkError: The frame cannot be written; only `close` is called afterwards.
        """
        ...

    def close(self) -> None:
        """Complete the output so that it can be read, also after an error.

        Raises:
            SinkError: The output cannot be completed.
        """
        ...


def outputs_of(sink: Sink) -> Sequence[str | Path]:
    """Return what only one sink can write at a time: its files and folders (`paths`), or its URL (`url`)."""
    url = getattr(sink, "url", None)
    return (*getattr(sink, "paths", ()), *([] if url is None else [url]))
