"""Runtime of TC-MoA image fusion: bundles, backends and the Fuser. Imports neither torch nor onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcmoa_runtime._version import __version__
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import Contract, TensorSpec
from tcmoa_runtime.errors import BundleError, InputError, MemoryShortageError, MissingError, TcmoaError
from tcmoa_runtime.fuser import Fuser

if TYPE_CHECKING:
    from tcmoa_runtime.streams.stream import Stream

__all__ = [
    "Bundle",
    "BundleError",
    "Contract",
    "Fuser",
    "InputError",
    "MemoryShortageError",
    "MissingError",
    "Stream",
    "TcmoaError",
    "TensorSpec",
    "__version__",
]


def __getattr__(name: str) -> object:
    """`Stream` when it is first asked for: a tenth of the time of this import is its modules'."""
    if name == "Stream":
        from tcmoa_runtime.streams.stream import Stream

        return Stream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
