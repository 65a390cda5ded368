"""Estimate of the offset between two clocks from the motion in both sources."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.option import check_seconds
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.clock import Clock, FileClock, LiveClock
from tcmoa_runtime.streams.interfaces import Source, SourceError
from tcmoa_runtime.streams.pairing import SIDES
from tcmoa_runtime.streams.sources import open_sources
from tcmoa_runtime.typing import Frame, OnMessage, SourceName

MEASURE_SECONDS: Final = 10.0
"""How long both sources are read."""
SEARCH_SECONDS: Final = 3.0
"""Largest offset that is searched, in either direction."""
MIN_SCORE: Final = 0.6
"""Minimum correlation of the motion of both sources at the offset found."""
MIN_MARGIN: Final = 0.15
"""Minimum difference of that correlation to the correlation at all other offsets."""

_STEP_SECONDS: Final = 0.01
_PEAK_SECONDS: Final = 0.25
"""Offsets that are nearer to the best one belong to its peak."""
_MIN_INTERVALS: Final = 20
_SMALL_SIZE: Final = (64, 48)

_Samples: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OffsetEstimate:
    """Estimated offset of two clocks.

    Attributes:
        offset: Seconds to add to the times of the source that does not lead.
        score: Correlation of the motion at this offset, 0 to 1.
        margin: Difference to the correlation at the next best offset.
    """

    offset: float
    score: float
    margin: float


class Motion:
    """Change from frame to frame of one source, over time."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.values: list[float] = []
        self._last_image: NDArray[np.float32] | None = None
        self._last_time = 0.0

    def add(self, image: Frame, time: float) -> None:
        """Add the next frame, uint8 [H, W] or [H, W, 3], and its time in seconds."""
        import cv2

        gray = image if image.ndim == 2 else image.mean(axis=2).astype(np.float32)
        small = np.asarray(cv2.resize(gray, _SMALL_SIZE, interpolation=cv2.INTER_AREA), np.float32)
        if self._last_image is not None and time > self._last_time:
            # Per second, at the middle of the interval. A change of the brightness of all pixels is not motion.
            change = small - self._last_image
            self.times.append((time + self._last_time) / 2)
            self.values.append(float(np.abs(change - change.mean()).mean()) / (time - self._last_time))
        self._last_image, self._last_time = small, time


