"""Calls of native libraries, which must not be running in a thread when the interpreter ends.

A daemon thread that returns from native code while the interpreter ends is ended by the interpreter, which aborts the
process inside a C++ library ("terminate called without an active exception", exit code 134).
"""

from __future__ import annotations

import atexit
import os
import threading
from types import TracebackType
from typing import Final

MAX_EXIT_S: Final = 60.0
"""Seconds for which the end of the interpreter waits for running calls."""


class _NativeCalls:
    """A context manager around native calls: the end of the interpreter waits for them, and then lets none begin.

    A thread that begins a call after that gets SystemExit, which ends it without a message. Calls may be nested.
    """

    def __init__(self) -> None:
        self._reset()
        self._depth = threading.local()
        atexit.register(self._wait)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)  # the other threads do not exist in the child

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._num_running = 0
        self._is_exiting = False

    def __enter__(self) -> None:
        depth = getattr(self._depth, "value", 0)
        if depth == 0:
            with self._changed:
                if self._is_exiting and threading.current_thread() is not threading.main_thread():
                    raise SystemExit
                self._num_running += 1
        self._depth.value = depth + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth.value -= 1
        if self._depth.value == 0:
            with self._changed:
                self._num_running -= 1
                if self._is_exiting:
                    self._changed.notify_all()

    def _wait(self) -> None:
        with self._changed:
            self._is_exiting = True
            self._changed.wait_for(lambda: self._num_running == 0, MAX_EXIT_S)


native_calls: Final = _NativeCalls()
