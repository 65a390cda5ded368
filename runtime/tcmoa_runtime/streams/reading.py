"""Reading two sources, each on its own thread, and pairing their frames."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Final, Protocol

from tcmoa_runtime.images import format_size, resize_frame
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.backlog import Backlog
from tcmoa_runtime.streams.bounded_queue import BoundedQueue
from tcmoa_runtime.streams.clock import Clock, FileClock, LiveClock
from tcmoa_runtime.streams.event_log import QUIET_SECONDS
from tcmoa_runtime.streams.interfaces import Source, SourceError, SourceFrame
from tcmoa_runtime.streams.newest_frames import End, NewestFrames, Wait
from tcmoa_runtime.streams.pairing import SIDES, Pair, Rates, TimedFrame, every_frame, other
from tcmoa_runtime.streams.stats import Stats
from tcmoa_runtime.typing import FrameSize, SourceName

_log = get_logger("streams")

READ_AHEAD: Final = 4
"""Decoded frames of a file that wait to be paired."""
_MIN_WAIT_SECONDS: Final = 1e-3


class Pairer(Protocol):
    """Takes the frames of two sources from their threads, and yields pairs on another one."""

    def deliver(self, side: SourceName, frame: SourceFrame) -> bool:
        """Take a frame; False if no more frames are needed."""
        ...

    def end(self, side: SourceName, error: SourceError | None) -> None:
        """Note that a source gives no more frames; `error` is why, None if it just ended."""
        ...

    def pairs(self) -> Generator[Pair, None, None]:
        """Yield pairs until the sources end or `stop` is called.

        Raises:
            SourceError: A source is lost, and the loss policy ends the stream.
        """
        ...

    def stop(self) -> None:
        """End `pairs`, and wake all threads that wait for a frame or for room."""
        ...


class FilePairer:
    """Pairs two files: every frame of the leading one with its nearest partner. Reading waits for the fusion."""

    def __init__(
        self, options: StreamOptions, rates: Rates, stats: Stats, *, has_shared_clock: bool = False
    ) -> None:
        """Create a pairer.

        Args:
            options: How frames are paired.
            rates: Frame rates of the leading source and of the other one.
            stats: Where events and drops are counted.
            has_shared_clock: Whether the times of both count on one clock, on which frames that belong together have
                the same time, as images of equal names.
        """
        if has_shared_clock and options.tolerance is None and rates[0]:
            options = replace(options, tolerance=float(1 / rates[0]) / 2)
        self._options, self._rates, self._stats = options, rates, stats
        self._has_shared_clock = has_shared_clock
        self._queues: dict[SourceName, BoundedQueue[SourceFrame]] = {
            side: BoundedQueue(READ_AHEAD) for side in SIDES
        }

    def deliver(self, side: SourceName, frame: SourceFrame) -> bool:
        """Queue a frame; blocks while the queue is full."""
        return self._queues[side].put(frame) == 0

    def end(self, side: SourceName, _: SourceError | None) -> None:
        """Note that a file has ended."""
        self._queues[side].close()

    def pairs(self) -> Generator[Pair, None, None]:
        """Yield the pairs in order."""
        lead, offset = self._options.lead, self._options.offset
        keeps_steps = self._has_shared_clock
        leading = self._timed_frames(lead, FileClock(keeps_steps=keeps_steps))
        first = next(leading, None)
        if first is None:
            return
        # Both files start together, unless their timestamps are of one clock.
        start = None if isinstance(offset, str) or self._has_shared_clock else first.time
        clock = FileClock(
            start=start, offset=0.0 if isinstance(offset, str) else offset, keeps_steps=keeps_steps
        )
        partner = self._timed_frames(other(lead), clock)
        yield from every_frame(chain([first], leading), partner, self._options, self._rates, self._stats)

    def stop(self) -> None:
        """Discard all frames."""
        for queue in self._queues.values():
            queue.discard()

    def _timed_frames(self, side: SourceName, clock: Clock) -> Iterator[TimedFrame]:
        while (frame := self._queues[side].get()) is not None:
            yield _to_timed(side, clock, frame, self._stats)


class LivePairer:
    """Pairs two live sources: the newest frame with its nearest partner. Reading never waits."""

    def __init__(
        self,
        options: StreamOptions,
        rates: Rates,
        stats: Stats,
        names: Mapping[SourceName, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a pairer.

        Args:
            options: How frames are paired.
            rates: Frame rates of the leading source and of the other one.
            stats: Where events and drops are counted.
            names: Names of the sources, for messages.
            clock: Returns the time in seconds.
        """
        offset = 0.0 if isinstance(options.offset, str) else options.offset
        self._clocks: dict[SourceName, LiveClock] = {
            options.lead: LiveClock(),
            other(options.lead): LiveClock(offset=offset),
        }
        self._newest = NewestFrames(options, rates, stats)
        self._stats, self._names, self._clock = stats, names, clock
        self._errors: dict[SourceName, SourceError] = {}
        self._changed = threading.Condition()
        self._is_stopped = False

    def deliver(self, side: SourceName, frame: SourceFrame) -> bool:
        """Offer a frame."""
        timed = _to_timed(side, self._clocks[side], frame, self._stats)
        with self._changed:
            self._newest.offer(side, timed, self._clock())
            self._changed.notify_all()
        return True

    def end(self, side: SourceName, error: SourceError | None) -> None:
        """Note that a source has ended or failed."""
        with self._changed:
            if error is not None:
                self._errors[side] = error
            self._newest.end(side, failed=error is not None)
            self._changed.notify_all()

    def pairs(self) -> Generator[Pair, None, None]:
        """Yield the pair of the newest frames at each step."""
        try:
            while (choice := self._wait_for_choice()) is not None:
                if isinstance(choice, End):
                    if choice.lost is not None:
                        raise self._loss_error(choice.lost)
                    return
                yield choice
        finally:
            with self._changed:
                self._newest.finish()

    def stop(self) -> None:
        """End `pairs`."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _wait_for_choice(self) -> Pair | End | None:
        """Return what to emit; None after `stop`."""
        with self._changed:
            while not self._is_stopped:
                choice = self._newest.pick(self._clock())
                if not isinstance(choice, Wait):
                    return choice
                until = choice.until
                self._changed.wait(None if until is None else max(_MIN_WAIT_SECONDS, until - self._clock()))
        return None

    def _loss_error(self, side: SourceName) -> SourceError:
        """Return why the loss of a source ends the stream."""
        return self._errors.get(side) or SourceError(
            f"no frame for {self._newest.tolerance:.2g} s, and the stream ends when {side} is lost",
            subject=self._names[side],
            remedy="Use {on_loss} to go on without it.",
            settings={"on_loss": "hold"},
        )


class SourceReader:
    """Reads two sources, each on its own thread, into a pairer.

    Attributes:
        failures: The errors of sources that could not be read to their end.
    """

    def __init__(
        self,
        sources: Mapping[SourceName, Source],
        pairer: Pairer,
        stats: Stats,
        *,
        on_source_error: Callable[[SourceError], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Prepare the threads.

        Args:
            sources: Both sources; the reader closes them when they end and when it is stopped.
            pairer: What takes the frames.
            stats: Where frames and events are counted.
            on_source_error: Called on a source's thread when the source fails, or has lost frames that are damaged. The
                other source goes on.
            on_error: Called on a source's thread with any other exception.
        """
        self.failures: dict[SourceName, SourceError] = {}
        self._sources, self._pairer, self._stats = sources, pairer, stats
        self._on_source_error, self._on_error = on_source_error, on_error
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(side,), name=f"tcmoa-read-{side}", daemon=True)
            for side in SIDES
        ]

    @property
    def is_stopping(self) -> bool:
        """Whether the reader was stopped."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start reading."""
        for thread in self._threads:
            thread.start()

    def request_stop(self) -> None:
        """Let the threads end after the frame in work, without taking a lock: for signal handlers."""
        self._stopping.set()

    def stop(self) -> None:
        """Close the sources and stop the pairer."""
        self._stopping.set()
        for source in self._sources.values():
            source.close()
        self._pairer.stop()

    def join(self, deadline: float) -> None:
        """Wait for the threads until `time.monotonic()` is `deadline`."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, side: SourceName) -> None:
        try:
            self._read(side, self._sources[side])
        except Exception as error:  # the stream raises it in its owner's thread
            self._on_error(error)
        finally:
            self._pairer.end(side, self.failures.get(side))

    def _read(self, side: SourceName, source: Source) -> None:
        """Deliver the frames of a source, all at the size of the first, until it ends or the reader is stopped."""
        size = last_size = source.size
        size_logged_at = -math.inf
        backlog = Backlog(source)
        try:
            while not self._stopping.is_set():
                start = time.perf_counter()
                frame = source.read()
                if frame is None:
                    self._note_damage(source)
                    return
                waited = time.perf_counter() - start
                if not source.live:
                    self._stats.record_duration(f"decode-{side}", waited)
                self._stats.record_event(side, "frames")
                if backlog.holds(frame):
                    self._stats.record_dropped(f"{side}-before-start")
                    continue
                frame_size = frame.image.shape[:2]
                if frame_size != last_size:
                    self._stats.record_event(side, "size_changes")
                    last_size = frame_size
                    if time.monotonic() - size_logged_at >= QUIET_SECONDS:
                        size_logged_at = time.monotonic()
                        _log_size(side, source, frame_size)
                if frame_size != size:
                    frame = replace(frame, image=resize_frame(frame.image, size))
                if not self._pairer.deliver(side, frame):
                    return
        except SourceError as error:
            if not self._stopping.is_set():
                self.failures[side] = error
                self._on_source_error(error)
        finally:
            for event in ("errors", "reconnects", "frames_expected"):
                if total := getattr(source, event, 0):
                    self._stats.record_event_total(side, event, total)
            source.close()

    def _note_damage(self, source: Source) -> None:
        """Report the frames of a file that were skipped because they are damaged."""
        count = int(getattr(source, "errors", 0))
        if count and not source.live and not self._stopping.is_set():
            reason = str(getattr(source, "first_error", "")) or "damaged"
            problem = f"{count} of its frames could not be read ({reason})"
            self._on_source_error(SourceError(problem, subject=source.name))


def _log_size(side: SourceName, source: Source, size: FrameSize) -> None:
    _log.info(
        "%s: frames are %s now, resized to %s",
        source.name,
        format_size(size),
        format_size(source.size),
        extra={"event": "size-changed", "source": side, "size": format_size(size)},
    )


def _to_timed(side: SourceName, clock: Clock, frame: SourceFrame, stats: Stats) -> TimedFrame:
    """Return a frame with its time on the common clock, and count jumps of the source's clock."""
    jumps = clock.jumps
    time = clock.time(frame)
    if clock.jumps > jumps:
        stats.record_event(side, "clock_jumps", clock.jumps - jumps)
    return TimedFrame(frame, time)
