"""The flicker filter removes flicker where nothing moves, and changes nothing else."""

import numpy as np
import pytest

from stream_pieces import CopyingBackend, ListSink, ScriptedSource
from tcmoa_calibration.flicker import flicker
from tcmoa_runtime import Fuser, InputError, Stream
from tcmoa_runtime.images import read_frame, resize_frame
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.deflicker import FlickerFilter

rng = np.random.default_rng(3)
SCENE = rng.integers(60, 180, (64, 80, 3)).astype(np.uint8)


def filtered(x, y, fused, seconds=0.5, order="rgb"):
    flicker_filter = FlickerFilter(seconds, order)
    return [flicker_filter.filter(*frames, t / 25) for t, frames in enumerate(zip(x, y, fused, strict=True))]


def test_in_a_still_scene_a_change_of_the_output_decays_exponentially():
    """The sources never change and the fusion jumps by 40: 1/e of the step is suppressed after the time constant."""
    jump = [SCENE] * 3 + [SCENE + np.uint8(40)] * 40
    out = filtered([SCENE] * 43, [SCENE] * 43, jump)
    left = [float((a.astype(int) - b).mean()) for a, b in zip(jump, out, strict=True)]
    assert left[:3] == [0, 0, 0]
    for t in range(3, 43):
        assert left[t] == pytest.approx(40 * np.exp(-(t - 2) / 12.5), abs=0.6)


def test_moving_parts_are_the_fused_image_bit_by_bit():
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


def test_changes_within_those_of_the_sources_are_kept():
    """The whole scene and the fusion change by less than the limit of motion."""
    tremble = [SCENE + np.uint8(t % 2) for t in range(6)]
    for got, wanted in zip(filtered(tremble, [SCENE] * 6, tremble), tremble, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_gap_a_reset_and_a_step_back_in_time_start_anew():
    bright = SCENE + np.uint8(40)
    for then in (5.0, -1.0, 0.0):
        flicker_filter = FlickerFilter(0.5, "rgb")
        flicker_filter.filter(SCENE, SCENE, SCENE, 0.0)
        np.testing.assert_array_equal(flicker_filter.filter(SCENE, SCENE, bright, then), bright)
    flicker_filter = FlickerFilter(0.5, "rgb")
    flicker_filter.filter(SCENE, SCENE, SCENE, 0.0)
    flicker_filter.reset()
    np.testing.assert_array_equal(flicker_filter.filter(SCENE, SCENE, bright, 0.04), bright)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (17, 2, 3), (33, 47, 3)])
def test_any_size_and_sources_of_other_sizes_and_channels(shape):
    fused = [rng.integers(0, 256, shape, np.uint8) for _ in range(3)]
    gray, larger = np.full(shape[:2], 9, np.uint8), np.full((40, 50, 3), 9, np.uint8)
    for got in filtered([larger] * 3, [gray] * 3, fused):
        assert (got.shape, got.dtype) == (shape, np.uint8)
    for got in filtered([larger] * 3, [gray[..., None]] * 3, fused, order="bgr"):
        assert got.shape == shape


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), "long"])
def test_wrong_seconds_are_refused(wrong):
    with pytest.raises(InputError, match="deflicker: "):
        FlickerFilter(wrong, "rgb")


class FlickeringBackend(CopyingBackend):
    """Returns x, brighter by 20 in every second frame."""

    def infer(self, inputs):
        outputs = super().infer(inputs)
        outputs["fused"] = outputs["fused"] + np.uint8(20 * (len(self.calls) % 2))
        return outputs


def stream_of(bundle, **options):
    images = [np.full((100, 130, 3), 90, np.uint8)] * 12
    x, y = (ScriptedSource([40 * i for i in range(12)], images=images) for _ in range(2))
    sink = ListSink()
    return Stream(
        Fuser(bundle, FlickeringBackend(bundle)), x, y, StreamOptions(**options), sinks=[sink]
    ), sink


def steps(sink):
    levels = [float(frame.image.mean()) for frame in sink.frames]
    return np.abs(np.diff(levels))


def test_a_stream_filters_flicker_on_request_only(bundle):
    plain, sink = stream_of(bundle)
    plain.run()
    assert steps(sink).min() == 20
    filtered_stream, sink = stream_of(bundle, deflicker=0.5)
    stats = filtered_stream.run().snapshot()
    assert steps(sink).max() <= 3
    assert "deflicker" in stats["stages_ms"]


def test_a_change_of_the_prompt_shows_at_once(bundle):
    stream, sink = stream_of(bundle, deflicker=0.5)
    call_numbers = iter(range(12))
    fuse = stream.fuser.backend.infer

    def infer(inputs):
        if next(call_numbers) == 6:
            stream.control.set(shift=0.1, ramp=0)
        return fuse(inputs)

    stream.fuser.backend.infer = infer
    stream.run()
    # Frame 7 is the first with the new prompt: it is not filtered, the following ones are.
    assert [place for place, step in enumerate(steps(sink)) if step > 10] == [6]


def test_real_video_flickers_less(val_pairs):
    """A fusion that takes the brighter source at each pixel, where noise decides between nearly equal ones."""
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
