"""The stream of one pair: it is opened, runs, and is opened again after a pause when it has failed."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tcmoa_runtime.errors import TcmoaError, first_line
from tcmoa_runtime.fleet.backoff import FIRST_PAUSE_S, Backoff
from tcmoa_runtime.fleet.file import Pair
from tcmoa_runtime.fleet.recovery import recover_files
from tcmoa_runtime.fleet.report import NodeInfo, PairReport, PairState
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.location import path_of, redact, redact_text, scheme_of
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, SourceError
from tcmoa_runtime.streams.output_locks import OutputLockedError, OutputLocks
from tcmoa_runtime.streams.setup import StreamSetup
from tcmoa_runtime.streams.stats import StatsSnapshot
from tcmoa_runtime.streams.stream import Stream
from tcmoa_runtime.web.address import Address

if TYPE_CHECKING:
    from tcmoa_runtime.streams.page.sink import Page

STALL_S: Final = 5.0
"""A stream without a frame for this long, or for ten times the interval of its frames, is stalled."""
STOP_S: Final = 25.0
"""How long a stream may take to complete its files; those of slow disks take longer."""

_log = get_logger("fleet")


class PairRunner:
    """Runs the stream of a pair on a thread of its own until it is stopped."""

    def __init__(
        self,
        pair: Pair,
        bundle: Callable[[], Path],
        node: NodeInfo,
        *,
        role: str = "",
        digest: str | None = None,
        first_pause: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the thread.

        Args:
            pair: The pair.
            bundle: Returns the folder of its bundle on this node.
            node: Where this runs.
            role: What this process is for others that have the same output, e.g. `pair gate of fleet yard`.
            digest: What identifies the work; the pair's own digest if None.
            first_pause: Seconds before the first start.
            clock: Returns the time in seconds.
        """
        self._pair, self._bundle, self._node, self._clock = pair, bundle, node, clock
        self._digest = pair.digest if digest is None else digest
        self._first_pause = first_pause
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._locks, self._has_locks = OutputLocks(role), False
        self._backoff = Backoff()
        self._thread = threading.Thread(target=self._run, name=f"tcmoa-pair-{pair.name}", daemon=True)
        self._born = clock()
        self._state: PairState = "starting"
        self._state_at = self._born
        self._retry_at: float | None = None
        self._message: str | None = None
        self._error: str | None = None
        self._start_count = 0
        self._outs: list[str] = [redact(out) for out in pair.setup.outs]
        self._stream: Stream | None = None
        self._fuser: Fuser | None = None
        self._page: Page | None = None
        self._page_port, self._page_token = 0, pair.options.token
        self._frame: FusedFrame | None = None
        self._frame_at = -math.inf
        self._opened_at: float | None = None
        self._jpeg: tuple[int, int, bytes | None] = (-1, -1, None)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float | None = STOP_S) -> bool:
        """End the stream with complete files; returns whether it has ended within the timeout."""
        self._stopping.set()
        with self._lock:
            stream = None if self._opened_at is None else self._stream
        if stream is not None:
            self._set_state("stopping")
            stream.stop()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def picture(self, width: int) -> bytes | None:
        """Return the newest fused frame as a JPEG of at most `width` pixels; None before the first one."""
        from tcmoa_runtime.streams.page.encoding import encode_jpeg, round_width

        with self._lock:
            frame, fuser = self._frame, self._fuser
        if frame is None or fuser is None:
            return None
        width = round_width(width)
        index, of_width, jpeg = self._jpeg
        if (index, of_width) != (frame.index, width):
            jpeg = encode_jpeg(frame, "fused", width, fuser.bundle.channel_order)
            self._jpeg = frame.index, width, jpeg
        return jpeg

    def report(self) -> PairReport:
        """Return what is known of the stream."""
        with self._lock:
            now, stream, frame = self._clock(), self._stream, self._frame
            stats = None if stream is None else stream.stats.snapshot()
            frame_s = None if frame is None else now - self._frame_at
            state, message = self._state, self._message
            if state in ("running", "starting") and self._opened_at is not None:
                silence = now - self._opened_at if frame_s is None else frame_s
                if _is_stalled(stats, silence):
                    state, message = "stalled", f"no frame for {silence:.0f} s"
            size = None if stream is None else stream.format
            return {
                "name": self._pair.name,
                "digest": self._digest,
                "state": state,
                "state_s": round(now - self._state_at, 3),
                "message": message,
                "error": self._error,
                "retry_s": None if self._retry_at is None else round(max(0.0, self._retry_at - now), 3),
                "start_count": self._start_count,
                "process_s": round(now - self._born, 3),
                "pid": os.getpid(),
                "node": self._node,
                "page": self._page_url(),
                "x": redact(self._pair.setup.x),
                "y": redact(self._pair.setup.y),
                "outs": list(self._outs),
                "live": None if stream is None else stream.live,
                "size": None if size is None else [size.width, size.height],
                "frame_s": None if frame_s is None else round(frame_s, 3),
                "age_ms": _age_ms(frame) if stream is not None and stream.live else None,
                "stats": stats,
                "supervisor": None,
                "is_fleet_stopping": False,
            }

    def _run(self) -> None:
        """Run the stream again and again, on the thread."""
        try:
            pause: float | None = self._first_pause
            if pause:
                self._error = "its process has died several times in the last minutes"
            while pause is not None and not self._pause(pause):
                pause = self._run_once()
        except Exception as error:  # an internal error: shown rather than lost with the thread
            _log.exception("%s failed", self._pair.name)
            self._error = f"internal error: {type(error).__name__}: {first_line(error)}"
            self._set_state("failed")
        finally:
            if self._fuser is not None:
                self._fuser.close()
            # A pair that is removed before it has started has no later process that would do it.
            with contextlib.suppress(OutputLockedError):
                self._lock_outputs()
            self._locks.close()
            if self._stopping.is_set():
                self._set_state("ended")

    def _pause(self, seconds: float) -> bool:
        """Wait before a start; returns whether the pair was stopped."""
        if seconds > 0:
            self._set_state("waiting", retry_at=self._clock() + seconds)
        return self._stopping.wait(seconds)

    def _run_once(self) -> float | None:
        """Run the stream once; returns the pause before the next start, None if there is none."""
        restart = self._pair.options.restart
        began = self._clock()
        try:
            is_complete = self._run_stream()
        except Exception as error:
            if not isinstance(error, TcmoaError):
                _log.warning("%s failed", self._pair.name, exc_info=error)
                self._close_fuser()  # a backend may be broken
            self._error = _describe(error)
            _log.warning("%s: %s", self._pair.name, self._error)
            is_complete = False
        if self._stopping.is_set():
            return None
        if is_complete and restart == "always":
            return FIRST_PAUSE_S
        if is_complete:
            self._set_state("ended")
            return None
        if restart == "never":
            self._set_state("failed")
            return None
        return self._backoff.pause_after(self._clock() - began)

    def _run_stream(self) -> bool:
        """Open the stream and run it to its end; returns whether it has ended because its files have.

        Raises:
            Exception: What ended it early.
        """
        self._start_count += 1
        self._set_state("starting")
        self._lock_outputs()
        self._message = "loading the bundle"
        setup = replace(self._pair.setup.started_at(datetime.now(UTC)), bundle=self._bundle())
        _make_folders(setup)
        self._outs = [redact(out) for out in setup.outs]
        sinks = setup.open_sinks()
        if self._fuser is None:
            self._fuser = setup.load_fuser()
        fuser = self._fuser
        prompt = setup.read_prompt(fuser)
        with contextlib.ExitStack() as stack:
            page = self._open_page()
            if page is not None:
                sinks.append(stack.enter_context(contextlib.closing(page)))
            stream = stack.enter_context(
                contextlib.closing(
                    setup.open_stream(fuser, sinks, prompt, self._set_message, locks=self._locks)
                )
            )
            stack.callback(self._end)
            if self._stopping.is_set():
                return False
            self._begin(stream, page)
            if self._stopping.is_set():  # `stop` may have looked for the stream before it was there
                stream.stop()
            for frame in stream:
                self._keep(frame)
                if stream.failed_outputs:  # the others may go on, but a fleet is to write all of them
                    break
            for error in stream.failed_outputs.values():
                raise error
        frames = setup.stream.frames
        if not stream.live or (frames is not None and stream.stats.snapshot()["frames"] >= frames):
            return True
        if not self._stopping.is_set():
            raise SourceError("the sources have ended", subject=self._pair.name)
        return False

    def _lock_outputs(self) -> None:
        """Lock the outputs for the life of this process, and name the files that earlier ones have left.

        Raises:
            OutputLockedError: Another stream writes one of them.
        """
        if not self._has_locks:
            self._locks.add(self._pair.setup.all_outs)
            self._has_locks = True
        recover_files(self._pair.setup.outs)

    def _begin(self, stream: Stream, page: Page | None) -> None:
        with self._lock:
            self._stream, self._page, self._message = stream, page, "waiting for the first frame"
            self._frame, self._opened_at = None, self._clock()

    def _keep(self, frame: FusedFrame) -> None:
        with self._lock:
            is_first = self._frame is None
            self._frame, self._frame_at, self._error = frame, self._clock(), None
        if is_first and not self._stopping.is_set():
            self._set_state("running")

    def _set_state(self, state: PairState, retry_at: float | None = None) -> None:
        with self._lock:
            self._state, self._state_at, self._retry_at = state, self._clock(), retry_at
            if state != "starting":
                self._message = None

    def _set_message(self, text: str) -> None:
        with self._lock:
            self._message = redact_text(text)

    def _end(self) -> None:
        with self._lock:
            self._page = self._opened_at = None

    def _open_page(self) -> Page | None:
        """Open the live page, on the port and with the token that it had before, so that browsers find it again."""
        address = self._pair.options.page_address
        if address is None:
            return None
        from tcmoa_runtime.streams.page.sink import Page

        before = replace(address, port=address.port or self._page_port)
        try:
            page = Page(str(before), token=self._page_token)
        except SinkError:  # another program has taken the port meanwhile
            if before == address:
                raise
            page = Page(str(address), token=self._page_token)
        self._page_port, self._page_token = page.port, page.token
        return page

    def _page_url(self) -> str | None:
        """Return the URL of the live page, by the address of this node where it listens on all of them."""
        address = self._pair.options.page_address
        if self._page is None or address is None:
            return None
        host = self._node["ip"] if address.host in ("0.0.0.0", "::") else address.host
        shown = Address(host, self._page.port)
        return f"http://{shown}/" + (f"?token={self._page.token}" if self._page.token else "")

    def _close_fuser(self) -> None:
        with self._lock:
            fuser, self._fuser = self._fuser, None
        if fuser is not None:
            with contextlib.suppress(Exception):  # the error before says more
                fuser.close()


def _is_stalled(stats: StatsSnapshot | None, silence: float) -> bool:
    rate = None if stats is None else stats["rate"]
    return silence > (max(STALL_S, 10 / rate) if rate else STALL_S)


def _age_ms(frame: FusedFrame | None) -> float | None:
    ages = [] if frame is None else [age for age in (frame.age_x, frame.age_y) if age is not None]
    return round(max(ages) * 1000, 1) if ages else None


def _describe(error: Exception) -> str:
    if isinstance(error, TcmoaError):
        return redact_text(" ".join(str(error).split()))
    return redact_text(f"{type(error).__name__}: {first_line(error)}")


def _make_folders(setup: StreamSetup) -> None:
    """Create the folder of each output, if the folder above it is there; its sink reports what is missing else."""
    outs = [path_of(out) for out in setup.all_outs if scheme_of(out) in ("", "file")]
    for path in outs:
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
