"""The steps of the GPU check. Each stands alone: it builds and loads what it needs, and raises to fail.

| step    | what must hold                                                                                      |
|---------|-----------------------------------------------------------------------------------------------------|
| device  | CUDA finds the GPU and copies within it; its name, the driver, the bandwidth of a copy              |
| build   | an engine is built and runs a frame; what the audit of its kernels says; first and second start     |
| parity  | frames of the shipped pairs are close to those of ONNX Runtime on the CPU                           |
| latency | p50 and p99 with and without CUDA graph, in flight, on the GPU, and in tiles, with the audit's bound|
| graph   | a CUDA graph is captured, gives the bytes of the engine without one, and follows changed prompts    |
| order   | three frames in flight come back in their order                                                     |
| threads | two threads, on one backend and on two, get their own frames                                        |
| streams | the engine computes in a caller's stream, and orders its results in another one                     |
| arrays  | frames enter and leave in GPU memory, by DLPack and by `__cuda_array_interface__`                   |
| leaks   | memory of the process does not grow, on the host and on the GPU                                     |
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.backends.base import TensorsLike
from tcmoa_runtime.bench.exactness import pair_frames, psnr_db
from tcmoa_runtime.contract import FUSED, PROMPT_SHIFT, X
from tcmoa_runtime.errors import SpellOption, spell_for_python
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.gpu_check.inputs import GraphInputs, check_equal, make_inputs
from tcmoa_runtime.gpu_check.latency import measure_latency
from tcmoa_runtime.gpu_check.memory import host_memory
from tcmoa_runtime.gpu_check.result import (
    PlannedStep,
    StepResult,
    StepStatus,
    describe_error,
    trace_of,
    without_numbers,
)
from tcmoa_runtime.gpu_check.target import (
    ArrayProtocol,
    CheckBackend,
    CheckError,
    CheckTarget,
    PendingFrame,
    StepSkippedError,
)
from tcmoa_runtime.options.gpu_check import GpuCheckPrecision, GpuCheckStep
from tcmoa_runtime.typing import JsonObject

MIN_PSNR_DB: Final[Mapping[GpuCheckPrecision, float]] = MappingProxyType(
    {"fp32": 60.0, "fp16": 50.0, "bf16": 45.0, "int8": 45.0, "fp8": 45.0}
)
"""Lowest PSNR to the bundle's graph on the CPU: float32, or the same quantized graph."""

NUM_ORDERED: Final = 60
NUM_PER_THREAD: Final = 50

NUM_PARTS: Final = 3
MAX_GROWTH: Final = 1 << 20
"""Bytes of growth in every part of the frames that count as a leak: what is allocated once grows in one part only."""

StepFunction: TypeAlias = Callable[[CheckTarget, GpuCheckPrecision, int], JsonObject]
"""Runs a step in a precision with a number of frames; returns what it found, and raises to fail."""


def run_step(
    target: CheckTarget, step: PlannedStep, frames: int, spell_option: SpellOption = spell_for_python
) -> StepResult:
    """Run a step; no exception escapes but those that end the program.

    Args:
        target: The GPU, or its simulation.
        step: The step.
        frames: Frames of long steps, see `GpuCheckOptions.frames`.
        spell_option: Spells options in the texts of errors.
    """
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def result(status: StepStatus, **parts: Any) -> StepResult:
            seconds = None if target.is_simulated else round(time.monotonic() - start, 2)
            notes = tuple(str(warning.message) for warning in caught if warning.category is RuntimeWarning)
            return StepResult(step, status, seconds, notes=notes, **parts)

        try:
            figures = STEPS[step.name](target, step.precision, frames)
        except StepSkippedError as error:
            return result("skipped", reason=describe_error(error, spell_option))
        except Exception as error:
            return result("failed", reason=describe_error(error, spell_option), trace=trace_of(error))
        if target.is_simulated:
            return result("simulated", figures=without_numbers(figures))
        return result("passed", figures=figures)


def check_device(target: CheckTarget, precision: GpuCheckPrecision, frames: int) -> JsonObject:
    """Describe the device and measure a copy."""
    return target.describe()


def check_build(target: CheckTarget, precision: GpuCheckPrecision, frames: int) -> JsonObject:
    """Build an engine and load it twice: the first start compiles kernels, and the second finds them."""
    bundle = target.bundle(precision)  # quantizes it for 8 bits, which is not part of the build's time
    start = time.perf_counter()
    manifest: Mapping[str, Any] = target.build(precision)
    figures: dict[str, Any] = {"build_s": round(time.perf_counter() - start, 2)}
    figures["batch"] = bundle.contract.batch
    names = ("kernels", "attentions", "fused_attentions", "bytes_moved", "minimum_bytes", "precisions")
    figures |= {name: manifest.get(name) for name in (*names, "eight_bit_linears", "eight_bit_products")}
    figures["engine"] = {name: manifest.get(name) for name in ("flavor", "version", "targets")}
    figures["audit_error"] = manifest.get("audit_error")
    inputs = make_inputs(bundle, 0)
    for name in ("first_start_s", "second_start_s"):
        start = time.perf_counter()
        with closing(target.load(precision)) as backend:
            backend.infer(inputs)
            figures[name] = round(time.perf_counter() - start, 2)
    unfused = (figures["attentions"] or 0) - (figures["fused_attentions"] or 0)
    if unfused and precision != "fp32":
        warnings.warn(f"{unfused} attentions are not one kernel", RuntimeWarning, stacklevel=1)
    return figures


