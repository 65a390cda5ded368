"""Statistics of streams as metrics of Prometheus, read back by Prometheus' own parser."""

from fractions import Fraction

import numpy as np
import pytest

from prometheus_text import read_metrics
from tcmoa_runtime.metrics_text import MetricsText
from tcmoa_runtime.streams.interfaces import FusedFrame
from tcmoa_runtime.streams.metrics import add_stream_metrics
from tcmoa_runtime.streams.stats import Stats


@pytest.fixture
def stats():
    stats = Stats()
    image = np.zeros((2, 2, 3), np.uint8)
    for index in range(100):
        frame = FusedFrame(
            image, index, Fraction(1, 25), index, "fused", None, None, 0.01, 0.03, 0.05, reused=index % 4 == 3
        )
        stats.record_output(frame, skew=0.02)
    stats.record_dropped("x-superseded", 3)
    stats.record_event_total("y", "reconnects", 2)
    return stats


def text_of(stats):
    metrics = MetricsText()
    add_stream_metrics(metrics, stats.snapshot())
    return metrics.text()


def test_the_text_has_the_numbers_of_the_snapshot(stats):
    metrics = read_metrics(text_of(stats))
    assert metrics["tcmoa_frames_reused_total"] == ("counter", {(): 25})
    assert metrics["tcmoa_dropped_total"] == ("counter", {(("cause", "x-superseded"),): 3})
    kind, events = metrics["tcmoa_source_events_total"]
    assert (kind, events[("event", "reconnects"), ("source", "y")]) == ("counter", 2)
    kind, ages = metrics["tcmoa_input_age_seconds"]
    assert (kind, ages[("quantile", "0.5"), ("source", "y")]) == ("summary", 0.03)


def test_a_summary_has_sum_and_count_since_the_start(stats):
    metrics = read_metrics(text_of(stats))
    assert metrics["tcmoa_latency_seconds_count"] == ("summary", {(): 100})
    assert metrics["tcmoa_latency_seconds_sum"][1][()] == pytest.approx(5.0)
    assert metrics["tcmoa_input_age_seconds_sum"][1] == pytest.approx(
        {(("source", "x"),): 1, (("source", "y"),): 3}
    )
    assert metrics["tcmoa_skew_seconds_count"][1] == {(): 100}


def test_empty_statistics_leave_metrics_out():
    text = text_of(Stats())
    assert "tcmoa_frames_total 0\n" in text
    assert "latency" not in text


def test_several_streams_are_joined_under_one_header(stats):
    metrics = MetricsText()
    for name in ("gate-1", "gate-2"):
        add_stream_metrics(metrics.with_labels(stream=name, node="n1"), stats.snapshot())
    text = metrics.text()
    assert text.count("# TYPE tcmoa_latency_seconds summary\n") == 1
    _, frames = read_metrics(text)["tcmoa_frames_total"]
    assert frames == {(("node", "n1"), ("stream", name)): 100 for name in ("gate-1", "gate-2")}


def test_labels_are_escaped():
    stats = Stats()
    stats.record_duration('write-a"b\\c\nd', 0.1)
    _, counts = read_metrics(text_of(stats))["tcmoa_stage_seconds_count"]
    assert counts == {(("stage", 'write-a"b\\c\nd'),): 1}
