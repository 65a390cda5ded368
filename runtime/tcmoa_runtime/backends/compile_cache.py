"""Folders in the user's cache folder where an inference library keeps what it compiled for a graph."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
import warnings
from pathlib import Path
from typing import Final

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine_folders import graph_key
from tcmoa_runtime.regular_file import MAX_SMALL_BYTES, open_regular_file, read_regular_file
from tcmoa_runtime.typing import JsonValue
from tcmoa_runtime.user_folders import open_user_folder, write_private_file

_FOLDER: Final = "compiled"
_SEAL: Final = "cache.json"
"""File with the hashes of the others."""
_LOCK: Final = ".lock"
_LOCK_WAIT_S: Final = 60.0
"""How long a session waits for another one that compiles the same graph: longer than a compilation takes."""
_LOCK_POLL_S: Final = 0.05
_KEY_DIGITS: Final = 32


class CompileCache:
    """A private folder for one graph, one library and one device; it is never in the bundle.

    Compiled files run as native code, and the libraries do not check them. So only the user can write to the folder,
    and the hashes of its files are recorded when a session has been created and when it is closed (`seal`). Files that
    differ, after damage or an interrupted run, are deleted before the next session. One session at a time uses the
    folder while it compiles, so that no other reads or deletes a file that is half written.

    Attributes:
        folder: The folder.
        prefix: A name that no other graph has.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix
        self._lock: int | None = None

    @staticmethod
    def open(bundle: Bundle, backend: str, library: str, device: str) -> CompileCache | None:
        """Open the cache of a bundle's graph.

        Args:
            bundle: The bundle.
            backend: Name of the backend.
            library: Names and versions of the libraries that compile.
            device: What they compile for, e.g. the CPU and its instructions.

        Returns:
            The cache, which `close` releases for others; None, after a warning, if the user's cache folder cannot be
            used or another session uses it for a minute.
        """
        graph = graph_key(bundle)
        key = cache_key(backend, library, device, graph)
        try:
            cache = CompileCache(
                open_user_folder("cache", _FOLDER, f"{backend}-{key}", create=True), graph[:_KEY_DIGITS]
            )
            if not cache._acquire(_LOCK_WAIT_S):
                warnings.warn(
                    f"{cache.folder}: another process compiles the same graph; {backend} compiles it without a cache",
                    RuntimeWarning,
                    stacklevel=4,
                )
                return None
            try:
                cache._delete_unsealed()
                cache.seal()
            except BaseException:
                cache.release()
                raise
        except OSError as error:
            warnings.warn(
                f"{error.filename}: {error.strerror}; {backend} compiles at each start",
                RuntimeWarning,
                stacklevel=4,
            )
            return None
        return cache

    def seal(self) -> None:
        """Record the hash of each file; raises OSError when that cannot be done."""
        files: dict[str, str] = {}
        for path in self._files():
            files[path.name] = _sha256(path)
            path.chmod(0o600)  # the library made it with the umask
        write_private_file(self.folder / _SEAL, (json.dumps({"files": files}, indent=2) + "\n").encode())

    def close(self) -> None:
        """Seal what was written while the session was open, and release the folder; a failure is a warning.

        May be called again when more was written; then nothing is sealed while another session uses the folder.
        """
        try:
            if self._lock is not None or self._acquire(0):
                self.seal()
        except OSError as error:
            warnings.warn(
                f"{error.filename}: {error.strerror}; kernels will be compiled again",
                RuntimeWarning,
                stacklevel=4,
            )
        finally:
            self.release()

    def _acquire(self, wait_s: float) -> bool:
        """Lock the folder for this session; returns False if another one holds it for `wait_s` seconds."""
        descriptor = os.open(
            self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        end = time.monotonic() + wait_s
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= end:
                        os.close(descriptor)
                        return False
                    time.sleep(_LOCK_POLL_S)
                else:
                    self._lock = descriptor
                    return True
        except BaseException:
            if self._lock is None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            raise

    def release(self) -> None:
        """Let other sessions use the folder; what was written since `open` is deleted by the next one."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _files(self) -> list[Path]:
        """Return the files but the seal and those that another process is writing, whose names begin with a dot."""
        paths = self.folder.iterdir()
        return sorted(path for path in paths if path.name != _SEAL and not path.name.startswith("."))

    def _delete_unsealed(self) -> None:
        known = self._read_seal()
        num_deleted = 0
        for path in self._files():
            if not _has_hash(path, known.get(path.name)):
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
            files = json.loads(read_regular_file(self.folder / _SEAL, max_bytes=MAX_SMALL_BYTES))["files"]
        except (OSError, ValueError, RecursionError, LookupError, TypeError):
            return {}
        return files if isinstance(files, dict) else {}


def cache_key(*parts: str) -> str:
    """Return a file name for what depends on all of `parts`; the C library makes the same one."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_KEY_DIGITS]


def _has_hash(path: Path, expected: object) -> bool:
    try:
        return expected == _sha256(path)
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with open_regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
