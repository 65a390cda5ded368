"""Locks between the processes of a user, which the system releases when their holder ends, however it ends."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tcmoa_runtime.location import redact_text
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.user_folders import open_user_folder

_FOLDER: Final = "locks"
_MAX_HOLDER_BYTES: Final = 1000

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

    Args:
        name: The name, of any length.
        role: What the holder is besides its process, for the message of others.

    Returns:
        The lock; None where there can be none: without a private cache folder, or without locks of files.

    Raises:
        LockedError: Another process has it.
    """
    try:
        folder = open_user_folder("cache", _FOLDER, create=True)
        of_host = f"{socket.gethostname()} {name}"  # machines may share the user's folders
        return FileLock.acquire(folder / hashlib.sha256(os.fsencode(of_host)).hexdigest(), role=role)
    except (OSError, ImportError) as error:
        _log.info("%s is not locked: %s", redact_text(name), error, extra={"event": "not-locked"})
        return None


def _is_file_of(path: Path, descriptor: int) -> bool:
    """Whether a path leads to an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _describe_holder(role: str) -> bytes:
    text = f"process {os.getpid()}" + (f" ({role})" if role else "")
    return text.encode()[:_MAX_HOLDER_BYTES]
