"""Prompt control of a stream: values, linear transitions that end exactly, and wrong values that change nothing."""

import json
import re
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmoa_runtime import InputError
from tcmoa_runtime.prompts import prompt_map
from tcmoa_runtime.streams.control import StreamControl

GRID, SIZE = (6, 8), (48, 64)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def control(clock):
    return StreamControl(GRID, size=SIZE, token_px=8, default=(1.0, 0.0), ramp=0.5, clock=clock)


def test_without_a_change_the_values_are_the_default_as_numbers(control):
    assert control.values() == (1.0, 0.0)
    assert StreamControl(GRID, size=SIZE, default=(1.5, -0.1)).values() == (1.5, -0.1)


def test_a_change_is_linear_and_ends_exactly(control, clock):
    control.set(scale=2.0, shift=0.3)
    assert control.values() == (1.0, 0.0)
    clock.now += 0.25
    assert control.values() == pytest.approx((1.5, 0.15))
    assert control.state()["ramping"]
    clock.now += 0.25
    assert control.values() == (2.0, np.float32(0.3))
    assert not control.state()["ramping"]


def test_a_change_during_a_transition_starts_from_the_current_values(control, clock):
    control.set(scale=3.0)
    clock.now += 0.25
    control.set(scale=1.0)
    assert control.values()[0] == pytest.approx(2.0)
    clock.now += 0.25
    assert control.values()[0] == pytest.approx(1.5)


def test_a_ramp_of_0_changes_at_once(control):
    control.set(shift=-0.25, ramp=0)
    assert control.values() == (1.0, -0.25)


def test_a_map_is_accepted(control, clock):
    shift = np.linspace(-0.5, 0.5, 48).reshape(GRID)
    control.set(shift=shift)
    clock.now += 0.25
    np.testing.assert_allclose(control.values()[1], shift / 2, atol=1e-6)
    clock.now += 1
    np.testing.assert_array_equal(control.values()[1], shift.astype(np.float32))
    assert control.values()[0] == 1.0


def test_a_rectangle_has_its_own_values(control):
    control.set_region(rectangle=(16, 8, 16, 24), scale=2.0, shift=0.5, ramp=0)
    scale, shift = control.values()
    inside = np.zeros(GRID, bool)
    inside[1:4, 2:4] = True
    np.testing.assert_array_equal(scale, np.where(inside, 2.0, 1.0))
    np.testing.assert_array_equal(shift, np.where(inside, 0.5, 0.0))


def test_a_token_that_a_rectangle_covers_in_part_gets_the_weighted_mean(control):
    control.set_region(rectangle=(0, 0, 4, 8), shift=0.4, ramp=0)
    assert control.values()[1][0, 0] == pytest.approx(0.2)
    assert control.values()[1].sum() == pytest.approx(0.2)


