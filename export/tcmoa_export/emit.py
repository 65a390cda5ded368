"""Writing ONNX nodes by hand: readable names, shared constants, no tracing.

Values are names (str). Everything in a graph made here has a static shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tcmoa_runtime.contract import TensorSpec

OPSET = 18
"""Lowest opset with all that the graph needs, and the one that OpenVINO (bf16) and TensorRT read fastest."""

IR_VERSION = 8
"""What opset 18 came with: readable by every ONNX Runtime, OpenVINO and TensorRT that reads the opset."""

_ELEMENT_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}

FLOAT32 = "float32"
"""Marks (as `doc_string`) the nodes that compute in float32 in every precision; see `precision.lower`."""

NOT_BF16 = "not bf16"
"""Marks those that compute in float32 where the rest is bfloat16, and in 16 bits where it is fp16."""


class Graph:
    """Collects nodes and constants; equal constants are stored once.

    All goes straight into one ModelProto: gigabytes of weights are not copied from message to message.

    Real numbers are float32 throughout. What must stay so when the graph is lowered to 16 bits is added inside
    `with graph.float32():`.
    """

    def __init__(self) -> None:
        self._model = onnx.ModelProto()
        self._mark = ""
        self._precise_residuals = False
        self._constants: dict[tuple[str, tuple[int, ...], str], str] = {}
        self._scope: list[str] = []
        self._counts: dict[str, int] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix names of what is added inside the with-block, as `encoder.3/attention/MatMul`."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def _unique(self, name: str) -> str:
        name = "/".join((*self._scope, name))
        count = self._counts.get(name, 0)
        self._counts[name] = count + 1
        return f"{name}.{count}" if count else name

    def constant(self, value: NDArray[Any], name: str = "constant") -> str:
        """An initializer with these numbers."""
        data = value.tobytes()  # little-endian, as is all that ONNX Runtime and TensorRT run on
        digest = hashlib.sha256(data).hexdigest()
        key = (value.dtype.name, value.shape, digest)
        if key not in self._constants:
            self._constants[key] = self._unique(name)
            tensor = self._model.graph.initializer.add()
            tensor.name = self._constants[key]
            tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
            tensor.dims.extend(value.shape)
            tensor.raw_data = data
        return self._constants[key]

    @contextmanager
    def float32(self, *, only_for_bf16: bool = False) -> Iterator[None]:
        """Mark what is added inside the with-block: it computes in float32 in every precision, or where bf16 is.

        Inside another such block it changes nothing.
        """
        before = self._mark
        self._mark = before or (NOT_BF16 if only_for_bf16 else FLOAT32)
        try:
            yield
        finally:
            self._mark = before

    def real(self, value: NDArray[np.float32], name: str) -> str:
        """Real numbers."""
        return self.constant(value.astype(np.float32, copy=False), name)

    def scalar(self, value: float) -> str:
        """A real number."""
        return self.real(np.array(value, np.float32), "scalar")

    def integers(self, values: Sequence[int], name: str = "shape") -> str:
        """An int64 vector."""
        return self.constant(np.asarray(values, np.int64), name)

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        return self.split_op(op_type, 1, *inputs, **attributes)[0]

    def split_op(self, op_type: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with several outputs and return their names."""
        name = self._unique(op_type)
        names = [name] if outputs == 1 else [f"{name}:{i}" for i in range(outputs)]
        self._add(helper.make_node(op_type, list(inputs), names, name=name, **attributes))
        return names

    def split(self, a: str, sizes: Sequence[int], axis: int = 1) -> list[str]:
        """Parts of the given sizes along an axis."""
        return self.split_op("Split", len(sizes), a, self.integers(sizes, "sizes"), axis=axis)

    def output(self, op_type: str, name: str, *inputs: str, **attributes: Any) -> None:
        """Add the node whose output is the graph output `name`."""
        self._add(helper.make_node(op_type, list(inputs), [name], name=self._unique(name), **attributes))

    def _add(self, node: onnx.NodeProto) -> None:
        node.doc_string = self._mark
        self._model.graph.node.append(node)

    def add(self, a: str, b: str) -> str:
        """a + b."""
        return self.op("Add", a, b)

    @contextmanager
    def precise_residuals(self) -> Iterator[None]:
        """Let `residual` inside the with-block compute and keep float32 where the rest is bfloat16."""
        self._precise_residuals = True
        try:
            yield
        finally:
            self._precise_residuals = False

    def residual(self, tokens: str, change: str) -> str:
        """tokens + change."""
        with self.float32(only_for_bf16=True) if self._precise_residuals else nullcontext():
            return self.add(tokens, change)

    def mul(self, a: str, b: str) -> str:
        """a * b."""
        return self.op("Mul", a, b)

    def matmul(self, a: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None) -> str:
        """A @ weight (+ bias) with constants."""
        product = self.op("MatMul", a, self.real(weight, "weight"))
        return product if bias is None else self.add(product, self.real(bias, "bias"))

    def reshape(self, a: str, *shape: int) -> str:
        """The same numbers in another shape; all sizes given."""
        return self.op("Reshape", a, self.integers(shape))

    def transpose(self, a: str, *permutation: int) -> str:
        """Axes in another order."""
        return self.op("Transpose", a, perm=list(permutation))

    def gather(self, a: str, index: NDArray[np.int64], axis: int) -> str:
        """Take constant indices along an axis."""
        return self.op("Gather", a, self.constant(index, "index"), axis=axis)

    def concat(self, values: Sequence[str], axis: int) -> str:
        """Join along an axis; a single value stays as it is."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def cut(self, a: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]) -> str:
        """A slice along some axes."""
        return self.op(
            "Slice",
            a,
            self.integers(starts, "starts"),
            self.integers(ends, "ends"),
            self.integers(axes, "axes"),
        )

    def normalise(self, a: str, channels: int, eps: float, offset: NDArray[np.float32] | None = None) -> str:
        """LayerNorm over the last axis in float32, without affine but for an offset [C] that is added."""
        with self.float32():
            scale = self.real(np.ones(channels, np.float32), "ones")
            shift = self.real(np.zeros(channels, np.float32) if offset is None else offset, "offset")
            return self.op("LayerNormalization", a, scale, shift, axis=-1, epsilon=eps)

    def mean(self, a: str, axes: Sequence[int], *, keepdims: bool) -> str:
        """Mean over some axes."""
        return self.op("ReduceMean", a, self.integers(axes, "axes"), keepdims=int(keepdims))

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for (dtype, shape, numbers), name in self._constants.items():
            digest.update(f"{name} {dtype} {shape} {numbers}\n".encode())
        for node in self._model.graph.node:
            digest.update(node.SerializeToString(deterministic=True))
        return digest.hexdigest()[:12]

    def model(
        self, name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], producer_version: str
    ) -> onnx.ModelProto:
        """The finished model, once; a fingerprint of nodes and constants is appended to `name`.

        So two graphs of one name are the same graph: ONNX Runtime's TensorRT provider caches engines by it.
        """

        def info(spec: TensorSpec) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(spec.name, _ELEMENT_TYPES[spec.dtype], list(spec.shape))

        model, graph = self._model, self._model.graph
        graph.name = f"{name}_{self._fingerprint()}"
        graph.input.extend(info(spec) for spec in inputs)
        graph.output.extend(info(spec) for spec in outputs)
        model.opset_import.append(helper.make_opsetid("", OPSET))
        model.ir_version = IR_VERSION
        model.producer_name, model.producer_version = "tcmoa", producer_version
        return model
