"""Clocks of sources: timestamps are kept or moved, and jumps are corrected."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_pieces import source_frame
from tcmoa_runtime.streams.clock import FileClock, LiveClock


def times(clock, milliseconds, arrived=None):
    arrived = [0.0] * len(milliseconds) if arrived is None else arrived
    frames = [
        source_frame(i, m, arrived=a) for i, (m, a) in enumerate(zip(milliseconds, arrived, strict=True))
    ]
    return [clock.time(frame) for frame in frames]


def test_times_of_a_file_are_kept():
    assert times(FileClock(), [1400, 1433, 1500]) == [1.4, 1.433, 1.5]


def test_a_file_can_be_moved():
    assert times(FileClock(start=1.4), [0, 40]) == pytest.approx([1.4, 1.44])
    assert times(FileClock(start=1.4, offset=-0.1), [200, 240]) == pytest.approx([1.3, 1.34])
    assert times(FileClock(offset=0.5), [200, 240]) == pytest.approx([0.7, 0.74])


@pytest.mark.parametrize("jump", [-100_000, 100_000, -1000])
def test_a_joined_file_continues_by_the_usual_step(jump):
    stamps = [40 * i for i in range(10)] + [400 + jump + 40 * i for i in range(5)]
    clock = FileClock()
    assert times(clock, stamps) == pytest.approx([0.04 * i for i in range(15)])
    assert clock.jumps == 1


def test_a_gap_in_a_file_is_not_a_jump():
    clock = FileClock()
    assert times(clock, [0, 40, 5000]) == pytest.approx([0, 0.04, 5])
    assert clock.jumps == 0


def camera(count, *, rate=30, delay=0.02, epoch=0.0, begin=100.0, late=()):
    """Milliseconds and arrivals; `late` adds seconds of delay from an index on."""
    captured = np.arange(count) / rate
    extra = np.zeros(count)
    for index, more in late:
        extra[index:] = more
    return [round((epoch + c) * 1000) for c in captured], list(
        np.maximum.accumulate(begin + captured + delay + extra)
    )


def test_delayed_live_frames_keep_their_distance():
    """Every tenth frame arrives 15 ms late, but its time keeps the distance to the others."""
    stamps, arrived = camera(60)
    late = [a + (0.015 if i % 10 == 5 else 0) for i, a in enumerate(arrived)]
    got = times(LiveClock(), stamps, late)
    np.testing.assert_allclose(np.diff(got), 1 / 30, atol=2e-3)
    assert got[0] == pytest.approx(100.02)


def test_frames_in_a_burst_after_a_stall_keep_their_times():
    stamps, arrived = camera(90)
    burst = [a if not 30 <= i < 45 else arrived[45] for i, a in enumerate(arrived)]
    clock = LiveClock()
    got = times(clock, stamps, burst)
    np.testing.assert_allclose(np.diff(got), 1 / 30, atol=2e-3)
    assert clock.jumps == 0


@pytest.mark.parametrize("jump", [-3600, -5, -0.5, 5, 3600])
def test_after_a_jump_of_its_clock_a_source_is_back_in_step(jump):
    first, arrived = camera(60)
    second, more = camera(60, epoch=2 + jump, begin=102.0)
    clock = LiveClock()
    got = times(clock, first + second, arrived + more)
    assert clock.jumps == 1
    true = [a - 0.02 for a in arrived + more]
    ages = np.array(got) - np.array(true)
    assert np.abs(ages[-50:]).max() < 0.03
    assert np.diff(got).min() >= 0


def test_a_lasting_delay_is_accepted_after_some_frames():
    stamps, arrived = camera(60, late=[(30, 4.0)])
    clock = LiveClock()
    got = times(clock, stamps, arrived)
    assert clock.jumps == 1
    assert arrived[-1] - got[-1] < 0.03


def test_slow_drift_is_followed():
    """The camera's clock is 200 ppm slower than `time.monotonic`, for an hour."""
    captured = np.arange(0, 3600, 0.5)
    arrived = 50 + captured * 1.0002 + 0.02
    clock = LiveClock()
    got = times(clock, [round(c * 1000) for c in captured], list(arrived))
    assert max(abs(a - g) for a, g in zip(arrived, got, strict=True)) < 0.05
    assert clock.jumps == 0


def test_an_offset_moves_a_live_source():
    stamps, arrived = camera(3)
    assert times(LiveClock(offset=-0.25), stamps, arrived)[0] == pytest.approx(arrived[0] - 0.25)


@given(st.lists(st.tuples(st.integers(-(10**7), 10**7), st.floats(0, 5)), min_size=1, max_size=50))
def test_times_never_decrease_and_are_never_in_the_future(steps):
    arrived = list(np.cumsum([wait for _, wait in steps]))
    stamps = [m for m, _ in steps]
    got = times(LiveClock(), stamps, arrived)
    assert np.diff(got).min(initial=0) >= 0
    assert all(g <= a + 1e-9 for g, a in zip(got, arrived, strict=True))
    files = times(FileClock(), stamps)
    assert np.diff(files).min(initial=0) >= 0


def test_a_clock_that_keeps_steps_takes_none_for_a_jump():
    clock = FileClock(keeps_steps=True)
    frames = [source_frame(i, milliseconds) for i, milliseconds in enumerate((0, 40, 90_000, 90_040))]
    assert [clock.time(frame) for frame in frames] == [0, 0.04, 90, 90.04]
    assert clock.jumps == 0
