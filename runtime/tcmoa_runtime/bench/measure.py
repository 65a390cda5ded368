"""Measuring how fast each backend runs a bundle on this machine.

Each backend runs in a process of its own, so that its threads, memory and caches are separate. All of them stay loaded
and run a few frames in turn, so that a temporary load on the machine slows all of them down alike.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.backends.base import Tensors, neutral_input
from tcmoa_runtime.backends.pick import BACKENDS, INEXACT, fastest_backend, load_backend
from tcmoa_runtime.bench.exactness import min_psnr_db
from tcmoa_runtime.bench.worker import LoadTimes, RunFrame, Worker, python_module, serve
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine_folders import find_engines
from tcmoa_runtime.errors import MissingError, TcmoaError
from tcmoa_runtime.options.bench import BenchOptions
from tcmoa_runtime.typing import BackendChoice, BackendName, JsonObject, OnSteps, ignore_steps

NUM_ROUNDS: Final = 5
MAX_STEADY_SPREAD: Final = 1.25
"""Slowest round's median over the fastest's, up to which the times are taken as reliable."""

_CPU_BACKENDS: Final[tuple[BackendName, ...]] = ("onnxruntime", "openvino", "openvino-bf16")


@dataclass(frozen=True)
class BackendSpeed:
    """Times and memory of one backend, by wall clock.

    Attributes:
        load_ms: From the bundle's path to a backend that is ready, imports included.
        first_ms: The first frame.
        p50_ms: Median of the frames after it.
        p99_ms: 99th percentile of the frames after it.
        peak_mb: Peak resident memory of the process, in 10^6 bytes.
        frames: Number of frames after the first one.
        spread: The slowest round's median over the fastest's.
    """

    load_ms: float
    first_ms: float
    p50_ms: float
    p99_ms: float
    peak_mb: float
    frames: int
    spread: float

    @property
    def is_steady(self) -> bool:
        """Whether the rounds agree."""
        return self.spread <= MAX_STEADY_SPREAD


@dataclass(frozen=True)
class BenchResult:
    """What was measured.

    Attributes:
        speeds: The speed of each backend that ran.
        failed: The error of each backend that did not.
        psnr_db: Lowest PSNR to float32 of less exact backends, in dB, if that was measured.
        min_psnr: PSNR from which they may be the fastest; None: they may not.
    """

    speeds: dict[BackendName, BackendSpeed]
    failed: dict[BackendName, TcmoaError]
    psnr_db: dict[BackendName, float] = field(default_factory=dict)
    min_psnr: float | None = None

    @property
    def p50_ms(self) -> dict[BackendName, float]:
        """Median time of a frame, by backend."""
        return {name: speed.p50_ms for name, speed in self.speeds.items()}

    @property
    def fastest(self) -> BackendName | None:
        """The fastest backend that `auto` may take."""
        return fastest_backend(self.p50_ms, self.close_enough)

    @property
    def close_enough(self) -> dict[BackendName, float]:
        """PSNR of the less exact backends that may be the fastest."""
        limit = self.min_psnr
        return {} if limit is None else {name: psnr for name, psnr in self.psnr_db.items() if psnr >= limit}

    def no_backend(self, bundle: Bundle) -> MissingError:
        """Return the error for a bundle that no backend runs."""
        reasons = "; ".join(error.render_problem() for error in self.failed.values())
        first = next(iter(self.failed.values()))
        return MissingError(
            f"no backend runs the bundle: {reasons}",
            subject=bundle.path,
            remedy=first.remedy,
            settings=first.settings,
        )

    def to_json(self) -> JsonObject:
        """Return plain values."""
        return {
            "backends": {name: asdict(speed) for name, speed in self.speeds.items()},
            "failed": {name: str(error) for name, error in self.failed.items()},
            "fastest": self.fastest,
            "psnr_db": {str(name): psnr for name, psnr in self.psnr_db.items()},
        }


def measure_backends(
    bundle: Bundle, options: BenchOptions | None = None, on_progress: OnSteps = ignore_steps
) -> BenchResult:
    """Measure the speed of backends.

    Args:
        bundle: The bundle to run.
        options: Which backends, and how many frames.
        on_progress: Called with the finished rounds and the number of rounds.

    Raises:
        BundleError: The bundle is damaged.
        MissingError: No backend runs the bundle.
    """
    options = options or BenchOptions()
    names = list(dict.fromkeys(options.backends)) or default_backends(bundle)
    bundle.check()  # else every backend would report the same damage
    cases = [BenchCase(bundle, name, options.trust_engines) for name in names]
    speeds: dict[BackendName, BackendSpeed] = {}
    failed: dict[BackendName, TcmoaError] = {}
    for name, outcome in zip(names, measure_cases(cases, options, on_progress), strict=True):
        if isinstance(outcome, BackendSpeed):
            speeds[name] = outcome
        else:
            failed[name] = outcome
    result = BenchResult(speeds, failed)
    if not speeds:
        raise result.no_backend(bundle)
    return with_exactness(result, bundle, options)


def with_exactness(result: BenchResult, bundle: Bundle, options: BenchOptions) -> BenchResult:
    """Measure the exactness of the less exact backends that ran, if they may be picked."""
    if options.min_psnr is None or INEXACT not in result.speeds:
        return result
    psnr_db: dict[BackendName, float] = {}
    with suppress(TcmoaError):  # what it is compared with does not run; then it is not picked
        psnr_db[INEXACT] = round(min_psnr_db(bundle, INEXACT, threads=options.threads), 2)
    return replace(result, psnr_db=psnr_db, min_psnr=options.min_psnr)


class BenchCase(NamedTuple):
    """A bundle, what runs it, and whether engines that this user did not build may be loaded."""

    bundle: Bundle
    backend: BackendChoice
    trust_engines: bool = False


def measure_cases(
    cases: Sequence[BenchCase], options: BenchOptions, on_progress: OnSteps = ignore_steps
) -> list[BackendSpeed | TcmoaError]:
    """Measure several cases, which stay loaded and run a few frames in turn.

    Args:
        cases: Bundles and backends.
        options: Number of frames and threads.
        on_progress: Called with the finished rounds and the number of rounds.

    Returns:
        For each case its speed, or why it did not run.
    """
    outcomes: dict[int, BackendSpeed | TcmoaError] = {}
    load_times: dict[int, LoadTimes] = {}
    rounds_ms: dict[int, list[list[float]]] = {}
    with ExitStack() as stack:
        workers: dict[int, Worker] = {}
        for index, case in enumerate(cases):
            worker = stack.enter_context(_start_worker(case, options))
            try:
                load_times[index] = worker.load()
                workers[index], rounds_ms[index] = worker, []
            except TcmoaError as error:
                outcomes[index] = error
        num_rounds = min(NUM_ROUNDS, options.frames)
        for number in range(num_rounds):
            num_frames = options.frames // num_rounds + (number < options.frames % num_rounds)
            for index, worker in list(workers.items()):
                try:
                    rounds_ms[index].append(worker.run(num_frames))
                except TcmoaError as error:
                    outcomes[index] = error
                    del workers[index]
            on_progress(number + 1, num_rounds)
        for index, worker in workers.items():
            outcomes[index] = _summarize(load_times[index], rounds_ms[index], worker.peak_mb())
    return [outcomes[index] for index in range(len(cases))]


def default_backends(bundle: Bundle) -> list[BackendName]:
    """Return the backends that are measured if none are named."""
    return [*_CPU_BACKENDS, "tensorrt"] if find_engines(bundle) else [*_CPU_BACKENDS]


def _summarize(times: LoadTimes, rounds_ms: Sequence[Sequence[float]], peak_mb: float) -> BackendSpeed:
    frames_ms = sorted(value for round_ms in rounds_ms for value in round_ms)
    medians = [sorted(round_ms)[len(round_ms) // 2] for round_ms in rounds_ms]

    def quantile(share: float) -> float:
        return frames_ms[round(share * (len(frames_ms) - 1))]

    return BackendSpeed(
        load_ms=round(times.load_ms, 2),
        first_ms=round(times.first_ms, 2),
        p50_ms=round(quantile(0.5), 3),
        p99_ms=round(quantile(0.99), 3),
        peak_mb=round(peak_mb, 1),
        frames=len(frames_ms),
        spread=round(max(medians) / max(min(medians), 1e-9), 3),
    )


def _start_worker(case: BenchCase, options: BenchOptions) -> Worker:
    arguments = (
        str(case.bundle.path),
        case.backend,
        str(options.threads or 0),
        str(int(case.trust_engines)),
    )
    return Worker(case.backend, python_module("tcmoa_runtime.bench.measure", *arguments))


def _load(path: str, backend: BackendChoice, threads: int, trust_engines: bool) -> RunFrame:
    """Load a backend in the worker process."""
    bundle = Bundle.open(path)
    loaded = load_backend(bundle, backend, threads=threads or None, trust_engines=trust_engines)
    rng = np.random.default_rng(0)
    inputs: Tensors = {
        spec.name: _synthetic_frames(rng, spec.shape) if spec.dtype == "uint8" else neutral_input(spec)
        for spec in bundle.contract.inputs
    }
    return lambda: loaded.infer(inputs)


def _synthetic_frames(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Make flat squares of 16 pixels with little noise, uint8 [B, H, W, C].

    Noise alone would not do: attention on it has many denormal numbers, which can take other times.
    """
    batch, height, width, channels = shape
    flat = rng.integers(8, 248, (batch, -(-height // 16), -(-width // 16), channels), np.uint8)
    large = flat.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    noise = rng.integers(-8, 8, shape, np.int16)
    return np.ascontiguousarray((large + noise).astype(np.uint8))


if __name__ == "__main__":
    choices: tuple[BackendChoice, ...] = ("auto", *BACKENDS)
    worker_backend = next(name for name in choices if name == sys.argv[2])
    serve(partial(_load, sys.argv[1], worker_backend, int(sys.argv[3]), sys.argv[4] == "1"))
