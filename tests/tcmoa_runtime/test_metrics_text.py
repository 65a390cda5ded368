"""The text format of Prometheus, read back by Prometheus' own parser."""

import math
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prometheus_text import read_metrics
from tcmoa_runtime.metrics_text import Histogram, MetricsText

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e")
)


def test_the_text_of_each_kind():
    metrics = MetricsText()
    metrics.counter("requests_total", "Requests.", 3, code="200")
    metrics.counter("requests_total", "Requests.", 1, code="503")
    metrics.gauge("queue", "Requests that wait.", 2.5)
    metrics.gauge("unknown", "Left out.", None)
    metrics.summary("wait_seconds", "Wait.", {0.5: 0.0301, 0.99: None}, 4, 30.1 / 1000)
    histogram = Histogram((0.01, 0.1))
    for value in (0.005, 0.01, 0.05, 7):
        histogram.add(value)
    metrics.histogram("run_seconds", "Run.", histogram, model="vif")
    assert (
        metrics.text()
        == """\
# HELP tcmoa_requests_total Requests.
# TYPE tcmoa_requests_total counter
tcmoa_requests_total{code="200"} 3
tcmoa_requests_total{code="503"} 1
# HELP tcmoa_queue Requests that wait.
# TYPE tcmoa_queue gauge
tcmoa_queue 2.5
# HELP tcmoa_wait_seconds Wait.
# TYPE tcmoa_wait_seconds summary
tcmoa_wait_seconds{quantile="0.5"} 0.0301
tcmoa_wait_seconds_sum 0.0301
tcmoa_wait_seconds_count 4
# HELP tcmoa_run_seconds Run.
# TYPE tcmoa_run_seconds histogram
tcmoa_run_seconds_bucket{model="vif",le="0.01"} 2
tcmoa_run_seconds_bucket{model="vif",le="0.1"} 3
tcmoa_run_seconds_bucket{model="vif",le="+Inf"} 4
tcmoa_run_seconds_sum{model="vif"} 7.065
tcmoa_run_seconds_count{model="vif"} 4
"""
    )
    assert len(read_metrics(metrics.text())) == 8


def test_no_metrics_are_an_empty_text():
    metrics = MetricsText()
    metrics.summary("wait_seconds", "Wait.", {0.5: None}, 0, 0.0)
    assert metrics.text() == ""


@example(text="", description="", value=sys.float_info.max)
@given(text=TEXTS, description=TEXTS, value=st.floats(allow_nan=False) | st.integers(0, 1 << 60))
def test_any_text_and_number_is_read_back(text, description, value):
    metrics = MetricsText()
    metrics.with_labels(stream=text).gauge("value", description, value, other=text[::-1])
    kind, samples = read_metrics(metrics.text())["tcmoa_value"]
    assert kind == "gauge"
    ((labels, found),) = samples.items()
    assert found == pytest.approx(float(value), rel=1e-14)
    if "://" not in text and "://" not in text[::-1]:
        assert labels == (("other", text[::-1]), ("stream", text))


def test_numbers_that_are_none_are_written_as_prometheus_does():
    metrics = MetricsText("")
    for name, value in (("a", math.inf), ("b", -math.inf), ("c", math.nan)):
        metrics.gauge(name, "A number.", value)
    assert [line for line in metrics.text().splitlines() if line[0] != "#"] == ["a +Inf", "b -Inf", "c NaN"]


def test_views_share_the_text_and_their_labels_come_first():
    metrics = MetricsText()
    stream = metrics.with_labels(node="n1").with_labels(stream="gate-1")
    stream.counter("frames_total", "Frames.", 1, status="fused")
    metrics.counter("frames_total", "Frames.", 2)
    assert metrics.text() == stream.text()
    assert (
        'tcmoa_frames_total{node="n1",stream="gate-1",status="fused"} 1\ntcmoa_frames_total 2\n'
        in metrics.text()
    )


def test_secrets_of_urls_and_lone_surrogates_are_not_in_the_text():
    metrics = MetricsText()
    metrics.gauge("a", "A.", 1, source="rtsp://admin:1234@camera/x", file="\udc80.mp4")
    assert metrics.text().endswith('{source="rtsp://***@camera/x",file="?.mp4"} 1\n')
    metrics.text().encode()


@pytest.mark.parametrize(
    ("add", "words"),
    [
        (lambda m: m.gauge("a b", "", 1), "'tcmoa_a b'; expected a metric's name"),
        (lambda m: m.gauge("a", "", 1, **{"x-y": ""}), "'x-y'; expected a label's name"),
        (lambda m: m.gauge("a", "", 1, __x=""), "'__x'; expected a label's name"),
        (lambda m: m.with_labels(**{"1": ""}), "'1'; expected a label's name"),
        (lambda m: m.with_labels(x="").with_labels(x=""), "the label 'x' is set already"),
        (lambda m: m.with_labels(x="").gauge("a", "", 1, x=""), "set twice or reserved"),
        (lambda m: m.summary("a", "", {0.5: 1}, 1, 1, quantile=""), "set twice or reserved"),
        (lambda m: m.histogram("a", "", Histogram([1]), le=""), "set twice or reserved"),
        (lambda m: m.counter("there", "There.", 1), "as gauge and as counter"),
        (lambda m: m.gauge("there", "Here.", 1, x=""), "with two descriptions"),
        (lambda m: m.gauge("there", "There.", 1), "two samples with the labels {}"),
    ],
)
def test_a_malformed_metric_is_refused_when_it_is_added(add, words):
    metrics = MetricsText()
    metrics.gauge("there", "There.", 1)
    with pytest.raises(ValueError, match=words):
        add(metrics)


@pytest.mark.parametrize("bounds", [(), (1, 1), (2, 1)])
def test_bounds_of_a_histogram_rise(bounds):
    with pytest.raises(ValueError, match="expected rising numbers"):
        Histogram(bounds)
