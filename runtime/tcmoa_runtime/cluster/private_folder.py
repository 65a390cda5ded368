"""The temporary folder of a private Ray, which is removed also after a session that was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PREFIX: Final = "tcmoa-ray-"
_LOCK: Final = "session.lock"
_MAX_ROOT_BYTES: Final = 30
"""Ray's sockets lie in the folder, and the path of a socket has at most 107 bytes."""


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a new folder that only this user can read, and remove it at the end of the block.

    Its owner holds a lock on a file in it. Folders whose owner was killed have none, and are removed first.
    """
    root = Path(tempfile.gettempdir())
    if len(os.fsencode(root)) > _MAX_ROOT_BYTES:
        root = Path("/tmp")
    _remove_abandoned(root)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))  # with mode 0700
        try:
            with (folder / _LOCK).open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if folder.exists():  # else another process has taken it for abandoned before it was locked
                    yield folder
                    return
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, in use, or just made and without its lock
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
