"""The speed limit of matrix products on this machine: `python -m harness.gemm KIND SIDE THREADS` runs one product.

No model can be faster than its matrix products alone.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from harness.contender import environment
from harness.plan import Plan
from harness.rounds import RoundResults, run_rounds
from tcmoa_runtime.bench.worker import RunFrame, Worker, python_module, serve
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.typing import OnMessage

KINDS: Final = {
    "fp32 torch": "fp32",
    "bf16 torch": "bf16",
    "bf16 openvino": "bf16",
    "int8 onnxruntime": "int8",
    "int8 openvino": "int8",
}
"""Kinds of matrix products, and the arithmetic of each."""


@dataclass(frozen=True)
class Limit:
    """The fastest sample of an arithmetic: 10^9 operations per second, the kind of product, and its side."""

    gflops: float
    kind: str
    side: int


def operations(side: int) -> int:
    """Return the number of multiplications and additions in a product of two square matrices."""
    return 2 * side**3


def best_limits(measured: RoundResults, sides: dict[str, tuple[str, int]]) -> dict[str, Limit]:
    """Return the fastest kind by arithmetic, without noisy ones; `sides` has the kind and side of each contender."""
    found: dict[str, Limit] = {}
    for name, series in measured.series.items():
        kind, side = sides[name]
        if series.is_noisy:
            continue
        best = min(sum(s.ms) / len(s.ms) for samples in series.rounds for s in samples if s.counts)
        limit = Limit(operations(side) / best / 1e6, kind, side)
        arithmetic = KINDS[kind]
        if arithmetic not in found or found[arithmetic].gflops < limit.gflops:
            found[arithmetic] = limit
    return found


def measure_limits(
    plan: Plan, threads: int, on_message: OnMessage
) -> tuple[dict[str, Limit], dict[str, str]]:
    """Return the limits by arithmetic, and the reason for each kind that did not run."""
    sides: dict[str, tuple[str, int]] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        runners: dict[str, Worker] = {}
        for kind in KINDS:
            for side in plan.gemm_sides:
                name = f"{kind} {side}"
                sides[name] = (kind, side)
                command = python_module("harness.gemm", kind, str(side), str(threads))
                worker = stack.enter_context(Worker(name, command, environment(threads)))
                try:
                    worker.load()
                    runners[name] = worker
                except TcmoaError as error:
                    failed[name] = str(error)
        measured = run_rounds(
            runners,
            plan.gemm_rounds,
            tries=plan.tries,
            sample_seconds=plan.sample_seconds,
            progress=lambda done, of, _: on_message(f"limits of matrix products, round {done} of {of}"),
        )
    limits = best_limits(measured, sides)
    for kind, arithmetic in KINDS.items():
        if arithmetic not in limits:
            failed.setdefault(kind, "too noisy: too few valid samples")
    return limits, {**failed, **measured.failed}


def _load(kind: str, side: int, threads: int) -> RunFrame:
    if kind == "int8 onnxruntime":
        return _onnxruntime(side, threads)
    if kind == "int8 openvino":
        return _openvino(side, threads)
    if kind == "bf16 openvino":
        return _openvino_bf16(side, threads)
    import torch

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if kind.startswith("bf16") else torch.float32
    a, b = (torch.randn(side, side).to(dtype) for _ in "ab")
    out = torch.empty(side, side, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def _weights(side: int) -> Any:
    import numpy as np

    # Up to 64, like the weights of int8 bundles.
    return np.random.default_rng(0).integers(-64, 65, (side, side)).astype(np.int8)


def _activations(side: int) -> Any:
    import numpy as np

    return np.random.default_rng(1).integers(0, 256, (side, side)).astype(np.uint8)


def _onnxruntime(side: int, threads: int) -> RunFrame:
    """MatMulInteger, uint8 by constant int8."""
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b", "zero_a", "zero_b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [side, side])],
        [helper.make_tensor_value_info("c", TensorProto.INT32, [side, side])],
        [
            numpy_helper.from_array(_weights(side), "b"),
            numpy_helper.from_array(np.array(128, np.uint8), "zero_a"),
            numpy_helper.from_array(np.array(0, np.int8), "zero_b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {"a": _activations(side)}
    return lambda: session.run(None, inputs)


def _openvino(side: int, threads: int) -> RunFrame:
    """A product of two quantized matrices, uint8 around 128 by constant int8, as in the bundles."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("DequantizeLinear", ["a", "scale", "zero_a"], ["a_real"]),
        helper.make_node("DequantizeLinear", ["b", "scale", "zero_b"], ["b_real"]),
        helper.make_node("MatMul", ["a_real", "b_real"], ["c"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [side, side])],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [side, side])],
        [
            numpy_helper.from_array(_weights(side), "b"),
            numpy_helper.from_array(np.array(0.01, np.float32), "scale"),
            numpy_helper.from_array(np.array(128, np.uint8), "zero_a"),
            numpy_helper.from_array(np.array(0, np.int8), "zero_b"),
        ],
    )
    return _compiled(graph, {"a": _activations(side)}, "f32", threads)


def _openvino_bf16(side: int, threads: int) -> RunFrame:
    """A product of two float32 matrices that OpenVINO rounds to bfloat16, as `openvino-bf16` does."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    a, b = (np.random.default_rng(seed).standard_normal((side, side), np.float32) for seed in (0, 1))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [side, side])],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [side, side])],
        [numpy_helper.from_array(b, "b")],
    )
    return _compiled(graph, {"a": a}, "bf16", threads)


def _compiled(graph: Any, inputs: dict[str, Any], precision: str, threads: int) -> RunFrame:
    import io

    from onnx import helper

    from tcmoa_runtime.backends.openvino import _process_core  # one core in a process, see there

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    core = _process_core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = core.compile_model(core.read_model(io.BytesIO(model.SerializeToString())), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)


if __name__ == "__main__":
    serve(lambda: _load(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
