"""Pairing: against ground truth, by the loss policies, and over long simulated times."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_pieces import source_frame
from tcmoa_runtime import InputError
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.newest_frames import MAX_KEPT_FRAMES, End, NewestFrames, Wait
from tcmoa_runtime.streams.pairing import Pair, TimedFrame, every_frame, tolerance_for
from tcmoa_runtime.streams.stats import Stats


def timed(times):
    return [TimedFrame(source_frame(i, round(t * 1000)), t) for i, t in enumerate(times)]


def paired(leading, partner, **options):
    stats = Stats()
    pairs = list(
        every_frame(iter(timed(leading)), iter(timed(partner)), StreamOptions(**options), (None, None), stats)
    )
    return pairs, stats.snapshot()


def at_rate(rate, seconds, *, start=0.0, jitter=0.0, seed=0):
    times = start + np.arange(round(seconds * rate)) / rate
    return np.sort(times + np.random.default_rng(seed).uniform(-jitter, jitter, len(times)))


# Files: every frame, with the nearest


@pytest.mark.parametrize("rates", [(30, 30), (30, 9), (9, 30), (25, 30), (30, 25), (60, 9)])
def test_every_leading_frame_is_paired_with_the_nearest_partner(rates):
    lead = at_rate(rates[0], 20, jitter=0.008, seed=1)
    partner = at_rate(rates[1], 20, start=-0.02, jitter=0.008, seed=2)
    pairs, stats = paired(lead, partner)
    assert [p.x.frame.index for p in pairs] == list(range(len(lead)))
    assert {p.status for p in pairs} == {"fused"}
    nearest = [np.abs(partner - t).min() for t in lead]
    np.testing.assert_allclose([abs(p.skew) for p in pairs], nearest, atol=1e-12)
    assert stats["partner"] == {"nearest": len(lead), "other": 0}


def test_unused_partners_are_counted_as_superseded():
    pairs, stats = paired(at_rate(10, 3), at_rate(30, 3))
    used = {p.y.frame.index for p in pairs}
    between = [i for i in range(max(used)) if i not in used]
    assert stats["dropped"] == {"y-superseded": len(between)}


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=40, unique=True),
    st.lists(st.floats(0, 10), max_size=40, unique=True),
    st.sampled_from(["hold", "pass", "pass-x"]),
)
def test_no_leading_frame_is_ever_lost(lead, partner, on_loss):
    lead, partner = sorted(lead), sorted(partner)
    pairs, _ = paired(lead, partner, on_loss=on_loss, tolerance=0.5)
    assert [p.time for p in pairs] == lead
    for pair in pairs:
        near = [t for t in partner if abs(t - pair.time) <= 0.5]
        assert (pair.status == "fused") == bool(near)
        if near:
            assert abs(pair.skew) == min(abs(t - pair.time) for t in near)


def test_a_partner_that_ends_is_held_for_a_while():
    pairs, _ = paired(at_rate(10, 6), at_rate(10, 2), hold=1.0)
    assert [p.status for p in pairs] == (
        # the last partner, at 1.9 s, is near enough for 0.17 s (one and a half intervals and 20 ms) ...
        ["fused"] * 21
        # ... and held until it is a second old
        + ["held-y"] * 9
        + ["passed-x"] * 30
    )
    assert pairs[25].y.frame.index == 19
    assert pairs[-1].y is None


def test_a_partner_that_begins_late_lets_the_leading_source_pass():
    pairs, _ = paired(at_rate(10, 2), at_rate(10, 1, start=1.0))
    assert pairs[0].status == "passed-x"
    assert [p.status for p in pairs[10:]] == ["fused"] * 10


def test_policies_without_a_partner():
    lead, partner = at_rate(10, 2), at_rate(10, 1)
    statuses = {
        on_loss: [p.status for p in paired(lead, partner, on_loss=on_loss)[0][12:]]
        for on_loss in ("pass", "pass-x", "pass-y", "stop")
    }
    assert statuses == {"pass": ["passed-x"] * 8, "pass-x": ["passed-x"] * 8, "pass-y": [], "stop": []}


def test_y_may_lead():
    pairs, _ = paired(at_rate(9, 2), at_rate(30, 2), lead="y")
    assert [p.y.frame.index for p in pairs] == list(range(18))
    assert pairs[-1].x is not None


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"lead": "z"}, "lead: 'z'; expected one of x, y"),
        ({"on_loss": "panic"}, "hold, pass, pass-x, pass-y, stop"),
        ({"tolerance": -1}, "tolerance"),
        ({"hold": float("nan")}, "hold"),
        ({"wait": "long"}, "wait"),
    ],
)
def test_wrong_options_are_refused(options, word):
    with pytest.raises(InputError, match=word):
        StreamOptions(**options)


# Live: the newest wins


class Simulation:
    """Live sources and a backend in simulated time.

    `arrivals` are (time of arrival, side, time of capture); the backend takes `seconds` a pair and the next choice
    is made when it is done.
    """

    def __init__(self, arrivals, seconds, *, rates=(None, None), ends=(), **options):
        self.stats = Stats()
        self.newest = NewestFrames(StreamOptions(**options), rates, self.stats)
        self.outputs = []  # (time of choice, Pair)
        self.end = None
        self.largest = 0
        events = sorted([*arrivals, *((at, side, None) for at, side in ends)], key=lambda event: event[0])
        count = {"x": 0, "y": 0}
        self.arrived = count
        try:
            self._run(events, count, seconds)
        finally:
            self.newest.finish()

    def _run(self, events, count, seconds):
        now, place = 0.0, 0
        while True:
            while place < len(events) and events[place][0] <= now:
                at, side, captured = events[place]
                place += 1
                if captured is None:
                    self.newest.end(side, failed=True)
                    continue
                frame = source_frame(count[side], round(captured * 1000), arrived=at)
                self.newest.offer(side, TimedFrame(frame, captured), at)
                count[side] += 1
            self.largest = max(self.largest, *(len(kept) for kept in self.newest._kept.values()))
            choice = self.newest.pick(now)
            if isinstance(choice, Pair):
                self.outputs.append((now, choice))
                now += seconds
                continue
            if isinstance(choice, End):
                self.end = choice
                return
            assert isinstance(choice, Wait)
            following = [events[place][0]] if place < len(events) else []
            if choice.until is not None:
                following.append(max(choice.until, now) + 1e-6)
            if not following or place >= len(events):
                return
            now = max(now, min(following))

    def statuses(self):
        """Statuses in order, each run of equal ones once."""
        seen = [pair.status for _, pair in self.outputs]
        return [s for i, s in enumerate(seen) if i == 0 or s != seen[i - 1]]


def camera(side, rate, seconds, *, delay=0.01, start=0.0, jitter=0.0, seed=0, missing=()):
    """Arrivals of a camera; `missing` are spans of time in which nothing is captured."""
    rng = np.random.default_rng(seed)
    captured = at_rate(rate, seconds, start=start, jitter=jitter, seed=seed)
    arrived = np.maximum.accumulate(captured + delay + rng.uniform(0, jitter, len(captured)))
    return [
        (a, side, c)
        for a, c in zip(arrived, captured, strict=True)
        if not any(begin <= c < end for begin, end in missing)
    ]


def test_ten_minutes_behind_a_slow_backend_are_never_stale():
    """60 Hz in, a backend of 45 ms: at output the newest input is younger than two backend times, always."""
    backend = 0.045
    arrivals = camera("x", 60, 600, jitter=0.002) + camera("y", 60, 600, start=0.004, jitter=0.002, seed=5)
    run = Simulation(arrivals, backend)
    ages = [at + backend - max(p.x.time, p.y.time) for at, p in run.outputs]
    assert len(ages) > 0.99 * 600 / (backend + 1 / 60)
    assert max(ages) < 2 * backend
    assert run.largest <= MAX_KEPT_FRAMES
    stats = run.stats.snapshot()
    assert stats["dropped"]["x-superseded"] == 36_000 - len(ages)
    times = [p.time for _, p in run.outputs]
    assert times == sorted(set(times))


@pytest.mark.parametrize(("rate_x", "rate_y"), [(30, 9), (30, 30), (25, 30), (9, 30), (30, 25)])
def test_with_time_to_wait_the_partner_is_the_nearest(rate_x, rate_y):
    """Jitter and offset, 60 s; `wait` covers half an interval of the partner, the delay and the jitter."""
    arrivals = camera("x", rate_x, 60, jitter=0.004, seed=1) + camera(
        "y", rate_y, 60, start=0.013, jitter=0.004, seed=2
    )
    run = Simulation(arrivals, 0.005, wait=0.5 / rate_y + 0.03)
    captured = np.array(sorted(c for _, side, c in arrivals if side == "y"))
    nearest = [abs(abs(p.skew) - np.abs(captured - p.time).min()) < 1e-9 for _, p in run.outputs]
    assert len(nearest) > 0.9 * min(60 * rate_x, 60 / (0.005 + 0.5 / rate_y))
    assert np.mean(nearest) >= 0.995
    recorded = run.stats.snapshot()["partner"]
    assert recorded["nearest"] + recorded["other"] >= len(nearest) - 5
    assert abs(recorded["other"] - (len(nearest) - sum(nearest))) <= 2


def test_without_waiting_the_statistics_count_how_often_a_nearer_partner_came_later():
    arrivals = camera("x", 30, 30) + camera("y", 9, 30, start=0.02)
    run = Simulation(arrivals, 0.001)
    captured = np.array([c for _, side, c in arrivals if side == "y"])
    other = sum(
        abs(p.skew) > np.abs(captured - p.time).min() + 1e-9 for _, p in run.outputs if p.skew is not None
    )
    assert other > 100
    assert abs(run.stats.snapshot()["partner"]["other"] - other) <= 5


def test_the_last_frame_is_held_during_a_stall_of_half_a_second():
    """As thermal cameras do when they recalibrate."""
    arrivals = camera("x", 30, 6) + camera("y", 30, 6, missing=[(2.0, 2.5)])
    run = Simulation(arrivals, 0.01)
    assert run.statuses() == ["fused", "held-y", "fused"]
    held = [p for _, p in run.outputs if p.status == "held-y"]
    assert {p.y.frame.index for p in held} == {59}
    assert 12 <= len(held) <= 16
    assert len(run.outputs) == 180
    assert run.stats.snapshot()["sources"]["y"] == {"losses": 1}


def test_a_partner_that_stops_is_held_then_passed():
    arrivals = camera("x", 30, 10) + camera("y", 30, 3)
    run = Simulation(arrivals, 0.01, hold=2.0)
    assert run.statuses() == ["fused", "held-y", "passed-x"]
    assert all(p.y is None for _, p in run.outputs if p.status == "passed-x")
    oldest = max(p.x.time - p.y.time for _, p in run.outputs if p.status == "held-y")
    assert oldest <= 2.0


def test_a_leading_source_that_stops_leaves_the_pace_to_the_other():
    arrivals = camera("x", 30, 3) + camera("y", 9, 10)
    run = Simulation(arrivals, 0.01)
    assert run.statuses() == ["fused", "held-x", "passed-y"]
    after = [at for at, p in run.outputs if p.status == "passed-y"]
    np.testing.assert_allclose(np.diff(after), 1 / 9, atol=0.01)
    times = [p.time for _, p in run.outputs]
    assert times == sorted(times)


def test_a_leading_source_that_returns_leads_again():
    run = Simulation(camera("x", 30, 12, missing=[(3, 8)]) + camera("y", 30, 12), 0.01)
    assert run.statuses() == ["fused", "held-x", "passed-y", "fused"]


@pytest.mark.parametrize(
    ("on_loss", "dead", "statuses", "lost"),
    [
        ("pass", "y", ["fused", "passed-x"], None),
        ("pass", "x", ["fused", "passed-y"], None),
        ("pass-x", "y", ["fused", "passed-x"], None),
        ("pass-x", "x", ["fused"], None),
        ("pass-y", "x", ["fused", "passed-y"], None),
        ("pass-y", "y", ["fused"], None),
        ("stop", "x", ["fused"], "x"),
        ("stop", "y", ["fused"], "y"),
    ],
)
def test_policies_of_live_sources(on_loss, dead, statuses, lost):
    arrivals = camera("x", 30, 2 if dead == "x" else 6) + camera("y", 30, 2 if dead == "y" else 6)
    run = Simulation(arrivals, 0.01, on_loss=on_loss)
    assert run.statuses() == statuses
    assert (run.end.lost if run.end else None) == lost
    assert max(at for at, _ in run.outputs) > (5.5 if len(statuses) == 2 else 1.9)


def test_a_source_that_failed_is_lost_at_once():
    arrivals = camera("x", 30, 4) + camera("y", 30, 2)
    run = Simulation(arrivals, 0.01, on_loss="stop", ends=[(2.0, "y")])
    assert run.end == End("y")
    assert max(at for at, _ in run.outputs) < 2.1


def test_two_failed_sources_end_the_stream():
    arrivals = camera("x", 30, 2) + camera("y", 30, 2)
    run = Simulation([*arrivals, (9.0, "x", 9.0)], 0.01, ends=[(2.1, "y"), (2.1, "x")])
    assert run.end is not None
    assert len(run.outputs) == 60


def test_the_first_frame_waits_a_while_for_a_camera_that_starts_slowly():
    run = Simulation(camera("x", 30, 6) + camera("y", 30, 3, start=3.0), 0.01)
    assert run.statuses() == ["fused"]
    assert run.outputs[0][0] >= 3.0


def test_a_camera_that_never_starts_is_left_out():
    run = Simulation(camera("x", 30, 8), 0.01)
    assert run.statuses() == ["passed-x"]
    assert run.outputs[0][0] >= 5.0


def test_tolerance_follows_the_slower_source():
    run = Simulation(camera("x", 60, 3) + camera("y", 9, 3), 0.001)
    assert run.statuses() == ["fused"]
    assert run.newest.tolerance == pytest.approx(tolerance_for(1 / 9), rel=0.02)
    slow = Simulation(
        camera("x", 60, 3) + camera("y", 9, 3), 0.001, rates=(Fraction(60), Fraction(60)), tolerance=0.03
    )
    assert "held-y" in slow.statuses()


@given(st.data())
def test_output_times_increase_and_no_frame_leads_twice(data):
    spans = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 2)), max_size=3)
    arrivals = []
    for side, seed in (("x", 1), ("y", 2)):
        missing = [(begin, begin + length) for begin, length in data.draw(spans)]
        rate = data.draw(st.sampled_from([9, 25, 30, 60]))
        arrivals += camera(side, rate, 5, jitter=0.005, seed=seed, missing=missing)
    run = Simulation(
        arrivals,
        data.draw(st.sampled_from([0.001, 0.02, 0.2])),
        on_loss=data.draw(st.sampled_from(["hold", "pass", "pass-x", "pass-y", "stop"])),
        wait=data.draw(st.sampled_from([0.0, 0.05])),
        lead=data.draw(st.sampled_from(["x", "y"])),
    )
    shown = [(p.x and p.x.frame.index, p.y and p.y.frame.index) for _, p in run.outputs]
    assert len(shown) == len(set(shown))
    for side in (0, 1):
        used = [s[side] for s in shown if s[side] is not None]
        assert used == sorted(used)
    dropped = run.stats.snapshot()["dropped"]
    for side in "xy":
        used = {getattr(p, side).frame.index for _, p in run.outputs if getattr(p, side)}
        dropped_count = sum(n for cause, n in dropped.items() if cause.startswith(side))
        assert len(used) + dropped_count == run.arrived[side]  # every frame is accounted for
