"""A thread for each sink, so that none of them holds up fusing, or another sink."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tcmoa_runtime.streams.bounded_queue import BoundedQueue
from tcmoa_runtime.streams.interfaces import FusedFrame, Sink, StreamFormat
from tcmoa_runtime.streams.stats import Stats

FILE_DEPTH = 4
"""Frames that wait for a sink where every frame matters; a live stream lets the oldest go when they are full."""


class Writer:
    """Runs one sink on a thread of its own.

    From files, a sink that takes every frame makes the stream wait for it; a live stream never waits.
    """

    def __init__(
        self, sink: Sink, form: StreamFormat, stats: Stats, failed: Callable[[Sink, Exception], None]
    ) -> None:
        """`failed` hears, on the writer's thread, of the error after which the sink got no more frames."""
        self.sink = sink
        self._form, self._stats, self._failed = form, stats, failed
        self._queue: BoundedQueue[FusedFrame] = BoundedQueue(
            FILE_DEPTH if sink.lossless else 1, newest_wins=form.live or not sink.lossless
        )
        self._opened = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"tcmoa-write-{sink.name}", daemon=True)

    def start(self) -> None:
        """Open the sink; raises what its `open` raises."""
        self._thread.start()
        self._opened.wait()
        if self._error is not None:
            raise self._error

    def put(self, frame: FusedFrame) -> None:
        """Hand a frame over; waits only where every frame of a file matters."""
        self._stats.record_dropped(f"sink-{self.sink.name}", self._queue.put(frame))

    def finish(self, timeout: float | None = None) -> bool:
        """Let the sink take what waits and close it; False when that takes longer than `timeout` seconds."""
        self._queue.close()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.sink.open(self._form)
        except Exception as error:  # handed to the thread that started this one
            self._error = error
            self._queue.discard()
            self._close(quiet=True)
            return
        finally:
            self._opened.set()
        try:
            while (frame := self._queue.get()) is not None:
                began = time.perf_counter()
                self.sink.write(frame)
                self._stats.record_duration(f"write-{self.sink.name}", time.perf_counter() - began)
        except Exception as error:
            self._stats.record_dropped(f"sink-{self.sink.name}", self._queue.discard())
            self._close(quiet=True)
            self._failed(self.sink, error)
            return
        self._close(quiet=False)

    def _close(self, *, quiet: bool) -> None:
        """Close the sink; `quiet` after an error, of which more is known than that closing failed, too."""
        try:
            self.sink.close()
        except Exception as error:
            if not quiet:
                self._failed(self.sink, error)
