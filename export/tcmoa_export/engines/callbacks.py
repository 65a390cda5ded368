"""Callbacks of TensorRT's builder: a progress monitor, and the interrupt by signals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from tcmoa_runtime.stop_signals import handled_stop_signals
from tcmoa_runtime.typing import OnPhase


def new_monitor(library: ModuleType, on_progress: OnPhase, stop: threading.Event) -> Any:
    """Return a progress monitor that reports to `on_progress` and ends the build when `stop` is set.

    An exception of `on_progress` sets `stop` and is kept in the monitor's `failure`.
    """

    class Monitor(library.IProgressMonitor):  # type: ignore[misc, name-defined]  # known at run time only
        """Reports steps; phases nest, so a step belongs to the phase that it names."""

        def __init__(self, on_progress: OnPhase, stop: threading.Event) -> None:
            library.IProgressMonitor.__init__(self)
            # Not from the closure: a class is freed by the garbage collector only, and so would be what it captures.
            self._on_progress, self._stop = on_progress, stop
            self._steps: dict[str, int] = {}
            self.failure: BaseException | None = None

        def _report(self, phase_name: str, done: int, total: int) -> None:
            # An exception must not cross native frames.
            try:
                self._on_progress(phase_name, done, total)
            except BaseException as error:
                self.failure = self.failure or error
                self._stop.set()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Record the number of steps of a phase."""
            self._steps[phase_name] = num_steps
            self._report(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Return whether to continue."""
            self._report(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return not self._stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            """Report a phase as finished; it may end before its last step."""
            self._report(phase_name, self._steps.get(phase_name, 0), self._steps.get(phase_name, 0))

    return Monitor(on_progress, stop)


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Let signals set the event instead of raising: an exception must not cross the builder's native frames."""
    stop = threading.Event()
    with handled_stop_signals(lambda _: stop.set()):
        yield stop
