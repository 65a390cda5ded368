"""Frames that a live source has collected before the stream starts, e.g. while the other source was opened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from tcmoa_runtime.streams.interfaces import Source, SourceFrame

MAX_SKIP_SECONDS: Final = 2.0
"""How long frames are skipped at most: a source may always be read faster than it claims."""
_MIN_STALE_SECONDS: Final = 0.2
_DEFAULT_INTERVAL: Final = 0.04


class Backlog:
    """Tells which frames at the start of a live source are old.

    If the first frame has waited, those behind it have, too: they come at once. The first frame that had to be waited
    for is a current one.
    """

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        """Watch a source that is about to be read; `clock` is that of `SourceFrame.arrived`."""
        self._interval = float(1 / source.rate) if source.rate else _DEFAULT_INTERVAL
        self._clock = clock
        self._is_over = not source.live
        self._deadline: float | None = None

    def holds(self, frame: SourceFrame, waited: float) -> bool:
        """Whether the next frame, for which the reader has waited some seconds, is an old one."""
        if self._is_over:
            return False
        now = self._clock()
        if self._deadline is None:
            self._deadline = now + MAX_SKIP_SECONDS
            self._is_over = now - frame.arrived <= max(_MIN_STALE_SECONDS, 2 * self._interval)
        else:
            self._is_over = waited >= self._interval / 2 or now >= self._deadline
        return not self._is_over
