"""A file played at its own pace, as if it were a camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from tcmoa_runtime.streams.clock import FileClock
from tcmoa_runtime.streams.interfaces import Source, SourceFrame


class Paced:
    """Gives each frame when its time has come, counted from the first `read`; live."""

    live = True

    def __init__(self, source: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._file_clock = FileClock(start=0.0)
        self._began: float | None = None
        self._closed = threading.Event()

    @property
    def name(self) -> str:
        """That of the file."""
        return self._source.name

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self._source.size

    @property
    def rate(self) -> Fraction | None:
        """Frames a second where it is known."""
        return self._source.rate

    @property
    def time_base(self) -> Fraction:
        """Seconds that `pts` counts."""
        return self._source.time_base

    @property
    def errors(self) -> int:
        """Frames of the file that could not be read."""
        return int(getattr(self._source, "errors", 0))

    def read(self) -> SourceFrame | None:
        """The next frame, when its time has come; None at the end."""
        frame = self._source.read()
        if frame is None or self._closed.is_set():
            return None
        if self._began is None:
            self._began = self._clock()
        due = self._began + self._file_clock.time(frame)
        while (left := due - self._clock()) > 0:
            if self._closed.wait(left):
                return None
        return replace(frame, arrived=self._clock())

    def close(self) -> None:
        """Wake a waiting `read` and close the file."""
        self._closed.set()
        self._source.close()
