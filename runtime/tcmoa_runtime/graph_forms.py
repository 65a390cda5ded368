"""Bringing the graph of any exporter into one form, on which lowering, audit and calibration rely; needs onnx."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tcmoa_runtime.graph_storage import GraphModel

NETWORK_SCOPE: Final = "network/"
"""Beginning of the names of a wrapped network's own nodes; those around it convert ranges and colors."""


def own_nodes(model: GraphModel) -> set[str]:
    """Return the names of the network's own nodes: those in `NETWORK_SCOPE`, all where there is none."""
    graph: Any = model.graph
    names = {node.name for node in graph.node}
    return {name for name in names if name.startswith(NETWORK_SCOPE)} or names


def prepare(model: GraphModel) -> None:
    """Bring a graph of any exporter into the form that lowering and the audit expect, in place.

    Constant nodes become initializers, initializers hold raw bytes, and each node has a name of its own.
    """
    from onnx import numpy_helper

    graph: Any = model.graph
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant":
            graph.initializer.append(_constant_of(node))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for tensor in graph.initializer:
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    name_nodes(model)


def name_nodes(model: GraphModel) -> None:
    """Give each node without a name of its own one: engines name their kernels by them."""
    graph: Any = model.graph
    used: set[str] = set()
    for node in graph.node:
        base, number = node.name or node.op_type, 0
        name = base
        while name in used:
            number += 1
            name = f"{base}.{number}"
        node.name = name
        used.add(name)


def _constant_of(node: Any) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        return tensor
    kind = np.float32 if attribute.name in ("value_float", "value_floats") else np.int64
    return numpy_helper.from_array(np.asarray(value, kind), node.output[0])