def check_parity(target: CheckTarget, precision: GpuCheckPrecision, frames: int) -> JsonObject:
    """Compare the shipped pairs with ONNX Runtime on the CPU."""
    bundle = target.bundle(precision)
    reference = target.reference(precision)
    found: dict[str, float] = {}
    with closing(target.load(precision)) as backend:
        ours = Fuser(bundle, cast("Any", backend), fit="resize")
        theirs = Fuser(bundle, reference, fit="resize")
        for name, x, y in pair_frames(bundle):
            found[name] = round(psnr_db(ours(x, y), theirs(x, y)), 2)
    lowest, required = min(found.values()), MIN_PSNR_DB[precision]
    if lowest < required:
        raise CheckError(f"PSNR to the CPU is {lowest:g} dB; expected at least {required:g} dB ({found})")
    return {"psnr_db": found, "min_psnr_db": lowest, "required_db": required, "graph": bundle.precision}


def check_graph(target: CheckTarget, precision: GpuCheckPrecision, frames: int) -> JsonObject:
    """Compare an engine in a CUDA graph with the same engine without one, and change the prompts."""
    bundle = target.bundle(precision)
    with ExitStack() as stack:
        plain = stack.enter_context(closing(target.load(precision, cuda_graph=False)))
        captured = stack.enter_context(closing(target.load(precision)))
        if plain.uses_graph or not captured.uses_graph:
            raise CheckError("the engine was not captured into a CUDA graph; expected one")
        inputs = make_inputs(bundle, 0)
        first = _fused(captured, inputs)
        check_equal(first, _fused(plain, inputs), "with and without a CUDA graph")
        changed, what = _changed_inputs(inputs)
        other = _fused(captured, changed)
        check_equal(other, _fused(plain, changed), f"with and without a CUDA graph, after a change of {what}")
        if np.array_equal(first, other):
            raise CheckError(f"other {what} give the same frame; expected a captured graph to follow them")
        check_equal(_fused(captured, inputs), first, f"the first {what} again")
    return {"captured": True}


def _changed_inputs(inputs: GraphInputs) -> tuple[GraphInputs, str]:
    """Return inputs with other prompts, or other sources if the network has no prompt, and what was changed."""
    if PROMPT_SHIFT in inputs:
        return {**inputs, PROMPT_SHIFT: cast("Any", inputs[PROMPT_SHIFT]) + np.float32(0.5)}, "prompts"
    return {**inputs, X: cast("Any", 255 - cast("Any", inputs[X]))}, "sources"


def check_order(target: CheckTarget, precision: GpuCheckPrecision, frames: int) -> JsonObject:
    """Keep three frames in flight and compare each with its own result."""
    bundle = target.bundle(precision)
    inputs = [make_inputs(bundle, number) for number in range(4)]
    with closing(target.load(precision, slots=3)) as backend:
        expected = [_fused(backend, case) for case in inputs]
        pending: list[tuple[int, PendingFrame]] = []
        for number in range(NUM_ORDERED + 3):
            if len(pending) == 3 or number >= NUM_ORDERED:
                index, ticket = pending.pop(0)
                check_equal(ticket.result()[FUSED], expected[index % 4], f"frame {index} of 3 in flight")
            if number < NUM_ORDERED:
                pending.append((number, backend.submit(inputs[number % 4])))
    return {"frames": NUM_ORDERED}


