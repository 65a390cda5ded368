"""From the timestamps of a source to the one clock on which both are compared."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Final, Protocol

from tcmoa_runtime.streams.interfaces import SourceFrame

FILE_JUMP_SECONDS: Final = 10.0
"""A step of a file's timestamps beyond this, or backwards, is a jump of its clock, no gap in its pictures."""

LIVE_JUMP_SECONDS: Final = 1.0
"""A frame of a live source later than this against its own clock is late (a stall, a burst) or its clock jumped."""
LATE_FRAMES: Final = 5
"""So many late frames in a row, and it was the clock."""
CREEP: Final = 5e-4
"""Seconds a second by which a live source's least delay is let grow again: crystals drift by a tenth of that."""


class Clock(Protocol):
    """Maps a source's frames, in order, to seconds on the common clock; counts the jumps of the source's own."""

    jumps: int

    def time(self, frame: SourceFrame) -> float:
        """The frame's time, in seconds; never before that of the frame before it."""
        ...


class FileClock:
    """Timestamps as they are, moved so that the first frame is at `start` (None: not moved) plus `offset`.

    Where they step back or far ahead, as in recordings that were joined, time goes on by the usual step.
    """

    def __init__(self, *, start: float | None = None, offset: float = 0.0) -> None:
        self.jumps = 0
        self._start, self._offset = start, offset
        self._shift: float | None = None
        self._last: float | None = None
        self._steps: deque[float] = deque(maxlen=15)

    def time(self, frame: SourceFrame) -> float:
        """The frame's time, in seconds."""
        if self._shift is None:
            self._shift = self._offset + (0.0 if self._start is None else self._start - frame.time)
        now = frame.time + self._shift
        if self._last is not None:
            step = now - self._last
            if step < 0 or step > FILE_JUMP_SECONDS:
                usual = statistics.median(self._steps) if self._steps else 0.0
                self._shift += usual - step
                self.jumps += 1
                now = self._last + usual
            else:
                self._steps.append(step)
        self._last = now
        return now


class LiveClock:
    """Timestamps of a camera or a network, on the clock of `time.monotonic`, plus `offset`.

    When a frame was captured is taken to be its timestamp plus the least delay seen of late: frames that come in
    bursts keep their distance, and only what delay all of them share is unknown (then `offset` tells it). When the
    source's clock jumps, as after a reconnection, it is anchored anew at once (a step back or ahead), or after a few
    frames (a step that looks like lateness).
    """

    def __init__(self, *, offset: float = 0.0) -> None:
        self.jumps = 0
        self._offset = offset
        self._delay: float | None = None
        self._seen = 0.0
        self._late = 0
        self._own: float | None = None
        self._last: float | None = None

    def time(self, frame: SourceFrame) -> float:
        """The frame's time, in seconds."""
        delay = frame.arrived - frame.time
        if self._delay is None:
            self._delay = delay
        else:
            self._delay += CREEP * max(0.0, frame.arrived - self._seen)
            late = delay - self._delay
            self._late = self._late + 1 if late > LIVE_JUMP_SECONDS else 0
            went_back = self._own is not None and frame.time < self._own
            if late < -LIVE_JUMP_SECONDS or self._late >= LATE_FRAMES or (went_back and late > 0):
                self._delay, self._late = delay, 0
                self.jumps += 1
            elif late < 0:
                self._delay = delay
        self._seen, self._own = frame.arrived, frame.time
        now = frame.time + self._delay + self._offset
        # Never in the future, which a late frame just before it is anchored anew would be; never backwards.
        now = min(now, frame.arrived + self._offset)
        self._last = now if self._last is None else max(now, self._last)
        return self._last
