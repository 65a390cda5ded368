"""Locks of outputs: two streams that write one file would each lose what the other one has written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.file_lock import FileLock, LockedError, acquire_named_lock
from tcmoa_runtime.location import normalize_url, path_of, printable, redact, scheme_of

_REMEDY: Final = "Wait until it has ended, or choose another output"


class OutputLockedError(InputError):
    """Another stream of this user writes an output."""


class OutputLocks:
    """The outputs that this process writes, and no other process of the user on this machine."""

    def __init__(self, role: str = "", *, held: OutputLocks | None = None) -> None:
        """Lock nothing yet.

        Args:
            role: What this process is, for the message of others, e.g. `pair gate of fleet yard`.
            held: Locks of the caller, whose outputs are not locked again.
        """
        self._role, self._held = role, held
        self._locks: list[FileLock] = []
        self._names: set[str] = set()

    def add(self, outputs: Iterable[str | Path]) -> None:
        """Lock outputs: all of them, or none.

        Args:
            outputs: Paths, also with `{time}` or a number in them, and URLs.

        Raises:
            OutputLockedError: Another stream writes one of them; the subject is this output.
        """
        added: list[FileLock] = []
        names: set[str] = set()
        try:
            for output in outputs:
                name = _name_of(output)
                if name is None or (self._held is not None and name in self._held._names):
                    continue
                lock = self._acquire(name, output)
                names.add(name)
                if lock is not None:
                    added.append(lock)
        except BaseException:  # KeyboardInterrupt, too
            for lock in added:
                lock.release()
            raise
        self._locks += added
        self._names |= names

    def _acquire(self, name: str, output: str | Path) -> FileLock | None:
        try:
            return acquire_named_lock(name, role=self._role)
        except LockedError as error:
            raise OutputLockedError(
                f"is being written by {error}; expected one stream at a time",
                subject=printable(redact(str(output))),
                remedy=_REMEDY,
            ) from error

    def close(self) -> None:
        """Release all; may be called twice."""
        while self._locks:
            self._locks.pop().release()
        self._names.clear()


def check_not_locked(outputs: Iterable[str | Path], *, held: OutputLocks | None = None) -> None:
    """Refuse outputs that another stream writes at the moment.

    Args:
        outputs: As `OutputLocks.add` takes them.
        held: Locks of the caller, whose outputs are not checked.

    Raises:
        OutputLockedError: Another stream writes one of them; the subject is this output.
    """
    locks = OutputLocks(held=held)
    try:
        locks.add(outputs)
    finally:
        locks.close()


def _name_of(output: str | Path) -> str | None:
    """Return what identifies an output whatever its path looks like; None for a pipe or a device."""
    if isinstance(output, str) and scheme_of(output) not in ("", "file"):
        return f"output {normalize_url(output)}"
    path = path_of(output) if isinstance(output, str) else output
    try:
        mode = path.stat().st_mode
    except OSError:  # it is not there yet
        mode = stat.S_IFREG
    except ValueError:  # no name of a file, which its sink reports
        return None
    is_stored = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return f"output {os.path.realpath(path)}" if is_stored else None
