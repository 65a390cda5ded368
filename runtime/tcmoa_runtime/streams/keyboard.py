"""Steering from the terminal that a stream was started in."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tcmoa_runtime.prompts import LARGEST
from tcmoa_runtime.streams.control import PromptControl

SCALE_STEP, SHIFT_STEP = 0.1, 0.05
HELP = "keys: up and down alpha, right and left beta (towards x, y), r reset, q quit"

_ESCAPES = {"\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left"}


def steer(control: PromptControl, key: str) -> bool:
    """Do what a key stands for; False for one that stands for nothing."""
    steps = {"up": (1, 0), "+": (1, 0), "down": (-1, 0), "-": (-1, 0), "right": (0, 1), "left": (0, -1)}
    if key in ("r", "R"):
        control.reset()
        return True
    if key not in steps:
        return False
    state, (scale, shift) = control.state(), steps[key]
    if scale:
        control.set(scale=_stepped(state["scale"], scale * SCALE_STEP))
    else:
        control.set(shift=_stepped(state["shift"], shift * SHIFT_STEP))
    return True


def _stepped(value: float, step: float) -> float:
    # Rounded, or ten steps of 0.1 would not come back to where they began.
    return min(max(round(value + step, 6), -LARGEST), LARGEST)


class Keyboard:
    """Reads single keys of the terminal while it is entered; does nothing where stdin is none.

    `quit_` is called for q. The terminal gets its own settings back at the end. Ctrl-C stays what it is.
    """

    def __init__(self, control: PromptControl, quit_: Callable[[], None]) -> None:
        self._control, self._quit = control, quit_
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._settings: Any = None

    def __enter__(self) -> Self:
        if not available():
            return self
        import termios
        import tty

        self._settings = termios.tcgetattr(sys.stdin.fileno())
        tty.setcbreak(sys.stdin.fileno())
        self._thread = threading.Thread(target=self._read, name="tcmoa-keyboard", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None and self._settings is not None:
            import termios

            self._thread.join(2)
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._settings)

    def _read(self) -> None:
        descriptor = sys.stdin.fileno()
        while not self._done.is_set():
            if not select.select([descriptor], [], [], 0.2)[0]:
                continue
            typed = os.read(descriptor, 32).decode(errors="ignore")
            if not typed:
                return
            for key in [_ESCAPES[typed]] if typed in _ESCAPES else list(typed):
                if key in ("q", "Q"):
                    self._quit()
                    return
                steer(self._control, key)


def available() -> bool:
    """Whether there is a terminal to read keys from, in the foreground."""
    try:
        import termios  # noqa: F401

        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (ImportError, OSError, ValueError, AttributeError):
        return False
