"""Statistics of a stream: quantiles close to those of NumPy in constant memory."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmoa_runtime.streams.interfaces import FusedFrame
from tcmoa_runtime.streams.stats import Quantiles, Stats


@given(st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=200), st.sampled_from([50, 95, 99]))
def test_quantiles_are_within_a_percent(values, percent):
    quantiles = Quantiles()
    for value in values:
        quantiles.add(value)
    exact = np.percentile(values, percent, method="inverted_cdf")
    assert quantiles.quantile(percent / 100) == pytest.approx(exact, rel=0.01)
    assert quantiles.maximum == max(values)


def test_quantiles_without_durations_and_below_a_microsecond():
    quantiles = Quantiles()
    assert quantiles.to_milliseconds() == dict.fromkeys(("p50", "p95", "p99", "max")) | {"sum": 0, "count": 0}
    quantiles.add(0.0)
    quantiles.add(-1e-9)
    assert quantiles.to_milliseconds() == dict.fromkeys(("p50", "p95", "p99", "max", "sum"), 0.0) | {
        "count": 2
    }
    quantiles.add(1e9)
    assert quantiles.quantile(1.0) is not None


def fused(index, *, age_x=0.01, age_y=0.03, latency=0.05, status="fused", reused=False):
    image = np.zeros((2, 2, 3), np.uint8)
    return FusedFrame(
        image, index, Fraction(1, 25), index, status, None, None, age_x, age_y, latency, reused=reused
    )


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def stats():
    clock = Clock()
    made = Stats(clock)
    for index in range(100):
        clock.now += 0.1
        made.record_output(
            fused(index, status="held-y" if index > 90 else "fused", reused=index % 4 == 3), skew=0.02
        )
    made.record_dropped("x-superseded", 3)
    made.record_dropped("sink-page", 0)
    made.record_duration("fuse", 0.04)
    made.record_event("y", "losses")
    made.record_event_total("y", "reconnects", 2)
    made.record_partner(is_nearest=True)
    return made


def test_a_snapshot_has_the_documented_keys(stats):
    snapshot = json.loads(json.dumps(stats.snapshot()))
    assert snapshot["frames"] == 100
    assert snapshot["reused"] == 25
    assert snapshot["dropped"] == {"x-superseded": 3}
    assert {"p50", "p95", "p99"} <= snapshot["latency_ms"].keys()
    assert {"p50", "p99"} <= snapshot["input_age_ms"].keys()
    assert snapshot["latency_ms"]["p50"] == pytest.approx(50, rel=0.01)
    assert snapshot["input_age_ms"]["p50"] == pytest.approx(30, rel=0.01)  # of the older input
    assert snapshot["input_age_ms"]["x"]["p50"] == pytest.approx(10, rel=0.01)
    assert snapshot["skew_ms"]["max"] == 20
    assert (snapshot["skew_ms"]["sum"], snapshot["skew_ms"]["count"]) == (2000, 100)
    assert (snapshot["input_age_ms"]["sum"], snapshot["input_age_ms"]["x"]["sum"]) == (3000, 1000)
    assert snapshot["status"] == {"fused": 91, "held-y": 9}
    assert snapshot["sources"]["y"] == {"losses": 1, "reconnects": 2}
    assert snapshot["partner"] == {"nearest": 1, "other": 0}


def test_rates_are_the_mean_and_the_recent_one(stats):
    stats._clock.now += 10  # no frames for ten seconds
    snapshot = stats.snapshot()
    assert snapshot["rate"] == pytest.approx(5)
    assert snapshot["rate_now"] == 0
    stats.stop_clock()
    stats._clock.now += 1000
    assert stats.snapshot()["rate"] == pytest.approx(5)
    assert stats.snapshot()["rate_now"] is None


def test_an_empty_snapshot_is_json_too():
    snapshot = Stats().snapshot()
    assert json.loads(json.dumps(snapshot))["latency_ms"]["p50"] is None
