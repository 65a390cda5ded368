"""Files and folders that are written under a temporary name beside their target, and renamed when they are complete.

Their permissions are those of any new file: the system applies the umask when it creates them. Nothing is left after an
exception, also not after an interrupt: the name is chosen before the file is created, so there is no moment in which it
exists but would not be removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


def partial_path(target: Path) -> Path:
    """Return a hidden, unused name beside `target`; long names are cut, as file names have at most 255 bytes."""
    return target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.partial")


@contextmanager
def partial_file(target: Path) -> Iterator[Path]:
    """Yield an empty file beside `target`, and rename it to `target` at the end of the block.

    After an exception the file is removed and `target` is unchanged.

    Raises:
        OSError: The file cannot be created or renamed.
    """
    partial = partial_path(target)
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield partial
        partial.replace(target)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; the block moves it, and what is left at its end is removed.

    Folders above `target` that were missing are created, and removed again if the block leaves them empty.

    Raises:
        OSError: The folder cannot be created.
    """
    created = [folder for folder in target.parents if not folder.exists()]
    partial = partial_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
    finally:
        try:
            _remove(partial, created)
        except KeyboardInterrupt:  # a first one; `stop_signals` ignores the next
            _remove(partial, created)
            raise


def _remove(partial: Path, created: Sequence[Path]) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    for folder in created:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
