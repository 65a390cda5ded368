"""Where the engines of a bundle are: in its folder `engines/`, or in the user's data folder.

The second is for bundles that were installed with the package, which is not written to; the folders there have the
name `graph_key`.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from pathlib import Path
from typing import Final

from tcmoa_runtime.bundle import GRAPH, Bundle
from tcmoa_runtime.errors import BundleError, InputError
from tcmoa_runtime.regular_file import open_regular_file
from tcmoa_runtime.user_folders import UnsafeFolderError, open_user_folder, user_folder

ENGINES_FOLDER: Final = "engines"
"""Folder of engines in a bundle, and in the user's data folder."""
ENGINE_SUFFIX: Final = ".engine"
_ENGINE_SUFFIXES: Final = frozenset({ENGINE_SUFFIX, ".json", ".onnx"})
"""Of engines, their descriptions, and the graphs that engines without weights are refitted from."""


def graph_key(bundle: Bundle) -> str:
    """Return a name that no other graph has: the SHA-256 of the hashes of the bundle's files, hexadecimal."""
    hashes = [bundle.files[GRAPH].sha256, *(f.sha256 for name, f in bundle.files.items() if name != GRAPH)]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def engines_folder(bundle: Bundle) -> Path:
    """Return the folder that engines of a bundle are built into; it may not exist yet.

    It is in the bundle. For a bundle that was installed with the package, it is in the user's data folder.
    """
    package = Path(__file__).resolve().parent
    if bundle.path.resolve().is_relative_to(package):
        return user_folder("data", ENGINES_FOLDER, graph_key(bundle))
    return bundle.path / ENGINES_FOLDER


def make_engines_folder(bundle: Bundle) -> Path:
    """Create `engines_folder` and return it.

    Raises:
        BundleError: It is a symbolic link.
        InputError: It cannot be created.
    """
    folder = engines_folder(bundle)
    try:
        if folder.parent != bundle.path:
            return open_user_folder("data", ENGINES_FOLDER, folder.name, create=True)
        if folder.is_symlink():
            raise BundleError(
                "a symbolic link; expected a folder of the bundle, as engines run as native code",
                subject=folder,
                remedy="Remove the link",
            )
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", subject=error.filename or folder) from error
    return folder


def list_engine_files(bundle: Bundle) -> list[Path]:
    """Return the files in a bundle's `engines/`: the engines, and what describes them, sorted by name.

    Links and everything that is no file are left out: they may lead out of the bundle.

    Raises:
        OSError: The folder cannot be read.
    """
    folder = bundle.path / ENGINES_FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in _ENGINE_SUFFIXES and path.is_file() and not path.is_symlink()
    ]


def copy_engines(bundle: Bundle, target: Path) -> None:
    """Copy the engines of a bundle, and what describes them, into the folder of another bundle of the same graph.

    Raises:
        OSError: A file cannot be read or written.
    """
    for path in list_engine_files(bundle):
        (target / ENGINES_FOLDER).mkdir(exist_ok=True)
        with open_regular_file(path) as source, (target / ENGINES_FOLDER / path.name).open("wb") as copy:
            shutil.copyfileobj(source, copy)


def find_engines(bundle: Bundle) -> list[Path]:
    """Return the paths of a bundle's engines, sorted by name; none is opened.

    Engines are in the bundle's `engines/`, and in the user's data folder for its graph.

    Raises:
        BundleError: The folder cannot be read.
    """
    folder = bundle.path / ENGINES_FOLDER
    try:
        found = [p for p in folder.iterdir() if p.suffix == ENGINE_SUFFIX] if folder.is_dir() else []
    except OSError as error:
        raise BundleError(
            f"cannot be read: {error.strerror}",
            subject=folder,
            remedy=f"Make it readable. Or remove it and build the engine again with `tcmoa build {bundle.spelling}`",
        ) from error
    return sorted(found) + _find_user_engines(bundle)


def _find_user_engines(bundle: Bundle) -> list[Path]:
    try:
        folder = open_user_folder("data", ENGINES_FOLDER, graph_key(bundle))
        return sorted(p for p in folder.iterdir() if p.suffix == ENGINE_SUFFIX)
    except UnsafeFolderError as error:
        warnings.warn(f"{error.filename}: {error.strerror}; engines in it are not used", RuntimeWarning, 3)
    except OSError:
        pass
    return []


def check_inside(bundle: Bundle, path: Path, remedy: str) -> None:
    """Check that a file is in one of the folders of `find_engines`, with symbolic links followed.

    Args:
        bundle: The bundle.
        path: An engine, or a file beside one.
        remedy: What to do otherwise.

    Raises:
        BundleError: The engine is missing, or the file is elsewhere.
    """
    if path.suffix == ENGINE_SUFFIX and not path.is_file():
        raise BundleError("no such engine", subject=path, remedy=remedy)
    try:
        folder, target = path.parent.resolve(), path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise BundleError(f"cannot be read ({error})", subject=path, remedy=remedy) from error
    allowed = (bundle.path.resolve() / ENGINES_FOLDER, _user_engines(bundle))
    if folder not in allowed or target.parent != folder:
        raise BundleError(
            f"outside of {bundle.path / ENGINES_FOLDER}; expected an engine of the bundle, as engines run as native "
            "code",
            subject=path,
            remedy=remedy,
        )


def _user_engines(bundle: Bundle) -> Path | None:
    """Return the folder in the user's data folder, with symbolic links followed; None if it must not be used."""
    try:
        return open_user_folder("data", ENGINES_FOLDER, graph_key(bundle)).resolve()
    except OSError:
        return None
