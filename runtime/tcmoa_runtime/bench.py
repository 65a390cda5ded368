"""How fast each backend is on this machine: one process each, taking turns, and a choice that `auto` remembers.

Each backend runs in a process of its own, so that one's threads, memory and caches are no other's, and all of them stay
loaded and run a few frames in turn: what slows the machine down for a while slows down all.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tcmoa_runtime.backends import BACKENDS
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
        workers: dict[str, _Worker] = {}
        for name in names:
            worker = stack.enter_context(_Worker(bundle.path, name, threads))
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


class _Worker:
    """A process with one backend, that runs frames when it is told to."""

    def __init__(self, bundle: Path, backend: str, threads: int | None) -> None:
        self._backend = backend
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tcmoa_runtime.bench", str(bundle), backend, str(threads or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._peak = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not written has no reader any more
                    pipe.close()

    def load(self) -> tuple[float, float]:
        """Milliseconds of loading and of the first frame."""
        answer = self._ask("load")
        return float(answer["load_ms"]), float(answer["first_ms"])

    def run(self, frames: int) -> list[float]:
        """Milliseconds of each of so many frames."""
        return [float(value) for value in self._ask(f"run {frames}")["ms"]]

    def peak_mb(self) -> float:
        """Largest resident memory so far."""
        return float(self._ask("peak")["peak_mb"])

    def _ask(self, words: str) -> dict[str, Any]:
        process = self._process
        try:
            assert process.stdin is not None  # they were asked for
            assert process.stdout is not None
            process.stdin.write(words + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            answer = json.loads(line) if line else {"error": f"its process ended ({_ending(process)})"}
        except (OSError, ValueError) as error:
            answer = {"error": f"its process ended ({_ending(process)}; {error})"}
        if "error" in answer:
            raise TcmoaError(f"{self._backend}: {answer['error']}")
        return dict(answer)


def _ending(process: subprocess.Popen[str]) -> str:
    try:
        return f"exit status {process.wait(timeout=5)}"
    except subprocess.TimeoutExpired:
        return "it does not answer"


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


def _serve(bundle: str, backend: str, threads: int) -> None:
    """The worker's side: one line in, one line of JSON out."""
    started = time.perf_counter()
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what native code prints must not come between
    infer: Callable[[], object] | None = None
    for line in sys.stdin:
        words = line.split()
        answer: dict[str, Any]
        try:
            if words[0] == "load":
                infer = _load(bundle, backend, threads)
                loaded = time.perf_counter()
                infer()
                first = time.perf_counter()
                answer = {"load_ms": (loaded - started) * 1e3, "first_ms": (first - loaded) * 1e3}
            elif words[0] == "run" and infer is not None:
                answer = {"ms": [_timed(infer) for _ in range(int(words[1]))]}
            else:
                answer = {"peak_mb": _peak_mb()}
        except Exception as error:  # told to who asked
            reason = " ".join(str(error).split()) or type(error).__name__
            answer = {"error": reason}
        out.write(json.dumps(answer) + "\n")


def _load(path: str, backend: str, threads: int) -> Callable[[], object]:
    """A function that runs one frame."""
    import numpy as np

    from tcmoa_runtime.backends import load_backend

    bundle = Bundle.open(path)
    loaded = load_backend(bundle, backend, threads=threads or None)
    rng = np.random.default_rng(0)
    inputs = {
        spec.name: rng.integers(0, 256, spec.shape, np.uint8)
        if spec.dtype == "uint8"
        else np.full(spec.shape, "scale" in spec.name, np.float32)
        for spec in bundle.contract.inputs
    }
    return lambda: loaded.infer(inputs)


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def _peak_mb() -> float:
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
