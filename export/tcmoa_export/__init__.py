"""Folding and ONNX export: `export_bundle` turns a model into a bundle that the runtime fuses with."""

from tcmoa_export.bundle_export import export_bundle
from tcmoa_export.gate import GateError

__all__ = ["GateError", "export_bundle"]
