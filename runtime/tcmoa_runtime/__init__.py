"""Runtime of TC-MoA image fusion: bundles, backends and the Fuser. Imports neither torch nor onnx."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tcmoa_runtime._version import __version__
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import Contract, TensorSpec
from tcmoa_runtime.errors import BundleError, InputError, MemoryShortageError, MissingError, TcmoaError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.telemetry import disable_onnxruntime_telemetry

if TYPE_CHECKING:
    from tcmoa_runtime.options.source import SourceOptions
    from tcmoa_runtime.options.stream import StreamOptions
    from tcmoa_runtime.streams.stream import Stream

disable_onnxruntime_telemetry()

__all__ = [
    "Bundle",
    "BundleError",
    "Contract",
    "Fuser",
    "InputError",
    "MemoryShortageError",
    "MissingError",
    "SourceOptions",
    "Stream",
    "StreamOptions",
    "TcmoaError",
    "TensorSpec",
    "__version__",
]


_LAZY = {
    "SourceOptions": "tcmoa_runtime.options.source",
    "Stream": "tcmoa_runtime.streams.stream",
    "StreamOptions": "tcmoa_runtime.options.stream",
}
"""Names that are imported when they are first used: importing streams takes a tenth of the time of this import."""


def __getattr__(name: str) -> object:
    """Import a name of `_LAZY`."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
