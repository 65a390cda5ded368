"""Emitting fused frames: to sinks, each on its own thread, and to the consumer of the stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tcmoa_runtime.streams.bounded_queue import BoundedQueue
from tcmoa_runtime.streams.interfaces import FusedFrame, Sink, StreamFormat
from tcmoa_runtime.streams.stats import Stats
from tcmoa_runtime.streams.writing import SinkWriter

_MIN_CLOSE_SECONDS = 1.0


class CallbackSink:
    """A function as a sink."""

    name, lossless = "on_frame", True

    def __init__(self, function: Callable[[FusedFrame], None]) -> None:
        """Wrap a function that takes each frame."""
        self._function = function

    def open(self, stream_format: StreamFormat) -> None:
        """Do nothing."""

    def write(self, frame: FusedFrame) -> None:
        """Call the function."""
        self._function(frame)

    def close(self) -> None:
        """Do nothing."""


class Outputs:
    """The sinks of a running stream, and the queue of its consumer."""

    def __init__(self, stats: Stats, on_failure: Callable[[Sink, Exception, bool], None]) -> None:
        """Create outputs without sinks.

        Args:
            stats: Where drops are counted.
            on_failure: Called with a sink that gets no more frames, the error, and whether other outputs go on.
        """
        self._stats, self._on_failure = stats, on_failure
        self._writers: list[SinkWriter] = []
        self._queue: BoundedQueue[FusedFrame] | None = None

    def add_queue(self, queue: BoundedQueue[FusedFrame]) -> None:
        """Emit frames to a consumer, too."""
        self._queue = queue

    def open(self, sinks: Sequence[Sink], stream_format: StreamFormat) -> None:
        """Open the sinks one after the other, and report those that fail when all were tried."""
        failed = []
        for sink in sinks:
            writer = SinkWriter(sink, stream_format, self._stats, self._handle_failure)
            self._writers.append(writer)
            error = writer.start()
            if error is not None:
                failed.append((sink, error))
        for sink, error in failed:
            self._handle_failure(sink, error)

    @property
    def is_any_left(self) -> bool:
        """Whether frames still reach a sink or the consumer; also without any sinks, as for statistics alone."""
        return (
            self._queue is not None
            or not self._writers
            or any(writer.error is None for writer in self._writers)
        )

    def emit(self, frame: FusedFrame) -> None:
        """Hand a frame to all sinks and the consumer; blocks only where every frame of a file is needed."""
        for writer in self._writers:
            writer.put(frame)
        if self._queue is not None:
            self._stats.record_dropped("consumer", self._queue.put(frame))

    def end_queue(self) -> None:
        """Tell the consumer that no frames follow."""
        if self._queue is not None:
            self._queue.close()

    def discard_queue(self) -> None:
        """Drop the frames that the consumer has not taken, and wake it."""
        if self._queue is not None:
            self._stats.record_dropped("consumer", self._queue.discard())

    def finish(self, deadline: float) -> list[Sink]:
        """Close all sinks, and wait for files without limit, for the others until `deadline` (`time.monotonic`).

        Returns:
            The sinks that did not close in time.
        """
        late = []
        # Files first: the others can close meanwhile.
        for writer in sorted(self._writers, key=lambda writer: not writer.sink.lossless):
            timeout = max(_MIN_CLOSE_SECONDS, deadline - time.monotonic())
            if not writer.finish(None if writer.sink.lossless else timeout):
                late.append(writer.sink)
        return late

    def _handle_failure(self, sink: Sink, error: Exception) -> None:
        self._on_failure(sink, error, self.is_any_left)
