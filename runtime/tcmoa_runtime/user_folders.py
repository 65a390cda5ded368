"""The user's own folders for what belongs to a machine and not to a bundle: caches, timings, and records.

What lies there decides which native code runs. So these folders are private: made for the user alone (0700), and not
used if they are links, belong to another user, or can be written to by others.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

UserFolder = Literal["cache", "data"]
"""`cache` may be deleted at any time (Linux: ~/.cache/tcmoa); `data` is kept (~/.local/share/tcmoa)."""

_APP: Final = "tcmoa"
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class UnsafeFolderError(OSError):
    """A folder of the user is a link, belongs to another user, or others can write to it; `strerror` says which."""


def user_folder(kind: UserFolder, *parts: str) -> Path:
    """Return the path of a private folder below the user's cache or data folder; nothing is created or checked.

    Raises:
        OSError: The environment names a relative path.
    """
    import platformdirs  # only where a backend compiles, or a bundle has engines

    find = platformdirs.user_cache_path if kind == "cache" else platformdirs.user_data_path
    root = find(_APP, appauthor=False)
    if not root.is_absolute():
        raise UnsafeFolderError(errno.EINVAL, f"{root} is relative; expected an absolute path", str(root))
    return root.joinpath(*parts)


def open_user_folder(kind: UserFolder, *parts: str, create: bool = False) -> Path:
    """Return a private folder below the user's cache or data folder, after checking it and those above it.

    Args:
        kind: Which of the two.
        parts: Names of the folders below it.
        create: Create the folders that are missing.

    Raises:
        UnsafeFolderError: One of the folders is not private.
        OSError: It is missing, or cannot be created.
    """
    folder = user_folder(kind)
    if create:
        folder.parent.mkdir(parents=True, exist_ok=True)
    for name in ("", *parts):
        folder = folder / name
        if create:
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
        _check_private(folder)
    return folder


def write_private_file(path: Path, data: bytes) -> None:
    """Write a file that only the user can read (0600), whole or not at all; raises OSError with this path."""
    try:
        _write_and_rename(path, data)
    except OSError as error:  # of a temporary file, or without a path where the disk is full
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_and_rename(path: Path, data: bytes) -> None:
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(partial).replace(path)
    except BaseException:  # KeyboardInterrupt too
        with suppress(OSError):
            Path(partial).unlink()
        raise


def _check_private(folder: Path) -> None:
    status = folder.lstat()
    problem = None
    if stat.S_ISLNK(status.st_mode):
        problem = "a symbolic link"
    elif not stat.S_ISDIR(status.st_mode):
        problem = "not a folder"
    elif hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            problem = "belongs to another user"
        elif status.st_mode & _OTHERS_WRITE:
            problem = f"has mode {stat.S_IMODE(status.st_mode):04o}, so that others can write to it"
    if problem is not None:
        raise UnsafeFolderError(
            errno.EPERM, f"{problem}; expected a folder of your own that only you can write to", str(folder)
        )
