"""Statistics of samples: medians with their spread, ratios paired by round, and the check for too much noise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

MIN_ROUNDS_SHARE: Final = 0.5
"""Share of the rounds that must contain a valid sample; with fewer, a contender is too noisy."""


@dataclass
class Sample:
    """Milliseconds of each frame, CPU seconds of other processes, and whether the sample counts."""

    ms: list[float]
    foreign: float
    counts: bool


@dataclass
class Series:
    """All samples of a contender, by round."""

    rounds: list[list[Sample]] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Number of samples."""
        return sum(len(samples) for samples in self.rounds)

    @property
    def counted(self) -> int:
        """Number of valid samples."""
        return sum(sample.counts for samples in self.rounds for sample in samples)

    @property
    def frames(self) -> list[float]:
        """Milliseconds of all frames of valid samples."""
        return [ms for samples in self.rounds for s in samples if s.counts for ms in s.ms]

    @property
    def medians(self) -> list[float | None]:
        """Median of each round in milliseconds; None without a valid sample."""
        kept = [[ms for s in samples if s.counts for ms in s.ms] for samples in self.rounds]
        return [statistics.median(ms) if ms else None for ms in kept]

    @property
    def is_noisy(self) -> bool:
        """Whether too few rounds contain a valid sample."""
        quiet = sum(median is not None for median in self.medians)
        return quiet == 0 or quiet < MIN_ROUNDS_SHARE * len(self.rounds)

    def can_conclude(self, of: int) -> bool:
        """Return whether enough rounds of `of` can still contain a valid sample."""
        quiet = sum(median is not None for median in self.medians)
        return quiet + of - len(self.rounds) >= MIN_ROUNDS_SHARE * of


@dataclass(frozen=True)
class Times:
    """Milliseconds per frame of all valid frames; `low` and `high` are the lowest and highest median of a round."""

    p50: float
    p99: float
    q1: float
    q3: float
    low: float
    high: float


@dataclass(frozen=True)
class Ratio:
    """Speed relative to the baseline: median, lowest and highest of the rounds in which both were measured."""

    median: float
    lowest: float
    highest: float
    rounds: int


def quantile(values: Sequence[float], share: float) -> float:
    """Return the quantile of values that are not empty, with linear interpolation."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def times(series: Series) -> Times | None:
    """Return the statistics of a contender, or None if it is too noisy."""
    if series.is_noisy:
        return None
    frames = series.frames
    medians = [median for median in series.medians if median is not None]
    p50, p99, q1, q3 = (quantile(frames, share) for share in (0.5, 0.99, 0.25, 0.75))
    return Times(p50, p99, q1, q3, min(medians), max(medians))


def ratio(baseline: Series, contender: Series) -> Ratio | None:
    """Return the ratio of the medians of baseline and contender, paired by round, as slow rounds affect both.

    None if either is too noisy, or too few rounds have both.
    """
    if baseline.is_noisy or contender.is_noisy:
        return None
    paired = [
        base / own
        for base, own in zip(baseline.medians, contender.medians, strict=False)
        if base is not None and own is not None
    ]
    if not paired or len(paired) < MIN_ROUNDS_SHARE * len(contender.rounds):
        return None
    return Ratio(statistics.median(paired), min(paired), max(paired), len(paired))
