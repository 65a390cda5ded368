"""Metrics of a fleet for Prometheus: those of its streams by pair and node, and those of the fleet itself."""

from __future__ import annotations

from tcmoa_runtime.fleet.report import STATES
from tcmoa_runtime.fleet.supervisor import FleetStatus
from tcmoa_runtime.metrics_text import MetricsText
from tcmoa_runtime.streams.metrics import add_stream_metrics


def fleet_metrics(status: FleetStatus) -> str:
    """Return the metrics of a fleet as text."""
    metrics, counts = MetricsText(), status.counts()
    for state in STATES:
        metrics.gauge("fleet_pairs", "Number of pairs, by state.", counts.get(state, 0), state=state)
    for pair in status.pairs:
        report = pair.report
        node = "" if report is None else report["node"]["host"]
        of_pair = metrics.with_labels(stream=pair.name, node=node)
        of_pair.gauge("fleet_up", "Whether the stream of a pair is running.", int(pair.state == "running"))
        if report is None:
            continue
        of_pair.counter(
            "fleet_starts_total",
            "Number of starts of a pair's stream in its process.",
            report["start_count"],
        )
        of_pair.gauge(
            "fleet_frame_age_seconds", "Seconds since the newest frame of a pair.", report["frame_s"]
        )
        if report["stats"] is not None:
            add_stream_metrics(of_pair, report["stats"])
    return metrics.text()
