"""Writing the files of a bundle: the graph, its weights, and bundle.json."""

from __future__ import annotations

import importlib.metadata
import math
from collections import Counter
from contextlib import suppress
from pathlib import Path

import onnx
from onnx.external_data_helper import convert_model_to_external_data

from tcmoa_runtime import __version__
from tcmoa_runtime.bundle import GRAPH, GRAPH_DATA, MAX_INLINE_BYTES
from tcmoa_runtime.bundle_write import record_files, write_manifest
from tcmoa_runtime.graph_metadata import write_metadata
from tcmoa_runtime.typing import JsonObject


def write_graph(folder: Path, proto: onnx.ModelProto, manifest: JsonObject) -> None:
    """Write a graph, its weights in a file of their own if they are large, and bundle.json.

    Args:
        folder: An empty folder.
        proto: The graph; its metadata is replaced, and it may lose its weights.
        manifest: Entries of bundle.json; sizes and hashes are added.
    """
    write_metadata(proto, manifest)
    inline_bytes = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    if inline_bytes > MAX_INLINE_BYTES:
        convert_model_to_external_data(
            proto, all_tensors_to_one_file=True, location=GRAPH_DATA, size_threshold=1024
        )
        onnx.save_model(proto, folder / GRAPH)
    else:
        (folder / GRAPH).write_bytes(proto.SerializeToString())
    record_files(folder, manifest)
    write_manifest(folder, manifest)


def describe_graph(proto: onnx.ModelProto) -> JsonObject:
    """Describe a graph for `tcmoa inspect`: its name, nodes, attentions, and constants by type."""
    constants: Counter[str] = Counter()
    short_names = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}
    for tensor in proto.graph.initializer:
        element_type = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        constants[short_names.get(element_type, element_type)] += math.prod(tensor.dims)
    return {
        "name": proto.graph.name,
        "nodes": len(proto.graph.node),
        "attentions": sum(
            node.op_type == "Softmax" and "/attention/" in node.name for node in proto.graph.node
        ),
        "constants": dict(constants),
    }


def tool_versions() -> JsonObject:
    """Return the versions of this package and of those that shape a graph, as far as they are installed."""
    versions: JsonObject = {"tcmoa": __version__}
    for package in ("torch", "onnx", "onnxruntime", "numpy"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
