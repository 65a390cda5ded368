"""Frames that a live source has collected before the stream starts, e.g. while the other source was opened."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from tcmoa_runtime.streams.interfaces import Source, SourceFrame

MAX_SKIP_SECONDS: Final = 3.0
"""How long frames are skipped at most."""
STEADY_SECONDS: Final = 0.3
"""How long frames must come no faster than they were captured; the network may pause for less."""
_MIN_STALE_SECONDS: Final = 0.2
_DEFAULT_INTERVAL: Final = 0.04


class Backlog:
    """Tells which frames at the start of a live source are old.

    If the first frame has waited, those behind it have, too. They come faster than they were captured, so the delay
    from their own time to their arrival shrinks. Once it does not, frames are current.
    """

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        """Watch a source that is about to be read; `clock` is that of `SourceFrame.arrived`."""
        self._interval = float(1 / source.rate) if source.rate else _DEFAULT_INTERVAL
        self._clock = clock
        self._is_over = not source.live
        self._deadline: float | None = None
        self._min_delay = math.inf
        self._shrunk_at = 0.0

    def holds(self, frame: SourceFrame) -> bool:
        """Whether the next frame is an old one."""
        if self._is_over:
            return False
        now = self._clock()
        if self._deadline is None:
            self._deadline = now + MAX_SKIP_SECONDS
            self._is_over = now - frame.arrived <= max(_MIN_STALE_SECONDS, 2 * self._interval)
            return not self._is_over
        delay = frame.arrived - frame.time
        if delay < self._min_delay - self._interval / 2:
            self._min_delay, self._shrunk_at = delay, now
        self._is_over = now - self._shrunk_at >= STEADY_SECONDS or now >= self._deadline
        return not self._is_over
