"""Folders in a bundle where an inference library keeps what it compiled."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from pathlib import Path
from typing import Final

from tcmoa_runtime.bundle import GRAPH, Bundle
from tcmoa_runtime.engine import ENGINES_FOLDER
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.manifest import file_sha256
from tcmoa_runtime.typing import JsonValue

_SEAL: Final = "cache.json"
"""File with the hashes of the others."""


class CompileCache:
    """A folder in a bundle's `engines/` for one graph and one library.

    Compiled files run as native code, and the libraries do not check them. So their hashes are recorded when a session
    has been created and when it is closed (`seal`), and files that differ are deleted before the next session. That
    finds damage and interrupted runs. It is no protection against the author of the bundle, like with engines.

    Attributes:
        folder: The folder.
        prefix: A name that no other graph has, see `graph_prefix`.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix

    @staticmethod
    def open(bundle: Bundle, name: str) -> CompileCache | None:
        """Open the cache of a bundle.

        Args:
            bundle: The bundle.
            name: Name of the library or backend, with its version where caches of versions differ.

        Returns:
            The cache; None, after a warning, if the bundle cannot be written to.
        """
        prefix = graph_prefix(bundle)
        cache = CompileCache(bundle.path / ENGINES_FOLDER / f"{name}-{prefix}", prefix)
        try:
            cache.folder.mkdir(parents=True, exist_ok=True)
            cache._check_inside(bundle)
            cache._delete_unsealed()
            cache.seal()
        except (OSError, RuntimeError, InputError) as error:  # RuntimeError: links in a circle
            reason = f"{cache.folder}: {error.strerror}" if isinstance(error, OSError) else str(error)
            warnings.warn(f"{reason}; {name} compiles at each start", RuntimeWarning, stacklevel=4)
            return None
        return cache

    def seal(self) -> None:
        """Record the hash of each file; raises InputError or OSError when that cannot be written."""
        files = {path.name: file_sha256(path) for path in self._files()}
        write_bytes(self.folder / _SEAL, (json.dumps({"files": files}, indent=2) + "\n").encode())

    def close(self) -> None:
        """Seal what was written while the session was open; a failure is a warning."""
        try:
            self.seal()
        except (OSError, InputError) as error:
            warnings.warn(f"{error}; kernels will be compiled again", RuntimeWarning, stacklevel=4)

    def _check_inside(self, bundle: Bundle) -> None:
        if self.folder.resolve() != bundle.path.resolve() / ENGINES_FOLDER / self.folder.name:
            raise InputError(
                "a link out of the bundle; expected a folder, as its files run as native code",
                subject=self.folder,
            )

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.name != _SEAL)

    def _delete_unsealed(self) -> None:
        known = self._read_seal()
        num_deleted = 0
        for path in self._files():
            if path.is_symlink() or known.get(path.name) != file_sha256(path):
                path.unlink()
                num_deleted += 1
        if num_deleted:
            warnings.warn(
                f"{self.folder}: deleted {num_deleted} files that are damaged or left by an interrupted run; "
                f"they are compiled again",
                RuntimeWarning,
                stacklevel=5,
            )

    def _read_seal(self) -> dict[str, JsonValue]:
        try:
            files = json.loads((self.folder / _SEAL).read_bytes())["files"]
        except (OSError, ValueError, RecursionError, LookupError, TypeError):
            return {}
        return files if isinstance(files, dict) else {}


def graph_prefix(bundle: Bundle) -> str:
    """Return a file name that no other graph has: the graph's name and the start of its SHA-256."""
    hashes = [bundle.files[GRAPH].sha256, *(f.sha256 for name, f in bundle.files.items() if name != GRAPH)]
    digest = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return f"{re.sub(r'[^0-9A-Za-z_-]', '_', bundle.graph_name)[:80]}-{re.sub('[^0-9a-f]', '_', digest[:12])}"
