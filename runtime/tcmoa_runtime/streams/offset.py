"""The offset between two clocks, from the pictures: what moves for one camera moves for the other."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.streams.clock import Clock, FileClock, LiveClock
from tcmoa_runtime.streams.interfaces import Side, Source, SourceError, seconds
from tcmoa_runtime.typing import Frame

MEASURE_SECONDS: Final = 10.0
"""How much of both sources is looked at."""
SEARCH_SECONDS: Final = 3.0
"""The largest offset that is looked for."""
LEAST_SCORE: Final = 0.6
"""Least correlation of both activities at the offset found."""
LEAST_LEAD: Final = 0.15
"""By how much it must stand above every other offset that is not beside it."""

_STEP = 0.01
_BESIDE = 0.25
_SMALL = (64, 48)


@dataclass(frozen=True, slots=True)
class OffsetEstimate:
    """`offset`: seconds to add to the times of y; `score`: correlation there, 0 to 1; `lead`: above the next best."""

    offset: float
    score: float
    lead: float


class Activity:
    """How much changes from frame to frame of one source, over time."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.values: list[float] = []
        self._before: NDArray[np.float32] | None = None
        self._at = 0.0

    def add(self, image: Frame, at: float) -> None:
        """The next frame, uint8 [H, W] or [H, W, 3], and its time in seconds."""
        import cv2

        grey = image if image.ndim == 2 else image.mean(axis=2).astype(np.float32)
        small = np.asarray(cv2.resize(grey, _SMALL, interpolation=cv2.INTER_AREA), np.float32)
        if self._before is not None and at > self._at:
            # Between the two frames, a second; a change of the whole picture's brightness is no motion.
            change = small - self._before
            self.times.append((at + self._at) / 2)
            self.values.append(float(np.abs(change - change.mean()).mean()) / (at - self._at))
        self._before, self._at = small, at


def estimate_offset(x: Activity, y: Activity, *, search: float = SEARCH_SECONDS) -> OffsetEstimate:
    """The offset of y to x at which both activities correlate best, within `search` seconds either way.

    Raises InputError where too little is known of one, or moves, or where no offset stands out.
    """
    for side, activity in (("x", x), ("y", y)):
        span = activity.times[-1] - activity.times[0] if len(activity.times) > 1 else 0.0
        if span < search / 2 or len(activity.times) < 20:
            raise InputError(
                f"offset: {side} gave {len(activity.times) + 1} frames in {span:.1f} s, too few to estimate it; "
                f"give --offset in seconds"
            )
    grid_x, values_x = _even(x)
    grid_y, values_y = _even(y)
    lags = np.arange(-round(search / _STEP), round(search / _STEP) + 1)
    scores = np.array([_correlation(grid_x, values_x, grid_y + lag * _STEP, values_y) for lag in lags])
    best = int(scores.argmax())
    aside = scores[np.abs(lags - lags[best]) > _BESIDE / _STEP]
    lead = float(scores[best] - aside.max()) if aside.size else 0.0
    estimate = OffsetEstimate(float((lags[best] + _refined(scores, best)) * _STEP), float(scores[best]), lead)
    if estimate.score < LEAST_SCORE or estimate.lead < LEAST_LEAD:
        raise InputError(
            f"offset: nothing stands out (correlation {max(estimate.score, 0):.2f}, {max(lead, 0):.2f} above the next "
            f"best; {LEAST_SCORE:g} and {LEAST_LEAD:g} are needed): too little moves in both; give --offset in seconds"
        )
    return estimate


def measure_offset(
    x: Source, y: Source, *, lead: Side = "x", lasts: float = MEASURE_SECONDS, search: float = SEARCH_SECONDS
) -> OffsetEstimate:
    """Read `lasts` seconds of both sources and estimate the offset of the one that does not lead.

    Files are taken to begin together, as a stream takes them. The sources are not closed. Raises InputError.
    """
    seconds(lasts, "lasts", least=1.0)
    sources: dict[Side, Source] = {"x": x, "y": y}
    activities: dict[Side, Activity] = {"x": Activity(), "y": Activity()}
    failed: dict[Side, Exception] = {}

    def watch(side: Side) -> None:
        clock: Clock = LiveClock() if sources[side].live else FileClock(start=0.0)
        began: float | None = None
        try:
            while (frame := sources[side].read()) is not None:
                at = clock.time(frame)
                began = at if began is None else began
                activities[side].add(frame.image, at)
                if at - began >= lasts:
                    return
        except SourceError as error:
            failed[side] = error

    sides: tuple[Side, Side] = ("x", "y")
    threads = [
        threading.Thread(target=watch, args=(s,), name=f"tcmoa-offset-{s}", daemon=True) for s in sides
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise next(iter(failed.values()))
    first, second = (activities["x"], activities["y"]) if lead == "x" else (activities["y"], activities["x"])
    return estimate_offset(first, second, search=search)


def _even(activity: Activity) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The activity at even steps; outliers, as a recalibration is one, are cut."""
    times, values = np.array(activity.times), np.array(activity.values)
    values = np.minimum(
        values, np.median(values) + 4 * (np.percentile(values, 75) - np.percentile(values, 25)) + 1e-9
    )
    grid = np.arange(np.ceil(times[0] / _STEP), np.floor(times[-1] / _STEP) + 1) * _STEP
    return grid, np.interp(grid, times, values)


def _correlation(
    grid_x: NDArray[Any], values_x: NDArray[Any], grid_y: NDArray[Any], values_y: NDArray[Any]
) -> float:
    begin, end = max(grid_x[0], grid_y[0]), min(grid_x[-1], grid_y[-1])
    if end - begin < 0.4 * min(np.ptp(grid_x), np.ptp(grid_y)):
        return -1.0
    count = int((end - begin) / _STEP)
    start_x, start_y = round((begin - grid_x[0]) / _STEP), round((begin - grid_y[0]) / _STEP)
    a, b = values_x[start_x : start_x + count], values_y[start_y : start_y + count]
    shared = min(len(a), len(b))
    a, b = a[:shared] - a[:shared].mean(), b[:shared] - b[:shared].mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / norm) if norm > 0 else -1.0


def _refined(scores: NDArray[Any], best: int) -> float:
    """Where between the steps a parabola through the peak has its top, in steps."""
    if not 0 < best < len(scores) - 1:
        return 0.0
    before, at, after = scores[best - 1 : best + 2]
    curve = before - 2 * at + after
    return 0.0 if curve >= 0 else float(np.clip((before - after) / (2 * curve), -0.5, 0.5))
