"""Statistics of a stream as metrics of Prometheus; durations in seconds."""

from __future__ import annotations

from tcmoa_runtime.metrics_text import MetricsText
from tcmoa_runtime.streams.stats import RATE_SECONDS, DurationSummary, StatsSnapshot


def add_stream_metrics(metrics: MetricsText, snapshot: StatsSnapshot) -> None:
    """Add a snapshot of `Stats` as counters, gauges and summaries.

    A metric without values is left out. For several streams give each its own labels, e.g.
    `add_stream_metrics(metrics.with_labels(stream="gate-1"), snapshot)`.
    """
    metrics.counter("frames_total", "Number of fused frames emitted.", snapshot["frames"])
    metrics.counter(
        "frames_reused_total",
        "Number of frames emitted that repeat the last fused image.",
        snapshot["reused"],
    )
    for status, count in snapshot["status"].items():
        metrics.counter(
            "frames_by_status_total",
            "Number of frames emitted, by status: fused, held (last frame of a lost source), "
            "passed (one source unfused).",
            count,
            status=status,
        )
    for cause, count in snapshot["dropped"].items():
        metrics.counter("dropped_total", "Number of frames dropped, by cause.", count, cause=cause)
    metrics.gauge(
        "rate", f"Frames emitted per second, over the last {RATE_SECONDS:g} seconds.", snapshot["rate_now"]
    )
    _add_summary(
        metrics,
        "latency_seconds",
        "Time from the arrival of the newer input frame to the end of fusing.",
        snapshot["latency_ms"],
    )
    ages = snapshot["input_age_ms"]
    for source, age in (("x", ages["x"]), ("y", ages["y"])):
        _add_summary(
            metrics,
            "input_age_seconds",
            "Age of the input frames at the end of fusing.",
            age,
            source=source,
        )
    _add_summary(
        metrics,
        "skew_seconds",
        "Difference between the capture times of the two input frames.",
        snapshot["skew_ms"],
    )
    for stage, duration in snapshot["stages_ms"].items():
        _add_summary(metrics, "stage_seconds", "Duration of a processing stage.", duration, stage=stage)
    for side, events in snapshot["sources"].items():
        for event, count in events.items():
            metrics.counter(
                "source_events_total",
                "Number of events of a source: frames, errors, reconnects, losses, jumps of its clock, "
                "changes of size.",
                count,
                source=side,
                event=event,
            )


def _add_summary(
    metrics: MetricsText, name: str, description: str, summary: DurationSummary, **labels: str
) -> None:
    quantiles = {0.5: summary["p50"], 0.95: summary["p95"], 0.99: summary["p99"]}
    in_seconds = {share: None if value is None else value / 1000 for share, value in quantiles.items()}
    metrics.summary(name, description, in_seconds, summary["count"], summary["sum"] / 1000, **labels)
