"""Fusing the pairs of a stream: prompts, reuse of unchanged frames, and the flicker filter."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import resize_frame, to_frame
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.control import PromptValue, StreamControl, is_same
from tcmoa_runtime.streams.deflicker import FlickerFilter
from tcmoa_runtime.streams.extremes import ExtremesFilter
from tcmoa_runtime.streams.interfaces import FusedFrame, SourceFrame, StreamFormat
from tcmoa_runtime.streams.pairing import Pair, TimedFrame
from tcmoa_runtime.streams.reuse import ReuseCache
from tcmoa_runtime.streams.stats import Stats
from tcmoa_runtime.typing import Frame, SourceName

Prompt: TypeAlias = NDArray[np.float32] | None
"""Prompts after Eq. 8, float32 [K, 2, gh, gw]; None if the bundle does not output them."""


_Control: TypeAlias = tuple[PromptValue, PromptValue] | tuple[None, None]
"""Alpha and beta; None for both if the network has no prompt."""


class PairFuser:
    """Fuses the pairs of one stream, in order; not thread-safe."""

    def __init__(
        self,
        fuser: Fuser,
        control: StreamControl,
        options: StreamOptions,
        stream_format: StreamFormat,
        stats: Stats,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare for a stream.

        Args:
            fuser: The loaded bundle.
            control: Alpha and beta while the stream runs.
            options: `reuse`, `deflicker` and `hold_extremes`.
            stream_format: Format of the output.
            stats: Where durations are recorded.
            clock: Returns the time in seconds.
        """
        self._fuser, self._control, self._format = fuser, control, stream_format
        self._stats, self._clock = stats, clock
        order = fuser.bundle.channel_order
        self._cache = None if options.reuse is None else ReuseCache(options.reuse)
        self._filter = FlickerFilter(options.deflicker, order) if options.deflicker else None
        self._extremes = ExtremesFilter(options.hold_extremes) if options.hold_extremes else None
        self._last_prompt: _Control = fuser.bundle.default_prompt if fuser.bundle.has_prompt else (None, None)
        self._output_clock = OutputClock(stream_format.time_base, from_zero=stream_format.live)

    def fuse(self, pair: Pair, index: int) -> FusedFrame:
        """Fuse a pair, or pass its only frame; `index` counts the outputs from 0."""
        x = None if pair.x is None else pair.x.frame
        y = None if pair.y is None else pair.y.frame
        start = self._clock()
        prompt, reused = None, False
        if pair.status in ("passed-x", "passed-y") or x is None or y is None:
            image = self._pass(x, y)
            if self._filter is not None:
                self._filter.reset()
        else:
            values = self._control.prompt()
            image, prompt, reused = self._fuse_or_reuse(x.image, y.image, values, pair.time)
            if self._filter is not None:
                image = self._remove_flicker(self._filter, x.image, y.image, image, pair.time, values)
        now = self._clock()
        # A frame of a file waits until it is needed; that is not latency.
        arrived = max(f.arrived for f in (x, y) if f is not None) if self._format.live else start
        return FusedFrame(
            image=image,
            pts=self._output_clock.pts(pair.time),
            time_base=self._format.time_base,
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

    def _fuse_or_reuse(self, x: Frame, y: Frame, control: _Control, at: float) -> tuple[Frame, Prompt, bool]:
        """Return the fused image, its prompts, and whether both are the last ones."""
        scale, shift = control
        if self._cache is not None:
            start = time.perf_counter()
            is_valid = self._cache.is_valid(x, y, scale, shift)
            self._stats.record_duration("reuse", time.perf_counter() - start)
            if is_valid:
                return *self._cache.result(), True
        start = time.perf_counter()
        image, prompt = self._run_model(x, y, control, at)
        self._stats.record_duration("fuse", time.perf_counter() - start)
        if self._cache is not None:
            self._cache.store(x, y, scale, shift, image, prompt)
        return image, prompt, False

    def _run_model(self, x: Frame, y: Frame, control: _Control, at: float) -> tuple[Frame, Prompt]:
        scale, shift = control
        if self._extremes is not None:
            image, own = self._fuser.with_extremes(x, y, self._extremes.held_at(at))
            self._extremes.add(own, at)
            return image, None
        if not self._fuser.bundle.contract.with_prompt:
            return self._fuser(x, y, scale=scale, shift=shift), None
        return self._fuser.with_prompt(x, y, scale=scale, shift=shift)

    def _remove_flicker(
        self,
        flicker_filter: FlickerFilter,
        x: Frame,
        y: Frame,
        image: Frame,
        at: float,
        prompt: _Control,
    ) -> Frame:
        start = time.perf_counter()
        if not all(map(is_same, prompt, self._last_prompt)):
            flicker_filter.reset()  # a change of the prompt shows at once
        self._last_prompt = prompt
        if self._cache is not None:
            # The sources of the reused image: compared with newer ones, its next change would look like flicker.
            x, y = self._cache.sources
        aligned = self._fuser.aligned(x, "x"), self._fuser.aligned(y, "y")
        image = flicker_filter.filter(*aligned, image, at)
        self._stats.record_duration("deflicker", time.perf_counter() - start)
        return image

    def _pass(self, x: SourceFrame | None, y: SourceFrame | None) -> Frame:
        """Return the only frame of a pair as an output, uint8 [H, W, 3]."""
        side: SourceName = "y" if x is None else "x"
        frame = y if x is None else x
        if frame is None:
            raise TcmoaError("a pair without frames")
        color = to_frame(frame.image, side, 3, order=self._format.channel_order)
        image = self._fuser.aligned(color, side)
        size = self._format.height, self._format.width
        return image if image.shape[:2] == size else resize_frame(image, size)

    def _age(self, timed: TimedFrame | None, at: float, now: float) -> float | None:
        if timed is None:
            return None
        return now - timed.time if self._format.live else abs(timed.time - at)


class OutputClock:
    """Converts seconds to strictly increasing presentation times."""

    def __init__(self, time_base: Fraction, *, from_zero: bool) -> None:
        """Create a clock; `from_zero` subtracts the first time from all."""
        self._base, self._from_zero = time_base, from_zero
        self._start: float | None = None
        self._last: int | None = None

    def pts(self, time: float) -> int:
        """Return the presentation time in units of the time base."""
        if self._start is None:
            self._start = time if self._from_zero else 0.0
        pts = round((time - self._start) / float(self._base))
        self._last = pts if self._last is None else max(pts, self._last + 1)
        return self._last
