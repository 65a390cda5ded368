"""Folding, ONNX export and TensorRT engines.

`export_bundle` turns a model into a bundle that the runtime fuses with, `wrap_network` a network of others.
`build_engine` adds an engine to a bundle; it needs no PyTorch, so each name is imported when it is first used.
"""

from typing import TYPE_CHECKING

import tcmoa_runtime  # noqa: F401  # switches telemetry off before ONNX Runtime is imported

if TYPE_CHECKING:
    from tcmoa_export.bundle_export import export_bundle
    from tcmoa_export.engines.build import build_engine
    from tcmoa_export.engines.builder import BuildError
    from tcmoa_export.parity import ParityError
    from tcmoa_export.wrap.tryout.run import TryReport, try_conventions
    from tcmoa_export.wrap.wrapping import WrapReport, wrap_network
    from tcmoa_runtime.options.build import BuildOptions
    from tcmoa_runtime.options.export import ExportOptions
    from tcmoa_runtime.options.wrap import Conventions, WrapOptions

__all__ = [
    "BuildError",
    "BuildOptions",
    "Conventions",
    "ExportOptions",
    "ParityError",
    "TryReport",
    "WrapOptions",
    "WrapReport",
    "build_engine",
    "export_bundle",
    "try_conventions",
    "wrap_network",
]

_MODULES = {
    "BuildError": "tcmoa_export.engines.builder",
    "BuildOptions": "tcmoa_runtime.options.build",
    "Conventions": "tcmoa_runtime.options.wrap",
    "ExportOptions": "tcmoa_runtime.options.export",
    "ParityError": "tcmoa_export.parity",
    "TryReport": "tcmoa_export.wrap.tryout.run",
    "WrapOptions": "tcmoa_runtime.options.wrap",
    "WrapReport": "tcmoa_export.wrap.wrapping",
    "build_engine": "tcmoa_export.engines.build",
    "export_bundle": "tcmoa_export.bundle_export",
    "try_conventions": "tcmoa_export.wrap.tryout.run",
    "wrap_network": "tcmoa_export.wrap.wrapping",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES[name]), name)
