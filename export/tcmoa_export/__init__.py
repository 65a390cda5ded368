"""Folding, ONNX export and TensorRT engines.

`export_bundle` turns a model into a bundle that the runtime fuses with, `build_engine` adds an engine to a bundle.
The latter needs no PyTorch, so each is imported when it is first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcmoa_export.bundle_export import export_bundle
    from tcmoa_export.engine_build import BuildError, build_engine
    from tcmoa_export.parity import GateError
    from tcmoa_runtime.options.export import ExportOptions

__all__ = ["BuildError", "ExportOptions", "GateError", "build_engine", "export_bundle"]

_MODULES = {
    "export_bundle": "tcmoa_export.bundle_export",
    "build_engine": "tcmoa_export.engine_build",
    "BuildError": "tcmoa_export.engine_build",
    "ExportOptions": "tcmoa_runtime.options.export",
    "GateError": "tcmoa_export.parity",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES[name]), name)
