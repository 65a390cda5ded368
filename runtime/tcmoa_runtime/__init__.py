"""Runtime of TC-MoA image fusion: bundles, backends and the Fuser. Imports neither torch nor onnx."""

from tcmoa_runtime._version import __version__
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import Contract, TensorSpec
from tcmoa_runtime.errors import BundleError, InputError, MemoryShortageError, MissingError, TcmoaError
from tcmoa_runtime.fuser import Fuser
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
