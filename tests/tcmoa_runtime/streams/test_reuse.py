"""Reuse: unchanged frames are fused once; motion, drift and a change of the prompt are fused anew."""

import itertools
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_pieces import CopyingBackend, ListSink, LiveSource, ScriptedSource, copying_fuser
from tcmoa_runtime import Fuser, InputError, Stream
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.frame_log import FrameLog
from tcmoa_runtime.streams.reuse import ReuseCache, max_block_change

SHAPES = [(1, 1), (2, 2, 3), (8, 8, 3), (9, 17), (7, 30, 3), (24, 16, 3), (100, 130, 3)]
shapes, seeds = st.sampled_from(SHAPES), st.integers(0, 2**32 - 1)


def pictures(shape, seed, count=2):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, shape, np.uint8) for _ in range(count)]


def cache_of(tolerance, x, y, scale=1.0, shift=0.0):
    cache = ReuseCache(tolerance)
    cache.store(x, y, scale, shift, x)
    return cache


def slow_max_block_change(now, before):
    """Block by block, as documented."""
    change = np.abs(now.astype(int) - before)
    return max(
        float(change[top : top + 8, left : left + 8].mean())
        for top in range(0, now.shape[0], 8)
        for left in range(0, now.shape[1], 8)
    )


@given(shapes, seeds, st.booleans())
def test_the_largest_change_is_that_of_the_worst_block(shape, seed, little):
    now, before = pictures(shape, seed)
    if little:
        now = before + np.uint8(now < 30) * np.uint8(before < 255)
    assert max_block_change(now, before) == pytest.approx(slow_max_block_change(now, before), rel=1e-12)


@given(shapes, seeds, st.data())
def test_tolerance_0_accepts_identical_bytes_only(shape, seed, data):
    x, y = pictures(shape, seed)
    cache = cache_of(0, x, y)
    assert cache.is_valid(x.copy(), y.copy(), 1.0, 0.0)
    for side in range(2):
        other = [x.copy(), y.copy()]
        at = tuple(data.draw(st.integers(0, length - 1)) for length in shape)
        other[side][at] ^= 1
        assert not cache.is_valid(*other, 1.0, 0.0)


