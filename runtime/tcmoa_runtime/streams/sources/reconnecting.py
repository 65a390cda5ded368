"""A live source that is reopened when it is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Final

from tcmoa_runtime.log import get_logger
from tcmoa_runtime.streams.interfaces import Source, SourceError, SourceFrame
from tcmoa_runtime.typing import FrameSize

FIRST_PAUSE_SECONDS: Final = 0.25
"""Time between the first attempts to reopen; it doubles with each attempt."""
MAX_PAUSE_SECONDS: Final = 5.0
"""Longest time between two attempts."""

_log = get_logger("streams")


class Reconnecting:
    """Reopens a source that fails or ends, until it has been lost for `patience` seconds.

    `index` continues over reconnects, timestamps are those of each connection.

    Attributes:
        reconnects: Number of reconnects.
    """

    live = True

    def __init__(self, connect: Callable[[], Source], patience: float, first: Source | None = None) -> None:
        """Open the source.

        Args:
            connect: Opens a connection.
            patience: Seconds for which a lost source is reopened.
            first: The first connection, if it is open already.

        Raises:
            SourceError: The first connection fails; it is not repeated, because the address is probably wrong.
        """
        self._connect, self._patience = connect, patience
        self._source = connect() if first is None else first
        self.name: str = self._source.name
        self.size: FrameSize = self._source.size
        self.rate: Fraction | None = self._source.rate
        self.time_base: Fraction = self._source.time_base
        self.sample_aspect_ratio = Fraction(getattr(self._source, "sample_aspect_ratio", 1))
        self.reconnects = 0
        self._next_index = 0
        self._earlier_errors = 0
        self._closed = threading.Event()

    @property
    def errors(self) -> int:
        """Number of frames that could not be decoded, over all connections."""
        return self._earlier_errors + int(getattr(self._source, "errors", 0))

    def read(self) -> SourceFrame | None:
        """Wait for the next frame and return it; None when closed.

        Raises:
            SourceError: The source was lost for longer than `patience` seconds.
        """
        lost_since: float | None = None
        pause = FIRST_PAUSE_SECONDS
        reason = "it ended"
        while not self._closed.is_set():
            try:
                frame = self._source.read()
                if frame is not None:
                    return self._renumber(frame)
            except SourceError as error:
                reason = error.problem
            if self._closed.is_set():
                return None
            if lost_since is None:
                lost_since = time.monotonic()
                _log.warning(
                    "%s: lost (%s), reconnecting",
                    self.name,
                    reason,
                    extra={"event": "connection-lost", "location": self.name},
                )
            self._source.close()
            if time.monotonic() - lost_since + pause > self._patience:
                raise SourceError(
                    f"lost for more than {self._patience:g} s: {reason}",
                    subject=self.name,
                    remedy="Use {reconnect} to wait longer.",
                    settings={"reconnect": ...},
                )
            self._closed.wait(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
            if not self._closed.is_set():
                self._reopen()
        return None

    def _reopen(self) -> None:
        try:
            source = self._connect()
        except SourceError:
            return
        self._earlier_errors += int(getattr(self._source, "errors", 0))
        self._source = source
        self.reconnects += 1
        _log.info("%s: reconnected", self.name, extra={"event": "reconnected", "location": self.name})
        if self._closed.is_set():
            source.close()

    def _renumber(self, frame: SourceFrame) -> SourceFrame:
        self._next_index += 1
        base = self.time_base
        # A new connection may have another time base.
        pts = frame.pts if frame.time_base == base else round(frame.pts * frame.time_base / base)
        return replace(frame, index=self._next_index - 1, pts=pts, time_base=Fraction(base))

    def close(self) -> None:
        """Close the connection, and open no other."""
        self._closed.set()
        self._source.close()
