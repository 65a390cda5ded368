"""Precision lives in the graph: TensorRT 11 is strongly typed, a kernel computes in the types that the nodes name.

`lower` turns the float32 graph into one of 16 bits. It is no automatic pass: what stays float32 is marked node by
node where the graph is written (`Graph.float32`): LayerNorms, the prompts from the normalised pair to Eq. 8,
re-standardisation, and the last product with all that makes the frame; each product of an attention, so that it
is accumulated in float32.

bfloat16 has 8 bits, fewer than a picture, and some tokens hold the picture itself. Where that was measured to show
(trained `tiny`, real pairs, PSNR to float32 in dB), bf16 graphs keep more in float32 (`only_for_bf16`): the patch
embedding and the projection between encoder and decoder, whose weights alone cost 45.7 to 49.3 when rounded, and
the decoder's residual stream, which cost 38.9 to 44.8 with all else. Together: 46.8 to 49.9. Keeping the encoder's
residual stream, too, would bring 1 to 2 dB for 10 % more bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from tcmoa_export.emit import FLOAT32, NOT_BF16

Precision = Literal["fp32", "fp16", "bf16"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")

_LOW: dict[Precision, tuple[TensorProto.DataType, np.dtype[Any]]] = {
    "fp16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "bf16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}

BF16_OPSET, BF16_IR_VERSION = 22, 10
"""The first opset whose convolution may be bfloat16, and what came with it; all operators used mean the same."""

LOW_SCALES_OPSET, LOW_SCALES_IR_VERSION = 19, 9
"""The first opset whose quantisation may have scales of 16 bits; the same holds."""

_TRUTH = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not"})
"""Operators whose result is a truth value, whatever they compare."""


def lower(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """`model` (float32, made by `Graph`) in another precision; the same object, changed.

    Nodes marked `FLOAT32` keep float32 inputs, constants and results; all others compute in `precision`, their
    constants rounded to nearest. Casts stand where values cross. Graph inputs and outputs keep their types.
    """
    if precision == "fp32":
        return model
    _Lowering(model, precision).run()
    if precision == "bf16":
        model.opset_import[0].version, model.ir_version = BF16_OPSET, BF16_IR_VERSION
    elif any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        model.opset_import[0].version, model.ir_version = LOW_SCALES_OPSET, LOW_SCALES_IR_VERSION
    model.graph.name = f"{model.graph.name}_{precision}"
    return model


UNSIGNED_ZERO: Final = 128
"""Zero point of uint8 activations in graphs for CPUs."""


def sign_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """Activations quantised to uint8 around 128 as int8 around 0, which are the same numbers: TensorRT takes no zero
    points. The same object, changed.
    """
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.UINT8 and tensor.raw_data == bytes((UNSIGNED_ZERO,)):
            tensor.data_type, tensor.raw_data = TensorProto.INT8, bytes(1)
    return model


class _Lowering:
    """What is known while going through the nodes: which values are real numbers, and which casts exist."""

    def __init__(self, model: onnx.ModelProto, precision: Precision) -> None:
        self._graph = model.graph
        self._low, self._dtype = _LOW[precision]
        self._suffix = precision
        self._islands = (FLOAT32, NOT_BF16) if precision == "bf16" else (FLOAT32,)
        self._constants = {t.name: t for t in self._graph.initializer if t.data_type == TensorProto.FLOAT}
        self._types: dict[str, int] = {
            i.name: TensorProto.FLOAT
            for i in self._graph.input
            if i.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self._variants: dict[tuple[str, int], str] = {}
        self._used: set[str] = set()

    def run(self) -> None:
        nodes = list(self._graph.node)
        del self._graph.node[:]
        for node in nodes:
            for converted in self._convert(node):
                self._graph.node.append(converted)
        self._round_constants()

    def _convert(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        wanted: TensorProto.DataType = TensorProto.FLOAT if node.doc_string in self._islands else self._low
        if node.op_type == "QuantizeLinear" and self._types.get(node.input[0]) == TensorProto.FLOAT:
            wanted = TensorProto.FLOAT  # rounded once, not twice
        if node.op_type == "Cast":
            self._cast(node, wanted)
            yield node
            return
        real = False
        for i, name in enumerate(node.input):
            if name in self._constants:
                node.input[i] = self._constant(name, wanted)
                real = True
            elif name in self._types:
                real = True
                if self._types[name] != wanted:
                    if (name, wanted) not in self._variants:
                        cast = helper.make_node(
                            "Cast",
                            [name],
                            [f"{name}/{_short(wanted)}"],
                            f"{name}/{_short(wanted)}",
                            to=wanted,
                        )
                        self._variants[name, wanted] = cast.output[0]
                        yield cast
                    node.input[i] = self._variants[name, wanted]
        if real and node.op_type not in (*_TRUTH, "QuantizeLinear"):
            self._types.update(dict.fromkeys(node.output, wanted))
        yield node

    def _cast(self, node: onnx.NodeProto, wanted: TensorProto.DataType) -> None:
        """A cast that the graph itself has: from frames or truth values to real numbers, or to the frame."""
        to = next(a for a in node.attribute if a.name == "to")
        if to.i == TensorProto.FLOAT:
            to.i = wanted
            self._types[node.output[0]] = wanted

    def _constant(self, name: str, wanted: TensorProto.DataType) -> str:
        low = f"{name}/{self._suffix}" if wanted == self._low else name
        self._used.add(low)
        return low

    def _round_constants(self) -> None:
        """Give each used constant its variants; one that serves both precisions is stored twice."""
        for tensor in list(self._graph.initializer):
            low = f"{tensor.name}/{self._suffix}"
            if low not in self._used:
                continue
            target = self._graph.initializer.add() if tensor.name in self._used else tensor
            values = np.frombuffer(tensor.raw_data, np.float32).astype(self._dtype)
            if target is not tensor:
                target.dims.extend(tensor.dims)
            target.name, target.data_type, target.raw_data = low, self._low, values.tobytes()


_MOVES = frozenset({"Reshape", "Transpose", "Gather", "Split", "Concat", "Slice", "Pad", "Unsqueeze"})
"""Operators that give the numbers they get, so that there is nothing to round."""


def emulate_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A bf16 graph as a float32 one that rounds to bfloat16 wherever the bf16 one stores such a number.

    ONNX Runtime has no bfloat16 arithmetic on CPUs. Here each operator computes in float32, as the tensor cores
    accumulate, and its result is rounded; a GPU's fused kernels round less often. The same object, changed.
    """
    graph = model.graph
    low = set()
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            low.add(tensor.name)
            values = np.frombuffer(tensor.raw_data, ml_dtypes.bfloat16).astype(np.float32)
            tensor.data_type, tensor.raw_data = TensorProto.FLOAT, values.tobytes()
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        to = next((a for a in node.attribute if a.name == "to"), None)
        rounds = to.i == TensorProto.BFLOAT16 if to is not None else not low.isdisjoint(node.input)
        if to is not None and rounds:
            to.i = TensorProto.FLOAT
        if not rounds or node.op_type in _TRUTH:
            graph.node.append(node)
            continue
        low.update(node.output)
        if node.op_type in _MOVES:
            graph.node.append(node)
            continue
        name = node.output[0]
        node.output[0] = f"{name}/exact"
        stored = helper.make_node("Cast", [node.output[0]], [f"{name}/stored"], to=TensorProto.BFLOAT16)
        graph.node.extend(
            (node, stored, helper.make_node("Cast", [stored.output[0]], [name], to=TensorProto.FLOAT))
        )
    return model


def _short(element_type: TensorProto.DataType) -> str:
    return {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}[
        element_type
    ]
