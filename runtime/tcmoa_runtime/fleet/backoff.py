"""Pauses before a stream is started again: short at first, longer while it keeps failing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tcmoa_runtime.log import get_logger
from tcmoa_runtime.user_folders import open_user_folder, write_private_file

FIRST_PAUSE_S: Final = 1.0
MAX_PAUSE_S: Final = 60.0
HEALTHY_S: Final = 60.0
"""A stream that has run for this long begins with the shortest pause again."""
HISTORY_S: Final = 600.0
"""Starts of a process that are counted."""
FREE_STARTS: Final = 3
"""Starts of a process within `HISTORY_S` that need no pause: a machine may kill one."""

_log = get_logger("fleet")


class Backoff:
    """Pauses between the starts of a stream within one process: 1 s, 2 s, 4 s, ... 60 s."""

    def __init__(self) -> None:
        self._failures = 0

    def pause_after(self, seconds: float) -> float:
        """Return the pause in seconds after a stream that has failed after running for some seconds."""
        if seconds >= HEALTHY_S:
            self._failures = 0
        pause = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return pause


class StartHistory:
    """Starts of the processes of a pair on this machine, in a file of the user's cache folder.

    Ray restarts a process that has died at once. One that dies each time, e.g. in a driver, finds its earlier starts
    here and pauses. Without such a folder there is no pause.
    """

    def __init__(self, fleet: str, pair: str, clock: Callable[[], float] = time.time) -> None:
        """Find the file; `clock` returns the time in seconds since 1970."""
        self._clock = clock
        self._path: Path | None = None
        try:
            self._path = open_user_folder("cache", "fleet", fleet, create=True) / f"{pair}.json"
        except OSError as error:
            _log.warning("starts of streams are not recorded: %s: %s", error.filename, error.strerror)

    def record_start(self) -> float:
        """Record a start, and return the pause in seconds that it needs."""
        if self._path is None:
            return 0.0
        now = self._clock()
        times = [time for time in self._read() if now - HISTORY_S < time <= now]
        try:
            write_private_file(self._path, json.dumps([*times, now]).encode())
        except OSError as error:
            _log.warning("starts of streams are not recorded: %s: %s", error.filename, error.strerror)
            return 0.0
        excess = len(times) + 1 - FREE_STARTS
        return 0.0 if excess <= 0 else min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(excess, 30))

    def clear(self) -> None:
        """Forget all starts, after an end that was asked for."""
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("%s: cannot be removed: %s", self._path, error.strerror)

    def _read(self) -> list[float]:
        if self._path is None:
            return []
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return []
        return [time for time in found if isinstance(time, int | float)] if isinstance(found, list) else []
