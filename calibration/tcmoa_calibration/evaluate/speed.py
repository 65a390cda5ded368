"""Time, memory and operators of the bundles of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from tcmoa_calibration.evaluate.methods import Method
from tcmoa_runtime.bench.compare import BundleFacts
from tcmoa_runtime.bench.measure import NUM_ROUNDS, BackendSpeed, BenchCase, measure_cases
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.options.bench import BenchOptions
from tcmoa_runtime.typing import BackendChoice, JsonObject, OnSteps

NUM_FRAMES: Final = NUM_ROUNDS
"""Frames that are measured with each bundle: one in each round."""


@dataclass(frozen=True)
class BundleSpeed:
    """The speed of a bundle, at its own frame size.

    Attributes:
        label: Label of the method.
        backend: What ran it.
        facts: Frame size, operators and kernels.
        speed: Times and memory, or why it did not run.
    """

    label: str
    backend: BackendChoice
    facts: BundleFacts
    speed: BackendSpeed | TcmoaError

    @property
    def work(self) -> str:
        """What the backend runs for one frame, e.g. `597 operators`."""
        return self.facts.describe_work(self.backend)

    def to_json(self) -> JsonObject:
        """Return plain values: `error` in place of the times if it did not run."""
        speed: JsonObject = (
            {"error": str(self.speed)} if isinstance(self.speed, TcmoaError) else asdict(self.speed)
        )
        return {**self.facts.to_json(), "backend": self.backend, **speed}


def measure_speeds(methods: Sequence[Method], on_progress: OnSteps) -> list[BundleSpeed]:
    """Measure the bundles among the methods; they run in turn, on all cores."""
    bundles = [(method, Bundle.open(method.source)) for method in methods if method.kind == "bundle"]
    cases = [BenchCase(bundle, method.backend, method.trust_engines) for method, bundle in bundles]
    outcomes = measure_cases(cases, BenchOptions(frames=NUM_FRAMES), on_progress)
    return [
        BundleSpeed(method.label, method.backend, BundleFacts.of(bundle), outcome)
        for (method, bundle), outcome in zip(bundles, outcomes, strict=True)
    ]
