"""Locks between the processes of a user, which the system releases when their holder ends, however it ends."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tcmoa_runtime.location import redact_text
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.user_folders import open_user_folder

_FOLDER: Final = "locks"
_GATE: Final = "gate"
"""File in the folder of locks that is locked while one of them is acquired, or left ones are removed."""
_MAX_HOLDER_BYTES: Final = 1000
_LEFT_S: Final = 24 * 3600.0
_MAX_CHECKED: Final = 64
"""Files that one call looks at, picked at random, so that all have their turn."""

_log = get_logger("streams")


class LockedError(Exception):
    """Another holder has the lock; the message names it, e.g. `process 4711`."""


@dataclass
class FileLock:
    """A lock on a file that is there for this purpose. Two locks of one process exclude each other, too.

    Attributes:
        path: The file; it holds the name of the holder.
    """

    path: Path
    _descriptor: int

    @classmethod
    def acquire(cls, path: Path, *, role: str = "", mode: int = 0o600) -> Self:
        """Create the file and lock it, without waiting.

        Args:
            path: The file; its folder exists.
            role: What the holder is besides its process, for the message of others.
            mode: Permissions of the file.

        Raises:
            LockedError: It is locked.
            OSError: The file cannot be created, or its file system has no locks.
        """
        import fcntl  # here: Windows, which has none, imports this module, too

        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    text = os.pread(descriptor, _MAX_HOLDER_BYTES, 0).decode(errors="replace")
                    raise LockedError(text or "another process") from None
                if _is_file_of(path, descriptor):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, _describe_holder(role), 0)
                    return cls(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its last holder has removed it before it was locked here

    def release(self) -> None:
        """Remove the file and release the lock; may be called twice."""
        if self._descriptor >= 0:
            with suppress(OSError):
                self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1


def acquire_named_lock(name: str, *, role: str = "") -> FileLock | None:
    """Acquire the lock of a name among the processes of this user on this machine.

    Removes lock files that killed processes of this machine have left, a day after they were locked.

    Args:
        name: The name, of any length.
        role: What the holder is besides its process, for the message of others.

    Returns:
        The lock; None where there can be none: without a private cache folder, or without locks of files.

    Raises:
        LockedError: Another process has it.
    """
    try:
        # Machines may share the user's folders, on file systems whose locks are those of one machine.
        folder = open_user_folder("cache", _FOLDER, _digest(socket.gethostname()), create=True)
        with _passed_gate(folder / _GATE) as is_alone:
            if is_alone:
                _remove_left_files(folder)
            return FileLock.acquire(folder / _digest(name), role=role)
    except (OSError, ImportError) as error:
        _log.info("%s is not locked: %s", redact_text(name), error, extra={"event": "not-locked"})
        return None


@contextmanager
def _passed_gate(path: Path) -> Iterator[bool]:
    """Hold off the removal of files by others; yields whether files may be removed: no other is in here.

    Raises:
        OSError: The file cannot be created, or its file system has no locks.
    """
    import fcntl  # as above

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        except BlockingIOError:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            is_alone = False
        try:
            yield is_alone
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a fork of another thread may have copied the descriptor
    finally:
        os.close(descriptor)


def _remove_left_files(folder: Path) -> None:
    """Remove old files that no process has locked; within the gate, since `FileLock.acquire` would find them locked."""
    import fcntl  # as above

    paths = [path for path in folder.iterdir() if path.name != _GATE]
    for path in random.sample(paths, min(len(paths), _MAX_CHECKED)):
        with suppress(OSError):  # it is locked, or its holder has removed it
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or time.time() - status.st_mtime < _LEFT_S:
                continue
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_file_of(path, descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _is_file_of(path: Path, descriptor: int) -> bool:
    """Whether a path leads to an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _describe_holder(role: str) -> bytes:
    text = f"process {os.getpid()}" + (f" ({role})" if role else "")
    return text.encode()[:_MAX_HOLDER_BYTES]
