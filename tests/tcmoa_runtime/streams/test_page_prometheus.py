"""Statistics in the text format of Prometheus."""

import re
from fractions import Fraction

import numpy as np
import pytest

from tcmoa_runtime.streams.interfaces import FusedFrame
from tcmoa_runtime.streams.page.prometheus import prometheus_text
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


def test_the_text_is_well_formed(stats):
    text = prometheus_text(stats.snapshot())
    sample = re.compile(r'^tcmoa_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+0-9.e]+$')
    typed = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        elif not line.startswith("#"):
            assert sample.match(line), line
            assert line.split("{")[0].split()[0] in typed
    assert "tcmoa_frames_reused_total 25\n" in text
    assert 'tcmoa_dropped_total{cause="x-superseded"} 3' in text
    assert 'tcmoa_source_events_total{source="y",event="reconnects"} 2' in text
    assert 'tcmoa_input_age_seconds{source="y",quantile="0.5"} 0.03' in text
    assert text.endswith("\n")


def test_empty_statistics_leave_metrics_out():
    text = prometheus_text(Stats().snapshot())
    assert "tcmoa_frames_total 0\n" in text
    assert "latency" not in text


def test_labels_are_escaped():
    stats = Stats()
    stats.record_duration('write-a"b\\c\nd', 0.1)
    text = prometheus_text(stats.snapshot())
    assert 'stage="write-a\\"b\\\\c\\nd"' in text
