"""What stands still is fused once, and what moves, drifts or is steered is fused anew."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_pieces import CopyingBackend, ListSink, LiveSource, ScriptedSource, copying_fuser
from tcmoa_runtime import Fuser, InputError, Stream
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.streams.frame_log import FrameLog
from tcmoa_runtime.streams.pairing import Pairing
from tcmoa_runtime.streams.reuse import Reuse, largest_change

SHAPES = [(1, 1), (2, 2, 3), (8, 8, 3), (9, 17), (7, 30, 3), (24, 16, 3), (100, 130, 3)]
shapes, seeds = st.sampled_from(SHAPES), st.integers(0, 2**32 - 1)


def pictures(shape, seed, count=2):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, shape, np.uint8) for _ in range(count)]


def keeping(tolerance, x, y, scale=1.0, shift=0.0):
    reuse = Reuse(tolerance)
    reuse.keep(x, y, scale, shift, x)
    return reuse


def slow_largest_change(now, before):
    """Cell by cell, as it is written."""
    change = np.abs(now.astype(int) - before)
    return max(
        float(change[top : top + 8, left : left + 8].mean())
        for top in range(0, now.shape[0], 8)
        for left in range(0, now.shape[1], 8)
    )


@given(shapes, seeds, st.booleans())
def test_the_largest_change_is_that_of_the_worst_cell(shape, seed, little):
    now, before = pictures(shape, seed)
    if little:
        now = before + np.uint8(now < 30) * np.uint8(before < 255)
    assert largest_change(now, before) == pytest.approx(slow_largest_change(now, before), rel=1e-12)


@given(shapes, seeds, st.data())
def test_tolerance_0_takes_the_same_bytes_and_nothing_else(shape, seed, data):
    x, y = pictures(shape, seed)
    reuse = keeping(0, x, y)
    assert reuse.unchanged(x.copy(), y.copy(), 1.0, 0.0)
    for side in range(2):
        other = [x.copy(), y.copy()]
        at = tuple(data.draw(st.integers(0, length - 1)) for length in shape)
        other[side][at] ^= 1
        assert not reuse.unchanged(*other, 1.0, 0.0)


@given(shapes, seeds, st.floats(0, 60), st.data())
def test_a_change_of_a_whole_cell_in_any_place_is_seen_where_it_is_beyond_the_tolerance(
    shape, seed, tolerance, data
):
    x, y = (picture // 2 for picture in pictures(shape, seed))
    reuse = keeping(tolerance, x, y)
    top, left = (8 * data.draw(st.integers(0, (length - 1) // 8)) for length in shape[:2])
    for by, seen in ((int(tolerance), False), (int(tolerance) + 1, True)):
        for side in range(2):
            other = [x.copy(), y.copy()]
            other[side][top : top + 8, left : left + 8] += np.uint8(by)
            assert reuse.unchanged(*other, 1.0, 0.0) is not seen


@given(seeds, st.integers(1, 20))
def test_slow_drift_is_seen_against_what_was_fused(seed, tolerance):
    """A level a frame: never more than 1 from the frame before, yet no picture stands for longer than it may."""
    x, y = (picture // 2 for picture in pictures((20, 20, 3), seed))
    reuse, fused = keeping(tolerance, x, y), [0]
    for step in range(1, 90):
        now = x + np.uint8(step)
        if not reuse.unchanged(now, y, 1.0, 0.0):
            reuse.keep(now, y, 1.0, 0.0, now)
            fused.append(step)
    assert {later - sooner for sooner, later in pairwise(fused)} == {tolerance + 1}


def test_a_small_thing_is_not_lost_in_the_picture():
    """8x3 pixels that move by one, and whose mean over 64x64 pixels is next to nothing."""
    before = np.full((480, 640, 3), 90, np.uint8)
    now = before.copy()
    before[300:308, 401:404] = now[300:308, 402:405] = 190
    assert largest_change(now, before) > 4
    assert np.abs(now[256:320, 384:448].astype(int) - before[256:320, 384:448]).mean() < 0.5


prompts = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0]),
    st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4).map(lambda v: np.reshape(v, (2, 2))),
)


@given(prompts, prompts, prompts, prompts)
def test_the_same_prompt_and_nothing_else(scale, shift, scale_now, shift_now):
    x, y = pictures((9, 9, 3), 1)
    same = all(
        np.shape(a) == np.shape(b) and np.all(a == b) for a, b in ((scale, scale_now), (shift, shift_now))
    )
    assert keeping(255, x, y, scale, shift).unchanged(x, y, scale_now, shift_now) is same


def test_what_is_kept_is_ones_own():
    x, y = pictures((9, 9, 3), 2)
    fused, scale, prompt = x.copy(), np.ones((2, 2), np.float32), np.ones((1, 2, 2, 2), np.float32)
    reuse = Reuse(0)
    assert not reuse.unchanged(x, y, scale, 0.0)
    reuse.keep(x, y, scale, 0.0, fused, prompt)
    before = [a.copy() for a in (x, y, scale, fused, prompt)]
    for array in (x, y, fused, prompt, scale):
        array[...] = 9
    for _ in range(2):
        assert reuse.unchanged(*before[:3], 0.0)
        image, again = reuse.again()
        np.testing.assert_array_equal(image, before[3])
        np.testing.assert_array_equal(again, before[4])
        image[...] = again[...] = 7
    np.testing.assert_array_equal(reuse.sources, before[:2])


@pytest.mark.parametrize("tolerance", [0, 255])
@pytest.mark.parametrize("now", [(9, 9), (9, 9, 1), (9, 10, 3), (10, 9, 3), (1, 1, 3)])
def test_another_size_or_kind_is_another_picture(tolerance, now):
    x, y = pictures((9, 9, 3), 3)
    assert not keeping(tolerance, x, y).unchanged(x, np.zeros(now, np.uint8), 1.0, 0.0)


def test_rows_that_are_apart_or_backwards_in_memory():
    wide, y = pictures((20, 40, 3), 4)
    x = wide[::-1, ::2, ::-1]
    reuse = keeping(1, x, y)
    assert reuse.unchanged(x, y, 1.0, 0.0)
    assert not reuse.unchanged(x[::-1], y, 1.0, 0.0)


@pytest.mark.parametrize("wrong", [-1, -1e-9, 255.5, float("nan"), float("inf"), True, "little"])
def test_a_wrong_tolerance_is_told(wrong, bundle):
    with pytest.raises(InputError, match=r"^reuse is .*: expected grey levels, from 0 to 255$"):
        Reuse(wrong)
    with pytest.raises(InputError, match="reuse is"):
        Stream(copying_fuser(bundle), ScriptedSource([0]), ScriptedSource([0]), reuse=wrong)


def grey(*levels):
    return [np.full((100, 130, 3), level, np.uint8) for level in levels]


def scripted(images):
    return ScriptedSource([40 * i for i in range(len(images))], images=images)


def run(bundle, x, y, *, sinks=(), backend=CopyingBackend, **options):
    """Frames that came out, the backend, and the stats."""
    sink, fuser = ListSink(), Fuser(bundle, backend(bundle))
    stats = Stream(fuser, scripted(x), scripted(y), sinks=[sink, *sinks], **options).run()
    return sink.frames, fuser.backend, stats.snapshot()


X, Y = grey(5, 5, 5, 8, 8, 8, 8, 5), grey(5, 5, 5, 5, 5, 6, 6, 6)
FUSED = {None: 8, 0: 4, 1: 3, 2: 3, 3: 1}
"""How many of these have to be fused within a tolerance."""


@pytest.mark.parametrize("tolerance", FUSED, ids=str)
def test_frames_in_are_frames_out_and_only_what_changed_is_fused(tolerance, bundle, tmp_path):
    log = FrameLog(tmp_path / "log.jsonl")
    frames, backend, stats = run(bundle, X, Y, sinks=[log], reuse=tolerance)
    assert [f.index for f in frames] == list(range(8))
    assert [f.pts for f in frames] == [40 * i for i in range(8)]
    assert len(backend.calls) == FUSED[tolerance]
    reused = [f.reused for f in frames]
    assert (stats["frames"], stats["reused"]) == (8, 8 - FUSED[tolerance]) == (8, sum(reused))
    assert [
        json.loads(line)["reused"] for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ] == reused
    assert {f.status for f in frames} == {"fused"}
    for frame, x in zip(frames, X, strict=True):
        assert np.abs(frame.image.astype(int) - x).max() <= (tolerance or 0)
        assert frame.prompt is not None
    assert ("reuse" in stats["stages_ms"]) is (tolerance is not None)


def test_a_stream_that_drifts_is_fused_in_steps(bundle):
    frames, _, _ = run(bundle, grey(*range(50, 62)), grey(*[50] * 12), reuse=3)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [50] * 4 + [54] * 4 + [58] * 4


@pytest.mark.parametrize("kind", ["bundle", "plain_bundle"])
def test_tolerance_0_changes_no_byte(kind, request):
    bundle = request.getfixturevalue(kind)
    plain, afresh, _ = run(bundle, X, Y)
    frames, backend, _ = run(bundle, X, Y, reuse=0)
    assert (len(afresh.calls), len(backend.calls)) == (8, 4)
    for frame, expected in zip(frames, plain, strict=True):
        np.testing.assert_array_equal(frame.image, expected.image)
        if expected.prompt is None:
            assert frame.prompt is None
        else:
            np.testing.assert_array_equal(frame.prompt, expected.prompt)


def steered(bundle, when):
    """12 frames of a still scene; `when` maps a frame to a change that is made before it."""
    fuser = copying_fuser(bundle)
    x, y = scripted(grey(*[5] * 12)), scripted(grey(*[5] * 12))
    stream = Stream(fuser, x, y, reuse=0, ramp=0)
    values, asked = stream.control.values, iter(range(12))

    def steered_values():
        change = when.get(next(asked))
        if change is not None:
            change(stream.control)
        return values()

    stream.control.values = steered_values
    with stream:
        flags = [(frame.reused, float(frame.prompt[0, 0].mean())) for frame in stream]
    return fuser, flags


def test_a_change_of_the_prompt_or_of_a_region_is_fused_at_once(bundle):
    fuser, flags = steered(
        bundle,
        {
            3: lambda control: control.set(shift=0.25),
            5: lambda control: control.set(shift=0.25),  # as it was
            7: lambda control: control.set_region(rectangle=(0, 0, 64, 64), shift=-0.25),
            9: lambda control: control.reset(),
        },
    )
    assert [place for place, (reused, _) in enumerate(flags) if not reused] == [0, 3, 7, 9]
    assert len(fuser.backend.calls) == 4
    assert [round(prompt, 2) for _, prompt in flags[:7]] == [0.6] * 3 + [0.85] * 4


def test_every_frame_of_a_ramp_is_fused(bundle):
    fuser, sink = copying_fuser(bundle, 0.01), ListSink()
    x, y = (LiveSource(100, images=lambda i: grey(5)[0]) for _ in range(2))
    stream = Stream(fuser, x, y, sinks=[sink], reuse=0, ramp=0.2, frames=60)
    stream.control.set(shift=0.3)
    stream.run()
    shifts = [call["prompt_shift"].mean() for call in fuser.backend.calls]
    assert len(shifts) >= 5
    assert shifts == sorted(set(shifts))
    assert shifts[-1] == pytest.approx(0.3)
    assert [f.reused for f in sink.frames[-10:]] == [True] * 10


def test_a_still_live_scene_comes_at_the_pace_of_its_camera(bundle):
    """Fusing takes five frames' time; all but the first are there at once."""
    fuser, sink = copying_fuser(bundle, 0.1), ListSink()
    x, y = (LiveSource(50, images=lambda i: grey(5)[0]) for _ in range(2))
    stats = Stream(fuser, x, y, sinks=[sink], reuse=0, frames=40).run().snapshot()
    assert (len(fuser.backend.calls), stats["reused"]) == (1, 39)
    assert stats["latency_ms"]["p50"] < 50
    assert len(sink.frames) == 40


