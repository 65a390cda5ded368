"""Statistics of a stream in the text format of Prometheus."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from tcmoa_runtime.location import redact_text
from tcmoa_runtime.streams.stats import RATE_SECONDS, DurationSummary, StatsSnapshot

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Samples: TypeAlias = list[tuple[str, float | None]]
"""Labels, e.g. `{status="fused"}`, and values."""


def prometheus_text(snapshot: StatsSnapshot) -> str:
    """Format a snapshot of `Stats` as counters, gauges and summaries; durations in seconds.

    A metric without values is left out.
    """
    lines: list[str] = []

    def add(
        name: str, kind: Literal["counter", "gauge", "summary"], description: str, samples: _Samples
    ) -> None:
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines.extend((f"# HELP tcmoa_{name} {description}", f"# TYPE tcmoa_{name} {kind}"))
            lines.extend(f"tcmoa_{name}{labels} {value:.12g}" for labels, value in known)

    ages = snapshot["input_age_ms"]
    add("frames_total", "counter", "Number of fused frames emitted.", [("", snapshot["frames"])])
    add(
        "frames_reused_total",
        "counter",
        "Number of frames emitted that repeat the last fused image.",
        [("", snapshot["reused"])],
    )
    add(
        "frames_by_status_total",
        "counter",
        "Number of frames emitted, by status: fused, held (last frame of a lost source), passed (one source unfused).",
        [(_labels(status=status), count) for status, count in snapshot["status"].items()],
    )
    add(
        "dropped_total",
        "counter",
        "Number of frames dropped, by cause.",
        [(_labels(cause=cause), count) for cause, count in snapshot["dropped"].items()],
    )
    add(
        "rate",
        "gauge",
        f"Frames emitted per second, over the last {RATE_SECONDS:g} seconds.",
        [("", snapshot["rate_now"])],
    )
    add(
        "latency_seconds",
        "summary",
        "Time from the arrival of the newer input frame to the end of fusing.",
        _quantiles(snapshot["latency_ms"]),
    )
    add(
        "input_age_seconds",
        "summary",
        "Age of the input frames at the end of fusing.",
        [*_quantiles(ages["x"], source="x"), *_quantiles(ages["y"], source="y")],
    )
    add(
        "skew_seconds",
        "summary",
        "Difference between the capture times of the two input frames.",
        _quantiles(snapshot["skew_ms"]),
    )
    add(
        "stage_seconds",
        "summary",
        "Duration of a processing stage.",
        [
            sample
            for stage, duration in snapshot["stages_ms"].items()
            for sample in _quantiles(duration, stage=stage)
        ],
    )
    add(
        "source_events_total",
        "counter",
        "Number of events of a source: frames, errors, reconnects, losses, jumps of its clock, changes of size.",
        [
            (_labels(source=side, event=event), count)
            for side, events in snapshot["sources"].items()
            for event, count in events.items()
        ],
    )
    return "\n".join(lines) + "\n"


def _quantiles(summary_ms: DurationSummary, **labels: str) -> _Samples:
    """Return percentiles in milliseconds as quantiles in seconds."""
    return [
        (_labels(**labels, quantile=quantile), None if value is None else value / 1000)
        for key, quantile in (("p50", "0.5"), ("p95", "0.95"), ("p99", "0.99"))
        for value in (summary_ms[key],)
    ]


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escape(redact_text(value))}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
