"""What a stream did, in numbers: latencies, ages, skew, rates, drops by cause. Memory does not grow with time."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from tcmoa_runtime.streams.frames import FusedFrame

_LOWEST, _HIGHEST, _STEP = 1e-6, 1e5, 1.01
_BUCKETS = math.ceil(math.log(_HIGHEST / _LOWEST) / math.log(_STEP)) + 2
RATE_SECONDS = 5.0
"""Over how long the achieved rate of now is taken."""


class Quantiles:
    """Quantiles of durations in seconds by counting in buckets 1 % wide: constant memory, at most 0.5 % off."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count, self.largest = 0, 0.0

    def add(self, value: float) -> None:
        """Count a duration; below a microsecond counts as none."""
        self.count += 1
        self.largest = max(self.largest, value)
        if value < _LOWEST:
            self._counts[0] += 1
        else:
            place = 1 + int(math.log(value / _LOWEST) / math.log(_STEP))
            self._counts[min(place, _BUCKETS - 1)] += 1

    def quantile(self, share: float) -> float | None:
        """The duration that `share` of all do not exceed, None where there are none."""
        if not self.count:
            return None
        rank, seen = max(1, math.ceil(share * self.count)), 0
        for place, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                middle = 0.0 if place == 0 else _LOWEST * _STEP ** (place - 0.5)
                return min(middle, self.largest)
        return self.largest

    def milliseconds(self, *percents: int) -> dict[str, float | None]:
        """`p50` and the like and `max`, in milliseconds."""
        found = {f"p{p}": self.quantile(p / 100) for p in percents}
        found["max"] = self.largest if self.count else None
        return {name: None if value is None else round(value * 1000, 3) for name, value in found.items()}


class Figures:
    """Counts of one stream; every method may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._began = clock()
        self._ended: float | None = None
        self._frames = self._reused = 0
        self._recent: deque[float] = deque(maxlen=1000)
        self._status: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._partner: Counter[str] = Counter()
        self._events: dict[str, Counter[str]] = {"x": Counter(), "y": Counter()}
        self._latency, self._skew = Quantiles(), Quantiles()
        self._age = {"older": Quantiles(), "x": Quantiles(), "y": Quantiles()}
        self._stages: dict[str, Quantiles] = {}

    def output(self, frame: FusedFrame, *, skew: float | None) -> None:
        """Count an output; `skew` is the distance in time of its two inputs, in seconds."""
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

    def partner(self, nearest: bool) -> None:
        """Count whether an output's partner was the nearest in time of all that its source ever gave."""
        with self._lock:
            self._partner["nearest" if nearest else "other"] += 1

    def dropped(self, cause: str, count: int = 1) -> None:
        """Count frames that were let go, by cause as `x-overrun` or `sink-page`."""
        if count:
            with self._lock:
                self._dropped[cause] += count

    def event(self, side: str, what: str, count: int = 1) -> None:
        """Count an event of a source: `frames`, `errors`, `reconnects`, `clock_jumps`, `size_changes`, `losses`."""
        with self._lock:
            self._events[side][what] += count

    def event_total(self, side: str, what: str, total: int) -> None:
        """Set the count of an event that its source counts itself."""
        with self._lock:
            self._events[side][what] = total

    def stage(self, name: str, duration: float) -> None:
        """Add a duration of a stage in seconds: `decode-x`, `decode-y`, `reuse`, `fuse`, `steady`, `write-NAME`."""
        with self._lock:
            self._stages.setdefault(name, Quantiles()).add(duration)

    def end(self) -> None:
        """Stop the clock of the mean rate."""
        with self._lock:
            self._ended = self._clock() if self._ended is None else self._ended

    def snapshot(self) -> dict[str, Any]:
        """All figures so far as one JSON object; durations in milliseconds, rates in frames a second."""
        with self._lock:
            now = self._clock()
            spent = (now if self._ended is None else self._ended) - self._began
            recent = [at for at in self._recent if at > now - RATE_SECONDS]
            window = min(RATE_SECONDS, spent)
            age = self._age["older"].milliseconds(50, 95, 99)
            return {
                "frames": self._frames,
                "seconds": round(spent, 3),
                "rate": round(self._frames / spent, 3) if spent > 0 else None,
                "rate_now": round(len(recent) / window, 3) if window > 0 and self._ended is None else None,
                "reused": self._reused,
                "status": dict(self._status),
                "dropped": dict(self._dropped),
                "latency_ms": self._latency.milliseconds(50, 95, 99),
                "input_age_ms": {
                    **age,
                    "x": self._age["x"].milliseconds(50, 95, 99),
                    "y": self._age["y"].milliseconds(50, 95, 99),
                },
                "skew_ms": self._skew.milliseconds(50, 95, 99),
                "partner": {"nearest": self._partner["nearest"], "other": self._partner["other"]},
                "stages_ms": {name: q.milliseconds(50, 95, 99) for name, q in sorted(self._stages.items())},
                "sources": {side: dict(events) for side, events in self._events.items()},
            }


def prometheus_text(snapshot: Mapping[str, Any]) -> str:
    """A snapshot in the text format of Prometheus 0.0.4: counters, gauges, and summaries in seconds."""
    lines: list[str] = []

    def metric(name: str, kind: str, help_: str, values: list[tuple[str, float | None]]) -> None:
        shown = [(labels, value) for labels, value in values if value is not None]
        if shown:
            lines.extend((f"# HELP tcmoa_{name} {help_}", f"# TYPE tcmoa_{name} {kind}"))
            lines.extend(f"tcmoa_{name}{labels} {value:.12g}" for labels, value in shown)

    def quantiles(figures: Mapping[str, Any], labels: str = "") -> list[tuple[str, float | None]]:
        return [
            (f'{{{labels}quantile="{share}"}}', None if figures[key] is None else figures[key] / 1000)
            for key, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        ]

    metric("frames_total", "counter", "Frames put out.", [("", snapshot["frames"])])
    metric(
        "frames_reused_total",
        "counter",
        "Frames put out that show the last fused picture again.",
        [("", snapshot["reused"])],
    )
    statuses = [(f'{{status="{_escaped(s)}"}}', n) for s, n in snapshot["status"].items()]
    metric("frames_by_status_total", "counter", "Frames put out, by how they came to be.", statuses)
    drops = [(f'{{cause="{_escaped(c)}"}}', n) for c, n in snapshot["dropped"].items()]
    metric("dropped_total", "counter", "Frames let go, by cause.", drops)
    metric("rate", "gauge", "Frames a second, of late.", [("", snapshot["rate_now"])])
    metric(
        "latency_seconds", "summary", "From a frame's arrival to fused.", quantiles(snapshot["latency_ms"])
    )
    ages = [q for side in "xy" for q in quantiles(snapshot["input_age_ms"][side], f'source="{side}",')]
    metric("input_age_seconds", "summary", "Age of the inputs at output.", ages)
    metric("skew_seconds", "summary", "Distance in time of the two inputs.", quantiles(snapshot["skew_ms"]))
    stages = [q for n, s in snapshot["stages_ms"].items() for q in quantiles(s, f'stage="{_escaped(n)}",')]
    metric("stage_seconds", "summary", "Duration of a stage.", stages)
    events = [
        (f'{{source="{side}",event="{what}"}}', n)
        for side, counts in snapshot["sources"].items()
        for what, n in counts.items()
    ]
    metric("source_events_total", "counter", "Events of the sources.", events)
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