def check_threads(target: CheckTarget, precision: GpuCheckPrecision, frames: int) -> JsonObject:
    """Fuse in two threads, on one backend and then on two."""
    bundle = target.bundle(precision)
    inputs = [make_inputs(bundle, number) for number in range(2)]
    with ExitStack() as stack:
        backends = [stack.enter_context(closing(target.load(precision))) for _ in range(2)]
        expected = [_fused(backends[0], case) for case in inputs]
        for used in (backends[:1] * 2, backends):
            failures: list[Exception] = []

            def work(number: int, backend: CheckBackend, failures: list[Exception] = failures) -> None:
                try:
                    for _ in range(NUM_PER_THREAD):
                        check_equal(_fused(backend, inputs[number]), expected[number], f"thread {number}")
                except Exception as error:
                    failures.append(error)

            threads = [threading.Thread(target=work, args=(n, used[n]), daemon=True) for n in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if failures:
                raise failures[0]
    return {"frames": 4 * NUM_PER_THREAD}


def check_streams(target: CheckTarget, precision: GpuCheckPrecision, frames: int) -> JsonObject:
    """Compute in a caller's stream, and order results in another one."""
    bundle = target.bundle(precision)
    inputs = make_inputs(bundle, 0)
    # The backend is closed before the stream that reads its results is destroyed, also when the step fails.
    with target.new_stream() as stream, closing(target.load(precision)) as backend:
        expected = _fused(backend, inputs)
        result = backend.infer_device(inputs, stream)
        try:
            found = target.download(result[FUSED], "cuda_array_interface")
        finally:
            del result
        check_equal(found, expected, "results ordered in a caller's stream")
    with target.new_stream() as stream, closing(target.load(precision, stream=stream)) as backend:
        check_equal(_fused(backend, inputs), expected, "computed in a caller's stream")
    return {"streams": 2}


def check_arrays(target: CheckTarget, precision: GpuCheckPrecision, frames: int) -> JsonObject:
    """Hand frames over in GPU memory by both protocols, and to and from the array libraries that are installed."""
    bundle = target.bundle(precision)
    inputs = make_inputs(bundle, 0)
    protocols: tuple[ArrayProtocol, ...] = ("cuda_array_interface", "dlpack")
    with closing(target.load(precision)) as backend:
        expected = _fused(backend, inputs)
        for protocol in protocols:
            with ExitStack() as stack:
                arrays = {
                    name: stack.enter_context(target.upload(values, protocol))
                    for name, values in inputs.items()
                }
                result = backend.infer_device(arrays)[FUSED]
                check_equal(target.download(result, protocol), expected, f"frames by {protocol}")
                del result, arrays
            with target.upload(inputs[X], protocol) as x:
                mixed: TensorsLike = {**inputs, X: x}
                result = backend.infer_device(mixed)[FUSED]
                check_equal(target.download(result, protocol), expected, f"x alone by {protocol}")
                del result, mixed
        libraries = [] if target.is_simulated else _check_libraries(backend, inputs, expected)
    return {"protocols": list(protocols), "libraries": libraries}


def check_leaks(target: CheckTarget, precision: GpuCheckPrecision, frames: int) -> JsonObject:
    """Run frames to and from the host and on the GPU, and compare the memory after each part of them."""
    bundle = target.bundle(precision)
    inputs = make_inputs(bundle, 0)
    on_host: list[int | None] = []
    on_gpu: list[int] = []
    whose = ""
    with closing(target.load(precision)) as backend:

        def run(count: int) -> None:
            for number in range(count):
                if number % 2:
                    target.wait(backend.infer_device(inputs)[FUSED])
                else:
                    backend.infer(inputs)
            gc.collect()

        run(max(4, frames // 10))
        for part in range(NUM_PARTS + 1):
            if part:
                run(frames // NUM_PARTS)
            on_host.append(host_memory())
            in_use, whose = target.gpu_memory()
            on_gpu.append(in_use)
    if not target.is_simulated:  # whose memory is that of a library on the CPU
        _check_growth([size for size in on_host if size is not None], "host memory")
        _check_growth(on_gpu, f"GPU memory of {whose}")
    return {
        "frames": frames // NUM_PARTS * NUM_PARTS,
        "host_bytes": list(on_host),
        "gpu_bytes": list(on_gpu),
        "gpu_memory_of": whose,
    }


STEPS: Final[Mapping[GpuCheckStep, StepFunction]] = MappingProxyType(
    {
        "device": check_device,
        "build": check_build,
        "parity": check_parity,
        "latency": measure_latency,
        "graph": check_graph,
        "order": check_order,
        "threads": check_threads,
        "streams": check_streams,
        "arrays": check_arrays,
        "leaks": check_leaks,
    }
)


def _fused(backend: CheckBackend, inputs: TensorsLike) -> NDArray[np.uint8]:
    return backend.infer(inputs)[FUSED]


def _check_growth(sizes: list[int], what: str) -> None:
    """Raise CheckError if a size has grown in every part."""
    growth = [after - before for before, after in pairwise(sizes)]
    if growth and min(growth) > MAX_GROWTH:
        text = ", ".join(f"{bytes_ / 1e6:.1f} MB" for bytes_ in growth)
        raise CheckError(f"{what} grew in every part of the frames ({text}); expected it to stay")


def _check_libraries(
    backend: CheckBackend, inputs: Mapping[str, NDArray[np.generic]], expected: NDArray[np.uint8]
) -> list[str]:
    """Exchange arrays with CuPy and PyTorch where they are installed with CUDA; returns their names."""
    tried = []
    if importlib.util.find_spec("cupy"):
        cupy: Any = importlib.import_module("cupy")
        result = backend.infer_device({name: cupy.asarray(values) for name, values in inputs.items()})
        check_equal(cupy.asnumpy(cupy.from_dlpack(result[FUSED])), expected, "CuPy by DLPack")
        check_equal(cupy.asnumpy(cupy.asarray(result[FUSED])), expected, "CuPy")
        tried.append(f"cupy {cupy.__version__}")
    if importlib.util.find_spec("torch"):
        torch: Any = importlib.import_module("torch")
        if torch.cuda.is_available():
            on_gpu = {name: torch.from_numpy(values).cuda() for name, values in inputs.items()}
            result = backend.infer_device(on_gpu)
            check_equal(torch.from_dlpack(result[FUSED]).cpu().numpy(), expected, "PyTorch by DLPack")
            tried.append(f"torch {torch.__version__}")
    return tried
