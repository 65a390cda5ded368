"""Counters, gauges, summaries and histograms in the text format of Prometheus, version 0.0.4.

    metrics = MetricsText()
    for name, snapshot in snapshots.items():
        add_stream_metrics(metrics.with_labels(stream=name), snapshot)
    metrics.text()

Samples of one metric that are added at different places, e.g. for each of several streams, are joined under one header,
as the format demands.
"""

from __future__ import annotations

import math
import re
import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Final, Literal, TypeAlias

from tcmoa_runtime.location import redact_text

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

MetricKind: TypeAlias = Literal["counter", "gauge", "summary", "histogram"]
_Labels: TypeAlias = tuple[tuple[str, str], ...]

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_RESERVED: Final[Mapping[MetricKind, frozenset[str]]] = {
    "counter": frozenset(),
    "gauge": frozenset(),
    "summary": frozenset({"quantile"}),
    "histogram": frozenset({"le"}),
}
"""Labels that the format itself sets."""


class Histogram:
    """Counts of values between bounds, and their sum; every method may be called from any thread."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Count values up to each of `bounds`, which rise, e.g. `(0.01, 0.1, 1.0)` seconds, and above the last."""
        if not bounds or any(low >= high for low, high in pairwise(bounds)):
            raise ValueError(f"bounds {list(bounds)}; expected rising numbers")
        self.bounds = tuple(bounds)
        self._counts, self._total = [0] * (len(bounds) + 1), 0.0
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        """Count a value."""
        with self._lock:
            self._counts[bisect_left(self.bounds, value)] += 1
            self._total += value

    def snapshot(self) -> tuple[tuple[int, ...], float]:
        """Return the counts, one more than the bounds, and the sum of the values."""
        with self._lock:
            return tuple(self._counts), self._total


@dataclass
class _Metric:
    """A metric, and the lines of its samples by suffix and labels."""

    kind: MetricKind
    description: str
    samples: dict[tuple[str, _Labels], float] = field(default_factory=dict)


class MetricsText:
    """Metrics that become one text; not for use from several threads."""

    def __init__(self, prefix: str = "tcmoa_") -> None:
        """Collect metrics whose names get `prefix`."""
        self._prefix = prefix
        self._metrics: dict[str, _Metric] = {}
        self._labels: dict[str, str] = {}

    def with_labels(self, /, **labels: str) -> MetricsText:
        """Return a view that adds to the same text, with these labels on each sample.

        Raises:
            ValueError: A name of a label is malformed, or set already.
        """
        view = MetricsText(self._prefix)
        view._metrics, view._labels = self._metrics, self._labels | labels
        for name in labels:
            if name in self._labels:
                raise ValueError(f"the label {name!r} is set already")
            _check_name("label", name, _LABEL)
        return view

    def counter(self, name: str, description: str, value: float | None, /, **labels: str) -> None:
        """Add the total of a counter, whose name should end in `_total`; None adds nothing.

        Raises:
            ValueError: A name is malformed, the metric has another kind or description, or this sample is there
                already; also from the other methods.
        """
        self._add("counter", name, description, labels, [("", {}, value)])

    def gauge(self, name: str, description: str, value: float | None, /, **labels: str) -> None:
        """Add the value of a gauge; None adds nothing."""
        self._add("gauge", name, description, labels, [("", {}, value)])

    def summary(
        self,
        name: str,
        description: str,
        quantiles: Mapping[float, float | None],
        count: int,
        total: float,
        /,
        **labels: str,
    ) -> None:
        """Add a summary: quantiles by share (0 to 1), and the number and the sum of all values since the start.

        A quantile of None is left out; so is the whole summary when `count` is 0.
        """
        samples = [("", {"quantile": f"{share:g}"}, value) for share, value in quantiles.items()]
        if count:
            samples += [("_sum", {}, total), ("_count", {}, count)]
            self._add("summary", name, description, labels, samples)

    def histogram(self, name: str, description: str, histogram: Histogram, /, **labels: str) -> None:
        """Add a histogram as it is now."""
        counts, total = histogram.snapshot()
        bounds = (*(_number(bound) for bound in histogram.bounds), "+Inf")
        samples: list[tuple[str, dict[str, str], float | None]] = [
            ("_bucket", {"le": bound}, count) for bound, count in zip(bounds, accumulate(counts), strict=True)
        ]
        samples += [("_sum", {}, total), ("_count", {}, sum(counts))]
        self._add("histogram", name, description, labels, samples)

    def text(self) -> str:
        """Format all metrics, those of views included, in the order in which they were first added."""
        lines = []
        for name, metric in self._metrics.items():
            lines += [
                f"# HELP {name} {_escape(metric.description)}",
                f"# TYPE {name} {metric.kind}",
                *(
                    f"{name}{suffix}{_format_labels(labels)} {_number(value)}"
                    for (suffix, labels), value in metric.samples.items()
                ),
            ]
        return "".join(f"{line}\n" for line in lines)

    def _add(
        self,
        kind: MetricKind,
        name: str,
        description: str,
        labels: Mapping[str, str],
        samples: Sequence[tuple[str, Mapping[str, str], float | None]],
    ) -> None:
        known = [(suffix, own, value) for suffix, own, value in samples if value is not None]
        if not known:
            return
        full = f"{self._prefix}{name}"
        _check_name("metric", full, _NAME)
        for label in labels:
            _check_name("label", label, _LABEL)
        given = {**self._labels, **labels}
        if len(given) < len(self._labels) + len(labels) or _RESERVED[kind] & given.keys():
            raise ValueError(f"{full}: a label of {sorted(given)} is set twice or reserved")
        metric = self._metrics.setdefault(full, _Metric(kind, description))
        if (metric.kind, metric.description) != (kind, description):
            raise ValueError(f"{full}: added as {metric.kind} and as {kind}, or with two descriptions")
        for suffix, own, value in known:
            key = suffix, tuple({**given, **own}.items())
            if key in metric.samples:
                raise ValueError(f"{full}: two samples with the labels {dict(key[1])}")
            metric.samples[key] = value


def _check_name(what: str, name: str, pattern: re.Pattern[str]) -> None:
    if pattern.fullmatch(name) is None:
        raise ValueError(f"{name!r}; expected a {what}'s name of letters, digits and _")


def _format_labels(labels: _Labels) -> str:
    """Format labels, secrets in URLs hidden."""
    if not labels:
        return ""
    parts = (f'{name}="{_escape(redact_text(value), quotes=True)}"' for name, value in labels)
    return "{" + ",".join(parts) + "}"


def _escape(value: str, *, quotes: bool = False) -> str:
    """Escape what ends a value; characters that are no text, e.g. of a file name, become `?`."""
    escaped = value.encode("utf-8", "replace").decode().replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped


def _number(value: float) -> str:
    """Format a number: whole ones exactly, others with 15 digits, or as many as keep the largest finite ones finite."""
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = f"{value:.15g}"
    return text if math.isfinite(float(text)) else repr(value)
