"""Processes that no longer work: stopped, waiting for a device or a file server that does not answer, or deadlocked."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

MAX_IDLE_S: Final = 120
"""Seconds without processor time after which a process that owes a reply is ended."""

_POLL_S: Final = 1.0


class Process(Protocol):
    """What is used of `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Number of the process."""
        ...

    def kill(self) -> None:
        """End the process at once."""
        ...


class StallWatch:
    """Ends a process that owes a reply and uses no processor time.

    Attributes:
        has_ended_it: Whether it did.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._is_over = threading.Event()
        self.has_ended_it = False

    @property
    def problem(self) -> str:
        """What happened, for an error message."""
        return f"its process used no processor time for {MAX_IDLE_S} s, so it was ended; expected a reply"

    def _watch(self) -> None:
        before, num_idle = _processor_ticks(self._process.pid), 0
        # Seconds are counted in polls: they do not pass while this process itself is stopped.
        while before is not None and not self._is_over.wait(_POLL_S):
            now = _processor_ticks(self._process.pid)
            num_idle = num_idle + 1 if now == before else 0
            before = now
            if num_idle * _POLL_S >= MAX_IDLE_S:
                self.has_ended_it = True
                self._process.kill()
                return


def _processor_ticks(pid: int) -> int | None:
    """Return the processor time of a process and its ended children; None if unknown."""
    try:
        # The name is in parentheses and may contain any character; utime, stime, cutime, cstime are fields 14 to 17.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return sum(map(int, fields[11:15]))


@contextmanager
def stall_watch(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> Iterator[StallWatch]:
    """End `process` if it uses no processor time for `MAX_IDLE_S` during a with-block that waits for its reply.

    Its pipes then end. Where the system does not tell the processor time of processes, nothing is done.
    """
    watch = StallWatch(process)
    thread = threading.Thread(target=watch._watch, name="tcmoa-stall-watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch._is_over.set()
        thread.join()
