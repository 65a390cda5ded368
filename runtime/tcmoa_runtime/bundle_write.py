"""Writing bundles: into a new folder, which is renamed when it is complete."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tcmoa_runtime.bundle import MANIFEST, Bundle
from tcmoa_runtime.engine_folders import copy_engines
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.manifest import SELF_HASH, file_sha256, manifest_sha256
from tcmoa_runtime.partial import partial_file, partial_folder
from tcmoa_runtime.ready_bundles import READY_FOLDER
from tcmoa_runtime.typing import JsonObject, JsonValue


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise InputError when a bundle must not be written to `target`."""
    check_parent(target)
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError("a file; expected a new folder", subject=target, remedy="Choose another folder")
    if not any(target.iterdir()):
        return
    if not (target / MANIFEST).is_file():
        raise InputError(
            "holds other files; expected a bundle, an empty folder or none",
            subject=target,
            remedy="Choose another folder",
        )
    if not overwrite:
        raise InputError(
            "holds a bundle already; expected an empty folder or none",
            subject=target,
            remedy="Choose another folder, or replace the bundle with {overwrite}",
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
def new_bundle(target: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside `target`, and rename it to `target` at the end of the block.

    After an exception the folder is removed and `target` is unchanged.

    Args:
        target: Folder of the bundle.
        overwrite: Whether a bundle may be there, see `check_target`.

    Raises:
        InputError: The folder cannot be written, or another process is writing it.
    """
    try:
        with partial_folder(target) as partial, _locked(target):
            check_target(target, overwrite=overwrite)  # again: another process may have written it meanwhile
            yield partial
            _move_into_place(partial, target)
    except OSError as error:
        raise _unwritable(target, error) from error


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of a bundle's folder; the system releases it when the process ends.

    Raises:
        InputError: Another process holds it.
    """
    path = target.with_name(f".{target.name[:50]}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor))
        except OSError:
            is_held = False
        if not is_held:  # or its last holder has just removed it, while another process made a new one
            raise InputError(
                "is being written by another process; expected one at a time",
                subject=target,
                remedy="Wait until it has ended, or choose another folder",
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _move_into_place(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`; an existing bundle is removed only after the rename."""
    if not target.exists():
        partial.rename(target)
        return
    with partial_folder(target) as aside:
        old = aside / target.name
        try:
            target.rename(old)
            partial.rename(target)
        except BaseException:  # KeyboardInterrupt too: the old bundle is restored
            if old.exists() and not target.exists():
                old.rename(target)
            raise


def record_files(folder: Path, manifest: JsonObject) -> None:
    """Write size and hash of all files in `folder` into the manifest."""
    manifest["files"] = {
        path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }


def write_manifest(folder: Path, manifest: JsonObject) -> None:
    """Write bundle.json and its hash."""
    manifest.pop(SELF_HASH, None)
    manifest[SELF_HASH] = manifest_sha256(manifest)
    with partial_file(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def derive_bundle(
    bundle: Bundle,
    out: str | os.PathLike[str],
    changes: Mapping[str, JsonValue],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Copy a bundle with its graph and engines, and replace entries of bundle.json.

    Args:
        bundle: The bundle to copy.
        out: Folder of the copy.
        changes: New entries of bundle.json, by key.
        overwrite: Replace a bundle at `out`.

    Raises:
        InputError: `out` must not or cannot be written.
        BundleError: A file of the bundle is damaged.
    """
    target = Path(out)
    check_target(target, overwrite=overwrite)
    bundle.check()
    with new_bundle(target, overwrite=overwrite) as partial:
        for name in bundle.files:
            shutil.copyfile(bundle.path / name, partial / name)
        write_manifest(partial, {**bundle.manifest, **changes})
        copy_engines(bundle, partial)
        Bundle.open(partial)  # refuses changes that the runtime could not read
    return Bundle.open(target)
