"""Rounds in which all contenders run in turn, one at a time, with a check of other load for each sample."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from harness.gate import Usage, foreign_seconds, is_quiet
from harness.gate import usage as read_usage
from harness.statistic import Sample, Series
from tcmoa_runtime.errors import TcmoaError

SAMPLE_SECONDS: Final = 0.3
"""Duration of a sample; much longer than the kernel's ticks of 10 ms."""
MAX_FRAMES: Final = 10_000
REST_SECONDS: Final = 0.05
"""Pause before each sample, in which threads of the previous contender stop spinning."""

Meter = Callable[[int], Usage]
"""Reads the clocks of a process and of the machine: `gate.usage`, or a fake in tests."""


class Runner(Protocol):
    """A loaded contender: `tcmoa_runtime.bench.worker.Worker`, or a fake in tests."""

    @property
    def pid(self) -> int:
        """Process ID."""
        ...

    def run(self, frames: int) -> list[float]:
        """Run a number of frames; returns the milliseconds of each."""
        ...


@dataclass
class RoundResults:
    """Series by contender, and the reason for each contender that failed."""

    series: dict[str, Series] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def frames_per_sample(ms: float, seconds: float = SAMPLE_SECONDS) -> int:
    """Return the number of frames of `ms` milliseconds that fill a sample of `seconds`."""
    return max(1, min(MAX_FRAMES, math.ceil(seconds * 1e3 / max(ms, 1e-3))))


def take_sample(runner: Runner, frames: int, meter: Meter = read_usage) -> Sample:
    """Run a number of frames and check the load of other programs."""
    before = meter(runner.pid)
    ms = runner.run(frames)
    after = meter(runner.pid)
    return Sample(ms, foreign_seconds(before, after), is_quiet(before, after))


def run_rounds(
    runners: Mapping[str, Runner],
    rounds: int,
    *,
    meter: Meter = read_usage,
    rest: float = REST_SECONDS,
    tries: int = 3,
    sample_seconds: float = SAMPLE_SECONDS,
    progress: Callable[[int, int, RoundResults], None] = lambda _round, _of, _measured: None,
) -> RoundResults:
    """Measure all contenders in rounds; each round starts with another one.

    A contender takes up to `tries` samples per round until one counts, and only one when it has become too noisy to
    recover. A contender whose process ends is dropped together with its samples.
    """
    measured = RoundResults({name: Series() for name in runners})
    live = dict(runners)
    counts: dict[str, int] = {}
    for number in range(rounds):
        names = list(live)
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            samples: list[Sample] = []
            max_samples = tries if measured.series[name].can_conclude(rounds) else 1
            try:
                if name not in counts:  # the duration of a frame after the first one
                    counts[name] = frames_per_sample(min(live[name].run(1)), sample_seconds)
                while len(samples) < max_samples and not any(sample.counts for sample in samples):
                    time.sleep(rest)
                    samples.append(take_sample(live[name], counts[name], meter))
            except TcmoaError as error:
                measured.failed[name] = str(error)
                del live[name], measured.series[name]
                continue
            measured.series[name].rounds.append(samples)
        progress(number + 1, rounds, measured)
    return measured
