"""SIGINT, SIGTERM and SIGHUP: each ends a command in order, like Ctrl-C, so that temporary files are removed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

REPEAT_S: Final = 5.0
"""Seconds after a signal in which others are ignored: they would interrupt the removal of temporary files."""


@contextmanager
def handled_stop_signals(handler: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `handler` for SIGINT, SIGTERM and SIGHUP during a with-block.

    Signals that the process ignores stay ignored, e.g. SIGHUP under `nohup`. Outside of the main thread nothing
    changes, because only there handlers can be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        _received.append(signal.Signals(number))
        handler(signal.Signals(number))

    changeable = [number for number in STOP_SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    previous = {number: signal.signal(number, handle) for number in changeable}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


_received: list[signal.Signals] = []
"""Signals since the command began, also those of inner blocks: their first is that of the exit code."""


class Interruption:
    """Whether a signal has ended a command.

    Attributes:
        is_raised: Whether KeyboardInterrupt was raised for a signal.
    """

    def __init__(self) -> None:
        self.is_raised = False
        self._raised_at = -REPEAT_S

    def __call__(self, _signal: signal.Signals) -> None:
        """Raise KeyboardInterrupt, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._raised_at >= REPEAT_S:
            self._raised_at, self.is_raised = now, True
            raise KeyboardInterrupt

    @property
    def signal(self) -> signal.Signals:
        """The first signal; SIGINT if there was none, e.g. if a library raised KeyboardInterrupt itself."""
        return _received[0] if _received else signal.SIGINT

    @property
    def exit_code(self) -> int:
        """128 and the number of the signal, as a shell reports it: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.signal

    @property
    def message(self) -> str:
        """`interrupted`, with the name of a signal that is not that of Ctrl-C."""
        return "interrupted" if self.signal is signal.SIGINT else f"interrupted by {self.signal.name}"


@contextmanager
def interrupted_by_signals() -> Iterator[Interruption]:
    """Raise KeyboardInterrupt in the main thread for SIGINT, SIGTERM and SIGHUP during a with-block."""
    _received.clear()
    interruption = Interruption()
    with handled_stop_signals(interruption):
        yield interruption
