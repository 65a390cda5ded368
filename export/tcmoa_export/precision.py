"""Lowering a float32 graph to 16 bits.

The precision is stated in the graph: TensorRT 11 is strongly typed, so a kernel computes in the types of its nodes.
What stays float32 is marked node by node where the graph is written (`GraphBuilder.float32`): LayerNorms, the prompts
from the normalized pair to Eq. 8, re-standardization, the last product and everything after it, and each product of an
attention, so that it is accumulated in float32.

bfloat16 has 8 significant bits, and some tokens hold the 8-bit image itself. bf16 graphs therefore keep more in float32
(`only_for_bf16`): the patch embedding, the projection between encoder and decoder, and the residual stream of the
decoder. PSNR to float32 with the trained `tiny` on real pairs: 45.7 to 49.3 dB when only the weights of the former two
are rounded, 38.9 to 44.8 dB when everything is, 46.8 to 49.9 dB as it is here. Keeping the residual stream of the
encoder, too, would add 1 to 2 dB for 10 % more bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from tcmoa_export.graph_builder import FLOAT32, FLOAT32_IN_BF16
from tcmoa_runtime.typing import Precision

ELEMENT_TYPES: Final[dict[Precision, TensorProto.DataType]] = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}
"""ONNX's name of the type that a precision computes in."""

BF16_OPSET: Final = 22
"""First opset whose Conv may be bfloat16; the operators used here have not changed since opset 18."""
BF16_IR_VERSION: Final = 10

LOW_SCALES_OPSET: Final = 19
"""First opset whose QuantizeLinear may have 16-bit scales; the operators used here have not changed since opset 18."""
LOW_SCALES_IR_VERSION: Final = 9

COMPARISONS: Final = frozenset(
    {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf"}
    | {"ArgMax", "ArgMin"}
)
"""Operators whose result is boolean, or an index."""

_NUMPY_TYPES: Final[dict[Precision, np.dtype[Any]]] = {
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}


def lower(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """Lower a float32 graph made by `GraphBuilder` to another precision, in place.

    Nodes marked `FLOAT32` keep float32 inputs, constants and results. All others compute in `precision`, their
    constants rounded to nearest. Casts are inserted where values cross. Graph inputs and outputs keep their types.

    Returns:
        `model`.
    """
    if precision == "fp32":
        return model
    _Lowering(model, precision).run()
    if precision == "bf16":
        _raise_versions(model, BF16_OPSET, BF16_IR_VERSION)
    elif any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        _raise_versions(model, LOW_SCALES_OPSET, LOW_SCALES_IR_VERSION)
    model.graph.name = f"{model.graph.name}_{precision}"
    return model


def _raise_versions(model: onnx.ModelProto, opset: int, ir_version: int) -> None:
    model.opset_import[0].version = max(model.opset_import[0].version, opset)
    model.ir_version = max(model.ir_version, ir_version)


class _Lowering:
    """State of one pass over the nodes: which values are floating-point, and which casts exist."""

    def __init__(self, model: onnx.ModelProto, precision: Precision) -> None:
        self._graph = model.graph
        self._low, self._dtype = ELEMENT_TYPES[precision], _NUMPY_TYPES[precision]
        self._suffix = precision
        self._float32_marks = (FLOAT32, FLOAT32_IN_BF16) if precision == "bf16" else (FLOAT32,)
        self._constants = {t.name: t for t in self._graph.initializer if t.data_type == TensorProto.FLOAT}
        self._types: dict[str, int] = {
            i.name: TensorProto.FLOAT
            for i in self._graph.input
            if i.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self._frames = {
            i.name for i in self._graph.input if i.type.tensor_type.elem_type == TensorProto.UINT8
        }
        self._casts: dict[tuple[str, int], str] = {}
        self._used: set[str] = set()

    def run(self) -> None:
        nodes = list(self._graph.node)
        del self._graph.node[:]
        for node in nodes:
            for converted in self._convert(node):
                self._graph.node.append(converted)
        self._restore_outputs()
        self._round_constants()

    def _restore_outputs(self) -> None:
        """Give outputs of the graph that were lowered their type back, by a cast."""
        for info in self._graph.output:
            name = info.name
            if self._types.get(name) != self._low or info.type.tensor_type.elem_type != TensorProto.FLOAT:
                continue
            lowered = f"{name}/{self._suffix}_output"
            for node in self._graph.node:
                for names in (node.input, node.output):
                    names[:] = [lowered if value == name else value for value in names]
            self._graph.node.append(
                helper.make_node("Cast", [lowered], [name], f"{name}/cast", to=TensorProto.FLOAT)
            )

    def _convert(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        target: TensorProto.DataType = (
            TensorProto.FLOAT if node.doc_string in self._float32_marks else self._low
        )
        if node.op_type == "QuantizeLinear" and self._types.get(node.input[0]) == TensorProto.FLOAT:
            target = TensorProto.FLOAT  # rounded once, not twice
        if node.op_type == "Cast":
            self._convert_cast(node, target)
            yield node
            return
        is_float = False
        for i, name in enumerate(node.input):
            if node.op_type == "Resize" and i > 0:  # its scales are float32 in every precision
                self._used.add(name)
                continue
            if name in self._constants:
                node.input[i] = self._constant(name, target)
                is_float = True
            elif name in self._types:
                is_float = True
                if self._types[name] != target:
                    if (name, target) not in self._casts:
                        cast = self._new_cast(name, target)
                        self._casts[name, target] = cast.output[0]
                        yield cast
                    node.input[i] = self._casts[name, target]
        if is_float and node.op_type not in (*COMPARISONS, "QuantizeLinear"):
            self._types.update(dict.fromkeys(node.output, target))
        yield node

    def _new_cast(self, name: str, target: TensorProto.DataType) -> onnx.NodeProto:
        output = f"{name}/{next(p for p, element_type in ELEMENT_TYPES.items() if element_type == target)}"
        return helper.make_node("Cast", [name], [output], output, to=target)

    def _convert_cast(self, node: onnx.NodeProto, target: TensorProto.DataType) -> None:
        """Convert a cast of the float32 graph: from frames or booleans to float32, or to the frame.

        TensorRT converts uint8 to float32 and float16 only, so frames become bfloat16 by way of float32.
        """
        to = next(a for a in node.attribute if a.name == "to")
        if target == TensorProto.BFLOAT16 and node.input[0] in self._frames:
            target = TensorProto.FLOAT
        if to.i == TensorProto.FLOAT:
            to.i = target
            self._types[node.output[0]] = target

    def _constant(self, name: str, target: TensorProto.DataType) -> str:
        name = f"{name}/{self._suffix}" if target == self._low else name
        self._used.add(name)
        return name

    def _round_constants(self) -> None:
        """Round the constants in use; one that is used in both precisions is stored twice."""
        for tensor in list(self._graph.initializer):
            low = f"{tensor.name}/{self._suffix}"
            if low not in self._used:
                continue
            target = self._graph.initializer.add() if tensor.name in self._used else tensor
            with np.errstate(over="ignore"):  # infinity, which is measured
                values = np.frombuffer(tensor.raw_data, np.float32).astype(self._dtype)
            if target is not tensor:
                target.dims.extend(tensor.dims)
            target.name, target.data_type, target.raw_data = low, self._low, values.tobytes()
