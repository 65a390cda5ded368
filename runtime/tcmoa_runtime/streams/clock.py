"""Mapping of a source's timestamps to the common clock on which both sources are compared."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Final, Protocol

from tcmoa_runtime.streams.interfaces import SourceFrame

MAX_FILE_STEP_SECONDS: Final = 10.0
"""A larger step of a file's timestamps, or a step back, is a jump of its clock and not a gap between frames."""

MAX_LATENESS_SECONDS: Final = 1.0
"""A live frame that is later than this by its own clock was delayed (a stall, a burst), or the clock jumped."""
MIN_LATE_FRAMES: Final = 5
"""Number of consecutive late frames from which the clock is taken to have jumped."""
MAX_DRIFT: Final = 5e-4
"""Seconds per second by which the minimum delay of a live source may grow; quartz clocks drift by a tenth of it."""


class Clock(Protocol):
    """Maps the frames of one source, in order, to the common clock, and counts the jumps of the source's clock."""

    jumps: int

    def time(self, frame: SourceFrame) -> float:
        """Return the time of the next frame in seconds; never before that of the previous frame."""
        ...


class FileClock:
    """Clock of a file: its timestamps plus a constant.

    Where timestamps step back or far ahead, as in joined recordings, time continues by the usual step.
    """

    def __init__(self, *, start: float | None = None, offset: float = 0.0, keeps_steps: bool = False) -> None:
        """Create a clock.

        Args:
            start: Time of the first frame in seconds, before `offset` is added; None keeps the file's own.
            offset: Seconds added to all times.
            keeps_steps: Whether large steps are gaps between frames, too, and not jumps.
        """
        self._keeps_steps = keeps_steps
        self.jumps = 0
        self._start, self._offset = start, offset
        self._shift: float | None = None
        self._last: float | None = None
        self._steps: deque[float] = deque(maxlen=15)

    def time(self, frame: SourceFrame) -> float:
        """Return the time of the next frame in seconds."""
        if self._shift is None:
            self._shift = self._offset + (0.0 if self._start is None else self._start - frame.time)
        now = frame.time + self._shift
        if self._last is not None:
            step = now - self._last
            if step < 0 or (step > MAX_FILE_STEP_SECONDS and not self._keeps_steps):
                usual = statistics.median(self._steps) if self._steps else 0.0
                self._shift += usual - step
                self.jumps += 1
                now = self._last + usual
            else:
                self._steps.append(step)
        self._last = now
        return now


class LiveClock:
    """Clock of a camera or network stream: its timestamps on the scale of `time.monotonic`.

    The capture time of a frame is estimated as its timestamp plus the minimum delay of recent frames, so that frames
    that arrive in a burst keep their distance. A delay that all frames share is not observable; `offset` corrects it.
    When the source's clock jumps, e.g. after a reconnect, the delay is measured anew: at once if it becomes shorter,
    after `MIN_LATE_FRAMES` frames if it becomes longer.
    """

    def __init__(self, *, offset: float = 0.0) -> None:
        """Create a clock; `offset` seconds are added to all times."""
        self.jumps = 0
        self._offset = offset
        self._delay: float | None = None
        self._last_arrival = 0.0
        self._late_frames = 0
        self._last_timestamp: float | None = None
        self._last: float | None = None

    def time(self, frame: SourceFrame) -> float:
        """Return the time of the next frame in seconds."""
        delay = frame.arrived - frame.time
        if self._delay is None:
            self._delay = delay
        else:
            self._delay += MAX_DRIFT * max(0.0, frame.arrived - self._last_arrival)
            lateness = delay - self._delay
            self._late_frames = self._late_frames + 1 if lateness > MAX_LATENESS_SECONDS else 0
            went_back = self._last_timestamp is not None and frame.time < self._last_timestamp
            if (
                lateness < -MAX_LATENESS_SECONDS
                or self._late_frames >= MIN_LATE_FRAMES
                or (went_back and lateness > 0)
            ):
                self._delay, self._late_frames = delay, 0
                self.jumps += 1
            elif lateness < 0:
                self._delay = delay
        self._last_arrival, self._last_timestamp = frame.arrived, frame.time
        now = frame.time + self._delay + self._offset
        # A late frame just before a new measurement of the delay would lie in the future.
        now = min(now, frame.arrived + self._offset)
        self._last = now if self._last is None else max(now, self._last)
        return self._last
