"""Reading files that may be something else: a pipe, a device, a link, or larger than anything expected there.

Opening a named pipe waits for a writer, a device may have no end, and a sparse file has any size. So a file is opened
without waiting, and its kind and size are checked on the open descriptor before a byte is read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from typing import Final

MAX_SMALL_BYTES: Final = 1 << 20
"""Bound for files of settings and descriptions, e.g. JSON."""

_KINDS: Final[tuple[tuple[Callable[[int], bool], str], ...]] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a symbolic link"),
)
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
_BINARY: Final = getattr(os, "O_BINARY", 0)


class NotRegularFileError(OSError):
    """A path leads to a folder, pipe, device, socket or link; `strerror` says to which."""


class FileTooLargeError(OSError):
    """A file has more bytes than may be read; `strerror` has both numbers."""


def open_regular_file(
    path: str | os.PathLike[str], *, max_bytes: int | None = None, follow_links: bool = False
) -> BufferedReader:
    """Open a file for reading if it is a regular one, without waiting for anything.

    Args:
        path: The file.
        max_bytes: Largest size; None: any.
        follow_links: Follow a symbolic link in the last part of the path, which else is refused. Links in the folders
            before it are always followed.

    Returns:
        The open file, whose kind and size were checked after opening.

    Raises:
        NotRegularFileError: It is something else.
        FileTooLargeError: It is larger than `max_bytes`.
        OSError: It is missing or cannot be read.
    """
    name = os.fspath(path)
    before = os.stat(name, follow_symlinks=follow_links)  # noqa: PTH116  # `name` as the caller gave it, for errors
    _check_kind(before.st_mode, name)  # opening a device may already do something
    try:
        descriptor = os.open(
            name, os.O_RDONLY | _NONBLOCK | _CLOEXEC | _BINARY | (0 if follow_links else _NOFOLLOW)
        )
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise NotRegularFileError(errno.ELOOP, _expected("a symbolic link"), name) from error
        raise
    try:
        opened = os.fstat(descriptor)
        _check_kind(opened.st_mode, name)
        _check_size(opened.st_size, max_bytes, name)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise


def read_regular_file(path: str | os.PathLike[str], *, max_bytes: int, follow_links: bool = False) -> bytes:
    """Return the bytes of a regular file of at most `max_bytes`; see `open_regular_file`.

    A file that grows while it is read is refused too.
    """
    with open_regular_file(path, max_bytes=max_bytes, follow_links=follow_links) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(max_bytes, size) + 1)  # not more: the buffer is allocated first
    if len(data) > size:
        raise FileTooLargeError(errno.EFBIG, "grew while it was read", os.fspath(path))
    return data


def _check_kind(mode: int, name: str) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((text for is_kind, text in _KINDS if is_kind(mode)), "something else")
    raise NotRegularFileError(errno.EINVAL, _expected(kind), name)


def _check_size(arrived: int, max_bytes: int | None, name: str) -> None:
    if max_bytes is not None and arrived > max_bytes:
        raise FileTooLargeError(errno.EFBIG, f"{arrived} bytes; expected at most {max_bytes}", name)


def _expected(kind: str) -> str:
    return f"{kind}; expected a regular file"
