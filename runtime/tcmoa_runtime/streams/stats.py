"""Statistics of a stream: latencies, ages, skew, rates, drops by cause. Memory use does not grow with time."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, TypedDict

from tcmoa_runtime.streams.event_log import DropLog
from tcmoa_runtime.streams.interfaces import FusedFrame

RATE_SECONDS: Final = 5.0
"""Length of the window over which the current frame rate is measured."""

_LOWEST, _HIGHEST, _STEP = 1e-6, 1e5, 1.01
_NUM_BUCKETS = math.ceil(math.log(_HIGHEST / _LOWEST) / math.log(_STEP)) + 2


class DurationSummary(TypedDict):
    """Durations in milliseconds: percentiles and maximum, None without durations; sum and number since the start."""

    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None
    sum: float
    count: int


class InputAges(DurationSummary):
    """Age of the older input at output, and of each input."""

    x: DurationSummary
    y: DurationSummary


class StatsSnapshot(TypedDict):
    """Statistics of a stream, ready for JSON.

    Attributes:
        frames: Frames emitted.
        seconds: Elapsed time.
        rate: Mean frames per second.
        rate_now: Frames per second over the last `RATE_SECONDS`, None after the end.
        reused: Frames emitted that repeat the last fused image.
        status: Frames emitted, by status.
        dropped: Frames dropped, by cause.
        latency_ms: Time from the arrival of the newer input to the end of fusing.
        input_age_ms: Age of the inputs at output.
        skew_ms: Time between the two inputs.
        partner: How many frames were fused with the nearest partner in time, and how many with another one.
        stages_ms: Duration of each stage.
        sources: Counts of events of each source.
    """

    frames: int
    seconds: float
    rate: float | None
    rate_now: float | None
    reused: int
    status: dict[str, int]
    dropped: dict[str, int]
    latency_ms: DurationSummary
    input_age_ms: InputAges
    skew_ms: DurationSummary
    partner: dict[str, int]
    stages_ms: dict[str, DurationSummary]
    sources: dict[str, dict[str, int]]


class Quantiles:
    """Quantiles of durations in seconds, from a histogram with buckets of 1 %: constant memory, error below 0.5 %."""

    def __init__(self) -> None:
        self._counts = [0] * _NUM_BUCKETS
        self.count, self.maximum, self.total = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        """Add a duration; less than a microsecond counts as zero."""
        self.count += 1
        self.total += max(value, 0.0)
        self.maximum = max(self.maximum, value)
        if value < _LOWEST:
            self._counts[0] += 1
        else:
            bucket = 1 + int(math.log(value / _LOWEST) / math.log(_STEP))
            self._counts[min(bucket, _NUM_BUCKETS - 1)] += 1

    def quantile(self, share: float) -> float | None:
        """Return the duration that a share (0 to 1) of all durations does not exceed; None without durations."""
        if not self.count:
            return None
        rank, seen = max(1, math.ceil(share * self.count)), 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                center = 0.0 if bucket == 0 else _LOWEST * _STEP ** (bucket - 0.5)
                return min(center, self.maximum)
        return self.maximum

    def to_milliseconds(self) -> DurationSummary:
        """Return percentiles, maximum and sum in milliseconds, and the number of durations."""

        def milliseconds(value: float | None) -> float | None:
            return None if value is None else round(value * 1000, 3)

        return {
            "p50": milliseconds(self.quantile(0.5)),
            "p95": milliseconds(self.quantile(0.95)),
            "p99": milliseconds(self.quantile(0.99)),
            "max": milliseconds(self.maximum if self.count else None),
            "sum": round(self.total * 1000, 3),
            "count": self.count,
        }


class Stats:
    """Statistics of one stream; every method may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._start_time = clock()
        self._stop_time: float | None = None
        self._frames = self._reused = 0
        self._recent: deque[float] = deque(maxlen=1000)
        self._status: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._partner: Counter[str] = Counter()
        self._events: dict[str, Counter[str]] = {"x": Counter(), "y": Counter()}
        self._latency, self._skew = Quantiles(), Quantiles()
        self._age = {"older": Quantiles(), "x": Quantiles(), "y": Quantiles()}
        self._stages: dict[str, Quantiles] = {}
        self._drop_log = DropLog(clock)

    def record_output(self, frame: FusedFrame, *, skew: float | None) -> None:
        """Record an emitted frame; `skew` is the difference of its two inputs' times, in seconds."""
        with self._lock:
            self._frames += 1
            self._reused += frame.reused
            self._recent.append(self._clock())
            self._status[frame.status] += 1
            self._latency.add(frame.latency)
            ages = {"x": frame.age_x, "y": frame.age_y}
            known = [age for age in ages.values() if age is not None]
            if known:
                self._age["older"].add(max(known))
            for side, age in ages.items():
                if age is not None:
                    self._age[side].add(age)
            if skew is not None:
                self._skew.add(abs(skew))

    def record_partner(self, *, is_nearest: bool) -> None:
        """Record whether the partner that a frame was fused with was the nearest in time of all its source gave."""
        with self._lock:
            self._partner["nearest" if is_nearest else "other"] += 1

    def record_dropped(self, cause: str, count: int = 1) -> None:
        """Record dropped frames by cause, e.g. `x-superseded` or `sink-page`."""
        if count:
            with self._lock:
                self._dropped[cause] += count
                log_burst = self._drop_log.record(cause, count)
            if log_burst is not None:
                log_burst()

    def record_event(self, side: str, event: str, count: int = 1) -> None:
        """Record an event of a source: `frames`, `errors`, `reconnects`, `clock_jumps`, `size_changes`, `losses`."""
        with self._lock:
            self._events[side][event] += count

    def record_event_total(self, side: str, event: str, total: int) -> None:
        """Set the count of an event that the source counts itself."""
        with self._lock:
            self._events[side][event] = total

    def record_duration(self, stage: str, seconds: float) -> None:
        """Record how long a stage took: `decode-x`, `decode-y`, `reuse`, `fuse`, `deflicker` or `write-NAME`."""
        with self._lock:
            self._stages.setdefault(stage, Quantiles()).add(seconds)

    def stop_clock(self) -> None:
        """End the time over which the mean rate is taken."""
        with self._lock:
            self._stop_time = self._clock() if self._stop_time is None else self._stop_time

    def snapshot(self) -> StatsSnapshot:
        """Return all statistics so far."""
        with self._lock:
            now = self._clock()
            elapsed = (now if self._stop_time is None else self._stop_time) - self._start_time
            recent = [at for at in self._recent if at > now - RATE_SECONDS]
            window = min(RATE_SECONDS, elapsed)
            return {
                "frames": self._frames,
                "seconds": round(elapsed, 3),
                "rate": round(self._frames / elapsed, 3) if elapsed > 0 else None,
                "rate_now": round(len(recent) / window, 3)
                if window > 0 and self._stop_time is None
                else None,
                "reused": self._reused,
                "status": dict(self._status),
                "dropped": dict(self._dropped),
                "latency_ms": self._latency.to_milliseconds(),
                "input_age_ms": {
                    **self._age["older"].to_milliseconds(),
                    "x": self._age["x"].to_milliseconds(),
                    "y": self._age["y"].to_milliseconds(),
                },
                "skew_ms": self._skew.to_milliseconds(),
                "partner": {"nearest": self._partner["nearest"], "other": self._partner["other"]},
                "stages_ms": {
                    name: quantiles.to_milliseconds() for name, quantiles in sorted(self._stages.items())
                },
                "sources": {side: dict(events) for side, events in self._events.items()},
            }
