"""Flicker goes where nothing moves, and nothing else changes."""

import numpy as np
import pytest

from stream_pieces import CopyingBackend, ListSink, ScriptedSource
from tcmoa_calibration.flicker import flicker
from tcmoa_runtime import Fuser, InputError, Stream
from tcmoa_runtime.images import read_frame, resize_frame
from tcmoa_runtime.streams.deflicker import FlickerFilter

rng = np.random.default_rng(3)
SCENE = rng.integers(60, 180, (64, 80, 3)).astype(np.uint8)


def filtered(x, y, fused, seconds=0.5, order="rgb"):
    steady = FlickerFilter(seconds, order)
    return [steady.filter(*frames, t / 25) for t, frames in enumerate(zip(x, y, fused, strict=True))]


def test_a_still_scene_keeps_its_picture_and_lets_a_change_through_in_time():
    """Sources never change, the fusion jumps by 40 and stays: 1/e of it is left after the time constant."""
    jump = [SCENE] * 3 + [SCENE + np.uint8(40)] * 40
    out = filtered([SCENE] * 43, [SCENE] * 43, jump)
    left = [float((a.astype(int) - b).mean()) for a, b in zip(jump, out, strict=True)]
    assert left[:3] == [0, 0, 0]
    for t in range(3, 43):
        assert left[t] == pytest.approx(40 * np.exp(-(t - 2) / 12.5), abs=0.6)


def test_what_moves_is_the_fused_picture_bit_by_bit():
    moving = [SCENE + np.uint8(9 * t) for t in range(8)]
    noisy = [
        np.clip(frame.astype(int) + rng.integers(-30, 30, frame.shape), 0, 255).astype(np.uint8)
        for frame in moving
    ]
    out = filtered(moving, moving, noisy)
    for got, wanted in zip(out, noisy, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_one_moving_source_is_enough():
    moving = [SCENE + np.uint8(9 * t) for t in range(5)]
    for x, y in ((moving, [SCENE] * 5), ([SCENE] * 5, moving)):
        for got, wanted in zip(filtered(x, y, moving), moving, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_changes_within_those_of_the_sources_pass():
    """The whole scene trembles by less than what counts as moving, and the fusion with it."""
    tremble = [SCENE + np.uint8(t % 2) for t in range(6)]
    for got, wanted in zip(filtered(tremble, [SCENE] * 6, tremble), tremble, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_gap_a_reset_and_time_that_goes_back_begin_anew():
    bright = SCENE + np.uint8(40)
    for then in (5.0, -1.0, 0.0):
        steady = FlickerFilter(0.5, "rgb")
        steady.filter(SCENE, SCENE, SCENE, 0.0)
        np.testing.assert_array_equal(steady.filter(SCENE, SCENE, bright, then), bright)
    steady = FlickerFilter(0.5, "rgb")
    steady.filter(SCENE, SCENE, SCENE, 0.0)
    steady.reset()
    np.testing.assert_array_equal(steady.filter(SCENE, SCENE, bright, 0.04), bright)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (17, 2, 3), (33, 47, 3)])
def test_any_size_and_sources_of_other_kinds(shape):
    fused = [rng.integers(0, 256, shape, np.uint8) for _ in range(3)]
    grey, larger = np.full(shape[:2], 9, np.uint8), np.full((40, 50, 3), 9, np.uint8)
    for got in filtered([larger] * 3, [grey] * 3, fused):
        assert (got.shape, got.dtype) == (shape, np.uint8)
    for got in filtered([larger] * 3, [grey[..., None]] * 3, fused, order="bgr"):
        assert got.shape == shape


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), "long"])
def test_wrong_seconds_are_told(wrong):
    with pytest.raises(InputError, match="steady is"):
        FlickerFilter(wrong, "rgb")


class FlickeringBackend(CopyingBackend):
    """x, brighter by 20 in every second frame."""

    def infer(self, inputs):
        outputs = super().infer(inputs)
        outputs["fused"] = outputs["fused"] + np.uint8(20 * (len(self.calls) % 2))
        return outputs


def stream_of(bundle, **options):
    images = [np.full((100, 130, 3), 90, np.uint8)] * 12
    x, y = (ScriptedSource([40 * i for i in range(12)], images=images) for _ in range(2))
    sink = ListSink()
    return Stream(Fuser(bundle, FlickeringBackend(bundle)), x, y, sinks=[sink], **options), sink


def steps(sink):
    levels = [float(frame.image.mean()) for frame in sink.frames]
    return np.abs(np.diff(levels))


def test_a_stream_is_steady_on_request_and_as_it_was_otherwise(bundle):
    plain, sink = stream_of(bundle)
    plain.run()
    assert steps(sink).min() == 20
    steady, sink = stream_of(bundle, steady=0.5)
    stats = steady.run().snapshot()
    assert steps(sink).max() <= 3
    assert "steady" in stats["stages_ms"]


def test_what_is_steered_shows_at_once(bundle):
    steady, sink = stream_of(bundle, steady=0.5)
    on_third = iter(range(12))
    fuse = steady.fuser.backend.infer

    def infer(inputs):
        if next(on_third) == 6:
            steady.control.set(shift=0.1, ramp=0)
        return fuse(inputs)

    steady.fuser.backend.infer = infer
    steady.run()
    # Frame 7 is the first with the new prompt: it comes as it is, and what follows is steady again.
    assert [place for place, step in enumerate(steps(sink)) if step > 10] == [6]


def test_real_video_flickers_less(val_pairs):
    """A fusion that hangs by a thread: per pixel the brighter source, with what is nearly even decided by noise."""
    clip = val_pairs.parent / "video" / "m3svd_0111_1753"
    x, y = (
        [resize_frame(read_frame(path), (240, 320)) for path in sorted((clip / side).iterdir())]
        for side in "xy"
    )
    y = [frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, 2) for frame in y]
    brighter = [
        np.where((a.mean(2) + rng.normal(0, 6, a.shape[:2]) > b.mean(2))[..., None], a, b)
        for a, b in zip(x, y, strict=True)
    ]
    out = filtered(x, y, brighter)
    before, after = flicker(x, y, brighter), flicker(x, y, out)
    assert after.excess < 0.5 * before.excess
    assert after.pumping < 0.5 * before.pumping
