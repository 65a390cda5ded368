"""Writing bundles: into a new folder, which is renamed when it is complete, see `new_folder`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from tcmoa_runtime import new_folder
from tcmoa_runtime.bundle import MANIFEST, Bundle
from tcmoa_runtime.engine_folders import copy_engines
from tcmoa_runtime.manifest import SELF_HASH, file_sha256, manifest_sha256
from tcmoa_runtime.partial import partial_file
from tcmoa_runtime.typing import JsonObject, JsonValue

_KIND: Final = new_folder.FolderKind("bundle", MANIFEST)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise InputError when a bundle must not be written to `target`."""
    new_folder.check_target(target, _KIND, overwrite=overwrite)


def new_bundle(target: Path, *, overwrite: bool = True) -> AbstractContextManager[Path]:
    """Return a context of an empty folder beside `target`, renamed to `target` at its end, see `new_folder`."""
    return new_folder.new_folder(target, _KIND, overwrite=overwrite)


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
