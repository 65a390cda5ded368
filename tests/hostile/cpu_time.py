"""Bounds on the CPU time of reading a bundle."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limited_cpu_time(seconds: float) -> Iterator[None]:
    """Fail if a with-block takes more CPU time, in seconds.

    Without Python's search for cycles, which many new objects start: it reads all objects of the process, and a process
    of tests has a million that are not of the bundle.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    started = time.process_time()
    try:
        yield
        taken = time.process_time() - started
    finally:
        if was_enabled:
            gc.enable()
    assert taken < seconds, f"took {taken:.1f} s"
