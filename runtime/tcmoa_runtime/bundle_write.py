"""Writing bundles: beside their place, complete, and only then renamed to it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tcmoa_runtime.bundle import MANIFEST, Bundle
from tcmoa_runtime.engine import FOLDER
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.manifest import SELF_HASH, file_sha256, manifest_sha256


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise InputError when a bundle must not be written to `target`."""
    check_place(target)
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"{target}: is a file, expected a folder to be made")
    if not any(target.iterdir()):
        return
    if not (target / MANIFEST).is_file():
        raise InputError(f"{target}: holds other files and no bundle; choose another --out")
    if not overwrite:
        raise InputError(f"{target}: holds a bundle already; add --overwrite, or choose another --out")


def check_place(target: Path) -> None:
    """Raise InputError when what is to hold `target` is no folder, or one that must not be written to."""
    holder = next(parent for parent in target.absolute().parents if parent.exists())
    if not holder.is_dir():
        raise InputError(f"{target}: cannot be written: {holder} is a file, expected a folder")
    if not os.access(holder, os.W_OK):
        raise InputError(
            f"{target}: cannot be written: the folder {holder} is read-only; choose another place"
        )


@contextmanager
def new_bundle(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, renamed to it when the block ends well, else removed with all in it.

    Raises InputError when it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error
    try:
        yield partial
        _put_in_place(partial, target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`; a bundle that is there goes only once the new one stands."""
    mask = os.umask(0)
    os.umask(mask)
    partial.chmod(0o777 & ~mask)
    if not target.exists():
        partial.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    try:
        target.rename(old / target.name)
        partial.rename(target)
    except BaseException:  # an interrupt, too: what stood there comes back
        if (old / target.name).exists() and not target.exists():
            (old / target.name).rename(target)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def list_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the hashes of all files in `folder` into the manifest."""
    manifest["files"] = {
        path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write bundle.json with its own hash."""
    manifest.pop(SELF_HASH, None)
    manifest[SELF_HASH] = manifest_sha256(manifest)
    partial = folder / f".{MANIFEST}.partial"
    partial.write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST)


def derive_bundle(
    bundle: Bundle, out: str | os.PathLike[str], changes: dict[str, Any], *, overwrite: bool = False
) -> Bundle:
    """A copy of `bundle` with the same graph and engines, and entries of bundle.json replaced by `changes`.

    Raises InputError when `out` must not or cannot be written, BundleError when a file of the bundle is damaged.
    """
    target = Path(out)
    check_target(target, overwrite=overwrite)
    bundle.check()
    with new_bundle(target) as partial:
        for name in bundle.files:
            shutil.copyfile(bundle.path / name, partial / name)
        write_manifest(partial, {**bundle.manifest, **changes})
        if (bundle.path / FOLDER).is_dir():
            shutil.copytree(bundle.path / FOLDER, partial / FOLDER)
        Bundle.open(partial)  # what was changed must be what the runtime reads
    return Bundle.open(target)
