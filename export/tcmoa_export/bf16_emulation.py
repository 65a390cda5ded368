"""bfloat16 on CPUs, for which ONNX Runtime has no arithmetic."""

from __future__ import annotations

from typing import Final

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from tcmoa_export.precision import COMPARISONS

_COPIES: Final = frozenset({"Reshape", "Transpose", "Gather", "Split", "Concat", "Slice", "Pad", "Unsqueeze"})
"""Operators whose results are values of their inputs, so that there is nothing to round."""


def emulate_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn a bf16 graph into a float32 one that rounds to bfloat16 wherever the bf16 graph stores bfloat16, in place.

    Each operator computes in float32, as tensor cores accumulate, and its result is rounded. The fused kernels of a GPU
    round less often.

    Returns:
        `model`.
    """
    graph = model.graph
    rounded = set()
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            rounded.add(tensor.name)
            values = np.frombuffer(tensor.raw_data, ml_dtypes.bfloat16).astype(np.float32)
            tensor.data_type, tensor.raw_data = TensorProto.FLOAT, values.tobytes()
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        to = next((a for a in node.attribute if a.name == "to"), None)
        rounds = not rounded.isdisjoint(node.input) if to is None else to.i == TensorProto.BFLOAT16
        if to is not None and rounds:
            to.i = TensorProto.FLOAT
        if not rounds or node.op_type in COMPARISONS:
            graph.node.append(node)
            continue
        rounded.update(node.output)
        if node.op_type in _COPIES:
            graph.node.append(node)
            continue
        name = node.output[0]
        node.output[0] = f"{name}/exact"
        stored = helper.make_node("Cast", [node.output[0]], [f"{name}/stored"], to=TensorProto.BFLOAT16)
        graph.node.extend(
            (node, stored, helper.make_node("Cast", [stored.output[0]], [name], to=TensorProto.FLOAT))
        )
    return model
