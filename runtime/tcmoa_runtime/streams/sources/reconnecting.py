"""A live source that comes back after it was away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Final

from tcmoa_runtime.streams.interfaces import Source, SourceError, SourceFrame

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts: the first, doubled each time, and the longest."""


class Reconnecting:
    """Opens a source again when it fails or ends, until it has been away for `patience` seconds.

    `index` goes on over reconnections; times are those of each connection. `reconnects` counts them.
    """

    live = True

    def __init__(self, connect: Callable[[], Source], patience: float, first: Source | None = None) -> None:
        """Raises SourceError when the first connection cannot be made: that is a wrong address more often than not."""
        self._connect, self._patience = connect, patience
        self._source = connect() if first is None else first
        self.name, self.size = self._source.name, self._source.size
        self.rate, self.time_base = self._source.rate, self._source.time_base
        self.reconnects = 0
        self._index = 0
        self._errors = 0
        self._closed = threading.Event()

    @property
    def errors(self) -> int:
        """Frames that could not be decoded, in all connections."""
        return self._errors + int(getattr(self._source, "errors", 0))

    def read(self) -> SourceFrame | None:
        """The next frame; None when closed. Raises SourceError when it stayed away for too long."""
        away: float | None = None
        pause = FIRST_PAUSE
        reason = "it ended"
        while not self._closed.is_set():
            try:
                frame = self._source.read()
                if frame is not None:
                    return self._numbered(frame)
            except SourceError as error:
                reason = str(error).removeprefix(f"{self.name}: ")
            if self._closed.is_set():
                return None
            away = time.monotonic() if away is None else away
            self._source.close()
            if time.monotonic() - away + pause > self._patience:
                raise SourceError(
                    f"{self.name}: lost and not back within {self._patience:g} s: {reason}; "
                    f"--reconnect sets how long to wait"
                )
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            if not self._closed.is_set():
                self._open_again()
        return None

    def _open_again(self) -> None:
        try:
            source = self._connect()
        except SourceError:
            return
        self._errors += int(getattr(self._source, "errors", 0))
        self._source = source
        self.reconnects += 1
        if self._closed.is_set():
            source.close()

    def _numbered(self, frame: SourceFrame) -> SourceFrame:
        self._index += 1
        base = self.time_base
        # A new connection may count otherwise; its times are brought to the first one's count.
        pts = frame.pts if frame.time_base == base else round(frame.pts * frame.time_base / base)
        return replace(frame, index=self._index - 1, pts=pts, time_base=Fraction(base))

    def close(self) -> None:
        """Close the connection, and make no other."""
        self._closed.set()
        self._source.close()
