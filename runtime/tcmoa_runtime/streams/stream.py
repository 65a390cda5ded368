"""Public interface of a stream: two sources, a fuser and sinks, run on threads of their own."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, runtime_checkable

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import format_size
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.bounded_queue import BoundedQueue
from tcmoa_runtime.streams.control import StreamControl
from tcmoa_runtime.streams.fusing import PairFuser
from tcmoa_runtime.streams.interfaces import (
    FusedFrame,
    IncompleteSourceError,
    Sink,
    SinkClosedError,
    SinkError,
    Source,
    SourceError,
    StreamFormat,
    has_shared_clock,
    outputs_of,
)
from tcmoa_runtime.streams.offset import OffsetEstimate, measure_offset_of
from tcmoa_runtime.streams.output_locks import OutputLocks, check_not_locked
from tcmoa_runtime.streams.outputs import CallbackSink, Outputs
from tcmoa_runtime.streams.overwriting import check_outputs, path_of_source
from tcmoa_runtime.streams.pairing import other
from tcmoa_runtime.streams.reading import READ_AHEAD, FilePairer, LivePairer, Pairer, SourceReader
from tcmoa_runtime.streams.sources import open_sources, pair_by_name
from tcmoa_runtime.streams.stats import Stats
from tcmoa_runtime.typing import OnMessage, SourceName

FINE_TIME_BASE: Final = Fraction(1, 90_000)
"""Time base of live outputs whose leading source has a coarse one; that of MPEG and RTP."""
CLOSE_SECONDS: Final = 15.0
"""How long closing waits for sources and sinks; threads that take longer are left running."""

_log = get_logger("streams")


_running: Final[weakref.WeakSet[Stream]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close the streams that are still open when the interpreter exits.

    Their threads would otherwise return from native code into an interpreter that is gone, which aborts the process.
    """
    for stream in list(_running):
        stream.close()


@runtime_checkable
class AttachableSink(Protocol):
    """A sink that uses its stream, e.g. to control it."""

    def attach(self, stream: Stream) -> None:
        """Receive the stream; called once, before `open`."""
        ...


