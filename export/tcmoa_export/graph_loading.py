"""Loading the graph of a bundle as an ONNX model."""

from __future__ import annotations

import onnx

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.checked_graph import checked_graph
from tcmoa_runtime.graph_storage import restore_constants


def load_graph(bundle: Bundle) -> onnx.ModelProto:
    """Load the graph of a bundle with its constants as they are computed with.

    Raises:
        BundleError: The graph differs from bundle.json, or cannot be read.
    """
    with checked_graph(bundle) as graph:
        model = onnx.load_from_string(graph) if isinstance(graph, bytes) else onnx.load(graph)
    return restore_constants(model)
