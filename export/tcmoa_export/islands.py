"""Lowering the graph of a wrapped network: what stays float32 is found by measurement.

A TC-MoA graph says node by node what stays float32 (`GraphBuilder.float32`). Of a network of others nothing is known,
so its products and convolutions are divided into parts, in the order of the graph:

1. What is before the network's first product and after its last, i.e. ranges, colors and rounding, stays float32.
2. Everything else is lowered. If its result is close enough to float32, that is all.
3. Else each part is lowered by itself, and the parts that lose most stay float32, as many as it takes: islands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from tcmoa_export.graph_builder import FLOAT32, FLOAT32_IN_BF16
from tcmoa_export.precision import lower
from tcmoa_runtime.graph_forms import own_nodes, prepare
from tcmoa_runtime.typing import OnMessage, Precision

PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
"""Operators that do nearly all of the work."""
NOT_IN_BF16: Final = frozenset({"ConvTranspose", "HardSigmoid", "HardSwish"})
"""Operators that TensorRT-RTX 1.7.1 does not build in bfloat16."""
NUM_PARTS: Final = 12
MIN_PSNR_DB: Final = 50.0
"""Lowest PSNR to the float32 graph, in fp16 and in bf16."""
MARGIN_DB: Final = 0.5
"""What the islands keep above that, since an engine rounds in another order."""

MeasurePsnr = Callable[[onnx.ModelProto], float]
"""Returns the PSNR in dB of a lowered graph, which it may change, to the float32 graph; infinity if they are equal."""


@dataclass(frozen=True)
class Islands:
    """What stays float32 in a lowered graph.

    Attributes:
        model: The lowered graph.
        kept: Names of the first product of each part that stays float32.
        parts: Number of parts.
        psnr_db: PSNR to the float32 graph.
    """

    model: onnx.ModelProto
    kept: tuple[str, ...]
    parts: int
    psnr_db: float


def lower_by_measurement(
    model: onnx.ModelProto, precision: Precision, measure: MeasurePsnr, on_message: OnMessage
) -> Islands:
    """Lower a float32 graph of a wrapped network, and keep what its result depends on most in float32.

    Args:
        model: The graph, which is prepared in place: constants of nodes become initializers.
        precision: `fp16` or `bf16`.
        measure: Measures a lowered graph.
        on_message: Called with each finding.

    Returns:
        The lowered graph. Its PSNR is below `MIN_PSNR_DB` only if even float32 products give no more.
    """
    prepare(model)
    parts = _divide(model)

    def lowered(kept: Collection[int]) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        _mark(copy, [part for index, part in enumerate(parts) if index in kept])
        return lower(copy, precision)

    def psnr_of(kept: Collection[int]) -> float:
        return measure(lowered(kept))

    everything = frozenset(range(len(parts)))
    needed = MIN_PSNR_DB + MARGIN_DB
    chosen: Sequence[int] = ()
    psnr = psnr_of(())
    if psnr < needed and len(parts) > 1:
        on_message(
            f"{precision} alone has a PSNR of {psnr:.1f} dB to float32; looking for what must stay float32"
        )
        alone = {index: psnr_of(everything - {index}) for index in everything}
        order = sorted(everything, key=lambda index: alone[index])
        low, high = 1, len(order)  # the smallest number of parts that suffices
        while low < high:
            middle = (low + high) // 2
            if psnr_of(order[:middle]) >= needed:
                high = middle
            else:
                low = middle + 1
        chosen = sorted(order[:low])
        psnr = psnr_of(chosen)
    kept = tuple(parts[index][0] for index in chosen)
    if kept:
        on_message(
            f"{len(kept)} of {len(parts)} parts stay float32, from {', '.join(kept[:3])} on: {psnr:.1f} dB"
        )
    return Islands(lowered(chosen), kept, len(parts), psnr)


def _divide(model: onnx.ModelProto) -> list[list[str]]:
    """Divide the nodes from the first to the last product into parts; nodes before and after are marked float32."""
    nodes, own = list(model.graph.node), own_nodes(model)

    def is_product(node: onnx.NodeProto) -> bool:
        return node.op_type in PRODUCTS and node.name in own

    after: set[str] = set()  # values that depend on a product
    for node in nodes:
        if is_product(node) or not after.isdisjoint(node.input):
            after.update(node.output)
    before: set[str] = set()  # values that a product depends on
    for node in reversed(nodes):
        if is_product(node) or not before.isdisjoint(node.output):
            before.update(node.input)
    inner = []
    for node in nodes:
        is_between = not after.isdisjoint(node.output) and not before.isdisjoint(node.output)
        mark = FLOAT32_IN_BF16 if node.op_type in NOT_IN_BF16 else ""
        node.doc_string = mark if is_product(node) or is_between else FLOAT32
        if is_product(node) or is_between:
            inner.append(node)
    num_products = sum(map(is_product, inner))
    size = max(1, -(-num_products // NUM_PARTS))
    parts: list[list[str]] = []
    count = size
    for node in inner:
        if is_product(node):
            if count == size:
                parts.append([])
                count = 0
            count += 1
        if parts:
            parts[-1].append(node.name)
        else:  # between two products of which the first comes later in the file
            parts.append([node.name])
    return parts


def _mark(model: onnx.ModelProto, parts: Sequence[Sequence[str]]) -> None:
    """Mark parts as float32. A dequantized value has the type that its reader computes in, without a cast between."""
    names = {name for part in parts for name in part}
    readers: dict[str, onnx.NodeProto] = {}
    for node in reversed(model.graph.node):
        if node.name in names:
            node.doc_string = FLOAT32
        if node.op_type == "DequantizeLinear" and node.output[0] in readers:
            node.doc_string = readers[node.output[0]].doc_string
        readers.update(dict.fromkeys(node.input, node))
