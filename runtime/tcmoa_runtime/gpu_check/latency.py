"""How long a frame takes: the step `latency`. All times are by the clock of the host, in ms."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any, Final, cast

import numpy as np

from tcmoa_runtime.bench.exactness import pair_frames
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import FUSED
from tcmoa_runtime.fit import plan_tiles
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.gpu_check.inputs import GraphInputs, make_inputs
from tcmoa_runtime.gpu_check.target import CheckBackend, CheckTarget
from tcmoa_runtime.images import format_size, resize_frame
from tcmoa_runtime.options.gpu_check import GpuCheckPrecision
from tcmoa_runtime.typing import FrameSize, JsonObject

LARGE_SIZE: Final[FrameSize] = (720, 1280)
"""(height, width) of frames that are measured in tiles, besides the bundle's own size."""

MAX_FRAMES: Final = 300
WARM_UP_FRAMES: Final = 20
MAX_SECONDS: Final = 30.0
"""Time after which a measurement ends with the frames that it has."""


def measure_latency(target: CheckTarget, precision: GpuCheckPrecision, frames: int) -> JsonObject:
    """Measure frames of the bundle's own size, and larger ones in tiles."""
    bundle = target.bundle(precision)
    inputs = make_inputs(bundle, 0)
    num_frames = min(frames, MAX_FRAMES)
    batch = bundle.contract.batch
    figures: JsonObject = {"size": format_size(bundle.size), "batch": batch}
    bound = target.bound(precision)
    figures["bound_ms"] = None if bound is None else bound.ms
    figures["bound_source"] = None if bound is None else bound.source
    with closing(target.load(precision, cuda_graph=False)) as backend:
        figures["without_graph"] = _frame_times(lambda: backend.infer(inputs), num_frames, batch)
    with closing(target.load(precision)) as backend:
        figures["with_graph"] = _frame_times(lambda: backend.infer(inputs), num_frames, batch)
        figures["in_flight_fps"] = _in_flight_fps(backend, inputs, num_frames, batch)
        figures["on_gpu"] = _times_on_gpu(target, backend, inputs, num_frames, batch)
        if bundle.can_tile and bundle.size != LARGE_SIZE and batch == 1:
            figures["tiled"] = _tiled(bundle, backend, num_frames, None if bound is None else bound.ms)
    return figures


def _frame_times(run: Callable[[], object], runs: int, batch: int = 1) -> JsonObject:
    """Time runs of `batch` frames each, after some to warm up."""
    for _ in range(min(WARM_UP_FRAMES, runs)):
        run()
    times: list[float] = []
    end = time.perf_counter() + MAX_SECONDS
    while len(times) < runs and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "frames": batch * len(times),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "fps": round(1e3 * batch * len(times) / sum(times), 1),
    }


def _in_flight_fps(backend: CheckBackend, inputs: GraphInputs, runs: int, batch: int) -> float:
    """Return frames per second with two runs in flight, so that copies overlap computation."""
    start, done = time.perf_counter(), 0
    end = start + MAX_SECONDS
    tickets = deque([backend.submit(inputs)])
    for _ in range(runs - 1):
        if time.perf_counter() > end:
            break
        tickets.append(backend.submit(inputs))
        tickets.popleft().result()
        done += 1
    tickets.popleft().result()
    return round(batch * (done + 1) / (time.perf_counter() - start), 1)


def _times_on_gpu(
    target: CheckTarget, backend: CheckBackend, inputs: GraphInputs, runs: int, batch: int
) -> JsonObject:
    """Time runs whose inputs and results stay on the GPU."""
    with ExitStack() as stack:
        arrays = {
            name: stack.enter_context(target.upload(values, "cuda_array_interface"))
            for name, values in inputs.items()
        }
        return _frame_times(lambda: target.wait(backend.infer_device(arrays)[FUSED]), runs, batch)


def _tiled(bundle: Bundle, backend: CheckBackend, frames: int, bound_ms: float | None) -> JsonObject:
    """Time frames of `LARGE_SIZE` in tiles, cut and blended on the host."""
    _, x, y = next(pair_frames(bundle))
    x, y = (resize_frame(frame, LARGE_SIZE) for frame in (x, y))
    plan = plan_tiles(LARGE_SIZE, bundle.size, bundle.tile_step, bundle.window_pixels)
    fuser = Fuser(bundle, cast("Any", backend), fit="tile")  # not closed: the backend is the caller's
    return {
        "size": format_size(LARGE_SIZE),
        "tiles": plan.count,
        "bound_ms": None if bound_ms is None else round(plan.count * bound_ms, 3),
        **_frame_times(lambda: fuser(x, y), max(1, frames // plan.count)),
    }
