"""Folders that are written whole: under another name beside their target, and renamed when they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.file_lock import FileLock, LockedError
from tcmoa_runtime.partial import partial_folder
from tcmoa_runtime.ready_bundles import READY_FOLDER


@dataclass(frozen=True)
class FolderKind:
    """What a folder holds: its name in messages, and the file by which such a folder is known."""

    noun: str
    marker: str


def check_target(target: Path, kind: FolderKind, *, overwrite: bool) -> None:
    """Raise InputError when a folder of a kind must not be written to `target`."""
    check_parent(target)
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError("a file; expected a new folder", subject=target, remedy="Choose another folder")
    if not any(target.iterdir()):
        return
    if not (target / kind.marker).is_file():
        raise InputError(
            f"holds other files; expected a {kind.noun}, an empty folder or none",
            subject=target,
            remedy="Choose another folder",
        )
    if not overwrite:
        raise InputError(
            f"holds a {kind.noun} already; expected an empty folder or none",
            subject=target,
            remedy=f"Choose another folder, or replace the {kind.noun} with {{overwrite}}",
            settings={"overwrite": True},
        )


def check_parent(target: Path) -> None:
    """Raise InputError when `target` must not be written.

    It is in the installed package, or the nearest existing folder above it is not a folder or is read-only.
    """
    if target.resolve().is_relative_to(READY_FOLDER.resolve()):
        raise InputError(
            "in the installed package; expected a folder of your own",
            subject=target,
            remedy="Choose another folder",
        )
    parent = next(parent for parent in target.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise InputError(f"cannot be written: {parent} is a file; expected a folder", subject=target)
    if not os.access(parent, os.W_OK):
        raise InputError(
            f"cannot be written: the folder {parent} is read-only",
            subject=target,
            remedy="Choose another folder",
        )


def _unwritable(target: Path, error: OSError) -> InputError:
    return InputError(f"cannot be written: {error.strerror or error}", subject=target)


@contextmanager
def new_folder(target: Path, kind: FolderKind, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside `target`, and rename it to `target` at the end of the block.

    After an exception the folder is removed and `target` is unchanged.

    Args:
        target: The folder.
        kind: What it is to hold.
        overwrite: Whether such a folder may be there, see `check_target`.

    Raises:
        InputError: The folder cannot be written, or another process is writing it.
    """
    try:
        with partial_folder(target) as partial, _locked(target):
            check_target(
                target, kind, overwrite=overwrite
            )  # again: another process may have written it meanwhile
            yield partial
            _move_into_place(partial, target)
    except OSError as error:
        raise _unwritable(target, error) from error


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system releases it when the process ends.

    Raises:
        InputError: Another process holds it.
    """
    try:
        lock = FileLock.acquire(target.with_name(f".{target.name[:50]}.lock"), mode=0o666)
    except LockedError as error:
        raise InputError(
            "is being written by another process; expected one at a time",
            subject=target,
            remedy="Wait until it has ended, or choose another folder",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _move_into_place(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`; an existing folder is removed only after the rename."""
    if not target.exists():
        partial.rename(target)
        return
    with partial_folder(target) as aside:
        old = aside / target.name
        try:
            target.rename(old)
            partial.rename(target)
        except BaseException:  # KeyboardInterrupt too: the old folder is restored
            if old.exists() and not target.exists():
                old.rename(target)
            raise
