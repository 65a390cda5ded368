"""The kernels of an engine as data.

A layer of an engine is one kernel launch, except for the stream markers `signal` and `wait`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tcmoa_runtime.errors import TcmoaError

KernelKind: TypeAlias = Literal["attention", "matmul", "convolution", "normalize", "other"]
"""What a kernel mainly computes."""

ELEMENT_BYTES: Final = {
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "FP8": 1,
    "Int8": 1,
    "UInt8": 1,
    "Bool": 1,
    "Int32": 4,
    "Int64": 8,
}
"""Bytes of an element by TensorRT's name of its type."""

PRECISIONS: Final = {"Float": "fp32", "Half": "fp16", "BFloat16": "bf16", "FP8": "fp8", "Int8": "int8"}
"""Precision by TensorRT's name of the type, for the types of arithmetic."""


class AuditError(TcmoaError):
    """A kernel list cannot be read, or does not belong to the graph."""


def operator_of(node: str) -> str:
    """Return the operator of a node by the name that `GraphBuilder` gives it, e.g. `MatMul` of `encoder.0/MatMul.1`."""
    return node.rsplit("/", 1)[-1].split(".")[0]


@dataclass(frozen=True)
class TensorView:
    """A tensor as a kernel reads or writes it: three slices of one buffer are three views."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Size of all elements in bytes."""
        return math.prod(self.shape) * ELEMENT_BYTES[self.dtype]


@dataclass(frozen=True)
class Kernel:
    """One kernel launch.

    Attributes:
        name: TensorRT's name.
        layer: TensorRT's type of the layer.
        inputs: Activations that it reads.
        constants: Weights and other numbers in the engine that it reads.
        outputs: Activations that it writes.
        nodes: Names of the ONNX nodes that it computes, wholly or in part.
    """

    name: str
    layer: str
    inputs: tuple[TensorView, ...]
    constants: tuple[TensorView, ...]
    outputs: tuple[TensorView, ...]
    nodes: tuple[str, ...]

    @property
    def kind(self) -> KernelKind:
        """What it mainly computes, by its ONNX nodes, and by TensorRT's type of the layer where those are ambiguous.

        A kernel that only prepares an operand of a product lists that product among its nodes, too.
        """
        operators = {operator_of(node) for node in self.nodes}
        if {"MatMul", "Softmax"} <= operators and any("/attention/" in node for node in self.nodes):
            return "attention"
        if "onv" in self.layer or self.layer == "correlation":
            return "convolution"
        if self.layer in ("gemm", "MatrixMultiply", "matmul") or re.search(r"_(Fc|Dot|Gemm)", self.name):
            return "matmul"
        return "normalize" if "LayerNormalization" in operators else "other"

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations read and written, each view once."""
        return sum(view.bytes for view in (*self.inputs, *self.outputs))

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights and other constants read."""
        return sum(view.bytes for view in self.constants)

    @property
    def bytes(self) -> int:
        """Bytes that it moves when each view is read or written once and no cache helps."""
        return self.activation_bytes + self.constant_bytes

    @property
    def precision(self) -> str:
        """Precision of its arithmetic: `fp32`, `fp16`, `bf16`, `fp8`, `int8` or `none`.

        The type of the weights where it is a product with weights, else that of the first floating-point or 8-bit
        tensor. The first tensor of a product can be a float32 residual, and its scale factors are single float32
        numbers.
        """
        weights = [view for view in self.constants if view.dtype in PRECISIONS and math.prod(view.shape) > 1]
        if weights and self.kind in ("matmul", "convolution"):
            return PRECISIONS[max(weights, key=lambda view: math.prod(view.shape)).dtype]
        for view in (*self.inputs, *self.outputs):
            if view.dtype in PRECISIONS:
                return PRECISIONS[view.dtype]
        return "none"
