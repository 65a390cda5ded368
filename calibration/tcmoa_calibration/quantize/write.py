"""Writing a quantized graph as a bundle."""

from __future__ import annotations

import importlib.metadata
import math
from pathlib import Path
from typing import Final

import onnx

from tcmoa_calibration.quantize.allocate import Allocation
from tcmoa_calibration.quantize.error import ErrorBudget, QuantizationError
from tcmoa_calibration.quantize.rewrite import finalize
from tcmoa_calibration.quantize.scheme import Scheme
from tcmoa_calibration.sample_pairs import PairSplit
from tcmoa_runtime import __version__
from tcmoa_runtime.bundle import GRAPH, Bundle
from tcmoa_runtime.bundle_write import new_bundle, record_files, write_manifest
from tcmoa_runtime.graph_metadata import write_metadata
from tcmoa_runtime.graph_storage import share_position_biases
from tcmoa_runtime.options.quantize import LowPrecision, QuantizeOptions
from tcmoa_runtime.typing import JsonObject

VERSION: Final = 1
"""Version of the calibration: raised when it measures or quantizes differently. Cached measurements depend on it."""

MANIFEST_KEY: Final = "quantization"
"""Key of bundle.json."""

_TOOLS = ("onnx", "onnxruntime", "numpy")
_TYPE_NAMES = {"float": "fp32", "float16": "fp16", "float8e4m3fn": "fp8"}


def write_quantized_bundle(
    source: Bundle,
    target: Path,
    model: onnx.ModelProto,
    number_format: LowPrecision,
    changes: JsonObject,
    *,
    overwrite: bool,
) -> Bundle:
    """Write a quantized graph as a bundle.

    Args:
        source: The float32 bundle.
        target: Folder of the new bundle.
        model: The quantized graph, which is compacted and named in place.
        number_format: Its format.
        changes: Further entries of bundle.json, by key.
        overwrite: Replace a bundle at `target`.

    Raises:
        InputError: The bundle cannot be written.
    """
    if source.network is None:
        share_position_biases(model)
    stem = source.graph_name.rsplit("_", 1)[0]
    del model.metadata_props[:]  # the name depends on the graph only
    finalize(model, f"{stem}_{number_format}")
    manifest: JsonObject = {
        **source.manifest,
        "precision": number_format,
        "weight_storage": number_format,
        "graph": {
            **source.section("graph").values,
            "name": model.graph.name,
            "nodes": len(model.graph.node),
            "constants": _count_constants(model),
        },
        **changes,
        "tools": {"tcmoa": __version__, **{name: importlib.metadata.version(name) for name in _TOOLS}},
    }
    write_metadata(model, manifest)
    with new_bundle(target, overwrite=overwrite) as partial:
        (partial / GRAPH).write_bytes(model.SerializeToString())
        record_files(partial, manifest)
        write_manifest(partial, manifest)
        Bundle.open(partial)  # refuses what the runtime would not read
    return Bundle.open(target)


def parity_record(error: QuantizationError, pairs: PairSplit) -> JsonObject:
    """Return the entry `parity` of bundle.json: the comparison with the float32 bundle."""
    return {
        "frames": len(pairs.held_out),
        "pictures": [pair.name for pair in pairs.held_out],
        "backend": "onnxruntime (CPU)",
        "max_difference": error.max_difference,
        "differing": error.differing,
        "beyond_one": error.beyond_one,
        "psnr_db": _rounded_db(error.psnr_db),
        "prompt_difference": None,
    }


def quantization_record(
    source: Bundle,
    options: QuantizeOptions,
    scheme: Scheme,
    allocation: Allocation,
    pairs: PairSplit,
    *,
    num_groups: int,
    num_linears: int,
) -> JsonObject:
    """Return the entry `quantization` of bundle.json: how the graph was made, and its error."""
    error = allocation.error
    return {
        "version": VERSION,
        "format": options.number_format,
        "target": options.target,
        "against": {"graph": source.graph_name, "sha256": source.files[GRAPH].sha256},
        "smoothing": scheme.smoothing,
        "ranges": scheme.ranges,
        "groups": num_groups,
        "kept_float32": allocation.kept_float32,
        "linears": num_linears,
        "psnr_db": _rounded_db(error.psnr_db),
        "worst_psnr_db": _rounded_db(error.worst_psnr_db),
        "qabf_drop": round(error.qabf_drop, 6),
        "budget": ErrorBudget.from_options(options).to_json(),
        "fit_pairs": [pair.name for pair in pairs.fit],
        "held_pairs": [pair.name for pair in pairs.held_out],
        "seed": options.seed,
    }


def _rounded_db(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def _count_constants(model: onnx.ModelProto) -> dict[str, int]:
    """Count the numbers that the graph stores, by type."""
    counts: dict[str, int] = {}
    for tensor in model.graph.initializer:
        type_name = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        type_name = _TYPE_NAMES.get(type_name, type_name)
        counts[type_name] = counts.get(type_name, 0) + math.prod(tensor.dims)
    return counts
