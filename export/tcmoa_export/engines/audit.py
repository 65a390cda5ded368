"""An engine's kernels compared with its graph: fusion, precision, bytes, and lower bounds of the frame time.

Nothing here runs on a GPU. Bytes count every view that a kernel reads or writes once, without caches. A bound is the
time below which the listed kernels cannot finish on a GPU with the rates of its datasheet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tcmoa_export.engines.gpus import GPUS, Gpu
from tcmoa_export.engines.graph_summary import GraphSummary
from tcmoa_export.engines.kernels import PRECISIONS, AuditError, Kernel, TensorView
from tcmoa_runtime.typing import JsonObject, JsonValue, Precision

NUM_LARGEST: Final = 10
"""Number of kernels that are listed as those that move most bytes."""


@dataclass(frozen=True)
class Audit:
    """An engine's kernels, and what was asked for.

    Attributes:
        kernels: Kernels in launch order.
        graph: Summary of the ONNX graph.
        precision: Precision of the graph, apart from its float32 and quantized parts.
    """

    kernels: tuple[Kernel, ...]
    graph: GraphSummary
    precision: Precision

    @property
    def bytes_moved(self) -> int:
        """Bytes of all views of all kernels, constants included."""
        return sum(kernel.bytes for kernel in self.kernels)

    @property
    def precisions(self) -> dict[str, int]:
        """Number of kernels by precision."""
        return dict(sorted(Counter(kernel.precision for kernel in self.kernels).items()))

    @property
    def unfused(self) -> tuple[str, ...]:
        """Softmax nodes of attentions that are not one kernel together with both their products."""
        listed = [frozenset(kernel.nodes) for kernel in self.kernels]
        return tuple(
            softmax
            for softmax, products in self.graph.attentions.items()
            if not any(products | {softmax} <= nodes for nodes in listed)
        )

    @property
    def wrong_precision(self) -> tuple[str, ...]:
        """Descriptions of kernels of products and convolutions that read another type than the graph states."""
        wrong = []
        for kernel in self.kernels:
            heavy = [node for node in kernel.nodes if node in self.graph.flops]
            if kernel.kind in ("attention", "matmul", "convolution") and heavy:
                expected: str = "fp32" if self.graph.float32.issuperset(heavy) else self.precision
                eight_bit = {self.graph.eight_bit.get(node, "") for node in heavy}
                if eight_bit != {""}:
                    expected = "/".join(sorted(eight_bit))  # a kernel with products of both kinds is wrong
                if kernel.precision != expected:
                    wrong.append(f"{kernel.name} reads {kernel.precision}, not {expected}")
                elif eight_bit != {""} and not _reads_activations_in(kernel, expected):
                    # 8-bit weights alone are dequantized first, and the product is one in 16 bits.
                    wrong.append(f"{kernel.name} reads no activations in {expected}")
        return tuple(wrong)

    @property
    def eight_bit_products(self) -> int:
        """Number of kernels of products that read both operands in 8 bits."""
        return sum(
            kernel.kind in ("matmul", "convolution")
            and kernel.precision in ("int8", "fp8")
            and _reads_activations_in(kernel, kernel.precision)
            for kernel in self.kernels
        )

    def flops(self) -> list[int]:
        """Return the operations of each kernel; a node counts once, for the kernel that computes it."""
        remaining = dict(self.graph.flops)
        result = [0] * len(self.kernels)
        computing = ("attention", "matmul", "convolution")
        for only_computing in (True, False):
            for i, kernel in enumerate(self.kernels):
                if not only_computing or kernel.kind in computing:
                    result[i] += sum(remaining.pop(node, 0) for node in kernel.nodes)
        return result

    def bound_ms(self, gpu: Gpu) -> float | None:
        """Return the sum of the kernels' roofline times in ms; None where the GPU has no arithmetic for one of them."""
        seconds = 0.0
        for kernel, flops in zip(self.kernels, self.flops(), strict=True):
            peak = gpu.peak(kernel.precision)
            if peak is None:
                return None
            seconds += max(kernel.bytes / gpu.bandwidth, flops / peak)
        return seconds * 1e3

    def to_dict(self) -> JsonObject:
        """Return everything as plain values, for the engine's JSON and `tcmoa inspect`."""
        flops = self.flops()
        listed = [_kernel_to_json(kernel, count) for kernel, count in zip(self.kernels, flops, strict=True)]
        order = sorted(range(len(self.kernels)), key=lambda i: -self.kernels[i].bytes)
        bounds = {gpu: self.bound_ms(gpu) for gpu in GPUS}
        return {
            "kernels": len(self.kernels),
            "attentions": len(self.graph.attentions),
            "fused_attentions": len(self.graph.attentions) - len(self.unfused),
            "bytes_moved": self.bytes_moved,
            "minimum_bytes": self.graph.min_bytes,
            "constant_bytes": sum(kernel.constant_bytes for kernel in self.kernels),
            "flops": sum(flops),
            "precisions": self.precisions,
            "eight_bit_linears": len(self.graph.eight_bit),
            "eight_bit_products": self.eight_bit_products,
            "kinds": dict(sorted(Counter(kernel.kind for kernel in self.kernels).items())),
            "by_scope": by_scope(self.kernels),
            "largest": [listed[i] for i in order[:NUM_LARGEST]],
            "bounds": {
                gpu.name: {"ms": round(bound, 3), "source": gpu.source}
                for gpu, bound in bounds.items()
                if bound is not None
            },
            "list": listed,
        }


def audit(kernels: Iterable[Kernel], graph: GraphSummary, precision: Precision) -> Audit:
    """Compare an engine's kernels with its graph.

    Raises:
        AuditError: They do not belong together.
    """
    listed = tuple(kernels)
    if not listed:
        raise AuditError("the engine lists no kernels")
    known = set(graph.flops) | set(graph.attentions)
    if not known.intersection(*[{node for kernel in listed for node in kernel.nodes}]):
        raise AuditError("the engine was built from another graph: its kernels name no node of this one")
    return Audit(listed, graph, precision)


def by_scope(kernels: Sequence[Kernel]) -> dict[str, dict[str, int]]:
    """Sum `kernels` and `bytes` by part of the graph, e.g. `encoder.3`: the part of most of a kernel's nodes."""
    result: dict[str, dict[str, int]] = {}
    for kernel in kernels:
        scopes = Counter(node.split("/", 1)[0] for node in kernel.nodes)
        scope = scopes.most_common(1)[0][0] if scopes else "unnamed"
        entry = result.setdefault(scope, {"kernels": 0, "bytes": 0})
        entry["kernels"] += 1
        entry["bytes"] += kernel.bytes
    return result


def _reads_activations_in(kernel: Kernel, precision: str) -> bool:
    """Return whether one of the inputs has that precision; the others may be residuals."""
    return any(PRECISIONS.get(view.dtype) == precision for view in kernel.inputs)


def _kernel_to_json(kernel: Kernel, flops: int) -> JsonObject:
    def views(tensors: Iterable[TensorView]) -> list[JsonValue]:
        return [{"shape": list(view.shape), "type": view.dtype} for view in tensors]

    return {
        "name": kernel.name,
        "kind": kernel.kind,
        "precision": kernel.precision,
        "bytes": kernel.bytes,
        "flops": flops,
        "inputs": views(kernel.inputs),
        "constants": views(kernel.constants),
        "outputs": views(kernel.outputs),
        "nodes": list(kernel.nodes),
    }
