"""Prompt control by the keys of the terminal that a stream was started in."""

from __future__ import annotations

import os
import re
import select
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from tcmoa_runtime.contract import MAX_PROMPT
from tcmoa_runtime.streams.control import StreamControl

SCALE_STEP: Final = 0.1
SHIFT_STEP: Final = 0.05
HELP: Final = "keys: up/down sharper/softer selection (alpha), right/left favor x/y (beta), r reset, q quit"
HELP_WITHOUT_PROMPT: Final = "keys: q quit"

_POLL_SECONDS: Final = 0.2
_ESCAPE_SEQUENCES: Final = {"\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left"}
_KEY: Final = re.compile(r"\x1b\[[A-D]|.", re.DOTALL)
_CUT_SEQUENCE: Final = re.compile(r"\x1b\[?\Z")
"""The start of an arrow's sequence, whose rest comes with the next read."""
_SCALE_STEPS: Final = {"up": SCALE_STEP, "+": SCALE_STEP, "down": -SCALE_STEP, "-": -SCALE_STEP}
_SHIFT_STEPS: Final = {"right": SHIFT_STEP, "left": -SHIFT_STEP}


def apply_key(control: StreamControl, key: str) -> bool:
    """Change alpha or beta by a key: an arrow's name or a character. Without a prompt, no key has a meaning.

    Returns:
        Whether the key has a meaning.
    """
    if not control.has_prompt:
        return False
    if key in ("r", "R"):
        control.reset()
    elif key in _SCALE_STEPS:
        control.set(scale=_step(control.state()["scale"], _SCALE_STEPS[key]))
    elif key in _SHIFT_STEPS:
        control.set(shift=_step(control.state()["shift"], _SHIFT_STEPS[key]))
    else:
        return False
    return True


def split_keys(text: str) -> tuple[list[str], str]:
    """Split what a terminal sent into keys: an arrow's name, or a character.

    Returns:
        The keys, and the start of a sequence whose rest has not come yet.
    """
    cut = _CUT_SEQUENCE.search(text)
    whole, rest = (text, "") if cut is None else (text[: cut.start()], cut[0])
    return [_ESCAPE_SEQUENCES.get(key, key) for key in _KEY.findall(whole)], rest


def _step(value: float, step: float) -> float:
    # Rounded, so that ten steps of 0.1 up and ten down return to the same value.
    return min(max(round(value + step, 6), -MAX_PROMPT), MAX_PROMPT)


class Keyboard:
    """Context manager that reads single keys from the terminal; it does nothing if stdin is not a terminal.

    The settings of the terminal are restored at the end. Ctrl-C still raises SIGINT.
    """

    def __init__(self, control: StreamControl, on_quit: Callable[[], None]) -> None:
        """Prepare; `on_quit` is called when q is pressed."""
        self._control, self._on_quit = control, on_quit
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._settings: list[Any] | None = None

    def __enter__(self) -> Self:
        if not is_available():
            return self
        import termios
        import tty

        self._settings = termios.tcgetattr(sys.stdin.fileno())
        tty.setcbreak(sys.stdin.fileno())
        self._thread = threading.Thread(target=self._read_keys, name="tcmoa-keyboard", daemon=True)
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

    def _read_keys(self) -> None:
        descriptor, rest = sys.stdin.fileno(), ""
        while not self._done.is_set():
            if not select.select([descriptor], [], [], _POLL_SECONDS)[0]:
                continue
            data = os.read(descriptor, 32)
            if not data:
                return
            keys, rest = split_keys(rest + data.decode(errors="ignore"))
            for key in keys:
                if key in ("q", "Q"):
                    self._on_quit()
                    return
                apply_key(self._control, key)


def is_available() -> bool:
    """Return whether stdin is a terminal and this process is in its foreground."""
    try:
        import termios  # noqa: F401

        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (ImportError, OSError, ValueError, AttributeError):
        return False
