"""One supervisor for a fleet on a machine; on a cluster, its actors say who watches them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.file_lock import LockedError, acquire_named_lock
from tcmoa_runtime.fleet.file import FleetFile
from tcmoa_runtime.streams.output_locks import OutputLockedError, check_not_locked

ORPHAN_S: Final = 5.0
"""Time in which the streams of a private Ray end whose supervisor was killed."""


@contextlib.contextmanager
def claimed_fleet(path: Path) -> Iterator[None]:
    """Be the only supervisor of a file on this machine for the time of a with-block, whatever path leads to the file.

    Raises:
        InputError: Another process is.
    """
    try:
        lock = acquire_named_lock(f"fleet {path.resolve()}")
    except LockedError as error:
        raise InputError(
            f"{error} runs this fleet already; expected one supervisor",
            subject=path,
            remedy="End that one first: it reads changes of the file by itself",
        ) from error
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def check_outputs_free(file: FleetFile, path: Path) -> None:
    """Refuse a fleet whose outputs are written by others on this machine.

    Args:
        file: The fleet.
        path: Its file.

    Raises:
        OutputLockedError: A stream writes one of them; the subject has the table that names it.
    """
    deadline = time.monotonic() + ORPHAN_S
    for pair in file.pairs.values():
        while True:
            try:
                check_not_locked(pair.setup.all_outs)
                break
            except OutputLockedError as error:
                if time.monotonic() > deadline:
                    raise error.with_subject(f"{path}: pairs.{pair.name}: {error.subject}") from error
            time.sleep(0.1)
