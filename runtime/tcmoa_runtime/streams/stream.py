"""The stream itself: two sources, the fuser and the sinks, each on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, runtime_checkable

import numpy as np

from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import resize_frame, to_frame
from tcmoa_runtime.streams.bounded_queue import BoundedQueue
from tcmoa_runtime.streams.clock import Clock, FileClock, LiveClock
from tcmoa_runtime.streams.control import RAMP_SECONDS, PromptControl, Value
from tcmoa_runtime.streams.deflicker import FlickerFilter
from tcmoa_runtime.streams.interfaces import (
    FusedFrame,
    Side,
    Sink,
    Source,
    SourceError,
    SourceFrame,
    StreamFormat,
)
from tcmoa_runtime.streams.pairing import End, NewestFrames, Pair, Pairing, Timed, Wait, every_frame, other
from tcmoa_runtime.streams.reuse import Reuse
from tcmoa_runtime.streams.stats import Stats
from tcmoa_runtime.streams.writing import Writer
from tcmoa_runtime.typing import Frame

READ_AHEAD: Final = 4
"""Decoded frames of a file that wait to be paired."""
FINE_TIME_BASE: Final = Fraction(1, 90_000)
"""Clock of live outputs whose leading source counts coarsely; that of MPEG and RTP."""
CLOSE_SECONDS: Final = 15.0
"""How long closing waits for sources and sinks before they are left to themselves."""

Offset = float | Literal["timestamps"]


@runtime_checkable
class Attached(Protocol):
    """A sink that wants to know its stream, as one that steers it."""

    def attach(self, stream: Stream) -> None:
        """Called once, before `open`."""
        ...


class Stream:
    """Two sources fused into one stream of frames, paired by time.

        with Stream(fuser, "x.mp4", "y.mp4") as stream:
            for frame in stream:
                show(frame.image)

    Sources are read, frames fused and sinks written on threads of their own, with short queues between: from files
    every frame of the leading source comes out, in order; of live sources the newest wins, everywhere, and what is
    let go is counted (`stats`). `control` steers alpha and beta while it runs. Iterating, or `run`, starts it, once.
    """

    def __init__(
        self,
        fuser: Fuser,
        x: Source | str | Path,
        y: Source | str | Path,
        *,
        pairing: Pairing | None = None,
        offset: Offset = 0.0,
        sinks: Sequence[Sink] = (),
        on_frame: Callable[[FusedFrame], None] | None = None,
        control: PromptControl | None = None,
        ramp: float = RAMP_SECONDS,
        frames: int | None = None,
        reuse: float | None = None,
        steady: float = 0.0,
        stats: Stats | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open what is given as text and check that it all fits together.

        `offset`: seconds that are added to the times of the source that does not lead; two files begin together
        unless it is `timestamps`, which takes the times in both as of one clock. `on_frame` is called with each frame
        from a thread of its own, as a sink. `frames`: stop after so many. `reuse`: grey levels of change within which
        the last fused picture is put out again instead of fusing (`streams.reuse`), 0 for none, None to fuse always.
        `steady`: seconds over which flicker is taken out where nothing moves (`streams.deflicker`), 0 for not at all.
        The stream owns sources and sinks from here on and closes them. Raises InputError, and MissingError where a
        package is missing.
        """
        self.fuser = fuser
        self.pairing = pairing or Pairing()
        self.stats = stats or Stats()
        self.error: Exception | None = None
        self.notes: list[str] = []
        self._clock, self._frames = clock, _whole(frames, "frames")
        self._offset: Offset = offset if offset == "timestamps" else _number(offset, "offset")
        bundle = fuser.bundle
        self._reuse = None if reuse is None else Reuse(reuse)
        self._steady = FlickerFilter(steady, bundle.channel_order) if steady != 0 else None
        self._steered: tuple[Value, Value] = bundle.default_prompt
        self.control = control or PromptControl(
            fuser.grid,
            size=fuser.size,
            token=None if bundle.fit == "resize" else bundle.token_pixels,
            default=bundle.default_prompt,
            ramp=ramp,
        )
        self._sinks = list(sinks)
        if on_frame is not None:
            self._sinks.append(_Callback(on_frame))
        self._sources = _opened(x, y, bundle.channel_order)
        try:
            self.live = any(source.live for source in self._sources.values())
            self._check_sizes()
        except BaseException:
            for source in self._sources.values():
                source.close()
            raise
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._writers: list[Writer] = []
        self._died: dict[Side, SourceError] = {}
        self._output: BoundedQueue[FusedFrame] | None = None
        self._started = self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[FusedFrame]:
        """Start, and give each frame; of a live stream the newest that there is when the last one is done with.

        Raises, at the end, what ended the stream before its sources did.
        """
        self._output = BoundedQueue(1 if self.live else READ_AHEAD, newest_wins=self.live)
        self._start()
        try:
            while (frame := self._output.get()) is not None:
                yield frame
        finally:
            self.close()
        if self.error is not None:
            raise self.error

    def run(self) -> Stats:
        """Start, put every frame into the sinks, and return the stats at the end.

        Raises what ended the stream before its sources did, when the sinks are closed.
        """
        self._start()
        try:
            fusing = self._threads[-1]
            while fusing.is_alive():
                fusing.join(0.1)  # in slices, so that signals get through to the main thread
        finally:
            self.close()
        if self.error is not None:
            raise self.error
        return self.stats

    def add_sink(self, sink: Sink) -> None:
        """One more sink, before the stream is started."""
        if self._started or self._closed:
            raise TcmoaError("a stream takes sinks before it is started")
        self._sinks.append(sink)

    @property
    def sinks(self) -> list[Sink]:
        """The sinks, without `on_frame`."""
        return [sink for sink in self._sinks if not isinstance(sink, _Callback)]

    def stop(self) -> None:
        """End the stream after the frame in work, with sinks finished; from any thread or a signal handler's."""
        self._stop.set()
        threading.Thread(target=self._wake, name="tcmoa-stop", daemon=True).start()

    def close(self) -> None:
        """Stop, finish the sinks and free all but the fuser. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        self._wake()
        if self._output is not None:
            self.stats.record_dropped("consumer", self._output.discard())
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        # Files first, which are waited for: what is queued must be in them. Whoever looks on can look on meanwhile.
        for writer in sorted(self._writers, key=lambda writer: not writer.sink.lossless):
            if not writer.finish(None if writer.sink.lossless else max(1.0, deadline - time.monotonic())):
                self.notes.append(f"{writer.sink.name}: did not close in time and was left")
        if not self._started:
            for source in self._sources.values():
                source.close()
        self.stats.stop_clock()

    @property
    def reuse(self) -> float | None:
        """Grey levels within which a picture is reused, None where each is fused."""
        return None if self._reuse is None else self._reuse.tolerance

    @property
    def sources(self) -> dict[Side, Source]:
        """The opened sources."""
        return dict(self._sources)

    @property
    def format(self) -> StreamFormat:
        """What the sinks get."""
        lead = self._sources[self.pairing.lead]
        height, width = self._size
        base = lead.time_base
        if self.live and base > Fraction(1, 1000):
            base = FINE_TIME_BASE
        order: Literal["rgb", "bgr"] = "bgr" if self.fuser.bundle.channel_order == "bgr" else "rgb"
        return StreamFormat(height, width, order, base, lead.rate, self.live)

    # Starting and stopping

    def _start(self) -> None:
        if self._started or self._closed:
            raise TcmoaError("a stream runs once; make another one")
        self._started = True
        form = self.format
        try:
            for sink in self._sinks:
                if isinstance(sink, Attached):
                    sink.attach(self)
                writer = Writer(sink, form, self.stats, self._sink_failed)
                self._writers.append(writer)
                writer.start()
        except BaseException:
            self._started = False  # no thread of ours has the sources yet
            self.close()
            raise
        target = self._run_live if self.live else self._run_files
        self._threads = target(form)
        for thread in self._threads:
            thread.start()

    def _wake(self) -> None:
        for source in self._sources.values():
            source.close()
        with self._changed:
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        """The first error is what the user hears of; the others follow from it more often than not."""
        if self.error is None:
            self.error = error
        else:
            self.notes.append(str(error))
        self._stop.set()
        self._wake()

    def _sink_failed(self, sink: Sink, error: Exception) -> None:
        others = [w for w in self._writers if w.sink is not sink and w.sink.lossless]
        if sink.lossless and others and self.error is None:
            # The other files are still worth having; the error is told at the end.
            self.error = error
            return
        if sink.lossless or not others:
            self._fail(error)
        else:
            self.notes.append(str(error))

    # Reading

    def _run_files(self, form: StreamFormat) -> list[threading.Thread]:
        queues: dict[Side, BoundedQueue[SourceFrame]] = {"x": BoundedQueue(READ_AHEAD), "y": BoundedQueue(READ_AHEAD)}

        def read(side: Side) -> None:
            for frame in self._read(side):
                if queues[side].put(frame):
                    return
            queues[side].close()

        def fuse() -> None:
            try:
                self._put_out(self._file_pairs(queues), form)
            finally:
                for queue in queues.values():
                    queue.discard()

        return self._make_threads(read, fuse)

    def _file_pairs(self, queues: dict[Side, BoundedQueue[SourceFrame]]) -> Iterator[Pair]:
        lead, partner = self.pairing.lead, other(self.pairing.lead)

        def timed(side: Side, clock: Clock) -> Iterator[Timed]:
            while not self._stop.is_set() and (frame := queues[side].get()) is not None:
                yield Timed(frame, self._tell(side, clock, frame))

        leading = timed(lead, FileClock())
        first = next(leading, None)
        if first is None:
            return
        offset, start = (0.0, None) if self._offset == "timestamps" else (self._offset, first.time)
        yield from every_frame(
            chain([first], leading),
            timed(partner, FileClock(start=start, offset=offset)),
            self.pairing,
            (self._sources[lead].rate, self._sources[partner].rate),
            self.stats,
        )

    def _run_live(self, form: StreamFormat) -> list[threading.Thread]:
        lead, partner = self.pairing.lead, other(self.pairing.lead)
        newest = NewestFrames(
            self.pairing, (self._sources[lead].rate, self._sources[partner].rate), self.stats
        )
        offset = 0.0 if self._offset == "timestamps" else self._offset
        clocks: dict[Side, LiveClock] = {lead: LiveClock(), partner: LiveClock(offset=offset)}

        def read(side: Side) -> None:
            for frame in self._read(side):
                moment = Timed(frame, self._tell(side, clocks[side], frame))
                with self._changed:
                    newest.offer(side, moment, self._clock())
                    self._changed.notify_all()
            with self._changed:
                newest.end(side, died=side in self._died)
                self._changed.notify_all()

        return self._make_threads(read, lambda: self._put_out(self._live_pairs(newest), form))

    def _live_pairs(self, newest: NewestFrames) -> Iterator[Pair]:
        try:
            while not self._stop.is_set():
                with self._changed:
                    choice = newest.pick(self._clock())
                    if isinstance(choice, Wait):
                        left = None if choice.until is None else max(1e-3, choice.until - self._clock())
                        self._changed.wait(left)
                        continue
                if isinstance(choice, End):
                    if choice.lost is not None:
                        self._fail(self._loss(choice.lost, newest.tolerance))
                    return
                yield choice
        finally:
            with self._changed:
                newest.finish()

    def _loss(self, side: Side, limit: float) -> SourceError:
        """Why a live stream ended."""
        died = self._died.get(side)
        if died is not None:
            return died
        name = self._sources[side].name
        return SourceError(
            f"{name}: no frame for {limit:.2g} s, and the stream ends where {side} is lost (--on-loss stop)"
        )

    def _make_threads(self, read: Callable[[Side], None], fuse: Callable[[], None]) -> list[threading.Thread]:
        def guarded(work: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                try:
                    work()
                except Exception as error:  # told to whoever runs the stream
                    self._fail(error)

            return run

        sides: tuple[Side, Side] = ("x", "y")
        readers = [
            threading.Thread(target=guarded(partial(read, side)), name=f"tcmoa-read-{side}", daemon=True)
            for side in sides
        ]
        fusing = threading.Thread(target=guarded(fuse), name="tcmoa-fuse", daemon=True)
        return [*readers, fusing]

    def _read(self, side: Side) -> Iterator[SourceFrame]:
        """Frames of one size from a source until it ends, dies or the stream stops."""
        source = self._sources[side]
        wanted = last = source.size
        try:
            while not self._stop.is_set():
                began = time.perf_counter()
                frame = source.read()
                if frame is None:
                    return
                if not source.live:
                    self.stats.record_duration(f"decode-{side}", time.perf_counter() - began)
                self.stats.record_event(side, "frames")
                size = frame.image.shape[:2]
                if size != last:
                    self.stats.record_event(side, "size_changes")
                    last = size
                if size != wanted:
                    frame = replace(frame, image=resize_frame(frame.image, wanted))
                yield frame
        except SourceError as error:
            if not self._stop.is_set():
                self._died[side] = error
                self.notes.append(str(error))
        finally:
            for what in ("errors", "reconnects"):
                if total := getattr(source, what, 0):
                    self.stats.record_event_total(side, what, total)
            source.close()

    def _tell(self, side: Side, clock: Clock, frame: SourceFrame) -> float:
        before = clock.jumps
        at = clock.time(frame)
        if clock.jumps > before:
            self.stats.record_event(side, "clock_jumps", clock.jumps - before)
        return at

    # Fusing

    def _put_out(self, pairs: Iterable[Pair], form: StreamFormat) -> None:
        """Fuse pairs as they come and hand the result on."""
        clock = _OutputClock(form.time_base, from_zero=self.live)
        try:
            for index, pair in enumerate(pairs):
                if self._stop.is_set():
                    break
                frame = self._fuse(pair, index, clock, form)
                self.stats.record_output(frame, skew=pair.skew)
                for writer in self._writers:
                    writer.put(frame)
                if self._output is not None:
                    self.stats.record_dropped("consumer", self._output.put(frame))
                if self._frames is not None and index + 1 >= self._frames:
                    break
        finally:
            self._stop.set()
            self._wake()
            # A file that breaks off is no whole output; a live source that dies is what policies are for.
            fatal = self._died.get(self.pairing.lead) if not self.live or len(self._died) == 2 else None
            if fatal is not None and self.error is None:
                self.error = fatal
            if self._output is not None:
                self._output.close()

    def _fuse(self, pair: Pair, index: int, clock: _OutputClock, form: StreamFormat) -> FusedFrame:
        x = None if pair.x is None else pair.x.frame
        y = None if pair.y is None else pair.y.frame
        prompt, chosen, reused = None, self._clock(), False
        if pair.status in ("passed-x", "passed-y") or x is None or y is None:
            image = self._passed(x, y, form)
            if self._steady is not None:
                self._steady.reset()
        else:
            values = self.control.values()
            image, prompt, reused = self._fused_or_again(x, y, *values)
            if self._steady is not None:
                began = time.perf_counter()
                if not all(map(np.array_equal, values, self._steered)):
                    self._steady.reset()  # what somebody steers shows at once
                self._steered = values
                # What the picture shows: against newer sources its change, once it comes, would look like flicker.
                shown = (x.image, y.image) if self._reuse is None else self._reuse.sources
                seen = self.fuser.aligned(shown[0], "x"), self.fuser.aligned(shown[1], "y")
                image = self._steady.filter(*seen, image, pair.time)
                self.stats.record_duration("steady", time.perf_counter() - began)
        now = self._clock()
        # A file's frame waits for its turn: that is no latency.
        arrived = max(f.arrived for f in (x, y) if f is not None) if self.live else chosen
        return FusedFrame(
            image=image,
            pts=clock.pts(pair.time),
            time_base=form.time_base,
            index=index,
            status=pair.status,
            x=x,
            y=y,
            age_x=self._age(pair.x, pair.time, now),
            age_y=self._age(pair.y, pair.time, now),
            latency=now - arrived,
            prompt=prompt,
            reused=reused,
        )

    def _fused_or_again(
        self, x: SourceFrame, y: SourceFrame, scale: Value, shift: Value
    ) -> tuple[Frame, Any, bool]:
        """The fused picture, its prompts, and whether both are the last ones again."""
        if self._reuse is not None:
            began = time.perf_counter()
            unchanged = self._reuse.unchanged(x.image, y.image, scale, shift)
            self.stats.record_duration("reuse", time.perf_counter() - began)
            if unchanged:
                return *self._reuse.again(), True
        began = time.perf_counter()
        image, prompt = self._fused(x, y, scale, shift)
        self.stats.record_duration("fuse", time.perf_counter() - began)
        if self._reuse is not None:
            self._reuse.keep(x.image, y.image, scale, shift, image, prompt)
        return image, prompt, False

    def _fused(self, x: SourceFrame, y: SourceFrame, scale: Value, shift: Value) -> tuple[Frame, Any]:
        if not self.fuser.bundle.contract.with_prompt:
            return self.fuser(x.image, y.image, scale=scale, shift=shift), None
        return self.fuser.with_prompt(x.image, y.image, scale=scale, shift=shift)

    def _passed(self, x: SourceFrame | None, y: SourceFrame | None, form: StreamFormat) -> Frame:
        alone, side = (x, "x") if x is not None else (y, "y")
        if alone is None:
            raise TcmoaError("a frame of neither source came out")
        image = self.fuser.aligned(to_frame(alone.image, "frame", 3, order=form.channel_order), side)
        wanted = (form.height, form.width)
        return image if image.shape[:2] == wanted else resize_frame(image, wanted)

    def _age(self, timed: Timed | None, at: float, now: float) -> float | None:
        if timed is None:
            return None
        return now - timed.time if self.live else abs(timed.time - at)

    def _check_sizes(self) -> None:
        height, width = self.fuser.size
        for side, source in self._sources.items():
            if source.size != (height, width) and not self.fuser.resizes:
                raise InputError(
                    f"{source.name}: {side} is {source.size[1]}x{source.size[0]}, this bundle fuses {width}x{height}: "
                    f"resize (--resize, or Fuser.load(..., resize=True)), or export a bundle for that size"
                )
        self._size = self._sources["x"].size if self.fuser.resizes else (height, width)


class _OutputClock:
    """Times in seconds as rising counts of a time base; from 0 where the stream is live."""

    def __init__(self, time_base: Fraction, *, from_zero: bool) -> None:
        self._base, self._from_zero = time_base, from_zero
        self._start: float | None = None
        self._last: int | None = None

    def pts(self, at: float) -> int:
        if self._start is None:
            self._start = at if self._from_zero else 0.0
        pts = round((at - self._start) / float(self._base))
        self._last = pts if self._last is None else max(pts, self._last + 1)
        return self._last


class _Callback:
    """A function as a sink."""

    name, lossless = "on_frame", True

    def __init__(self, function: Callable[[FusedFrame], None]) -> None:
        self._function = function

    def open(self, form: StreamFormat) -> None:
        """Nothing to get ready."""

    def write(self, frame: FusedFrame) -> None:
        """Call the function."""
        self._function(frame)

    def close(self) -> None:
        """Nothing to finish."""


def _opened(x: Source | str | Path, y: Source | str | Path, order: str) -> dict[Side, Source]:
    """Both sources, opened where they are text; a file beside a live source plays at its own pace."""
    given: dict[Side, Source | str | Path] = {"x": x, "y": y}
    opened: dict[Side, Source] = {}
    try:
        for side, source in given.items():
            opened[side] = _open(source, order) if isinstance(source, (str, Path)) else source
        if len({source.live for source in opened.values()}) == 2:
            from tcmoa_runtime.streams.sources.paced import Paced

            for side, source in opened.items():
                if not source.live:
                    opened[side] = Paced(source)
    except BaseException:
        for source in (*opened.values(), *(s for s in given.values() if not isinstance(s, (str, Path)))):
            source.close()
        raise
    return opened


def _open(text: str | Path, order: str) -> Source:
    from tcmoa_runtime.streams.sources import SourceOptions, open_source

    return open_source(str(text), SourceOptions(channel_order="bgr" if order == "bgr" else "rgb"))


def _whole(value: int | None, name: str) -> int | None:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise InputError(f"{name} is {value!r}: expected a whole number, 1 or more")
    return value


def _number(value: Any, name: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not np.isfinite(value):
        raise InputError(f"{name} is {value!r}: expected seconds, or 'timestamps'")
    return float(value)