class Stream:
    """Two sources that are paired by time and fused into one stream of frames.

        with Stream(fuser, "x.mp4", "y.mp4") as stream:
            for frame in stream:
                show(frame.image)

    Sources are read, frames fused and sinks written on threads of their own, with short queues in between. From files,
    every frame of the leading source is emitted, in order. Of live sources the newest frames win, and the others are
    dropped and counted. A stream is started once, by iterating over it or by `run`.

    Attributes:
        fuser: The loaded bundle.
        options: The options; an offset of `auto` is replaced by the measured one.
        offset_estimate: The measured offset, None if it was given.
        control: Alpha and beta while the stream runs.
        stats: Statistics of the stream.
        error: What ended the stream early, None otherwise.
        notes: Errors that did not end the stream; they are logged, too.
        failed_outputs: Errors of the outputs that failed, by name; the first of them is `error`, too.
        live: Whether a source is live.
        has_begun: Whether the outputs were opened, at least one of them, and the sources are read.
    """

    def __init__(
        self,
        fuser: Fuser,
        x: Source | str | Path,
        y: Source | str | Path,
        options: StreamOptions | None = None,
        *,
        sinks: Sequence[Sink] = (),
        on_frame: Callable[[FusedFrame], None] | None = None,
        control: StreamControl | None = None,
        stats: Stats | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_message: OnMessage | None = None,
        locks: OutputLocks | None = None,
    ) -> None:
        """Open the sources and check that everything fits together.

        Args:
            fuser: The loaded bundle; it stays open when the stream is closed.
            x: First source: opened, or a path or URL as `sources.open_source` takes it.
            y: Second source.
            options: How sources are opened, paired and fused.
            sinks: Where frames are written. The stream closes sources and sinks.
            on_frame: Called with each frame, on its own thread.
            control: Alpha and beta while the stream runs; made with `options.ramp` by default.
            stats: Where statistics are recorded.
            clock: Returns the time in seconds.
            on_message: Takes messages while sources are opened, e.g. `opening rtsp://camera/live`, also on another
                thread.
            locks: Outputs that the caller has locked, e.g. for all streams of a pair; the stream locks the others.

        Raises:
            InputError: A source or an option is wrong, or a sink would overwrite a source or the bundle.
            OutputLockedError: Another stream writes the output of a sink.
            MissingError: A package that a source needs is not installed.
        """
        options = options or StreamOptions()
        bundle = fuser.bundle
        try:
            _check_extremes(bundle, options)
        except InputError:
            _close_opened((x, y))
            raise
        self.fuser = fuser
        self.stats = stats or Stats()
        self.offset_estimate: OffsetEstimate | None = None
        self._sinks = [*sinks, *([] if on_frame is None else [CallbackSink(on_frame)])]
        self._held, self._locks = locks, OutputLocks(held=locks)
        self._check_outputs({"x": x, "y": y}, self._sinks)
        if options.offset == "auto":
            self.offset_estimate = measure_offset_of(x, y, options, on_message)
            options = replace(options, offset=round(self.offset_estimate.offset, 4))
        self.options = options
        self.error: Exception | None = None
        self.notes: list[str] = []
        self.failed_outputs: dict[str, Exception] = {}
        self._clock = clock
        self._locations = {"x": x, "y": y}
        self._sources = open_sources(x, y, options, bundle.channel_order, on_message)
        self.live = any(source.live for source in self._sources.values())
        try:
            self._check_sizes()
            if options.images_by == "name":
                pair_by_name(self._sources["x"], self._sources["y"])
        except BaseException:
            for source in self._sources.values():
                source.close()
            raise
        size = fuser.size if fuser.fit == "resize" else self._sources["x"].size
        self.control = control or StreamControl(
            fuser.grid_of(size),
            size=size,
            token_px=bundle.map_token,
            default=bundle.default_prompt if bundle.has_prompt else (1.0, 0.0),
            ramp=options.ramp,
            has_prompt=bundle.has_prompt,
        )
        self._outputs = Outputs(self.stats, self._handle_output_failure)
        self._pairer = self._make_pairer()
        self._reader = SourceReader(
            self._sources,
            self._pairer,
            self.stats,
            on_source_error=self._add_note,
            on_error=self._fail,
        )
        self._fusing = threading.Thread(target=self._fuse_pairs, name="tcmoa-fuse", daemon=True)
        self._is_started = self._is_closed = self.has_begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[FusedFrame]:
        """Start the stream and yield its frames; of a live stream, the newest one at each step.

        Raises:
            Exception: What ended the stream early.
        """
        queue: BoundedQueue[FusedFrame] = BoundedQueue(1 if self.live else READ_AHEAD, newest_wins=self.live)
        self._outputs.add_queue(queue)
        self._start()
        try:
            while (frame := queue.get()) is not None:
                yield frame
        finally:
            self.close()
        if self.error is not None:
            raise self.error

    def run(self) -> Stats:
        """Start the stream, write every frame to the sinks, and return the statistics at the end.

        The stream goes on while any of its outputs works.

        Raises:
            Exception: What ended the stream early, or the first error of an output, after the sinks are closed.
        """
        self._start()
        try:
            while self._fusing.is_alive():
                self._fusing.join(0.1)  # in steps, so that signals reach the main thread
        finally:
            self.close()
        if self.error is not None:
            raise self.error
        return self.stats

    def add_sink(self, sink: Sink) -> None:
        """Add a sink; before the stream is started."""
        if self._is_started or self._is_closed:
            raise TcmoaError("sinks can be added only before a stream is started")
        self._check_outputs(self._locations, [*self._sinks, sink])
        self._sinks.append(sink)

    @property
    def sinks(self) -> list[Sink]:
        """The sinks, without `on_frame`."""
        return [sink for sink in self._sinks if not isinstance(sink, CallbackSink)]

    @property
    def sources(self) -> dict[SourceName, Source]:
        """The opened sources."""
        return dict(self._sources)

    @property
    def format(self) -> StreamFormat:
        """What the sinks receive."""
        lead = self._sources[self.options.lead]
        height, width = self._sources["x"].size
        is_coarse = self.live and lead.time_base > Fraction(1, 1000)
        return StreamFormat(
            height,
            width,
            self.fuser.bundle.channel_order,
            FINE_TIME_BASE if is_coarse else lead.time_base,
            lead.rate,
            self.live,
            Fraction(getattr(self._sources["x"], "sample_aspect_ratio", 1)),
        )

    def stop(self) -> None:
        """End the stream after the frame in work, with complete files; from any thread or signal handler."""
        self._reader.request_stop()
        # On another thread: a signal handler may have interrupted the owner of a lock that stopping takes.
        threading.Thread(target=self._reader.stop, name="tcmoa-stop", daemon=True).start()

    def close(self) -> None:
        """Stop, complete the files and free all resources; may be called twice. The fuser stays open."""
        if self._is_closed:
            return
        self._is_closed = True
        self._reader.stop()
        self._outputs.discard_queue()
        deadline = time.monotonic() + CLOSE_SECONDS
        self._reader.join(deadline)
        if self._fusing.ident is not None:
            self._fusing.join(max(0.0, deadline - time.monotonic()))
        for sink in self._outputs.finish(deadline):
            late = SinkError(f"did not close in {CLOSE_SECONDS:g} s", subject=sink.name)
            self._handle_output_failure(sink, late, True)
        self._locks.close()
        self.stats.stop_clock()
        _running.discard(self)
        if self._is_started:
            self._log_end()

    def _start(self) -> None:
        if self._is_started or self._is_closed:
            raise TcmoaError("a stream runs once", remedy="Create another one.")
        self._is_started = True
        _running.add(self)
        bundle = self.fuser.bundle
        if bundle.contract.stretches and not self.options.hold_extremes:
            _log.warning(
                "%s stretches each picture by its own minimum and maximum, which flickers in videos; the option "
                "hold_extremes smooths them over time",
                bundle.preset,
                extra={"event": "flicker"},
            )
        try:
            self._locks.add(_outputs_of(self._sinks))
            for sink in self._sinks:
                if isinstance(sink, AttachableSink):
                    sink.attach(self)
            self._outputs.open(self._sinks, self.format)
            self._check_any_output()
        except BaseException as error:
            if isinstance(error, Exception) and self.error is None:
                self.error = error
            self.close()
            raise
        self.has_begun = True
        self._log_start()
        self._reader.start()
        self._fusing.start()

    def _log_start(self) -> None:
        x, y = (source.name for source in self._sources.values())
        _log.info(
            "stream of %s and %s started, %s",
            x,
            y,
            "live" if self.live else "from files",
            extra={"event": "stream-started", "x": x, "y": y, "live": self.live},
        )

    def _log_end(self) -> None:
        found = self.stats.snapshot()
        _log.info(
            "stream ended after %d frames in %.1f s%s",
            found["frames"],
            found["seconds"],
            "" if self.error is None else f": {_describe(self.error)}",
            extra={
                "event": "stream-ended",
                "frames": found["frames"],
                "dropped": sum(found["dropped"].values()),
            },
        )

    def _check_any_output(self) -> None:
        """Raise the first error of the outputs if none of them could be opened."""
        if self.error is not None and not self._outputs.is_any_left:
            raise self.error

    def _make_pairer(self) -> Pairer:
        lead, partner = self._sources[self.options.lead], self._sources[other(self.options.lead)]
        rates = lead.rate, partner.rate
        if not self.live:
            is_shared = has_shared_clock(lead) and has_shared_clock(partner)
            return FilePairer(self.options, rates, self.stats, has_shared_clock=is_shared)
        names = {side: source.name for side, source in self._sources.items()}
        return LivePairer(self.options, rates, self.stats, names, self._clock)

    def _fuse_pairs(self) -> None:
        """Fuse and emit all pairs, on the fusing thread."""
        try:
            self._emit_frames()
        except Exception as error:  # raised by `run` or the iterator
            self._fail(error)
        finally:
            self._reader.stop()
            fatal = self._fatal_source_error()
            if fatal is not None and self.error is None:
                self.error = fatal
            self._outputs.end_queue()

    def _emit_frames(self) -> None:
        pair_fuser = PairFuser(self.fuser, self.control, self.options, self.format, self.stats, self._clock)
        status = "fused"
        with contextlib.closing(self._pairer.pairs()) as pairs:
            for index, pair in enumerate(pairs):
                if self._reader.is_stopping:
                    return
                if pair.status != status:
                    _log.info(
                        "frames from %.3f s are %s",
                        pair.time,
                        pair.status,
                        extra={"event": "status-changed", "status": pair.status},
                    )
                    status = pair.status
                frame = pair_fuser.fuse(pair, index)
                self.stats.record_output(frame, skew=pair.skew)
                self._outputs.emit(frame)
                if index + 1 == self.options.frames:
                    return

    def _fatal_source_error(self) -> SourceError | None:
        """Return the error of a source after which the output is incomplete.

        A file that breaks off makes an incomplete output, also where the loss policy fills the gap. A live source is
        expected to fail: the loss policy covers one, but not two.
        """
        failures = self._reader.failures
        if self.live and len(failures) < 2:
            return next((e for e in failures.values() if isinstance(e, IncompleteSourceError)), None)
        return failures.get(self.options.lead) or next(iter(failures.values()), None)

    def _fail(self, error: Exception) -> None:
        """Keep the first error and note the others, which mostly follow from it; stop the stream."""
        if self.error is None:
            self.error = error
        else:
            self._add_note(error)
        self._reader.stop()

    def _handle_output_failure(self, sink: Sink, error: Exception, others_go_on: bool) -> None:
        """Keep the error of an output for the end of the stream, which ends now if it was the last one."""
        if isinstance(error, SinkClosedError):
            self._add_note(error)
        else:
            self.failed_outputs[sink.name] = error
            if self.error is not None:
                self._add_note(error)
            else:
                self.error = error
                if others_go_on:
                    _log.warning(
                        "%s; the other outputs go on",
                        _describe(error),
                        extra={"event": "output-failed", "output": sink.name},
                    )
        if not others_go_on:
            self._reader.stop()

    def _add_note(self, error: Exception) -> None:
        note = _describe(error)
        self.notes.append(note)
        _log.warning("%s", note, extra={"event": "stream-note"})

    def _check_outputs(self, locations: Mapping[str, Source | str | Path], sinks: Sequence[Sink]) -> None:
        """Refuse sinks that would overwrite a source or the bundle, or write what another stream writes."""
        try:
            inputs = {f"source {side}": path_of_source(source) for side, source in locations.items()}
            check_outputs(sinks, {**inputs, "bundle": self.fuser.bundle.path})
            check_not_locked(_outputs_of(sinks), held=self._held)  # early: sources may take long to open
        except BaseException:
            _close_opened(locations.values())
            raise

    def _check_sizes(self) -> None:
        """Refuse sources of another size than the bundle's, unless the fuser was loaded with a fit for them."""
        if self.fuser.fit in ("exact", "auto"):
            for side, source in self._sources.items():
                if source.size != self.fuser.size:
                    arrived = format_size(source.size)
                    fits = "tile, pad or resize" if self.fuser.bundle.can_tile else "resize"
                    raise InputError(
                        f"{side} is {arrived}; expected {format_size(self.fuser.size)}, the size of this bundle",
                        subject=source.name,
                        remedy=f"Set {{fit}} to {fits}, or export a bundle for {arrived}",
                        settings={"fit": ...},
                    )
        self.fuser.check_sizes(self._sources["x"].size, self._sources["y"].size)


def _check_extremes(bundle: Bundle, options: StreamOptions) -> None:
    """Refuse to hold extremes that the network does not have."""
    if options.hold_extremes and not bundle.contract.stretches:
        raise InputError(
            f"{options.hold_extremes:g} s, but this network stretches no picture by its own extremes; expected 0",
            subject="hold_extremes",
            remedy="Leave it out",
        )


def _close_opened(sources: Iterable[Source | str | Path]) -> None:
    """Close the sources that are opened already, as a stream owns them also where it does not start."""
    for source in sources:
        if not isinstance(source, str | Path):
            source.close()


def _outputs_of(sinks: Sequence[Sink]) -> list[str | Path]:
    return [output for sink in sinks for output in outputs_of(sink)]


def _describe(error: Exception) -> str:
    return error.render_problem() if isinstance(error, TcmoaError) else str(error)