def test_a_lost_source_is_held_and_passed_as_ever(bundle):
    """Held: y as it was, so it holds; passed: never fused, never reused; back again: still what was fused."""
    x, y, sink = scripted(grey(*[5] * 10)), scripted(grey(5, 5)), ListSink()
    fuser = copying_fuser(bundle)
    options = {"pairing": Pairing(tolerance=0.05, hold=0.15), "sinks": [sink], "reuse": 0}
    stats = Stream(fuser, x, y, **options).run().snapshot()
    ways = [(f.status, f.reused) for f in sink.frames]
    assert ways[:2] == [("fused", False), ("fused", True)]
    assert ways[-1] == ("passed-x", False)
    assert ("held-y", True) in ways
    assert len(fuser.backend.calls) == 1
    assert stats["reused"] == sum(reused for _, reused in ways)


def test_who_draws_on_a_frame_does_not_draw_on_the_next(bundle):
    with Stream(copying_fuser(bundle), scripted(grey(*[5] * 6)), scripted(grey(*[5] * 6)), reuse=0) as stream:
        for frame in stream:
            assert (frame.image == 5).all()
            frame.image[:50] = 255


def test_steady_sees_the_sources_that_the_picture_shows(bundle):
    """x brightens by 1 a frame and is fused in steps of 4: real change, of which steady takes nothing back."""
    x, y = grey(*range(50, 74)), grey(*[50] * 24)
    steps, _, _ = run(bundle, x, y, reuse=3)
    both, _, stats = run(bundle, x, y, reuse=3, steady=0.5)
    assert stats["reused"] == 18
    for got, expected in zip(both, steps, strict=True):
        np.testing.assert_array_equal(got.image, expected.image)


class FlickeringBackend(CopyingBackend):
    """x, brighter by 20 every other time it fuses."""

    def infer(self, inputs):
        outputs = super().infer(inputs)
        outputs["fused"] = outputs["fused"] + np.uint8(20 * (len(self.calls) % 2))
        return outputs


def test_steady_still_takes_flicker_out_of_what_is_fused(bundle):
    x = grey(*[50, 51] * 10)
    frames, _, stats = run(bundle, x, x, backend=FlickeringBackend, reuse=0, steady=0.5)
    assert stats["reused"] == 0
    levels = [float(frame.image.mean()) for frame in frames]
    assert np.abs(np.diff(levels)).max() <= 4


def test_motion_of_real_video_is_never_missed(val_pairs):
    """Cars and people of two fixed cameras: no frame passes for the one before, by far."""
    for clip in ("m3svd_0111_1753", "m3svd_0115_1834"):
        x, y = (
            [read_frame(path) for path in sorted((val_pairs.parent / "video" / clip / side).iterdir())]
            for side in "xy"
        )
        changes = [
            max(largest_change(x[i], x[i - 1]), largest_change(y[i], y[i - 1])) for i in range(1, len(x))
        ]
        assert min(changes) > 50
