"""Log records of what happens in a stream, limited in number: it may happen with every frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from tcmoa_runtime.log import get_logger
from tcmoa_runtime.typing import SourceName

QUIET_SECONDS: Final = 10.0
"""Shortest time between two records of the same kind about the same source."""
BURST_FRAMES: Final = 10
"""Dropped frames that are worth a record."""
BURST_SECONDS: Final = 10.0
"""Time in which they are dropped."""
BURST_QUIET_SECONDS: Final = 60.0
"""Shortest time between two records of bursts with the same cause."""

_log = get_logger("streams")


class LossLog:
    """Logs that a source is lost, and then that it is back; a loss soon after the last one only if it lasts."""

    def __init__(self) -> None:
        self._lost: set[SourceName] = set()
        self._logged_at: dict[SourceName, float] = {}

    def record_lost(self, side: SourceName, now: float) -> None:
        """Record that a source is lost; called for each frame for which it is."""
        if side in self._lost or now - self._logged_at.get(side, float("-inf")) < QUIET_SECONDS:
            return
        self._lost.add(side)
        self._logged_at[side] = now
        _log.info("source %s: no frames that fit", side, extra={"event": "source-lost", "source": side})

    def record_found(self, side: SourceName) -> None:
        """Record that a source gives frames."""
        if side in self._lost:
            self._lost.discard(side)
            _log.info("source %s: frames again", side, extra={"event": "source-found", "source": side})


class DropLog:
    """Logs bursts of dropped frames."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bursts: dict[str, tuple[float, int]] = {}
        self._quiet_until: dict[str, float] = {}

    def record(self, cause: str, count: int) -> Callable[[], None] | None:
        """Count dropped frames; return what logs their burst, which may take time, if they are one."""
        now = self._clock()
        start, before = self._bursts.get(cause, (now, 0))
        if now - start > BURST_SECONDS:
            start, before = now, 0
        self._bursts[cause] = start, before + count
        if before + count < BURST_FRAMES or now < self._quiet_until.get(cause, now):
            return None
        del self._bursts[cause]
        self._quiet_until[cause] = now + BURST_QUIET_SECONDS
        fields = {"event": "frames-dropped", "cause": cause, "count": before + count}
        return lambda: _log.info(
            "%d frames dropped within %.1f s (%s)", before + count, now - start, cause, extra=fields
        )
