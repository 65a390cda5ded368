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
            stats: Records dropped frames and how long writing takes.
            on_failure: Called on the new thread with the error after which the sink receives no more frames.
        """
        self.sink = sink
        self._format, self._stats, self._on_failure = stream_format, stats, on_failure
        self._queue: BoundedQueue[FusedFrame] = BoundedQueue(
            QUEUE_CAPACITY if sink.lossless else 1, newest_wins=stream_format.live or not sink.lossless
        )
        self._opened = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"tcmoa-write-{sink.name}", daemon=True)

    def start(self) -> None:
        """Open the sink; raise what its `open` raises."""
        self._thread.start()
        self._opened.wait()
        if self._error is not None:
            raise self._error

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
        except Exception as error:  # raised by `start`
            self._error = error
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
        except Exception as error:
            self._stats.record_dropped(f"sink-{self.sink.name}", self._queue.discard())
            self._close_after_error()
            self._on_failure(self.sink, error)
            return
        try:
            self.sink.close()
        except Exception as error:
            self._on_failure(self.sink, error)

    def _close_after_error(self) -> None:
        """Close the sink. The error that ended it says more than that closing failed, too."""
        with contextlib.suppress(Exception):
            self.sink.close()
