"""From gated samples to figures: medians with their spread, ratios paired by round, and when nothing is concluded."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

LEAST_ROUNDS: Final = 0.5
"""Share of the rounds that must hold a counted sample; with fewer, a contender is too noisy."""


@dataclass
class Sample:
    """Milliseconds of each frame, foreign CPU seconds meanwhile, and whether it counts."""

    ms: list[float]
    foreign: float
    counts: bool


@dataclass
class Series:
    """All samples of one contender, by round."""

    rounds: list[list[Sample]] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Samples taken."""
        return sum(len(samples) for samples in self.rounds)

    @property
    def counted(self) -> int:
        """Samples that count."""
        return sum(sample.counts for samples in self.rounds for sample in samples)

    @property
    def frames(self) -> list[float]:
        """Milliseconds of all frames of counted samples."""
        return [ms for samples in self.rounds for s in samples if s.counts for ms in s.ms]

    @property
    def medians(self) -> list[float | None]:
        """Each round's median in milliseconds; None where no sample of it counts."""
        kept = [[ms for s in samples if s.counts for ms in s.ms] for samples in self.rounds]
        return [statistics.median(ms) if ms else None for ms in kept]

    @property
    def is_noisy(self) -> bool:
        """Whether too few rounds hold a counted sample for a conclusion."""
        quiet = sum(median is not None for median in self.medians)
        return quiet == 0 or quiet < LEAST_ROUNDS * len(self.rounds)

    def can_conclude(self, of: int) -> bool:
        """Whether enough of `of` rounds would hold a counted sample if all that are to come did."""
        quiet = sum(median is not None for median in self.medians)
        return quiet + of - len(self.rounds) >= LEAST_ROUNDS * of


@dataclass(frozen=True)
class Times:
    """Milliseconds a frame, over all counted frames; `low` and `high` are the fastest and slowest round's median."""

    p50: float
    p99: float
    q1: float
    q3: float
    low: float
    high: float


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline: median, lowest and highest of the rounds in which both were measured."""

    median: float
    lowest: float
    highest: float
    rounds: int


def quantile(values: Sequence[float], share: float) -> float:
    """The value at `share` of the sorted values, between two of them linearly. `values` are not empty."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def times(series: Series) -> Times | None:
    """Figures of a contender, None where it is too noisy."""
    if series.is_noisy:
        return None
    frames = series.frames
    medians = [median for median in series.medians if median is not None]
    p50, p99, q1, q3 = (quantile(frames, share) for share in (0.5, 0.99, 0.25, 0.75))
    return Times(p50, p99, q1, q3, min(medians), max(medians))


def ratio(baseline: Series, contender: Series) -> Ratio | None:
    """The baseline's round median over the contender's, paired by round: what slows a round down slows both.

    None where either is too noisy, or too few rounds have both.
    """
    if baseline.is_noisy or contender.is_noisy:
        return None
    paired = [
        base / own
        for base, own in zip(baseline.medians, contender.medians, strict=False)
        if base is not None and own is not None
    ]
    if not paired or len(paired) < LEAST_ROUNDS * len(contender.rounds):
        return None
    return Ratio(statistics.median(paired), min(paired), max(paired), len(paired))
