"""Messages while a source is opened: networks and cameras take seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tcmoa_runtime.log import get_logger
from tcmoa_runtime.typing import OnMessage

_log = get_logger("streams")

MESSAGE_SECONDS: Final = 3.0
"""Time between two messages about the same wait."""


@contextmanager
def reported_opening(name: str, on_message: OnMessage | None) -> Iterator[Callable[[str], None]]:
    """Report the opening of a source: at once, and every `MESSAGE_SECONDS` what it waits for and how long.

    Args:
        name: Name of the source.
        on_message: Takes each message, also on another thread; None: they are logged, without repeats.

    Yields:
        A function that takes what is waited for from now on, e.g. `waiting for a key frame`.
    """
    if on_message is None:
        _log.info("opening %s", name, extra={"event": "source-opening", "location": name})
        yield lambda phase: _log.debug("%s: %s", name, phase)
        return
    done = threading.Event()
    current = ("opening", time.monotonic())

    def set_phase(phase: str) -> None:
        nonlocal current
        current = (phase, time.monotonic())

    def repeat() -> None:
        while not done.wait(MESSAGE_SECONDS):
            phase, since = current
            on_message(f"{name}: {phase} ({time.monotonic() - since:.0f} s)")

    thread = threading.Thread(target=repeat, name="tcmoa-opening", daemon=True)
    on_message(f"opening {name}")
    thread.start()
    try:
        yield set_phase
    finally:
        done.set()
        thread.join()