@pytest.mark.parametrize("shape", [GRID, SIZE])
def test_a_mask_has_the_shape_of_the_grid_or_of_the_frame(control, shape):
    mask = np.zeros(shape)
    mask[: shape[0] // 2] = 1
    control.set_region(mask=mask, shift=-0.5, ramp=0)
    expected = np.zeros(GRID)
    expected[:3] = -0.5
    np.testing.assert_array_equal(control.values()[1], expected)


def test_the_frame_outside_a_region_still_changes(control):
    control.set_region(rectangle=(0, 0, 8, 8), shift=0.5, ramp=0)
    control.set(shift=-0.25, ramp=0)
    shift = control.values()[1]
    assert (shift[0, 0], shift[3, 3]) == (0.5, -0.25)


@pytest.mark.parametrize(
    ("frame", "inside"), [(-13.73, 16.0000009), (13.73, -16.0000009), (16.0000009, 16.0)]
)
def test_accepted_values_compose_to_values_that_the_model_accepts(control, clock, frame, inside):
    """16.0000009 is 16 in float32, but its weighted mean with another number can round to 16.000002."""
    control.set(scale=frame, ramp=0)
    control.set_region(rectangle=(0, 0, 33, 41), scale=inside, ramp=0)
    prompt_map(control.values()[0], "scale", 1, GRID)
    control.set(scale=inside, ramp=1)
    for _ in range(10):
        clock.now += 0.1
        prompt_map(control.values()[0], "scale", 1, GRID)


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_an_integer_beyond_float_is_refused_in_one_line(control, number):
    for call, line in (
        (lambda: control.set(shift=number), "shift: holds object; expected a number or a map [6, 8] of numbers"),
        (lambda: control.set_region(rectangle=(0, 0, 1, 1), scale=number), "region scale: holds object; expected a "
         "number or a map [1, 1] of numbers"),
        (lambda: control.set_region(rectangle=(0, 0, number, 1)), r"region rectangle: \(0, 0,.*\.\.\.; expected left, "
         "top, width and height in pixels"),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == line or re.fullmatch(line, str(caught.value)), caught.value
    assert control.change_count == 0


def test_after_clearing_and_resetting_the_values_are_numbers(control):
    control.set(scale=1.7, ramp=0)
    control.set_region(rectangle=(0, 0, 8, 8), shift=0.5, ramp=0)
    control.clear_region(ramp=0)
    assert control.values() == (np.float32(1.7), 0.0)
    control.reset(ramp=0)
    assert control.values() == (1.0, 0.0)


def test_a_region_appears_and_disappears_gradually(control, clock):
    control.set_region(rectangle=(0, 0, 8, 8), shift=0.4)
    clock.now += 0.25
    assert control.values()[1][0, 0] == pytest.approx(0.2)
    clock.now += 0.25
    control.clear_region()
    clock.now += 0.25
    assert control.values()[1][0, 0] == pytest.approx(0.2)
    clock.now += 0.25
    assert control.values()[1] == 0.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: c.set(scale="much"), "scale: holds"),
        (lambda c: c.set(shift=float("nan")), "shift: holds NaN"),
        (lambda c: c.set(scale=17), "expected -16 to 16"),
        (lambda c: c.set(shift=np.zeros((3, 3))), r"shift: shape \[3, 3\]"),
        (lambda c: c.set(scale=2, shift="no"), "shift: holds"),
        (lambda c: c.set(scale=1.0, ramp=-1), "ramp: -1; expected seconds"),
        (lambda c: c.set_region(), "region: neither a rectangle nor a mask; expected one"),
        (
            lambda c: c.set_region(rectangle=(0, 0, 8, 8), mask=np.ones(GRID)),
            "both a rectangle and a mask",
        ),
        (lambda c: c.set_region(rectangle=(0, 0, 8)), "left, top, width and height in pixels"),
        (lambda c: c.set_region(rectangle=(64, 0, 8, 8)), "within 64x48"),
        (lambda c: c.set_region(rectangle=(0, 0, 0, 8)), "within 64x48"),
        (lambda c: c.set_region(rectangle=(0, 0, float("nan"), 8)), "within 64x48"),
        (lambda c: c.set_region(mask=np.ones((5, 5))), r"mask: shape \[5, 5\]"),
        (lambda c: c.set_region(mask=np.full(GRID, 2)), r"values outside 0\.\.1"),
        (lambda c: c.set_region(mask=np.ones(GRID), shift=99), "region shift: holds 99"),
    ],
)
def test_a_wrong_value_changes_nothing(control, call, words):
    control.set(scale=1.5, ramp=0)
    before, state = control.values(), control.state()
    with pytest.raises(InputError, match=words):
        call(control)
    assert control.values() == before
    assert control.state() == state


def test_the_state_is_valid_json(control):
    control.set(scale=np.full(GRID, 1.25), ramp=0)
    control.set_region(mask=np.ones(GRID, bool), shift=0.1)
    state = json.loads(json.dumps(control.state()))
    assert (state["scale"], state["grid"], state["size"]) == (1.25, [6, 8], [48, 64])
    assert state["region"]["token_count"] == 48


def test_many_threads_may_change_the_values(control):
    def change(seed):
        rng = np.random.default_rng(seed)
        for _ in range(200):
            control.set(scale=float(rng.uniform(0, 2)), ramp=0.01)
            control.set_region(rectangle=(0, 0, 8, 8), shift=0.1)
            control.clear_region()

    threads = [threading.Thread(target=change, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        scale, shift = control.values()
        assert np.isfinite(scale).all()
        assert np.isfinite(shift).all()
    for thread in threads:
        thread.join()
    assert control.change_count == 4 * 200 * 3


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(0, 1), st.floats(0, 2)), min_size=1, max_size=8))
def test_values_stay_within_the_range_of_the_values_that_were_set(steps):
    clock = Clock()
    control = StreamControl(GRID, size=SIZE, clock=clock)
    low = high = 1.0
    for value, ramp, wait in steps:
        low, high = min(low, value), max(high, value)
        control.set(scale=value, ramp=ramp)
        clock.now += wait
        assert low - 1e-6 <= control.values()[0] <= high + 1e-6
