"""The kernels that TensorRT-RTX compiles when an engine first runs, kept in a file beside the engine."""

from __future__ import annotations

import hashlib
import warnings
from typing import Final, Protocol

from tcmoa_runtime.engine import Engine
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import write_bytes

_MAGIC: Final = b"tcmoa runtime cache 1\n"
_HASH_BYTES: Final = 32


class RuntimeCache(Protocol):
    """What is used of TensorRT-RTX's `IRuntimeCache`."""

    def serialize(self) -> object:
        """Return the kernels as a buffer, None if there are none."""
        ...

    def deserialize(self, serialized_cache: bytes) -> bool:
        """Add kernels; returns False if they are refused."""
        ...


class KernelCache:
    """A file of compiled kernels.

    The library checks only on which machine kernels were compiled. The file's header adds the hash of the engine and
    that of the kernels.

    Args:
        engine: The engine.
        cache: The cache of its runtime configuration.
    """

    def __init__(self, engine: Engine, cache: RuntimeCache) -> None:
        self._path = engine.path.with_suffix(".runtime_cache")
        self._engine_hash = bytes.fromhex(engine.engine_entry.sha256)
        self._cache = cache
        self._saved = b""

    def load(self) -> None:
        """Read the file if there is one; a file that does not belong to the engine is ignored with a warning."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError:
            data = b""
        kernels = data[len(_MAGIC) + 2 * _HASH_BYTES :]
        if data == self._header(kernels) + kernels and self._cache.deserialize(kernels):
            self._saved = kernels
            return
        warnings.warn(
            f"{self._path}: damaged or written on another machine; kernels are compiled again",
            RuntimeWarning,
            stacklevel=4,
        )

    def save(self) -> None:
        """Write the file if kernels were compiled; a failure is a warning."""
        memory = self._cache.serialize()
        kernels = b"" if memory is None else bytes(memoryview(memory))  # type: ignore[arg-type]  # a buffer
        if not kernels or kernels == self._saved:
            return
        try:
            write_bytes(self._path, self._header(kernels) + kernels)
        except InputError as error:
            warnings.warn(
                f"{error}; kernels will be compiled again at the next start", RuntimeWarning, stacklevel=4
            )

    def _header(self, kernels: bytes) -> bytes:
        return _MAGIC + self._engine_hash + hashlib.sha256(kernels).digest()
