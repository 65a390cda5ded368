"""Which frame of x goes with which frame of y: by time, and by policy where one of them is lost.

Two ways, for two kinds of sources. From files every frame of the leading source comes out, with the partner nearest
in time (`every_frame`). From live sources the newest frame comes out, with the nearest partner that has arrived
(`NewestFrames`): a state machine without threads or clocks of its own, so that hours of it can be simulated.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, get_args

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.streams.interfaces import Side, SourceFrame, Status, seconds
from tcmoa_runtime.streams.stats import Stats

OnLoss = Literal["hold", "pass", "pass-x", "pass-y", "stop"]

KEPT: Final = 8
"""Frames of a live source that are kept to choose a partner from."""
UNKNOWN_SECONDS: Final = 0.3
"""The least tolerance while a rate is not known yet: that of a camera of 5 frames a second."""
JITTER: Final = 0.25
"""Share of its interval by which a partner may come sooner than expected, and so be the nearer one after all."""
START_SECONDS: Final = 5.0
"""How long the first frame of one live source waits for the first one of the other: cameras take a while to start."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """How frames are paired.

    `lead` is the source whose frames set the pace. `tolerance`: a partner farther away in time, in seconds, is lost
    (None: one and a half frame intervals of the slower source, and 20 ms). `on_loss`, while a source is lost:

    - hold: its last frame is fused again for `hold` seconds, then the other passes alone;
    - pass: the other passes alone, not fused; pass-x, pass-y: that one does, and nothing comes while it is lost;
    - stop: the stream ends.

    `wait`: how long a live frame may wait for a partner that is due and nearer in time, in seconds.
    """

    lead: Side = "x"
    tolerance: float | None = None
    on_loss: OnLoss = "hold"
    hold: float = 2.0
    wait: float = 0.0

    def __post_init__(self) -> None:
        if self.lead not in get_args(Side):
            raise InputError(f"lead is {self.lead!r}: expected x or y")
        if self.on_loss not in get_args(OnLoss):
            raise InputError(f"on-loss is {self.on_loss!r}: expected {', '.join(get_args(OnLoss))}")
        if self.tolerance is not None:
            seconds(self.tolerance, "tolerance")
        seconds(self.hold, "hold")
        seconds(self.wait, "wait")


@dataclass(frozen=True, slots=True)
class Timed:
    """A frame of a source and its time on the common clock, in seconds."""

    frame: SourceFrame
    time: float


@dataclass(frozen=True, slots=True)
class Pair:
    """What one output is made of: `status` says whether both are fused or one passes; `time` is the leading one's."""

    status: Status
    time: float
    x: Timed | None
    y: Timed | None

    @property
    def skew(self) -> float | None:
        """Seconds from x to y; None where one is missing."""
        return None if self.x is None or self.y is None else self.y.time - self.x.time


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to put out before `until` (common clock, seconds) or the next frame."""

    until: float | None = None


@dataclass(frozen=True, slots=True)
class End:
    """Nothing comes any more; `lost` names the source whose loss ended it, None where both just ended."""

    lost: Side | None = None


def other(side: Side) -> Side:
    """The other source."""
    return "y" if side == "x" else "x"


def _pair(status: Status, lead: Side, time: float, leading: Timed | None, partner: Timed | None) -> Pair:
    x, y = (leading, partner) if lead == "x" else (partner, leading)
    return Pair(status, time, x, y)


def _held(side: Side) -> Status:
    return "held-x" if side == "x" else "held-y"


def _passed(side: Side) -> Status:
    return "passed-x" if side == "x" else "passed-y"


def tolerance_of(*intervals: float) -> float:
    """The tolerance for sources of these frame intervals, in seconds."""
    return 1.5 * max(intervals) + 0.02


def _substitute(pairing: Pairing, alive: Side, frame: Timed, lost: Timed | None) -> Pair | None:
    """What comes out for `frame` while the other source is lost, and `lost` its last frame; None: nothing."""
    if pairing.on_loss == "hold" and lost is not None and frame.time - lost.time <= pairing.hold:
        return _pair(_held(other(alive)), alive, frame.time, frame, lost)
    if pairing.on_loss in ("hold", "pass", f"pass-{alive}"):
        return _pair(_passed(alive), alive, frame.time, frame, None)
    return None


def every_frame(
    lead: Iterator[Timed],
    partner: Iterator[Timed],
    pairing: Pairing,
    rates: tuple[Fraction | None, Fraction | None],
    stats: Stats,
) -> Iterator[Pair]:
    """Every frame of `lead` with the nearest of `partner`, as `pairing` says; `rates` of the two where known.

    Ends with `lead`. Partners that were nearest to none are counted as `y-superseded` (or x-).
    """
    side = other(pairing.lead)
    before: Timed | None = None
    after = next(partner, None)
    shown: set[int] = set()
    interval = _Interval(rates)
    for frame in lead:
        interval.lead(frame.time)
        while after is not None and after.time < frame.time:
            interval.partner(after.time)
            if before is not None:
                if before.frame.index not in shown:
                    stats.record_dropped(f"{side}-superseded")
                shown.discard(before.frame.index)
            before, after = after, next(partner, None)
        near = [candidate for candidate in (before, after) if candidate is not None]
        best = min(near, key=lambda c: abs(c.time - frame.time), default=None)
        limit = pairing.tolerance if pairing.tolerance is not None else interval.tolerance()
        if best is not None and abs(best.time - frame.time) <= limit:
            shown.add(best.frame.index)
            stats.record_partner(is_nearest=True)
            yield _pair("fused", pairing.lead, frame.time, frame, best)
        else:
            if pairing.on_loss == "stop" and before is not None:
                break
            pair = _substitute(pairing, pairing.lead, frame, before)
            if pair is None:
                stats.record_dropped(f"{pairing.lead}-without-partner")
                continue
            if pair.status == _held(side) and before is not None:
                shown.add(before.frame.index)
            yield pair
    left = [candidate for candidate in (before, after) if candidate is not None]
    stats.record_dropped(f"{side}-superseded", sum(candidate.frame.index not in shown for candidate in left))


class _Interval:
    """Frame intervals of both sources: by their rates where known, else measured."""

    def __init__(self, rates: tuple[Fraction | None, Fraction | None]) -> None:
        self._known = [None if rate is None or rate <= 0 else float(1 / rate) for rate in rates]
        self._steps: tuple[deque[float], deque[float]] = (deque(maxlen=31), deque(maxlen=31))
        self._last: list[float | None] = [None, None]

    def lead(self, time: float) -> None:
        self._add(0, time)

    def partner(self, time: float) -> None:
        self._add(1, time)

    def _add(self, place: int, time: float) -> None:
        last = self._last[place]
        if last is not None:
            self._steps[place].append(time - last)
        self._last[place] = time

    def of(self, place: int) -> float | None:
        """Seconds from frame to frame; as measured once there are enough, since a rate may be a mere promise."""
        steps = self._steps[place]
        enough = 8 if self._known[place] is not None else 2
        return statistics.median(steps) if len(steps) >= enough else self._known[place]

    def tolerance(self) -> float:
        """Seconds beyond which a partner is lost."""
        known = [interval for interval in (self.of(0), self.of(1)) if interval is not None]
        found = tolerance_of(*known) if known else 0.0
        return found if len(known) == 2 else max(found, UNKNOWN_SECONDS)


class NewestFrames:
    """Pairing of live sources: frames are offered as they come, and `pick` says what to put out now.

    Keeps `KEPT` frames of each. Not safe for several threads: its user locks. All times are on one clock.
    """

    def __init__(
        self, pairing: Pairing, rates: tuple[Fraction | None, Fraction | None], stats: Stats
    ) -> None:
        """`rates` of the leading source and of its partner where known."""
        self._pairing, self._stats = pairing, stats
        self._lead: Side = pairing.lead
        self._partner = other(pairing.lead)
        self._kept: dict[Side, deque[Timed]] = {"x": deque(maxlen=KEPT), "y": deque(maxlen=KEPT)}
        self._used: dict[Side, int] = {"x": -1, "y": -1}
        self._shown: dict[Side, set[int]] = {"x": set(), "y": set()}
        self._unpaired: dict[Side, set[int]] = {"x": set(), "y": set()}
        self._first: dict[Side, float] = {}
        self._newest: dict[Side, float] = {}
        self._ended: dict[Side, bool] = {}
        self._lost: set[Side] = set()
        self._out = -math.inf
        self._waiting: Timed | None = None
        self._unjudged: deque[tuple[float, float]] = deque(maxlen=64)
        self._interval = _Interval(rates)

    def offer(self, side: Side, frame: Timed, now: float) -> None:
        """A frame has come."""
        kept = self._kept[side]
        if len(kept) == KEPT:
            self._forget(side)
        kept.append(frame)
        self._first.setdefault(side, now)
        self._newest[side] = now
        self._lost.discard(side)
        if side == self._lead:
            self._interval.lead(frame.time)
        else:
            self._interval.partner(frame.time)
            self._judge(frame.time)

    def end(self, side: Side, *, died: bool) -> None:
        """No frame will come of it any more: it ended by itself, or it died."""
        self._ended[side] = died

    def finish(self) -> None:
        """Count what is left and was not used; after the last `pick`."""
        sides: tuple[Side, Side] = ("x", "y")
        for side in sides:
            while self._kept[side]:
                self._forget(side)

    def pick(self, now: float) -> Pair | Wait | End:
        """What to put out now; a pair is given once and counts as put out."""
        lead, partner, limit = self._lead, self._partner, self.tolerance
        fresh = self._fresh(lead)
        if fresh is not None:
            return self._with_lead(fresh, now, limit)
        if self._ended.get(lead) is False:
            return End()
        if self._is_lost(lead, now, limit):
            return self._without_lead()
        if self._pairing.on_loss == "stop" and partner in self._newest and self._is_lost(partner, now, limit):
            return End(partner)
        return Wait(self._lost_at(lead, limit))

    @property
    def tolerance(self) -> float:
        """Seconds beyond which a partner is lost, now."""
        given = self._pairing.tolerance
        return self._interval.tolerance() if given is None else given

    def _fresh(self, side: Side) -> Timed | None:
        """The newest frame, unless it was put out."""
        kept = self._kept[side]
        return kept[-1] if kept and kept[-1].frame.index > self._used[side] else None

    def _with_lead(self, newest: Timed, now: float, limit: float) -> Pair | Wait | End:
        frame = newest if self._waiting is None else self._waiting
        kept = self._kept[self._partner]
        if not kept and self._partner not in self._ended and self._pairing.on_loss != "pass":
            # At the start: a source that takes a moment longer to come is no lost one.
            until = self._first[self._lead] + max(limit, START_SECONDS)
            if now < until:
                return Wait(until)
        best = min(kept, key=lambda candidate: abs(candidate.time - frame.time), default=None)
        if best is not None and self._worth_waiting(frame, best, now):
            self._waiting = frame
            return Wait(frame.frame.arrived + self._pairing.wait)
        self._waiting = None
        if best is not None and abs(best.time - frame.time) <= limit:
            self._unjudged.append((frame.time, abs(best.time - frame.time)))
            return self._put(_pair("fused", self._lead, frame.time, frame, best))
        self._note_loss(self._partner)
        if self._pairing.on_loss == "stop":
            return End(self._partner)
        pair = _substitute(self._pairing, self._lead, frame, kept[-1] if kept else None)
        return self._let_go(self._lead, frame) if pair is None else self._put(pair)

    def _worth_waiting(self, frame: Timed, best: Timed, now: float) -> bool:
        """Whether the partner's next frame is due within `wait` and nearer in time than `best`."""
        interval = self._interval.of(1)
        newest = self._kept[self._partner][-1]
        if interval is None or self._partner in self._ended or newest.time >= frame.time:
            return False
        nearer = abs(newest.time + interval - frame.time) < abs(best.time - frame.time) + JITTER * interval
        return nearer and now < frame.frame.arrived + self._pairing.wait

    def _without_lead(self) -> Pair | Wait | End:
        self._note_loss(self._lead)
        if self._pairing.on_loss == "stop":
            return End(self._lead)
        frame = self._fresh(self._partner)
        if frame is None:
            return End(self._lead) if self._partner in self._ended and self._lead in self._ended else Wait()
        if frame.time <= self._out:  # it came before the loss was known, and what is out already is newer
            return self._let_go(self._partner, frame)
        kept = self._kept[self._lead]
        pair = _substitute(self._pairing, self._partner, frame, kept[-1] if kept else None)
        return self._let_go(self._partner, frame) if pair is None else self._put(pair)

    def _is_lost(self, side: Side, now: float, limit: float) -> bool:
        at = self._lost_at(side, limit)
        return side in self._ended or (at is not None and now > at)

    def _lost_at(self, side: Side, limit: float) -> float | None:
        """When a source that stays silent is lost; None before either has begun."""
        if side in self._newest:
            return self._newest[side] + limit
        # It has not begun: counting starts with the other one.
        began = self._first.get(other(side))
        return None if began is None else began + max(limit, START_SECONDS)

    def _note_loss(self, side: Side) -> None:
        if side not in self._lost:
            self._lost.add(side)
            self._stats.record_event(side, "losses")

    def _let_go(self, side: Side, frame: Timed) -> Wait:
        """A frame that no policy shows; it may still become a partner of one to come."""
        self._used[side] = frame.frame.index
        self._unpaired[side].add(frame.frame.index)
        return Wait()

    def _put(self, pair: Pair) -> Pair:
        self._out = max(self._out, pair.time)
        sides: tuple[tuple[Side, Timed | None], ...] = (("x", pair.x), ("y", pair.y))
        for side, timed in sides:
            if timed is not None:
                self._used[side] = max(self._used[side], timed.frame.index)
                self._shown[side].add(timed.frame.index)
        return pair

    def _forget(self, side: Side) -> None:
        """Take the oldest frame kept away, and count it where it was in no output."""
        index = self._kept[side].popleft().frame.index
        unpaired = index in self._unpaired[side]
        if index not in self._shown[side]:
            self._stats.record_dropped(f"{side}-without-partner" if unpaired else f"{side}-superseded")
        self._shown[side].discard(index)
        self._unpaired[side].discard(index)

    def _judge(self, time: float) -> None:
        """Now that the partner's next frame is known: were those chosen the nearest?"""
        while self._unjudged:
            wanted, distance = self._unjudged.popleft()
            self._stats.record_partner(is_nearest=abs(time - wanted) >= distance)
