"""Rounds in which all contenders run in turn, one at a time, each sample through the gate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from harness.gate import Usage, foreign_seconds, is_quiet
from harness.gate import usage as usage_of
from harness.statistic import Sample, Series
from tcmoa_runtime.errors import TcmoaError

SAMPLE_SECONDS: Final = 0.3
"""A sample is as many frames as fill this: ticks of 10 ms say little about less."""
MOST_FRAMES: Final = 10_000
REST_SECONDS: Final = 0.05
"""Before each sample, in which threads of the one before stop to spin."""

Meter = Callable[[int], Usage]
"""A moment of a process and of the machine: `gate.usage`, or in tests what they feed."""


class Runner(Protocol):
    """A loaded contender: `tcmoa_runtime.bench.worker.Worker`, or in tests what they feed."""

    @property
    def pid(self) -> int:
        """Number of its process."""
        ...

    def run(self, frames: int) -> list[float]:
        """Milliseconds of each of so many frames."""
        ...


@dataclass
class Measured:
    """Series by contender, and for those that failed on the way the reason in one line."""

    series: dict[str, Series] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def frames_a_sample(ms: float) -> int:
    """How many frames of `ms` milliseconds fill a sample."""
    return max(1, min(MOST_FRAMES, math.ceil(SAMPLE_SECONDS * 1e3 / max(ms, 1e-3))))


def take_sample(runner: Runner, frames: int, meter: Meter = usage_of) -> Sample:
    """Run so many frames and say whether they count."""
    before = meter(runner.pid)
    ms = runner.run(frames)
    after = meter(runner.pid)
    return Sample(ms, foreign_seconds(before, after), is_quiet(before, after))


def run_rounds(
    runners: Mapping[str, Runner],
    rounds: int,
    *,
    meter: Meter = usage_of,
    rest: float = REST_SECONDS,
    tries: int = 3,
    progress: Callable[[int, int, Measured], None] = lambda _round, _of, _measured: None,
) -> Measured:
    """Measure all of them in `rounds`, each with another one first; up to `tries` samples a round until one counts.

    One that has become too noisy for good is tried once a round from then on.
    A contender that ends on the way is left out from then on, and its figures with it.
    """
    measured = Measured({name: Series() for name in runners})
    live = dict(runners)
    counts: dict[str, int] = {}
    for number in range(rounds):
        names = list(live)
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            samples: list[Sample] = []
            most = tries if measured.series[name].can_conclude(rounds) else 1
            try:
                if name not in counts:  # how long a frame takes once all is warm
                    counts[name] = frames_a_sample(min(live[name].run(1)))
                while len(samples) < most and not any(sample.counts for sample in samples):
                    time.sleep(rest)
                    samples.append(take_sample(live[name], counts[name], meter))
            except TcmoaError as error:
                measured.failed[name] = str(error)
                del live[name], measured.series[name]
                continue
            measured.series[name].rounds.append(samples)
        progress(number + 1, rounds, measured)
    return measured
