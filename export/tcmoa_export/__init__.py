"""Folding, ONNX export and TensorRT engines.

`export_bundle` turns a model into a bundle that the runtime fuses with, `build_engine` adds an engine to one.
The latter needs no PyTorch, so each is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tcmoa_export.bundle_export import export_bundle
    from tcmoa_export.engine_build import BuildError, build_engine
    from tcmoa_export.parity import GateError

__all__ = ["BuildError", "GateError", "build_engine", "export_bundle"]

_HOMES = {
    "export_bundle": "bundle_export",
    "build_engine": "engine_build",
    "BuildError": "engine_build",
    "GateError": "parity",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
