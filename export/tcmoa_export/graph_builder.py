"""Writing ONNX graphs node by node: readable names, shared constants, static shapes. Nothing is traced.

A value is referred to by its name, a string.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tcmoa_runtime.contract import TensorSpec

OPSET: Final = 18
"""Lowest opset with all operators that the graph needs; OpenVINO (bf16) and TensorRT are fastest with it."""

IR_VERSION: Final = 8
"""IR version of opset 18's release: readable by every ONNX Runtime, OpenVINO and TensorRT that reads the opset."""

FLOAT32: Final = "float32"
"""`doc_string` of nodes that compute in float32 in every precision; see `precision.lower`."""

FLOAT32_IN_BF16: Final = "not bf16"
"""`doc_string` of nodes that compute in float32 in a bf16 graph, and in fp16 in an fp16 graph."""

Attribute: TypeAlias = int | float | str | Sequence[int]
"""Value of a node's attribute."""

_ELEMENT_TYPES: Final = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


class GraphBuilder:
    """Collects nodes and constants of one ONNX model; equal constants are stored once.

    Everything is written straight into one ModelProto, so that gigabytes of weights are not copied between messages.
    Floating-point values are float32. Nodes that keep float32 when the graph is lowered to 16 bits are added inside
    `with builder.float32():`.
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
        """Prefix the names of nodes and constants inside the with-block, e.g. `encoder.3/attention/MatMul`."""
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

    @contextmanager
    def float32(self, *, only_for_bf16: bool = False) -> Iterator[None]:
        """Mark the nodes added inside the with-block as float32 in every precision, or in bf16 graphs only.

        Inside another such block it has no effect.
        """
        outer = self._mark
        self._mark = outer or (FLOAT32_IN_BF16 if only_for_bf16 else FLOAT32)
        try:
            yield
        finally:
            self._mark = outer

    @contextmanager
    def precise_residuals(self) -> Iterator[None]:
        """Let `residual` inside the with-block compute and store float32 in bf16 graphs."""
        self._precise_residuals = True
        try:
            yield
        finally:
            self._precise_residuals = False

    def constant(self, value: NDArray[np.generic], name: str = "constant") -> str:
        """Add an initializer, or return the name of an equal one."""
        data = value.tobytes()  # little-endian, as on every machine that ONNX Runtime and TensorRT support
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

    def floats(self, value: NDArray[np.float32], name: str) -> str:
        """Add a float32 constant."""
        return self.constant(value.astype(np.float32, copy=False), name)

    def scalar(self, value: float) -> str:
        """Add a float32 constant without axes."""
        return self.floats(np.array(value, np.float32), "scalar")

    def integers(self, values: Sequence[int], name: str = "shape") -> str:
        """Add an int64 vector."""
        return self.constant(np.asarray(values, np.int64), name)

    def op(self, op_type: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node with one output and return the output's name."""
        return self.op_with_outputs(op_type, 1, *inputs, **attributes)[0]

    def op_with_outputs(
        self, op_type: str, num_outputs: int, *inputs: str, **attributes: Attribute
    ) -> list[str]:
        """Add a node with several outputs and return their names."""
        name = self._unique(op_type)
        names = [name] if num_outputs == 1 else [f"{name}:{i}" for i in range(num_outputs)]
        self._add(op_type, inputs, names, name, attributes)
        return names

    def output(self, op_type: str, name: str, *inputs: str, **attributes: Attribute) -> None:
        """Add the node whose output is the graph output `name`."""
        self._add(op_type, inputs, [name], self._unique(name), attributes)

    def _add(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        name: str,
        attributes: Mapping[str, Attribute],
    ) -> None:
        node = helper.make_node(op_type, inputs, outputs, name)
        node.doc_string = self._mark
        node.attribute.extend(helper.make_attribute(key, attributes[key]) for key in sorted(attributes))
        self._model.graph.node.append(node)

    def inline(self, graph: onnx.GraphProto, inputs: Mapping[str, str]) -> dict[str, str]:
        """Add the nodes and constants of another graph.

        Args:
            graph: The other graph, without subgraphs.
            inputs: Values here by the names of its inputs.

        Returns:
            Names here by the names of its outputs.
        """
        names = {"": "", **inputs}
        for tensor in graph.initializer:
            names[tensor.name] = self.constant(numpy_helper.to_array(tensor), tensor.name)
        for node in graph.node:
            added = self._model.graph.node.add()
            added.CopyFrom(node)
            added.name = self._unique(node.name or node.op_type)
            added.doc_string = self._mark
            outputs = [self._unique(name) if name else "" for name in node.output]
            names.update(zip(node.output, outputs, strict=True))
            added.input[:] = [names[name] for name in node.input]
            added.output[:] = outputs
        return {info.name: names[info.name] for info in graph.output}

    def add(self, a: str, b: str) -> str:
        """Add `a + b`."""
        return self.op("Add", a, b)

    def mul(self, a: str, b: str) -> str:
        """Add `a * b`."""
        return self.op("Mul", a, b)

    def residual(self, tokens: str, change: str) -> str:
        """Add `tokens + change`; see `precise_residuals`."""
        with self.float32(only_for_bf16=True) if self._precise_residuals else nullcontext():
            return self.add(tokens, change)

    def linear(self, a: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None) -> str:
        """Add `a @ weight + bias` with constant weight [in, out] and bias [out]."""
        product = self.op("MatMul", a, self.floats(weight, "weight"))
        return product if bias is None else self.add(product, self.floats(bias, "bias"))

    def layer_norm(self, a: str, channels: int, eps: float, offset: NDArray[np.float32] | None = None) -> str:
        """Add a LayerNorm over the last axis, in float32, with gamma 1 and beta 0 or `offset` [channels]."""
        with self.float32():
            scale = self.floats(np.ones(channels, np.float32), "ones")
            shift = self.floats(np.zeros(channels, np.float32) if offset is None else offset, "offset")
            return self.op("LayerNormalization", a, scale, shift, axis=-1, epsilon=eps)

    def mean(self, a: str, axes: Sequence[int], *, keepdims: bool) -> str:
        """Add the mean over axes."""
        return self.op("ReduceMean", a, self.integers(axes, "axes"), keepdims=int(keepdims))

    def reshape(self, a: str, *shape: int) -> str:
        """Add a reshape to a static shape."""
        return self.op("Reshape", a, self.integers(shape))

    def transpose(self, a: str, *permutation: int) -> str:
        """Add a permutation of axes."""
        return self.op("Transpose", a, perm=list(permutation))

    def gather(self, a: str, index: NDArray[np.int64], axis: int) -> str:
        """Add a gather of constant indices along an axis."""
        return self.op("Gather", a, self.constant(index, "index"), axis=axis)

    def split(self, a: str, sizes: Sequence[int], axis: int = 1) -> list[str]:
        """Add a split into parts of the given sizes along an axis."""
        return self.op_with_outputs("Split", len(sizes), a, self.integers(sizes, "sizes"), axis=axis)

    def concat(self, values: Sequence[str], axis: int) -> str:
        """Add a concatenation along an axis; a single value is returned unchanged."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def slice(self, a: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]) -> str:
        """Add a slice along axes."""
        return self.op(
            "Slice",
            a,
            self.integers(starts, "starts"),
            self.integers(ends, "ends"),
            self.integers(axes, "axes"),
        )

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for (dtype, shape, numbers), name in self._constants.items():
            digest.update(f"{name} {dtype} {shape} {numbers}\n".encode())
        for node in self._model.graph.node:
            digest.update(node.SerializeToString(deterministic=True))
        return digest.hexdigest()[:12]

    def build(
        self,
        name: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        producer_version: str,
        *,
        opset: int = OPSET,
    ) -> onnx.ModelProto:
        """Return the finished model, of operator set `opset` or newer than `OPSET`; call it once.

        A fingerprint of nodes and constants is appended to `name`, so that graphs of the same name are equal: ONNX
        Runtime's TensorRT provider caches engines by name.
        """

        def info(spec: TensorSpec) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(spec.name, _ELEMENT_TYPES[spec.dtype], list(spec.shape))

        model, graph = self._model, self._model.graph
        graph.name = f"{name}_{self._fingerprint()}"
        graph.input.extend(info(spec) for spec in inputs)
        graph.output.extend(info(spec) for spec in outputs)
        model.opset_import.append(helper.make_opsetid("", opset))
        model.ir_version = IR_VERSION
        model.producer_name, model.producer_version = "tcmoa", producer_version
        return model
