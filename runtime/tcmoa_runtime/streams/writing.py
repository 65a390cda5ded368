"""Writing frames: one thread for each sink, so that a slow sink delays neither the fusion nor another sink."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

from tcmoa_runtime.streams.bounded_queue import BoundedQueue
from tcmoa_runtime.streams.interfaces import FusedFrame, Sink, StreamFormat
from tcmoa_runtime.streams.stats import Stats

QUEUE_CAPACITY: Final = 4
"""Frames that wait for a lossless sink. A live stream drops the oldest one when the queue is full."""


class SinkWriter:
    """Runs one sink on its own thread.

    If the sources are files, a lossless sink makes the stream wait for it; a live stream never waits.

    Attributes:
        sink: The sink.
        error: Why the sink receives no more frames, None while it does.
    """

    def __init__(
        self,
        sink: Sink,
        stream_format: StreamFormat,
        stats: Stats,
        on_failure: Callable[[Sink, Exception], None],
    ) -> None:
        """Prepare the thread.

        Args:
            sink: The sink; it is opened, written and closed on the new thread.
            stream_format: What the sink receives.
            stats: Records how long writing takes, and dropped frames: those that found no place in the queue, and those
                that the sink counts in `dropped`, e.g. while it had no connection.
            on_failure: Called on the new thread with the error after which the sink receives no more frames.
        """
        self.sink = sink
        self._format, self._stats, self._on_failure = stream_format, stats, on_failure
        self._queue: BoundedQueue[FusedFrame] = BoundedQueue(
            QUEUE_CAPACITY if sink.lossless else 1, newest_wins=stream_format.live or not sink.lossless
        )
        self._opened = threading.Event()
        self._num_dropped = 0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"tcmoa-write-{sink.name}", daemon=True)

    def start(self) -> Exception | None:
        """Open the sink; return the error with which that failed."""
        self._thread.start()
        self._opened.wait()
        return self.error

    def put(self, frame: FusedFrame) -> None:
        """Queue a frame; block only if the sink is lossless and the sources are files."""
        self._stats.record_dropped(f"sink-{self.sink.name}", self._queue.put(frame))

    def finish(self, timeout: float | None = None) -> bool:
        """Write the queued frames and close the sink.

        Args:
            timeout: Seconds to wait; None waits without limit.

        Returns:
            Whether the sink was closed in time.
        """
        self._queue.close()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.sink.open(self._format)
        except Exception as error:  # returned by `start`
            self.error = error
            self._queue.discard()
            self._close_after_error()
            return
        finally:
            self._opened.set()
        try:
            while (frame := self._queue.get()) is not None:
                start = time.perf_counter()
                self.sink.write(frame)
                self._stats.record_duration(f"write-{self.sink.name}", time.perf_counter() - start)
                self._record_dropped()
        except Exception as error:
            self.error = error
            self._stats.record_dropped(f"sink-{self.sink.name}", self._queue.discard())
            self._close_after_error()
            self._on_failure(self.sink, error)
            return
        try:
            self.sink.close()
        except Exception as error:
            self.error = error
            self._on_failure(self.sink, error)

    def _record_dropped(self) -> None:
        """Count the frames that the sink itself dropped since the last call."""
        total = int(getattr(self.sink, "dropped", 0))
        self._stats.record_dropped(f"sink-{self.sink.name}", total - self._num_dropped)
        self._num_dropped = total

    def _close_after_error(self) -> None:
        """Close the sink. The error that ended it says more than that closing failed, too."""
        with contextlib.suppress(Exception):
            self.sink.close()
