"""Measuring several bundles side by side: one backend after the other, each with all bundles in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tcmoa_runtime.bench.measure import (
    NUM_ROUNDS,
    BackendSpeed,
    BenchCase,
    BenchResult,
    default_backends,
    measure_cases,
    with_exactness,
)
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine import Engine
from tcmoa_runtime.engine_folders import find_engines
from tcmoa_runtime.errors import BundleError, InputError, TcmoaError
from tcmoa_runtime.images import format_size
from tcmoa_runtime.options.bench import BenchOptions
from tcmoa_runtime.typing import BackendName, JsonObject, OnSteps, ignore_steps


@dataclass(frozen=True)
class BundleFacts:
    """What decides the speed of a bundle besides the machine.

    Attributes:
        task: Task of the bundle.
        size: Frame size as text, e.g. `640x480`.
        precision: Precision of the graph's arithmetic.
        operators: Operators of the ONNX graph; None if bundle.json does not say.
        kernels: Kernels of the bundle's first valid TensorRT engine; None without one.
    """

    task: str
    size: str
    precision: str
    operators: int | None
    kernels: int | None

    @classmethod
    def of(cls, bundle: Bundle) -> BundleFacts:
        """Read the facts of a bundle."""
        graph = bundle.manifest.get("graph")
        operators = graph.get("nodes") if isinstance(graph, Mapping) else None
        return cls(
            task=bundle.task,
            size=format_size(bundle.size),
            precision=bundle.precision,
            operators=operators if isinstance(operators, int) else None,
            kernels=_count_kernels(bundle),
        )

    def describe_work(self, backend: str) -> str:
        """Return what a backend runs for one frame, e.g. `597 operators`; `-` if that is unknown."""
        count, unit = (self.kernels, "kernels") if backend == "tensorrt" else (self.operators, "operators")
        return "-" if count is None else f"{count} {unit}"

    def to_json(self) -> JsonObject:
        """Return plain values."""
        return {
            "task": self.task,
            "size": self.size,
            "precision": self.precision,
            "operators": self.operators,
            "kernels": self.kernels,
        }


@dataclass(frozen=True)
class BundleBench:
    """A bundle of a comparison.

    Attributes:
        bundle: The bundle.
        facts: What decides its speed.
        result: The speed of each backend, empty if none ran.
    """

    bundle: Bundle
    facts: BundleFacts
    result: BenchResult

    def to_json(self) -> JsonObject:
        """Return plain values."""
        return {**self.facts.to_json(), **self.result.to_json()}


def open_bundles(names: Sequence[str]) -> dict[str, Bundle]:
    """Open and check bundles that are compared, by their names.

    Args:
        names: Folders of bundles, or names of ready ones.

    Raises:
        InputError: A bundle is named twice.
        BundleError: A bundle is damaged.
    """
    opened: dict[str, Bundle] = {}
    for name in names:
        bundle = Bundle.open(name)
        twin = next((label for label, other in opened.items() if other.path.samefile(bundle.path)), None)
        if twin is not None:
            raise InputError(f"the same bundle as {twin}; expected each bundle once", subject=name)
        opened[name] = bundle
    for bundle in opened.values():
        bundle.check()
    return opened


def measure_bundles(
    bundles: Mapping[str, Bundle], options: BenchOptions | None = None, on_progress: OnSteps = ignore_steps
) -> dict[str, BundleBench]:
    """Measure the speed of bundles side by side.

    With each backend all bundles are loaded, run a few frames in turn, and are unloaded, so that a temporary load on
    the machine slows all of them down alike, and memory need not hold every bundle in every backend.

    Args:
        bundles: The bundles by name, from `open_bundles`.
        options: Which backends, and how many frames.
        on_progress: Called with the finished rounds and the number of rounds.

    Raises:
        MissingError: No backend runs any of the bundles.
    """
    options = options or BenchOptions()
    of_bundle = {name: list(options.backends) or default_backends(bundle) for name, bundle in bundles.items()}
    backends = list(dict.fromkeys(backend for names in of_bundle.values() for backend in names))
    speeds: dict[str, dict[BackendName, BackendSpeed]] = {name: {} for name in bundles}
    failed: dict[str, dict[BackendName, TcmoaError]] = {name: {} for name in bundles}
    num_rounds = min(NUM_ROUNDS, options.frames)
    for index, backend in enumerate(backends):
        names = [name for name in bundles if backend in of_bundle[name]]
        cases = [BenchCase(bundles[name], backend, options.trust_engines) for name in names]

        def advance(done: int, _total: int, before: int = index * num_rounds) -> None:
            on_progress(before + done, len(backends) * num_rounds)

        for name, outcome in zip(names, measure_cases(cases, options, advance), strict=True):
            if isinstance(outcome, BackendSpeed):
                speeds[name][backend] = outcome
            else:
                failed[name][backend] = outcome
    results = {
        name: with_exactness(BenchResult(speeds[name], failed[name]), bundle, options)
        for name, bundle in bundles.items()
    }
    if not any(result.speeds for result in results.values()):
        name, bundle = next(iter(bundles.items()))
        raise results[name].no_backend(bundle)
    return {
        name: BundleBench(bundle, BundleFacts.of(bundle), results[name]) for name, bundle in bundles.items()
    }


def _count_kernels(bundle: Bundle) -> int | None:
    for path in find_engines(bundle):
        try:
            kernels = Engine.open(bundle, path).manifest.get("kernels")
        except BundleError:
            continue  # `tcmoa inspect` says what is wrong with it
        if isinstance(kernels, int):
            return kernels
    return None
