"""The kernels that TensorRT-RTX compiles when an engine first runs, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import warnings
from typing import Final, Protocol

from tcmoa_runtime.backends.compile_cache import cache_key
from tcmoa_runtime.engine import Engine
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.regular_file import read_regular_file
from tcmoa_runtime.user_folders import open_user_folder, user_folder, write_private_file

_MAGIC: Final = b"tcmoa runtime cache 1\n"
_HASH_BYTES: Final = 32
_FOLDER: Final = "kernels"
_MAX_BYTES: Final = 1 << 30


class RuntimeCache(Protocol):
    """What is used of TensorRT-RTX's `IRuntimeCache`."""

    def serialize(self) -> object:
        """Return the kernels as a buffer, None if there are none."""
        ...

    def deserialize(self, serialized_cache: bytes) -> bool:
        """Add kernels; returns False if they are refused."""
        ...


class KernelCache:
    """A file of compiled kernels, for one engine and one kind of GPU.

    The library checks only on which machine kernels were compiled. The file's header adds the hash of the engine and
    that of the kernels.

    Args:
        engine: The engine.
        device: The GPU that it runs on.
        cache: The cache of its runtime configuration.
    """

    def __init__(self, engine: Engine, device: CudaDevice, cache: RuntimeCache) -> None:
        key = cache_key(engine.engine_entry.sha256, device.name, device.compute_capability)
        self._name = f"rtx-{key}.runtime_cache"
        self._engine_hash = bytes.fromhex(engine.engine_entry.sha256)
        self._cache = cache
        self._saved = b""

    def load(self) -> None:
        """Read the file if there is one; a file that does not belong to the engine is ignored with a warning."""
        try:
            data = read_regular_file(open_user_folder("cache", _FOLDER) / self._name, max_bytes=_MAX_BYTES)
        except FileNotFoundError:
            return
        except OSError as error:
            _warn(f"{error.filename}: {error.strerror}; kernels are compiled again")
            return
        kernels = data[len(_MAGIC) + 2 * _HASH_BYTES :]
        if data == self._header(kernels) + kernels and self._cache.deserialize(kernels):
            self._saved = kernels
            return
        path = user_folder("cache", _FOLDER, self._name)
        _warn(f"{path}: damaged or written on another machine; kernels are compiled again")

    def save(self) -> None:
        """Write the file if kernels were compiled; a failure is a warning."""
        memory = self._cache.serialize()
        kernels = b"" if memory is None else bytes(memoryview(memory))  # type: ignore[arg-type]  # a buffer
        if not kernels or kernels == self._saved:
            return
        try:
            folder = open_user_folder("cache", _FOLDER, create=True)
            write_private_file(folder / self._name, self._header(kernels) + kernels)
        except OSError as error:
            _warn(f"{error.filename}: {error.strerror}; kernels will be compiled again at the next start")

    def _header(self, kernels: bytes) -> bytes:
        return _MAGIC + self._engine_hash + hashlib.sha256(kernels).digest()


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=5)
