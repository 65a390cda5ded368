"""Folding, ONNX export and TensorRT engines.

`export_bundle` turns a model into a bundle that the runtime fuses with. `build_engine` adds an engine to a bundle; it
needs no PyTorch, so each name is imported when it is first used.
"""

from typing import TYPE_CHECKING

import tcmoa_runtime  # noqa: F401  # switches telemetry off before ONNX Runtime is imported

if TYPE_CHECKING:
    from tcmoa_export.bundle_export import export_bundle
    from tcmoa_export.engines.build import build_engine
    from tcmoa_export.engines.builder import BuildError
    from tcmoa_export.parity import ParityError
    from tcmoa_runtime.options.build import BuildOptions
    from tcmoa_runtime.options.export import ExportOptions

__all__ = ["BuildError", "BuildOptions", "ExportOptions", "ParityError", "build_engine", "export_bundle"]

_MODULES = {
    "BuildError": "tcmoa_export.engines.builder",
    "BuildOptions": "tcmoa_runtime.options.build",
    "ExportOptions": "tcmoa_runtime.options.export",
    "ParityError": "tcmoa_export.parity",
    "build_engine": "tcmoa_export.engines.build",
    "export_bundle": "tcmoa_export.bundle_export",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES[name]), name)
