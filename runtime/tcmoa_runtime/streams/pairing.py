"""Choice of the two frames that are fused: by time, and by the loss policy while a source is lost.

From files, every frame of the leading source is paired with the partner nearest in time (`every_frame`). Live sources
are paired by `newest_frames.NewestFrames`.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeAlias

from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.interfaces import SourceFrame, Status
from tcmoa_runtime.streams.stats import Stats
from tcmoa_runtime.typing import SourceName

MIN_UNKNOWN_TOLERANCE: Final = 0.3
"""Minimum tolerance in seconds while a frame rate is unknown: that of a camera of 5 frames per second."""
SIDES: Final[tuple[SourceName, SourceName]] = ("x", "y")

Rates: TypeAlias = tuple[Fraction | None, Fraction | None]
"""Frames per second of the leading source and of the other one, None if unknown."""


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A frame of a source and its time on the common clock, in seconds."""

    frame: SourceFrame
    time: float


@dataclass(frozen=True, slots=True)
class Pair:
    """The inputs of one output frame.

    Attributes:
        status: Whether both are fused, or one passes alone.
        time: Time of the leading frame in seconds.
        x: Frame of x, None if y passes alone.
        y: Frame of y, None if x passes alone.
    """

    status: Status
    time: float
    x: TimedFrame | None
    y: TimedFrame | None

    @property
    def skew(self) -> float | None:
        """Seconds from x to y, None if one is missing."""
        return None if self.x is None or self.y is None else self.y.time - self.x.time


def other(side: SourceName) -> SourceName:
    """Return the other source."""
    return "y" if side == "x" else "x"


def tolerance_for(*intervals: float) -> float:
    """Return the default tolerance for sources of these frame intervals, all in seconds."""
    return 1.5 * max(intervals) + 0.02


def every_frame(
    lead: Iterator[TimedFrame],
    partner: Iterator[TimedFrame],
    options: StreamOptions,
    rates: Rates,
    stats: Stats,
) -> Iterator[Pair]:
    """Pair every frame of the leading source with the nearest frame of the other one.

    Partners that were the nearest to no frame are counted as dropped, cause `y-superseded` (or `x-superseded`).

    Args:
        lead: Frames of the leading source.
        partner: Frames of the other source.
        options: Which source leads, the tolerance and the loss policy.
        rates: Frame rates of `lead` and `partner`.
        stats: Where drops and partners are counted.

    Yields:
        Pairs in order, until `lead` ends or the loss policy ends the stream.
    """
    side = other(options.lead)
    before: TimedFrame | None = None
    after = next(partner, None)
    emitted: set[int] = set()
    intervals = Intervals(rates)
    for frame in lead:
        intervals.add_lead(frame.time)
        while after is not None and after.time < frame.time:
            intervals.add_partner(after.time)
            if before is not None:
                if before.frame.index not in emitted:
                    stats.record_dropped(f"{side}-superseded")
                emitted.discard(before.frame.index)
            before, after = after, next(partner, None)
        best = nearest((candidate for candidate in (before, after) if candidate is not None), frame)
        limit = options.tolerance if options.tolerance is not None else intervals.tolerance()
        if best is not None and abs(best.time - frame.time) <= limit:
            emitted.add(best.frame.index)
            stats.record_partner(is_nearest=True)
            yield make_pair("fused", options.lead, frame, best)
        else:
            if options.on_loss == "stop" and before is not None:
                break
            pair = pair_without_partner(options, options.lead, frame, before)
            if pair is None:
                stats.record_dropped(f"{options.lead}-without-partner")
                continue
            if pair.status == _held(side) and before is not None:
                emitted.add(before.frame.index)
            yield pair
    rest = [candidate for candidate in (before, after) if candidate is not None]
    stats.record_dropped(
        f"{side}-superseded", sum(candidate.frame.index not in emitted for candidate in rest)
    )


class Intervals:
    """Frame intervals of the leading source and its partner: measured, or by their nominal rates."""

    def __init__(self, rates: Rates) -> None:
        self._nominal = [None if rate is None or rate <= 0 else float(1 / rate) for rate in rates]
        self._steps: tuple[deque[float], deque[float]] = (deque(maxlen=31), deque(maxlen=31))
        self._last: list[float | None] = [None, None]

    def add_lead(self, time: float) -> None:
        """Add the time of the next frame of the leading source."""
        self._add(0, time)

    def add_partner(self, time: float) -> None:
        """Add the time of the next frame of the other source."""
        self._add(1, time)

    def partner_interval(self) -> float | None:
        """Return the partner's frame interval in seconds, None if unknown."""
        return self._interval(1)

    def tolerance(self) -> float:
        """Return the tolerance in seconds."""
        known = [interval for interval in (self._interval(0), self._interval(1)) if interval is not None]
        found = tolerance_for(*known) if known else 0.0
        return found if len(known) == 2 else max(found, MIN_UNKNOWN_TOLERANCE)

    def _add(self, source: int, time: float) -> None:
        last = self._last[source]
        if last is not None:
            self._steps[source].append(time - last)
        self._last[source] = time

    def _interval(self, source: int) -> float | None:
        """Return the median of measured intervals once there are enough: nominal rates are often wrong."""
        steps = self._steps[source]
        enough = 8 if self._nominal[source] is not None else 2
        return statistics.median(steps) if len(steps) >= enough else self._nominal[source]


def nearest(candidates: Iterable[TimedFrame], frame: TimedFrame) -> TimedFrame | None:
    """Return the candidate nearest in time to `frame`, None without candidates."""
    return min(candidates, key=lambda candidate: abs(candidate.time - frame.time), default=None)


def pair_without_partner(
    options: StreamOptions, alive: SourceName, frame: TimedFrame, lost: TimedFrame | None
) -> Pair | None:
    """Return what the loss policy emits for `frame`; `lost` is the last frame of the lost source. None: nothing."""
    if options.on_loss == "hold" and lost is not None and frame.time - lost.time <= options.hold:
        return make_pair(_held(other(alive)), alive, frame, lost)
    if options.on_loss in ("hold", "pass", f"pass-{alive}"):
        return make_pair(_passed(alive), alive, frame, None)
    return None


def make_pair(status: Status, lead: SourceName, leading: TimedFrame, partner: TimedFrame | None) -> Pair:
    """Return the pair of a frame of source `lead` and a frame of the other one, at the time of the former."""
    x, y = (leading, partner) if lead == "x" else (partner, leading)
    return Pair(status, leading.time, x, y)


def _held(side: SourceName) -> Status:
    return "held-x" if side == "x" else "held-y"


def _passed(side: SourceName) -> Status:
    return "passed-x" if side == "x" else "passed-y"
