"""What TensorRT and TensorRT-RTX report: errors, and while an engine is built, every line of their log.

TensorRT keeps the first logger that it is given in a process, and may write to it from its own threads at any time. So
there is one of each kind for a library, and none is ever freed. A logger written in Python takes Python's lock for
every line: 13 791 times while `nano` is built for 640x480. Therefore loading and running use TensorRT's own logger,
which drops lines without calling Python, and an error recorder, which is called for errors only. Only a build, whose
log lists the kernels, makes a logger in Python; from then on it serves everything in the process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

_MAX_ERRORS: Final = 64
_MAX_CHARACTERS: Final = 300


class LibraryLog:
    """The log of a library in this process; `log_of` makes it. It may be used from any thread.

    Attributes:
        recorder: Error recorder for the objects that are made with a logger; TensorRT passes it on to what these make.
        count: Number of errors so far.
    """

    def __init__(self, library: ModuleType) -> None:
        self._library = library
        self._errors: deque[str] = deque(maxlen=_MAX_ERRORS)
        self._changing, self._building, self._recording = (threading.Lock() for _ in range(3))
        self._quiet: Any = None
        self._collecting: Any = None
        self._lines: list[str] | None = None
        self.count = 0
        self.recorder = _new_recorder(library, self.record)

    @property
    def logger(self) -> Any:
        """The logger for loading and running: TensorRT's own, or the one of builds where an engine was built before."""
        with self._changing:
            if self._collecting is not None:
                return self._collecting
            if self._quiet is None:
                # Errors are recorded: printed too, they would appear twice.
                self._quiet = self._library.Logger(self._library.Logger.INTERNAL_ERROR)
            return self._quiet

    @contextmanager
    def collect(self) -> Iterator[tuple[Any, list[str]]]:
        """Collect the lines of one build; another build in this process waits until it is done.

        Yields:
            The logger to build with, and the list of lines, which grows.
        """
        with self._building:
            with self._changing:
                if self._collecting is None:
                    self._collecting = _new_logger(self._library, self.record, self._add_line)
            lines: list[str] = []
            self._lines = lines
            try:
                yield self._collecting, lines
            finally:
                self._lines = None

    def record(self, message: str) -> None:
        """Record an error."""
        with self._recording:
            self._errors.append(message)
            self.count += 1

    def first_since(self, count: int) -> str:
        """Return the first error since there were `count`, in one line; later ones follow from it."""
        with self._recording:
            new = list(self._errors)[-(self.count - count) :] if self.count > count else []
        return " ".join(new[0].split())[:_MAX_CHARACTERS] if new else "it logged no reason"

    def _add_line(self, line: str) -> None:
        lines = self._lines
        if lines is not None:
            lines.append(line)


_logs: Final[dict[ModuleType, LibraryLog]] = {}
_registering: Final = threading.Lock()


def log_of(library: ModuleType) -> LibraryLog:
    """Return the log of a library, the same one in every call."""
    with _registering:
        if library not in _logs:
            _logs[library] = LibraryLog(library)
        return _logs[library]


def _new_logger(library: Any, record: Callable[[str], None], add_line: Callable[[str], None]) -> Any:
    """Make a logger in Python; the class derives from the library's, so it is made once that is imported."""
    severities = (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR)

    class Logger(library.ILogger):  # type: ignore[misc]  # known at run time only
        """Keeps errors and, during a build, lines."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)  # pybind11 requires this call instead of super()

        def log(self, severity: Any, msg: str) -> None:
            """Keep a message."""
            if severity in severities:
                record(msg)
            else:
                add_line(msg)

    return Logger()


def _new_recorder(library: Any, record: Callable[[str], None]) -> Any:
    """Make an error recorder; TensorRT reads none of its answers but that of `report_error`."""

    class Recorder(library.IErrorRecorder):  # type: ignore[misc]  # as above
        """Passes errors on."""

        def __init__(self) -> None:
            library.IErrorRecorder.__init__(self)

        def report_error(self, val: Any, desc: str) -> bool:
            """Record an error; returns that it ends what TensorRT was asked to do."""
            record(desc)
            return True

        def num_errors(self) -> int:
            """Return 0: nothing is kept here."""
            return 0

        def get_error_code(self, index: int) -> Any:
            """Return a code for an index that does not exist."""
            return library.ErrorCodeTRT.UNSPECIFIED_ERROR

        def get_error_desc(self, index: int) -> str:
            """Return a description for an index that does not exist."""
            return ""

        def has_overflowed(self) -> bool:
            """Return that no error was lost."""
            return False

        def clear(self) -> None:
            """Forget nothing."""

    return Recorder()
