"""Bundles on the nodes of a cluster: by name, by a path that every node sees, or copied into each node's cache."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.bundle import MANIFEST, Bundle
from tcmoa_runtime.cluster.nodes import ClusterNode, list_nodes, on_each_node
from tcmoa_runtime.engine_folders import ENGINES_FOLDER, list_engine_files
from tcmoa_runtime.errors import BundleError, TcmoaError
from tcmoa_runtime.manifest import SELF_HASH
from tcmoa_runtime.partial import partial_folder
from tcmoa_runtime.ready_bundles import ready_name
from tcmoa_runtime.regular_file import open_regular_file
from tcmoa_runtime.user_folders import open_user_folder

if TYPE_CHECKING:
    from ray import ObjectRef

CACHE_FOLDER: Final = "bundles"
"""Folder in a node's cache folder, with a folder for each bundle, named by the hash of its bundle.json."""
_SHARED_REMEDY: Final = "Give every node the same file system, or the same version of the bundle"


@dataclass(frozen=True)
class BundleReference:
    """A bundle that a process on any node can open; it can be pickled.

    Attributes:
        spelling: What messages call the bundle: the path or name that was given.
        sha256: Hash of its bundle.json, which holds the hashes of graph and weights.
        path: Name of a ready bundle, or a path that every node sees; None if the files are copied.
        files: Relative paths of the files, and their bytes in Ray's object store, uint8 [N].
    """

    spelling: str
    sha256: str
    path: str | None = None
    files: tuple[tuple[str, ObjectRef[NDArray[np.uint8]]], ...] = ()

    def open_path(self) -> Path:
        """Return the folder of the bundle on this node, after fetching what its cache lacks.

        Open it like any other bundle: `Bundle.open` and the backends check descriptions, hashes and graphs. Engines in
        a bundle that was copied are those of another machine, and loaded only where they are trusted.

        Raises:
            BundleError: The path holds another bundle on this node than where the work was started.
            TcmoaError: The files cannot be fetched.
            OSError: The cache cannot be written, or is not private.
        """
        if self.path is not None:
            bundle = Bundle.open(self.path)
            arrived = bundle_hash(bundle)
            if arrived != self.sha256:
                raise BundleError(
                    f"SHA-256 of {MANIFEST} is {arrived[:12]}… on this node; expected {self.sha256[:12]}…",
                    subject=self.path,
                    remedy=_SHARED_REMEDY,
                )
            return bundle.path
        target = open_user_folder("cache", CACHE_FOLDER, create=True) / self.sha256
        if not _is_whole(target, self.sha256):
            self._fetch(target)
        return target

    def _fetch(self, target: Path) -> None:
        """Write the files beside `target` and rename the folder; another process may do the same meanwhile."""
        import ray

        with partial_folder(target) as partial:
            for name, reference in self.files:
                path = partial / name
                path.parent.mkdir(exist_ok=True)
                try:
                    data = ray.get(reference)
                except ray.exceptions.RayError as error:
                    raise TcmoaError(
                        "its files are lost with the node that held them; expected them in Ray's object store",
                        subject=self.spelling,
                        remedy="Start the work again",
                    ) from error
                with path.open("xb") as file:
                    file.write(data.data)
            if not _is_whole(partial, self.sha256):
                raise BundleError("arrived damaged on this node", subject=self.spelling)
            with contextlib.suppress(OSError):  # another process was faster
                partial.rename(target)
            if not _is_whole(target, self.sha256):  # what is there is damaged: replace it
                shutil.rmtree(target, ignore_errors=True)
                partial.rename(target)


def ship_bundle(
    path: str | Path, *, nodes: Sequence[ClusterNode] | None = None, copy: bool = False
) -> BundleReference:
    """Make a bundle known to the nodes of the cluster that this process is connected to.

    A ready bundle goes by its name. So does a path at which every node finds the same bundle. Of others, the files go
    into Ray's object store, where they stay as long as the process or actor lives that called this.

    Args:
        path: Folder of the bundle, or name of a ready one.
        nodes: The nodes; those of the cluster if None.
        copy: Copy the files also where every node finds them, e.g. because nodes will come that do not.

    Raises:
        BundleError: It is no bundle, or a file differs from its description.
    """
    import ray

    bundle = Bundle.open(path)
    sha256 = bundle_hash(bundle)
    name = ready_name(bundle.path)
    if name is not None:
        return BundleReference(str(path), sha256, name)
    if not copy:
        absolute = str(bundle.path.resolve())
        found = on_each_node(_hash_at, nodes if nodes is not None else list_nodes(), absolute)
        if all(arrived in (sha256, None) for arrived in found) and sha256 in found:
            return BundleReference(str(path), sha256, absolute)
    bundle.check()
    names = [
        MANIFEST,
        *bundle.files,
        *(f"{ENGINES_FOLDER}/{file.name}" for file in list_engine_files(bundle)),
    ]
    files = tuple((name, ray.put(_read_bytes(bundle.path / name))) for name in names)
    return BundleReference(str(path), sha256, None, files)


def bundle_hash(bundle: Bundle) -> str:
    """Return the hash of a bundle: that of its bundle.json, hexadecimal."""
    return str(bundle.manifest[SELF_HASH])


def _read_bytes(path: Path) -> NDArray[np.uint8]:
    try:
        with open_regular_file(path) as file:
            return np.frombuffer(file.read(), np.uint8)
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", subject=path) from error


def _hash_at(path: str) -> str:
    """Return the hash of the bundle at a path of this node; an empty text if there is none."""
    try:
        return bundle_hash(Bundle.open(path))
    except (BundleError, OSError):
        return ""


def _is_whole(folder: Path, sha256: str) -> bool:
    """Whether a folder holds the bundle, with every file as its description says."""
    try:
        bundle = Bundle.open(folder)
        for name in bundle.files:
            bundle.check_file(name)
    except (BundleError, OSError):
        return False
    return bundle_hash(bundle) == sha256
