"""What a service counts, in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Final

from tcmoa_runtime.metrics_text import Histogram, MetricsText
from tcmoa_runtime.serving.work_queue import WorkQueue

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds of the buckets of durations."""


class ServiceMetrics:
    """Requests by route and status, durations, and the state of the queue. Safe to use from several threads."""

    def __init__(self) -> None:
        """Count from zero."""
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: dict[str, Histogram] = {}
        self._fused: dict[str, Histogram] = {}
        self._pairs: dict[str, int] = defaultdict(int)
        self.in_flight = 0
        """Requests whose response has not ended, of any route; belongs to the event loop's thread."""

    def add_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            method: Its method.
            route: Path of the route, with placeholders.
            status: Status of the response; 499 if the client had gone.
            seconds: Time from its headers to the end of its response.
        """
        with self._lock:
            self._requests[method, route, status] += 1
            histogram = self._seconds.setdefault(route, Histogram(SECONDS))
        histogram.add(seconds)

    def add_fused(self, model: str, count: int, seconds: float) -> None:
        """Count a run of the fuser.

        Args:
            model: Name of the bundle.
            count: Number of pairs.
            seconds: Its duration.
        """
        with self._lock:
            self._pairs[model] += count
            histogram = self._fused.setdefault(model, Histogram(SECONDS))
        histogram.add(seconds)

    def text(self, queue: WorkQueue, *, is_ready: bool) -> str:
        """Format all metrics.

        Args:
            queue: The queue of the service.
            is_ready: Whether the service takes requests.
        """
        metrics = MetricsText()
        with self._lock:
            requests, pairs = dict(self._requests), dict(self._pairs)
            seconds, fused = dict(self._seconds), dict(self._fused)
        metrics.gauge("serve_ready", "Whether the service takes requests.", int(is_ready))
        metrics.gauge("serve_requests_in_flight", "Requests whose response has not ended.", self.in_flight)
        metrics.gauge("serve_queue_length", "Requests that are read or wait to be fused.", queue.num_waiting)
        metrics.gauge("serve_running", "Requests that are fused.", queue.num_running)
        for (method, route, status), count in requests.items():
            metrics.counter(
                "serve_requests_total",
                "Requests by route and status.",
                count,
                method=method,
                route=route,
                status=str(status),
            )
        for route, histogram in seconds.items():
            metrics.histogram(
                "serve_request_seconds",
                "Time from the headers of a request to the end of its response.",
                histogram,
                route=route,
            )
        for model, count in pairs.items():
            metrics.counter("serve_pairs_total", "Pairs fused.", count, model=model)
        for model, histogram in fused.items():
            metrics.histogram("serve_fuse_seconds", "Duration of a run of the fuser.", histogram, model=model)
        return metrics.text()
