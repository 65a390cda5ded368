"""The check of a sample: it counts only if the rest of the machine was idle.

The kernel counts busy time in ticks (10 ms on most machines), so a sample should be much longer than a tick. Linux
only: it reads /proc.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcmoa_runtime.errors import MissingError

FOREIGN_ALLOWANCE_S: Final = 0.030
"""CPU seconds of other processes that are allowed in any sample: ticks and the kernel's own work."""
MAX_FOREIGN_SHARE: Final = 0.06
"""CPU time of other processes that is allowed in a long sample, as a share of its wall time."""

_BUSY: Final = (0, 1, 2, 5, 6, 7)
"""Columns of /proc/stat: user, nice, system, irq, softirq, steal. Guests are in user; idle and iowait are not busy."""


@dataclass(frozen=True)
class Usage:
    """Readings at one moment: a monotonic clock, CPU seconds of all cores, CPU seconds of the measured process."""

    wall: float
    busy: float
    own: float


def foreign_seconds(before: Usage, after: Usage) -> float:
    """Return the CPU seconds of other processes between two moments, at least 0 in spite of rounding to ticks."""
    return max(0.0, (after.busy - before.busy) - (after.own - before.own))


def allowed_seconds(wall: float) -> float:
    """Return the CPU seconds of other processes that are allowed in a sample of `wall` seconds."""
    return max(FOREIGN_ALLOWANCE_S, MAX_FOREIGN_SHARE * wall)


def is_quiet(before: Usage, after: Usage) -> bool:
    """Return whether a sample between two moments counts."""
    return foreign_seconds(before, after) < allowed_seconds(after.wall - before.wall)


def parse_busy(stat: str, ticks: int) -> float:
    """Parse the busy CPU seconds of all cores from the text of /proc/stat, with `ticks` per second."""
    fields = stat.split("\n", 1)[0].split()[1:]
    return sum(int(fields[i]) for i in _BUSY) / ticks


def parse_own(stat: str, ticks: int) -> float:
    """Parse utime + stime in seconds, of all threads, from the text of /proc/PID/stat."""
    fields = stat.rpartition(")")[2].split()  # the name may contain spaces
    return (int(fields[11]) + int(fields[12])) / ticks


def usage(pid: int | None) -> Usage:
    """Read the clocks for a process, or with None for the finished child processes of this one.

    Raises:
        MissingError: There is no /proc, as on systems other than Linux.
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
            f"cannot be read ({error.strerror}); expected Linux, where /proc counts the CPU time of other processes",
            subject=error.filename,
        ) from error
    return Usage(time.monotonic(), busy, own)
