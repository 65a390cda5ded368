"""A file that is played at its own speed, as if it came from a camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from tcmoa_runtime.streams.clock import FileClock
from tcmoa_runtime.streams.interfaces import Source, SourceFrame, has_shared_clock
from tcmoa_runtime.typing import FrameSize


class Paced:
    """Returns each frame of a file at its time, counted from the first `read`.

    Attributes:
        file: The file.
    """

    live = True

    def __init__(self, source: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Wrap `source`, a file; `clock` returns the time in seconds."""
        self.file, self._clock = source, clock
        self._start: float | None = None
        self._file_clock: FileClock | None = None
        self._closed = threading.Event()

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.file.name

    @property
    def size(self) -> FrameSize:
        """(height, width) of the first frame."""
        return self.file.size

    @property
    def rate(self) -> Fraction | None:
        """Frames per second, None if unknown."""
        return self.file.rate

    @property
    def time_base(self) -> Fraction:
        """Unit of `pts`, in seconds."""
        return self.file.time_base

    @property
    def sample_aspect_ratio(self) -> Fraction:
        """Width of a pixel divided by its height."""
        return Fraction(getattr(self.file, "sample_aspect_ratio", 1))

    @property
    def frames_expected(self) -> int:
        """Number of frames that the file promised, if it ended early."""
        return int(getattr(self.file, "frames_expected", 0))

    @property
    def errors(self) -> int:
        """Number of frames of the file that could not be read."""
        return int(getattr(self.file, "errors", 0))

    def read(self) -> SourceFrame | None:
        """Wait until the next frame is due and return it; None at the end."""
        frame = self.file.read()
        if frame is None or self._closed.is_set():
            return None
        if self._start is None or self._file_clock is None:
            self._start = self._clock()
            # A clock that another file shares starts with the earlier one of them.
            self._file_clock = (
                FileClock(keeps_steps=True) if has_shared_clock(self.file) else FileClock(start=0.0)
            )
        due = self._start + self._file_clock.time(frame)
        while (remaining := due - self._clock()) > 0:
            if self._closed.wait(remaining):
                return None
        return replace(frame, arrived=self._clock())

    def close(self) -> None:
        """Wake a blocked `read` and close the file."""
        self._closed.set()
        self.file.close()
