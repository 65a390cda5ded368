"""SIGINT, SIGTERM and SIGHUP: each ends a command in order, like Ctrl-C, so that temporary files are removed."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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

    Signals that the process ignores stay ignored, e.g. SIGHUP under `nohup`. Afterwards each signal has the handler
    that it had, also one that a C library or the program around this interpreter has set. Outside of the main thread
    nothing changes, because only there handlers can be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        _received.append(signal.Signals(number))
        handler(signal.Signals(number))

    changeable = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    with kept_handlers(changeable):
        for number in changeable:
            signal.signal(number, handle)
        yield


@contextmanager
def kept_handlers(numbers: Sequence[int]) -> Iterator[None]:
    """Give signals the handlers back that they had before a with-block; in the main thread.

    Python knows the handlers that were set from Python, and for others `signal.getsignal` returns `SIG_DFL`, or None if
    they were there before Python. So the system's own record of each is kept, too.
    """
    native = {number: _read_action(number) for number in numbers}
    previous = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
            _write_action(number, native[number])


_ACTION_BYTES: Final = 1024
"""More than `struct sigaction` has on any system: 152 bytes with glibc on x86-64."""


def _read_action(number: int) -> ctypes.Array[ctypes.c_char] | None:
    """Return the `struct sigaction` of a signal; None where the system has none, e.g. Windows."""
    action = ctypes.create_string_buffer(_ACTION_BYTES)
    sigaction = getattr(ctypes.CDLL(None), "sigaction", None) if hasattr(signal, "pthread_kill") else None
    return action if sigaction is not None and sigaction(int(number), None, action) == 0 else None


def _write_action(number: int, action: ctypes.Array[ctypes.c_char] | None) -> None:
    if action is not None:
        ctypes.CDLL(None).sigaction(int(number), action, None)


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