def measure_offset(
    x: Source,
    y: Source,
    *,
    lead: SourceName = "x",
    duration: float = MEASURE_SECONDS,
    search: float = SEARCH_SECONDS,
) -> OffsetEstimate:
    """Read both sources and estimate the offset of the one that does not lead.

    Files are taken to start together, as in a stream. The sources are not closed.

    Args:
        x: First source.
        y: Second source.
        lead: Source that leads.
        duration: Seconds that are read.
        search: Largest offset in seconds, in either direction.

    Raises:
        InputError: The motion does not determine the offset.
        SourceError: A source cannot be read.
    """
    check_seconds("duration", duration, minimum=1.0)
    sources: dict[SourceName, Source] = {"x": x, "y": y}
    motions: dict[SourceName, Motion] = {"x": Motion(), "y": Motion()}
    failures: dict[SourceName, SourceError] = {}

    def watch(side: SourceName) -> None:
        clock: Clock = LiveClock() if sources[side].live else FileClock(start=0.0)
        start: float | None = None
        try:
            while (frame := sources[side].read()) is not None:
                time = clock.time(frame)
                start = time if start is None else start
                motions[side].add(frame.image, time)
                if time - start >= duration:
                    return
        except SourceError as error:
            failures[side] = error

    threads = [
        threading.Thread(target=watch, args=(side,), name=f"tcmoa-offset-{side}", daemon=True)
        for side in SIDES
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise next(iter(failures.values()))
    first, second = (motions["x"], motions["y"]) if lead == "x" else (motions["y"], motions["x"])
    return estimate_offset(first, second, search=search)


def measure_offset_of(
    x: Source | str | Path,
    y: Source | str | Path,
    options: StreamOptions,
    on_message: OnMessage | None = None,
) -> OffsetEstimate:
    """Open both sources, measure their offset as `measure_offset` does, and close them.

    Args:
        x: First source.
        y: Second source.
        options: How they are opened, and which of them leads.
        on_message: Takes messages, e.g. `measuring the motion in both sources`, also on another thread.

    Raises:
        InputError: A source can be opened only once, or the motion does not determine the offset.
        SourceError: A source cannot be opened or read.
    """
    if not all(isinstance(source, str | Path) and str(source) != "-" for source in (x, y)):
        for source in (x, y):
            if not isinstance(source, str | Path):
                source.close()  # a stream owns its sources, also where it does not start
        raise _undetermined("auto opens both sources twice, which stdin and opened sources do not allow")
    sources = open_sources(x, y, options, "rgb", on_message)
    try:
        if on_message is not None:
            on_message("measuring the motion in both sources")
        return measure_offset(sources["x"], sources["y"], lead=options.lead)
    finally:
        for source in sources.values():
            source.close()


def estimate_offset(x: Motion, y: Motion, *, search: float = SEARCH_SECONDS) -> OffsetEstimate:
    """Estimate the offset of y to x at which the motion of both correlates best.

    Args:
        x: Motion of the first source.
        y: Motion of the second source.
        search: Largest offset in seconds, in either direction.

    Raises:
        InputError: A source is too short, or no offset stands out.
    """
    for side, motion in (("x", x), ("y", y)):
        span = motion.times[-1] - motion.times[0] if len(motion.times) > 1 else 0.0
        if span < search / 2 or len(motion.times) < _MIN_INTERVALS:
            raise _undetermined(
                f"{side} has {len(motion.times) + 1} frames in {span:.1f} s, too few to measure it"
            )
    grid_x, values_x = _resample(x)
    grid_y, values_y = _resample(y)
    num_steps = round(search / _STEP_SECONDS)
    lags = np.arange(-num_steps, num_steps + 1)
    scores = np.array([_correlate(grid_x, values_x, grid_y + lag * _STEP_SECONDS, values_y) for lag in lags])
    best = int(scores.argmax())
    others = scores[np.abs(lags - lags[best]) > _PEAK_SECONDS / _STEP_SECONDS]
    margin = float(scores[best] - others.max()) if others.size else 0.0
    score = float(scores[best])
    if score < MIN_SCORE or margin < MIN_MARGIN:
        raise _undetermined(
            f"no offset stands out (correlation {max(score, 0):.2f}, {max(margin, 0):.2f} above the next best); "
            f"expected {MIN_SCORE:g} and {MIN_MARGIN:g}, which needs irregular motion that both sources show"
        )
    return OffsetEstimate(float((lags[best] + _peak_shift(scores, best)) * _STEP_SECONDS), score, margin)


def _undetermined(problem: str) -> InputError:
    return InputError(problem, subject="offset", remedy="Give {offset} in seconds.", settings={"offset": ...})


def _resample(motion: Motion) -> tuple[_Samples, _Samples]:
    """Return times and values at equal steps; outliers, e.g. of a recalibration, are clipped."""
    times, values = np.array(motion.times), np.array(motion.values)
    values = np.minimum(
        values, np.median(values) + 4 * (np.percentile(values, 75) - np.percentile(values, 25)) + 1e-9
    )
    grid = (
        np.arange(np.ceil(times[0] / _STEP_SECONDS), np.floor(times[-1] / _STEP_SECONDS) + 1) * _STEP_SECONDS
    )
    return grid, np.interp(grid, times, values)


def _correlate(grid_x: _Samples, values_x: _Samples, grid_y: _Samples, values_y: _Samples) -> float:
    """Return the correlation coefficient where both grids overlap, -1 where they overlap too little."""
    begin, end = max(grid_x[0], grid_y[0]), min(grid_x[-1], grid_y[-1])
    if end - begin < 0.4 * min(np.ptp(grid_x), np.ptp(grid_y)):
        return -1.0
    count = int((end - begin) / _STEP_SECONDS)
    start_x, start_y = round((begin - grid_x[0]) / _STEP_SECONDS), round((begin - grid_y[0]) / _STEP_SECONDS)
    a, b = values_x[start_x : start_x + count], values_y[start_y : start_y + count]
    shared = min(len(a), len(b))
    a, b = a[:shared] - a[:shared].mean(), b[:shared] - b[:shared].mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / norm) if norm > 0 else -1.0


def _peak_shift(scores: _Samples, best: int) -> float:
    """Return where a parabola through the peak has its maximum, in steps from `best`."""
    if not 0 < best < len(scores) - 1:
        return 0.0
    before, at, after = scores[best - 1 : best + 2]
    curvature = before - 2 * at + after
    return 0.0 if curvature >= 0 else float(np.clip((before - after) / (2 * curvature), -0.5, 0.5))
