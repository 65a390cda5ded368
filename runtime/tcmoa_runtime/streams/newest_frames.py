"""Pairing of live sources: the newest frame with the nearest partner that has arrived.

`NewestFrames` is a state machine without threads or clocks of its own, so that hours can be simulated.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.event_log import LossLog
from tcmoa_runtime.streams.pairing import (
    SIDES,
    Intervals,
    Pair,
    Rates,
    TimedFrame,
    make_pair,
    nearest,
    other,
    pair_without_partner,
)
from tcmoa_runtime.streams.stats import Stats
from tcmoa_runtime.typing import SourceName

MAX_KEPT_FRAMES: Final = 8
"""Frames of a live source that are kept as possible partners."""
JITTER: Final = 0.25
"""Share of its interval by which a partner may arrive early and so be nearer than expected."""
START_SECONDS: Final = 5.0
"""How long the first frame of one live source waits for the other source: cameras take seconds to start."""


@dataclass(frozen=True, slots=True)
class Wait:
    """No output before the next frame arrives, or before `until` (common clock, seconds)."""

    until: float | None = None


@dataclass(frozen=True, slots=True)
class End:
    """No output any more; `lost` is the source whose loss ended the stream, None if the leading source ended."""

    lost: SourceName | None = None


class NewestFrames:
    """Pairing of live sources: frames are offered as they arrive, and `pick` returns what to emit now.

    Keeps `MAX_KEPT_FRAMES` frames of each source. Not thread-safe: the caller locks. All times are on one clock.
    """

    def __init__(self, options: StreamOptions, rates: Rates, stats: Stats) -> None:
        """Create the state machine; `rates` of the leading source and of the other one."""
        self._options, self._stats = options, stats
        self._lead: SourceName = options.lead
        self._partner = other(options.lead)
        self._kept: dict[SourceName, deque[TimedFrame]] = {
            side: deque(maxlen=MAX_KEPT_FRAMES) for side in SIDES
        }
        self._last_used: dict[SourceName, int] = dict.fromkeys(SIDES, -1)
        self._emitted: dict[SourceName, set[int]] = {side: set() for side in SIDES}
        self._unpaired: dict[SourceName, set[int]] = {side: set() for side in SIDES}
        self._first_arrival: dict[SourceName, float] = {}
        self._last_arrival: dict[SourceName, float] = {}
        self._ended: dict[SourceName, bool] = {}
        self._lost: set[SourceName] = set()
        self._loss_log = LossLog()
        self._last_output = -math.inf
        self._waiting: TimedFrame | None = None
        self._to_review: deque[tuple[float, float]] = deque(maxlen=64)
        self._intervals = Intervals(rates)

    def offer(self, side: SourceName, frame: TimedFrame, now: float) -> None:
        """Add a frame that has arrived."""
        kept = self._kept[side]
        if len(kept) == MAX_KEPT_FRAMES:
            self._remove_oldest(side)
        kept.append(frame)
        self._first_arrival.setdefault(side, now)
        self._last_arrival[side] = now
        self._lost.discard(side)
        self._loss_log.record_found(side)
        if side == self._lead:
            self._intervals.add_lead(frame.time)
        else:
            self._intervals.add_partner(frame.time)
            self._review_choices(frame.time)

    def end(self, side: SourceName, *, failed: bool) -> None:
        """Announce that a source gives no more frames, because it ended or because it failed."""
        self._ended[side] = failed

    def finish(self) -> None:
        """Count the frames that remain unused; after the last `pick`."""
        for side in SIDES:
            while self._kept[side]:
                self._remove_oldest(side)

    def pick(self, now: float) -> Pair | Wait | End:
        """Return what to emit now; each pair is returned once."""
        lead, partner, limit = self._lead, self._partner, self.tolerance
        newest = self._unused(lead)
        if newest is not None:
            return self._with_lead(newest, now, limit)
        if self._ended.get(lead) is False:
            return End()
        if self._is_lost(lead, now, limit):
            return self._without_lead(now)
        if (
            self._options.on_loss == "stop"
            and partner in self._last_arrival
            and self._is_lost(partner, now, limit)
        ):
            return End(partner)
        return Wait(self._loss_time(lead, limit))

    @property
    def tolerance(self) -> float:
        """Current tolerance in seconds: a partner farther away in time counts as lost."""
        given = self._options.tolerance
        return self._intervals.tolerance() if given is None else given

    def _unused(self, side: SourceName) -> TimedFrame | None:
        """Return the newest frame, None if it was used."""
        kept = self._kept[side]
        return kept[-1] if kept and kept[-1].frame.index > self._last_used[side] else None

    def _with_lead(self, newest: TimedFrame, now: float, limit: float) -> Pair | Wait | End:
        frame = newest if self._waiting is None else self._waiting
        kept = self._kept[self._partner]
        if not kept and self._partner not in self._ended and self._options.on_loss != "pass":
            # A source that takes a moment longer to start is not lost.
            until = self._first_arrival[self._lead] + max(limit, START_SECONDS)
            if now < until:
                return Wait(until)
        best = nearest(kept, frame)
        if best is not None and self._is_worth_waiting(frame, best, now):
            self._waiting = frame
            return Wait(frame.frame.arrived + self._options.wait)
        self._waiting = None
        if best is not None and abs(best.time - frame.time) <= limit:
            self._to_review.append((frame.time, abs(best.time - frame.time)))
            return self._emit(make_pair("fused", self._lead, frame, best))
        self._record_loss(self._partner, now)
        if self._options.on_loss == "stop":
            return End(self._partner)
        pair = pair_without_partner(self._options, self._lead, frame, kept[-1] if kept else None)
        return self._drop(self._lead, frame) if pair is None else self._emit(pair)

    def _is_worth_waiting(self, frame: TimedFrame, best: TimedFrame, now: float) -> bool:
        """Whether the partner's next frame is due within `wait` and nearer in time than `best`."""
        interval = self._intervals.partner_interval()
        newest = self._kept[self._partner][-1]
        if interval is None or self._partner in self._ended or newest.time >= frame.time:
            return False
        is_nearer = abs(newest.time + interval - frame.time) < abs(best.time - frame.time) + JITTER * interval
        return is_nearer and now < frame.frame.arrived + self._options.wait

    def _without_lead(self, now: float) -> Pair | Wait | End:
        self._record_loss(self._lead, now)
        if self._options.on_loss == "stop":
            return End(self._lead)
        frame = self._unused(self._partner)
        if frame is None:
            return End(self._lead) if self._partner in self._ended and self._lead in self._ended else Wait()
        if frame.time <= self._last_output:  # it arrived before the loss was known; the last output is newer
            return self._drop(self._partner, frame)
        kept = self._kept[self._lead]
        pair = pair_without_partner(self._options, self._partner, frame, kept[-1] if kept else None)
        return self._drop(self._partner, frame) if pair is None else self._emit(pair)

    def _is_lost(self, side: SourceName, now: float, limit: float) -> bool:
        at = self._loss_time(side, limit)
        return side in self._ended or (at is not None and now > at)

    def _loss_time(self, side: SourceName, limit: float) -> float | None:
        """Return when a silent source counts as lost; None before either source has started."""
        if side in self._last_arrival:
            return self._last_arrival[side] + limit
        # It has not started: the time counts from the start of the other one.
        started = self._first_arrival.get(other(side))
        return None if started is None else started + max(limit, START_SECONDS)

    def _record_loss(self, side: SourceName, now: float) -> None:
        if side not in self._lost:
            self._lost.add(side)
            self._stats.record_event(side, "losses")
        self._loss_log.record_lost(side, now)

    def _drop(self, side: SourceName, frame: TimedFrame) -> Wait:
        """Skip a frame that the loss policy does not emit; a later frame may still be fused with it."""
        self._last_used[side] = frame.frame.index
        self._unpaired[side].add(frame.frame.index)
        return Wait()

    def _emit(self, pair: Pair) -> Pair:
        self._last_output = max(self._last_output, pair.time)
        inputs: tuple[tuple[SourceName, TimedFrame | None], ...] = (("x", pair.x), ("y", pair.y))
        for side, timed in inputs:
            if timed is not None:
                self._last_used[side] = max(self._last_used[side], timed.frame.index)
                self._emitted[side].add(timed.frame.index)
        return pair

    def _remove_oldest(self, side: SourceName) -> None:
        """Remove the oldest kept frame, and count it as dropped if no output used it."""
        index = self._kept[side].popleft().frame.index
        if index not in self._emitted[side]:
            unpaired = index in self._unpaired[side]
            self._stats.record_dropped(f"{side}-without-partner" if unpaired else f"{side}-superseded")
        self._emitted[side].discard(index)
        self._unpaired[side].discard(index)

    def _review_choices(self, time: float) -> None:
        """Record whether the chosen partners were the nearest, now that the partner's next frame is known."""
        while self._to_review:
            lead_time, distance = self._to_review.popleft()
            self._stats.record_partner(is_nearest=abs(time - lead_time) >= distance)
