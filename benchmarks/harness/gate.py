"""When a sample counts: only if the rest of the machine was idle while it was taken.

Busy time is counted by the kernel in ticks (10 ms on most machines), so a sample should be long against that.
Linux only: it reads /proc.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcmoa_runtime.errors import MissingError

LEAST_FOREIGN: Final = 0.030
"""Seconds of foreign CPU time that any sample may see: below it are the kernel's ticks and its own chores."""
MOST_FOREIGN: Final = 0.06
"""The same as a share of the sample's wall time."""

_BUSY: Final = (0, 1, 2, 5, 6, 7)
"""Columns of /proc/stat: user, nice, system, irq, softirq, steal. Guests are in user; idle and iowait are not busy."""


@dataclass(frozen=True)
class Usage:
    """A moment. `wall`: seconds of a steady clock; `busy`: CPU seconds of all cores; `own`: of what is measured."""

    wall: float
    busy: float
    own: float


def foreign_seconds(before: Usage, after: Usage) -> float:
    """CPU seconds that others took between two moments; ticks can make it less than nothing, which is nothing."""
    return max(0.0, (after.busy - before.busy) - (after.own - before.own))


def allowed_seconds(wall: float) -> float:
    """Foreign CPU seconds up to which a sample of `wall` seconds counts."""
    return max(LEAST_FOREIGN, MOST_FOREIGN * wall)


def is_quiet(before: Usage, after: Usage) -> bool:
    """Whether a sample taken between two moments counts."""
    return foreign_seconds(before, after) < allowed_seconds(after.wall - before.wall)


def parse_busy(stat: str, ticks: int) -> float:
    """Busy CPU seconds of all cores together from the text of /proc/stat, `ticks` a second."""
    fields = stat.split("\n", 1)[0].split()[1:]
    return sum(int(fields[i]) for i in _BUSY) / ticks


def parse_own(stat: str, ticks: int) -> float:
    """utime + stime in seconds from the text of /proc/PID/stat, all threads, also those that ended."""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces
    return (int(fields[11]) + int(fields[12])) / ticks


def usage(pid: int | None) -> Usage:
    """This moment, for the process `pid`; None: for the children of this one that were waited for.

    Raises MissingError where there is no /proc: on another system than Linux.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    try:
        busy = parse_busy(Path("/proc/stat").read_text(encoding="ascii"), ticks)
        if pid is None:
            times = os.times()
            own = times.children_user + times.children_system
        else:
            own = parse_own(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"), ticks)
    except OSError as error:
        raise MissingError(
            f"{error.filename}: cannot be read ({error.strerror}); foreign CPU time is read from /proc, on Linux only"
        ) from error
    return Usage(time.monotonic(), busy, own)
