"""How fast each backend is on this machine: one process each, taking turns, and a choice that `auto` remembers.

Each backend runs in a process of its own, so that one's threads, memory and caches are no other's, and all of them stay
loaded and run a few frames in turn: what slows the machine down for a while slows down all.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.backends.pick import BACKENDS, load_backend
from tcmoa_runtime.bench.worker import Worker, serve
from tcmoa_runtime.bundle import GRAPH, Bundle
from tcmoa_runtime.engine import FOLDER
from tcmoa_runtime.errors import InputError, MissingError, TcmoaError
from tcmoa_runtime.images import write_bytes

CANDIDATES: Final = ("onnxruntime", "openvino", "openvino-bf16")
"""What is measured where nothing is named, with `tensorrt` where the bundle has engines."""
EXACT: Final = ("onnxruntime", "openvino", "tensorrt")
"""What may be picked: what openvino-bf16 rounds nobody compared with the model; an engine was compared when built."""
PICK: Final = "pick.json"
"""Beside the engines: which backend was fastest, and on which machine."""

ROUNDS: Final = 5
UNSTEADY: Final = 1.25
"""Slowest round's median over the fastest's, from which on the figures are said to be doubtful."""

_QUANTILES: Final = (0.5, 0.99)


@dataclass(frozen=True)
class Speed:
    """Of one backend. Milliseconds by wall clock, MB are 10^6 bytes of the process's largest resident memory.

    load_ms: from the bundle's path to a backend that is ready, imports included. first_ms: the first frame.
    p50_ms, p99_ms: frames after that. spread: the slowest round's median over the fastest's.
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
        return self.spread <= UNSTEADY


@dataclass(frozen=True)
class Bench:
    """`speeds` by backend, and for those that did not run the reason in one line."""

    speeds: dict[str, Speed]
    failed: dict[str, str]

    @property
    def fastest(self) -> str | None:
        """The backend with the lowest median among those that may be picked."""
        exact = [name for name in self.speeds if name in EXACT]
        return min(exact, key=lambda name: self.speeds[name].p50_ms, default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "backends": {name: asdict(speed) for name, speed in self.speeds.items()},
            "failed": self.failed,
            "fastest": self.fastest,
        }


def bench(
    bundle: Bundle,
    backends: Sequence[str] = (),
    *,
    frames: int = 20,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Bench:
    """Measure `backends` (or `CANDIDATES`) on `bundle`, `frames` each after the first, in rounds.

    Raises InputError on a number of frames below 1 and on an unknown backend, BundleError on a damaged bundle,
    MissingError where no backend runs.
    """
    if frames < 1:
        raise InputError(f"frames is {frames}: expected 1 or more")
    names = list(dict.fromkeys(backends)) or _candidates(bundle)
    unknown = [name for name in names if name not in BACKENDS]
    if unknown:
        raise InputError(f"backend is {unknown[0]!r}: expected some of {', '.join(BACKENDS)}")
    failed: dict[str, str] = {}
    firsts: dict[str, tuple[float, float]] = {}
    times: dict[str, list[list[float]]] = {}
    bundle.check()  # or every backend would say the same of a damaged one
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in names:
            worker = stack.enter_context(_worker(bundle.path, name, threads))
            try:
                firsts[name] = worker.load()
                workers[name], times[name] = worker, []
            except TcmoaError as error:
                failed[name] = str(error)
        rounds = min(ROUNDS, frames)
        shares = [frames // rounds + (i < frames % rounds) for i in range(rounds)]
        for number, share in enumerate(shares):
            for name, worker in list(workers.items()):
                try:
                    times[name].append(worker.run(share))
                except TcmoaError as error:
                    failed[name] = str(error)
                    del workers[name]
            progress(number + 1, rounds)
        speeds = {
            name: _speed(*firsts[name], times[name], worker.peak_mb()) for name, worker in workers.items()
        }
    if not speeds:
        raise MissingError(f"no backend runs {bundle.path}: {'; '.join(failed.values())}")
    return Bench(speeds, failed)


def _candidates(bundle: Bundle) -> list[str]:
    from tcmoa_runtime.engine import find_engines

    return [*CANDIDATES, *(["tensorrt"] if find_engines(bundle) else [])]


def _speed(load: float, first: float, rounds: list[list[float]], peak: float) -> Speed:
    every = sorted(value for times in rounds for value in times)
    medians = [sorted(times)[len(times) // 2] for times in rounds]
    p50, p99 = (every[min(len(every) - 1, round(q * (len(every) - 1)))] for q in _QUANTILES)
    return Speed(
        round(load, 2),
        round(first, 2),
        round(p50, 3),
        round(p99, 3),
        round(peak, 1),
        len(every),
        round(max(medians) / max(min(medians), 1e-9), 3),
    )


def _worker(bundle: Path, backend: str, threads: int | None) -> Worker:
    return Worker(
        backend,
        [sys.executable, "-m", "tcmoa_runtime.bench.measure", str(bundle), backend, str(threads or 0)],
    )


def machine() -> dict[str, Any]:
    """What a pick depends on besides the bundle: the processor and the versions of what runs on it."""
    versions = {}
    for package in ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx_bindings"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"cpu": processor(), "cores": os.cpu_count(), "versions": versions}


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:  # no Linux
        pass
    return platform.processor() or platform.machine()


def write_pick(bundle: Bundle, found: Bench) -> Path:
    """Let `auto` take the fastest backend on this machine from now on; TcmoaError where none may be picked.

    Raises InputError where the bundle's folder cannot be written to.
    """
    fastest = found.fastest
    if fastest is None:
        raise TcmoaError(f"nothing to pick: none of {', '.join(EXACT)} was measured")
    path = bundle.path / FOLDER / PICK
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    entry = {
        "graph": bundle.files[GRAPH]["sha256"],
        "machine": machine(),
        "backend": fastest,
        "p50_ms": {name: speed.p50_ms for name, speed in found.speeds.items()},
    }
    write_bytes(path, (json.dumps(entry, indent=1) + "\n").encode())
    return path


def read_pick(bundle: Bundle) -> str | None:
    """The backend that was picked for this bundle on this machine; None where there is none that still holds."""
    try:
        entry = json.loads((bundle.path / FOLDER / PICK).read_bytes())
        holds = entry["graph"] == bundle.files[GRAPH]["sha256"] and entry["machine"] == machine()
        backend = entry["backend"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return str(backend) if holds and backend in EXACT else None


def _load(path: str, backend: str, threads: int) -> Callable[[], object]:
    """A function that runs one frame."""
    bundle = Bundle.open(path)
    loaded = load_backend(bundle, backend, threads=threads or None)
    rng = np.random.default_rng(0)
    inputs = {
        spec.name: _patches(rng, spec.shape)
        if spec.dtype == "uint8"
        else np.full(spec.shape, "scale" in spec.name, np.float32)
        for spec in bundle.contract.inputs
    }
    return lambda: loaded.infer(inputs)


def _patches(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Flat squares of 16 pixels with a little noise, uint8 [B, H, W, C]: noise alone is nothing that a scene gives, and
    what it makes of attention can take other times.
    """
    batch, height, width, channels = shape
    flat = rng.integers(8, 248, (batch, -(-height // 16), -(-width // 16), channels), np.uint8)
    large = flat.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    noise = rng.integers(-8, 8, shape, np.int16)
    return np.ascontiguousarray((large + noise).astype(np.uint8))


if __name__ == "__main__":
    serve(partial(_load, sys.argv[1], sys.argv[2], int(sys.argv[3])))