@given(shapes, seeds, st.floats(0, 60), st.data())
def test_a_change_of_a_whole_block_is_detected_in_any_place_beyond_the_tolerance(
    shape, seed, tolerance, data
):
    x, y = (picture // 2 for picture in pictures(shape, seed))
    cache = cache_of(tolerance, x, y)
    top, left = (8 * data.draw(st.integers(0, (length - 1) // 8)) for length in shape[:2])
    for by, seen in ((int(tolerance), False), (int(tolerance) + 1, True)):
        for side in range(2):
            other = [x.copy(), y.copy()]
            other[side][top : top + 8, left : left + 8] += np.uint8(by)
            assert cache.is_valid(*other, 1.0, 0.0) is not seen


@given(seeds, st.integers(1, 20))
def test_slow_drift_is_detected_against_the_fused_frame(seed, tolerance):
    """One level per frame: an image is reused until the sum of the changes exceeds the tolerance."""
    x, y = (picture // 2 for picture in pictures((20, 20, 3), seed))
    cache, fused = cache_of(tolerance, x, y), [0]
    for step in range(1, 90):
        now = x + np.uint8(step)
        if not cache.is_valid(now, y, 1.0, 0.0):
            cache.store(now, y, 1.0, 0.0, now)
            fused.append(step)
    assert {later - sooner for sooner, later in pairwise(fused)} == {tolerance + 1}


def test_a_small_object_is_detected():
    """8x3 pixels that move by one change the mean over 64x64 pixels by less than 0.5."""
    before = np.full((480, 640, 3), 90, np.uint8)
    now = before.copy()
    before[300:308, 401:404] = now[300:308, 402:405] = 190
    assert max_block_change(now, before) > 4
    assert np.abs(now[256:320, 384:448].astype(int) - before[256:320, 384:448]).mean() < 0.5


prompts = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0]),
    st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4).map(lambda v: np.reshape(v, (2, 2))),
)


@given(prompts, prompts, prompts, prompts)
def test_only_the_same_prompt_is_valid(scale, shift, scale_now, shift_now):
    x, y = pictures((9, 9, 3), 1)
    same = all(
        np.shape(a) == np.shape(b) and np.all(a == b) for a, b in ((scale, scale_now), (shift, shift_now))
    )
    assert cache_of(255, x, y, scale, shift).is_valid(x, y, scale_now, shift_now) is same


def test_the_cache_stores_and_returns_copies():
    x, y = pictures((9, 9, 3), 2)
    fused, scale, prompt = x.copy(), np.ones((2, 2), np.float32), np.ones((1, 2, 2, 2), np.float32)
    cache = ReuseCache(0)
    assert not cache.is_valid(x, y, scale, 0.0)
    cache.store(x, y, scale, 0.0, fused, prompt)
    before = [a.copy() for a in (x, y, scale, fused, prompt)]
    for array in (x, y, fused, prompt, scale):
        array[...] = 9
    for _ in range(2):
        assert cache.is_valid(*before[:3], 0.0)
        image, prompt_again = cache.result()
        np.testing.assert_array_equal(image, before[3])
        np.testing.assert_array_equal(prompt_again, before[4])
        image[...] = prompt_again[...] = 7
    np.testing.assert_array_equal(cache.sources, before[:2])


@pytest.mark.parametrize("tolerance", [0, 255])
@pytest.mark.parametrize("now", [(9, 9), (9, 9, 1), (9, 10, 3), (10, 9, 3), (1, 1, 3)])
def test_another_size_or_channel_count_is_a_change(tolerance, now):
    x, y = pictures((9, 9, 3), 3)
    assert not cache_of(tolerance, x, y).is_valid(x, np.zeros(now, np.uint8), 1.0, 0.0)


def test_frames_with_gaps_or_reversed_rows_in_memory():
    wide, y = pictures((20, 40, 3), 4)
    x = wide[::-1, ::2, ::-1]
    cache = cache_of(1, x, y)
    assert cache.is_valid(x, y, 1.0, 0.0)
    assert not cache.is_valid(x[::-1], y, 1.0, 0.0)


@pytest.mark.parametrize("wrong", [-1, -1e-9, 255.5, float("nan"), float("inf"), True, "little"])
def test_a_wrong_tolerance_is_refused(wrong):
    with pytest.raises(InputError, match=r"^reuse: .*; expected 0 to 255 gray levels$"):
        ReuseCache(wrong)
    with pytest.raises(InputError, match="reuse: "):
        StreamOptions(reuse=wrong)


def gray(*levels):
    return [np.full((100, 130, 3), level, np.uint8) for level in levels]


def scripted(images):
    return ScriptedSource([40 * i for i in range(len(images))], images=images)


def run(bundle, x, y, *, sinks=(), backend=CopyingBackend, **options):
    """The emitted frames, the backend, and the statistics."""
    sink, fuser = ListSink(), Fuser(bundle, backend(bundle))
    stats = Stream(fuser, scripted(x), scripted(y), StreamOptions(**options), sinks=[sink, *sinks]).run()
    return sink.frames, fuser.backend, stats.snapshot()


X, Y = gray(5, 5, 5, 8, 8, 8, 8, 5), gray(5, 5, 5, 5, 5, 6, 6, 6)
FUSED = {None: 8, 0: 4, 1: 3, 2: 3, 3: 1}
"""How many of these frames are fused, by tolerance."""


@pytest.mark.parametrize("tolerance", FUSED, ids=str)
def test_every_frame_is_emitted_and_only_changes_are_fused(tolerance, bundle, tmp_path):
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
    frames, _, _ = run(bundle, gray(*range(50, 62)), gray(*[50] * 12), reuse=3)
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


def run_with_changes(bundle, when):
    """Fuse 12 frames of a still scene; `when` maps a frame to a change of the prompt before it."""
    fuser = copying_fuser(bundle)
    x, y = scripted(gray(*[5] * 12)), scripted(gray(*[5] * 12))
    stream = Stream(fuser, x, y, StreamOptions(reuse=0, ramp=0))
    values, frame_numbers = stream.control.values, iter(range(12))

    def values_after_change():
        change = when.get(next(frame_numbers))
        if change is not None:
            change(stream.control)
        return values()

    stream.control.values = values_after_change
    with stream:
        flags = [(frame.reused, float(frame.prompt[0, 0].mean())) for frame in stream]
    return fuser, flags


def test_a_change_of_the_prompt_or_of_a_region_is_fused_at_once(bundle):
    fuser, flags = run_with_changes(
        bundle,
        {
            3: lambda control: control.set(shift=0.25),
            5: lambda control: control.set(shift=0.25),  # no change
            7: lambda control: control.set_region(rectangle=(0, 0, 64, 64), shift=-0.25),
            9: lambda control: control.reset(),
        },
    )
    assert [place for place, (reused, _) in enumerate(flags) if not reused] == [0, 3, 7, 9]
    assert len(fuser.backend.calls) == 4
    assert [round(prompt, 2) for _, prompt in flags[:7]] == [0.6] * 3 + [0.85] * 4


def test_every_frame_of_a_ramp_is_fused(bundle):
    fuser, sink = copying_fuser(bundle, 0.01), ListSink()
    x, y = (LiveSource(100, images=lambda i: gray(5)[0]) for _ in range(2))
    stream = Stream(fuser, x, y, StreamOptions(reuse=0, ramp=0.2, frames=40), sinks=[sink])
    calls = itertools.count()
    stream.control._clock = lambda: 0.02 * next(calls)
    stream.control.set(shift=0.3)
    stream.run()
    shifts = [call["prompt_shift"].mean() for call in fuser.backend.calls]
    assert len(shifts) >= 5
    assert shifts == sorted(set(shifts))
    assert shifts[-1] == pytest.approx(0.3)
    assert [f.reused for f in sink.frames[-10:]] == [True] * 10


def test_a_still_live_scene_is_emitted_at_the_rate_of_its_camera(bundle):
    """Fusing takes the time of five frames; all but the first are emitted at once."""
    fuser, sink = copying_fuser(bundle, 0.1), ListSink()
    x, y = (LiveSource(50, images=lambda i: gray(5)[0]) for _ in range(2))
    stats = Stream(fuser, x, y, StreamOptions(reuse=0, frames=40), sinks=[sink]).run().snapshot()
    assert (len(fuser.backend.calls), stats["reused"]) == (1, 39)
    assert stats["latency_ms"]["p50"] < 90
    assert len(sink.frames) == 40


def test_with_reuse_a_lost_source_is_held_and_passed(bundle):
    """A held frame of y is unchanged and so reused; a passed frame is neither fused nor reused."""
    x, y, sink = scripted(gray(*[5] * 10)), scripted(gray(5, 5)), ListSink()
    fuser = copying_fuser(bundle)
    options = StreamOptions(tolerance=0.05, hold=0.15, reuse=0)
    stats = Stream(fuser, x, y, options, sinks=[sink]).run().snapshot()
    outcomes = [(f.status, f.reused) for f in sink.frames]
    assert outcomes[:2] == [("fused", False), ("fused", True)]
    assert outcomes[-1] == ("passed-x", False)
    assert ("held-y", True) in outcomes
    assert len(fuser.backend.calls) == 1
    assert stats["reused"] == sum(reused for _, reused in outcomes)


def test_changing_an_emitted_frame_does_not_change_the_next(bundle):
    x, y = scripted(gray(*[5] * 6)), scripted(gray(*[5] * 6))
    with Stream(copying_fuser(bundle), x, y, StreamOptions(reuse=0)) as stream:
        for frame in stream:
            assert (frame.image == 5).all()
            frame.image[:50] = 255


def test_the_flicker_filter_compares_the_sources_of_the_reused_image(bundle):
    """x brightens by 1 per frame and is fused in steps of 4, which is not flicker."""
    x, y = gray(*range(50, 74)), gray(*[50] * 24)
    steps, _, _ = run(bundle, x, y, reuse=3)
    both, _, stats = run(bundle, x, y, reuse=3, deflicker=0.5)
    assert stats["reused"] == 18
    for got, expected in zip(both, steps, strict=True):
        np.testing.assert_array_equal(got.image, expected.image)


class FlickeringBackend(CopyingBackend):
    """Returns x, brighter by 20 in every second call."""

    def infer(self, inputs):
        outputs = super().infer(inputs)
        outputs["fused"] = outputs["fused"] + np.uint8(20 * (len(self.calls) % 2))
        return outputs


def test_with_reuse_the_flicker_of_fused_frames_is_removed(bundle):
    x = gray(*[50, 51] * 10)
    frames, _, stats = run(bundle, x, x, backend=FlickeringBackend, reuse=0, deflicker=0.5)
    assert stats["reused"] == 0
    levels = [float(frame.image.mean()) for frame in frames]
    assert np.abs(np.diff(levels)).max() <= 4


def test_motion_of_real_video_is_always_detected(val_pairs):
    """Cars and people before two fixed cameras: no frame is close to the previous one."""
    for clip in ("m3svd_0111_1753", "m3svd_0115_1834"):
        x, y = (
            [read_frame(path) for path in sorted((val_pairs.parent / "video" / clip / side).iterdir())]
            for side in "xy"
        )
        changes = [
            max(max_block_change(x[i], x[i - 1]), max_block_change(y[i], y[i - 1])) for i in range(1, len(x))
        ]
        assert min(changes) > 50
