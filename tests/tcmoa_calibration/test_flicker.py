"""Flicker against a slow implementation, properties for any video, and real clips."""

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

from tcmoa_calibration.flicker import Flicker, flicker
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_image

SHARED = Path(__file__).resolve().parents[3] / "shared"

Image = NDArray[np.uint8]
Clip = list[Image]
SHAPE = (40, 52)


def to_uint8(values: NDArray[Any]) -> Image:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def scene(seed: int, shape: tuple[int, int] = SHAPE) -> NDArray[np.float64]:
    """Return a smooth image, from 40 to 215."""
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, shape), 4)
    picture: NDArray[np.float64] = 128 + np.clip(40 * rough / max(float(rough.std()), 1e-9), -88, 87)
    return picture


def noisy_clip(seed: int, sigma: float, count: int = 4, shape: tuple[int, int] = SHAPE) -> Clip:
    """Return one scene with new noise in each frame."""
    rng = np.random.default_rng(seed + 1000)
    return [to_uint8(scene(seed, shape) + sigma * rng.normal(0, 1, shape)) for _ in range(count)]


def averaged(x: Clip, y: Clip) -> Clip:
    return [((a.astype(np.uint16) + b + 1) // 2).astype(np.uint8) for a, b in zip(x, y, strict=True)]


def pumped(clip: Clip, levels: float) -> Clip:
    """Brighten and darken frames alternately, by a factor that changes the mean by `levels` gray levels."""
    mean = float(np.mean([frame.mean() for frame in clip]))
    return [to_uint8(frame * (1 + levels / mean * (1, -1)[t % 2])) for t, frame in enumerate(clip)]


def with_noise(clip: Clip, sigma: float) -> Clip:
    rng = np.random.default_rng(7)
    return [to_uint8(frame + sigma * rng.normal(0, 1, frame.shape)) for frame in clip]


def values_of(found: Flicker) -> list[float]:
    values = [found.excess, found.still, found.sources, found.pumping]
    assert found.missing == ""
    assert all(type(value) is float and np.isfinite(value) for value in values)
    return [value for value in values if value is not None]


def slow_flicker(x: Clip, y: Clip, fused: Clip) -> tuple[list[float | None], list[float]]:
    """Compute excess, still, sources and pumping pixel by pixel, and the share of each step."""

    def luma(frame: Image) -> NDArray[np.float64]:
        levels = frame / 257 if frame.dtype == np.uint16 else frame.astype(np.float64)
        return levels if frame.ndim == 2 else levels @ np.array([0.299, 0.587, 0.114])

    at = np.arange(-6, 7)
    window = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 2.0**2))
    window /= window.sum()
    over, still, sources, pumping, shares = [], [], [], [], []
    for t in range(1, len(fused)):
        da, db, df = (luma(clip[t]) - luma(clip[t - 1]) for clip in (x, y, fused))
        h, w = df.shape
        near_a, near_b = (np.pad(d, 6, mode="symmetric") for d in (da, db))
        is_still = np.zeros((h, w), bool)
        for r in range(h):
            for c in range(w):
                place = np.s_[r : r + 13, c : c + 13]
                is_still[r, c] = all(abs((window * near[place]).sum()) < 2 for near in (near_a, near_b))
                if is_still[r, c]:
                    bound = max(abs(da[r, c]), abs(db[r, c]))
                    still.append(abs(df[r, c]))
                    sources.append(bound)
                    over.append(max(0.0, abs(df[r, c]) - bound))
        shares.append(is_still.mean())
        for r in range(0, h - 15, 16):
            for c in range(0, w - 15, 16):
                block = np.s_[r : r + 16, c : c + 16]
                if is_still[block].all():
                    means = [abs(d[block].mean()) for d in (da, db, df)]
                    pumping.append(max(0.0, means[2] - max(means[0], means[1])))
    return [float(np.mean(v)) if v else None for v in (over, still, sources, pumping)], shares


@pytest.mark.parametrize("kind", ["gray", "color", "uint16"])
def test_results_equal_those_of_a_slow_implementation(kind: str) -> None:
    x, y, fused = noisy_clip(1, 1.5), noisy_clip(2, 3.0), pumped(noisy_clip(3, 2.0), 1.0)
    for t in range(4):
        x[t][4 + t : 12 + t, 3:15] = 230  # a moving object
    if kind == "color":
        x, fused = ([np.stack([f, 255 - f, np.roll(f, 1, 0)], axis=-1) for f in clip] for clip in (x, fused))
    wide: Any = [frame.astype(np.uint16) * 256 + 77 for frame in x]
    used = wide if kind == "uint16" else x
    expected, shares = slow_flicker(used, y, fused)
    found = flicker(used, y, fused)
    assert 0.5 < found.share < 0.98
    assert values_of(found) == pytest.approx(expected, abs=1e-10)
    assert [step.share for step in found.steps] == pytest.approx(shares, abs=1e-12)
    assert found.share == pytest.approx(np.mean(shares))
    for t, step in enumerate(found.steps):
        of_step, _ = slow_flicker(used[t : t + 2], y[t : t + 2], fused[t : t + 2])
        assert [step.excess, step.still, step.sources, step.pumping] == pytest.approx(of_step, abs=1e-10)


@st.composite
def videos(draw: st.DrawFn) -> tuple[Clip, Clip, Clip]:
    """Return two noisy sources, with or without a moving object, and a fused clip of any kind."""
    seed, count = draw(st.integers(0, 1000)), draw(st.integers(2, 5))
    shape = (draw(st.integers(1, 50)), draw(st.integers(1, 50)))
    x, y = (noisy_clip(seed + k, draw(st.sampled_from([0.0, 1.0, 4.0])), count, shape) for k in (0, 1))
    if draw(st.booleans()):
        for t in range(count):
            x[t][:, : 1 + 3 * t] = 255
    fused = draw(st.sampled_from([averaged(x, y), x, noisy_clip(seed + 2, 2.0, count, shape)]))
    return x, y, pumped(fused, draw(st.sampled_from([0.0, 0.5, 3.0])))


@given(videos())
@settings(max_examples=40)
def test_the_order_of_sources_and_of_time_does_not_matter(
    clips: tuple[Clip, Clip, Clip],
) -> None:
    x, y, fused = clips
    found = flicker(x, y, fused)
    assert flicker(y, x, fused) == found
    reversed_ = flicker(x[::-1], y[::-1], fused[::-1])
    assert reversed_.steps[::-1] == found.steps
    assert (reversed_.excess, reversed_.pumping, reversed_.share) == (
        found.excess,
        found.pumping,
        found.share,
    )
    assert len(found.steps) == len(x) - 1
    for step in (found, *found.steps):
        if step.excess is None or step.still is None or step.sources is None:
            assert step.share == 0
            assert step.excess is step.still is step.sources is step.pumping is None
        else:
            assert 0 < step.share <= 1
            assert max(0, step.still - step.sources) - 1e-9 <= step.excess <= step.still + 1e-9
            assert step.pumping is None or step.pumping >= 0
    assert bool(found.missing) == (found.excess is None or found.pumping is None)


@given(videos())
@settings(max_examples=25)
def test_a_source_and_the_mean_of_both_have_no_excess(clips: tuple[Clip, Clip, Clip]) -> None:
    x, y, _ = clips
    for fused in (x, y, averaged(x, y)):
        found = flicker(x, y, fused)
        assert found.excess in (0.0, None)
        assert found.pumping is None or found.pumping < 0.5  # halves are rounded up in some frames


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(2, 4))
@settings(max_examples=15)
def test_a_constant_video_has_no_flicker(a: int, b: int, f: int, count: int) -> None:
    x, y, fused = ([np.full(SHAPE, level, np.uint8)] * count for level in (a, b, f))
    found = flicker(x, y, fused)
    assert values_of(found) == [0, 0, 0, 0]
    assert found.share == 1
    held = [noisy_clip(seed, 5.0)[0] for seed in range(3)]
    assert values_of(flicker(*([frame] * count for frame in held))) == [0, 0, 0, 0]


@pytest.mark.parametrize("disturb", [pumped, with_noise])
@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_values_rise_with_the_flicker(disturb: Callable[[Clip, float], Clip], sigma: float) -> None:
    x, y = noisy_clip(1, sigma, 6), noisy_clip(2, sigma, 6)
    found = [flicker(x, y, disturb(averaged(x, y), amount)) for amount in (0, 1, 2, 4, 8)]
    every = [values_of(f) for f in found]
    for index in (0, 1, 3):  # excess, still, pumping
        assert all(low[index] < high[index] for low, high in pairwise(every)), every
    assert found[0].excess == 0
    assert len({(f.sources, f.share) for f in found}) == 1


def test_pumping_is_found_under_the_noise_of_sources() -> None:
    """A change of +-1 level under noise of 6 levels hardly changes single pixels, but changes all means by 2."""
    x, y = noisy_clip(1, 6.0, 6, (96, 96)), noisy_clip(2, 6.0, 6, (96, 96))
    calm, changed = (flicker(x, y, pumped(averaged(x, y), levels)) for levels in (0, 1))
    excess = values_of(changed)[0] - values_of(calm)[0]
    pumping = values_of(changed)[3] - values_of(calm)[3]
    assert excess < 0.4
    assert pumping > 1


def test_frames_that_alternate_between_the_sources_flicker() -> None:
    x, y = noisy_clip(1, 1.0), noisy_clip(2, 1.0)
    found = flicker(x, y, [x[0], y[1], x[2], y[3]])
    assert values_of(found)[0] > 20


def test_each_step_has_its_own_values() -> None:
    x, y = noisy_clip(1, 1.0, 6), noisy_clip(2, 1.0, 6)
    fused = averaged(x, y)
    fused[3] = to_uint8(fused[3] + 5.0)
    found = flicker(x, y, fused)
    assert [step.excess is not None and step.excess > 1 for step in found.steps] == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert [step.pumping is not None and step.pumping > 1 for step in found.steps] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_without_still_pixels_there_are_no_values() -> None:
    x, y = noisy_clip(1, 1.0, 3), noisy_clip(2, 1.0, 3)
    brighter = [to_uint8(frame + 20.0 * t) for t, frame in enumerate(x)]
    for sources in ((brighter, y), (y, brighter)):
        found = flicker(*sources, x)
        assert found.share == 0
        assert found.excess is found.still is found.sources is found.pumping is None
        assert "no pixel is still in both sources" in found.missing
        assert all(step.excess is None and step.share == 0 for step in found.steps)


def test_a_step_without_still_pixels_adds_nothing() -> None:
    x, y = noisy_clip(1, 1.0, 3), noisy_clip(2, 1.0, 3)
    x[0] = to_uint8(x[0] + 20.0)
    fused = pumped(averaged(x, y), 3)
    whole, second = flicker(x, y, fused), flicker(x[1:], y[1:], fused[1:])
    assert whole.steps[0].share == 0
    assert values_of(whole) == pytest.approx(values_of(second))
    assert whole.share == pytest.approx(second.share / 2)


def test_only_still_pixels_count() -> None:
    """The left part of a source moves, so that changes of the fused video there do not count."""
    x, y = noisy_clip(1, 0.0, 3, (48, 96)), noisy_clip(2, 0.0, 3, (48, 96))
    for t in range(3):
        x[t][:, :40] = 60 * t
    fused = [frame.copy() for frame in y]
    fused[1][:, :40] = 255
    found = flicker(x, y, fused)
    assert values_of(found) == [0, 0, 0, 0]
    assert 0.5 < found.share < 0.6  # 56 of 96 columns, minus the reach of the blur


@pytest.mark.parametrize("shape", [(15, 40), (40, 15), (1, 1)])
def test_without_a_whole_block_there_is_no_pumping(shape: tuple[int, int]) -> None:
    x, y = noisy_clip(1, 0.5, 3, shape), noisy_clip(2, 0.5, 3, shape)
    found = flicker(x, y, pumped(averaged(x, y), 4))
    assert found.excess is not None
    assert found.excess > 3
    assert found.pumping is None
    assert "no block of 16x16 pixels is still" in found.missing


def test_any_mixture_of_frame_types_gives_the_same_result() -> None:
    x, y = noisy_clip(1, 1.0), noisy_clip(2, 1.0)
    fused = pumped(averaged(x, y), 2)
    found = flicker(x, y, fused)
    assert flicker(np.stack(x), (frame for frame in y), iter(fused)) == found
    assert flicker([frame[..., None] for frame in x], y, fused) == found
    in_color = flicker([np.repeat(frame[..., None], 3, axis=2) for frame in x], y, fused)
    wide = flicker([frame.astype(np.uint16) * 257 for frame in x], y, fused)
    for other in (in_color, wide):
        assert values_of(other) == pytest.approx(values_of(found), abs=1e-9)


def test_only_two_frames_are_in_memory_and_frames_do_not_change() -> None:
    side, count = 128, 60

    def stream(seed: int) -> Iterator[Image]:
        for t in range(count):
            frame = np.random.default_rng((seed, t)).integers(120, 123, (side, side), dtype=np.uint8)
            frame.setflags(write=False)
            yield frame

    flicker(stream(0), stream(1), (frame for frame, _ in zip(stream(2), range(count), strict=True)))
    tracemalloc.start()
    try:
        found = flicker(stream(0), stream(1), stream(2))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.steps) == count - 1
    plane = side * side * 8
    assert peak < 25 * plane  # all frames of the three clips are 180 planes


GOOD = noisy_clip(0, 1.0)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ((GOOD[:1], GOOD[:1], GOOD[:1]), "1 frames in each clip; expected at least 2"),
        (([], [], []), "0 frames in each clip"),
        ((GOOD, GOOD[:3], GOOD), "y: 3 frames, but others have more"),
        ((GOOD[:3], GOOD, GOOD[:3]), "x and fused: 3 frames"),
        (
            (GOOD, GOOD, [*GOOD[:2], GOOD[2][:-1], GOOD[3]]),
            r"frame 2: sizes differ \(52x39, 52x40\)",
        ),
        (([f[:9] for f in GOOD], GOOD, GOOD), "frame 0: sizes differ"),
        (
            ([GOOD[0][:9], *GOOD[1:]], [GOOD[0][:9], *GOOD[1:]], [GOOD[0][:9], *GOOD[1:]]),
            "frame 1: sizes differ",
        ),
        ((GOOD, [f / 255 for f in GOOD], GOOD), "frame 0 of y: float64; expected uint8 or uint16"),
        ((GOOD, GOOD, [*GOOD[:3], None]), "frame 3 of fused: object"),
        ((GOOD, [f[None] for f in GOOD], GOOD), r"frame 0 of y: shape \[1, 40, 52\]"),
        (([f[:0] for f in GOOD], GOOD, GOOD), "expected at least one pixel"),
        ((GOOD[0], GOOD, GOOD), r"x: shape \[40, 52\], a single image; expected a sequence of frames"),
        ((GOOD, np.dstack(GOOD[:3]), GOOD), r"y: shape \[40, 52, 3\], a single image"),
        ((GOOD, GOOD, 5), "fused: int; expected a sequence of frames"),
        (("clip.mp4", GOOD, GOOD), "frame 0 of x: <U1"),
    ],
)
def test_other_arguments_are_refused_in_one_line(clips: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        flicker(*clips)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module", params=["m3svd_0111_1753", "m3svd_0115_1834"])
def real(request: pytest.FixtureRequest) -> tuple[Clip, Clip]:
    """Return visible and infrared frames of a fixed camera; skips if they are absent."""
    folder = SHARED / "data" / "video" / str(request.param)
    if not folder.is_dir():
        pytest.skip(
            f"../shared/data/video/{request.param} is absent; place the project beside it to run this"
        )
    x, y = ([read_image(path) for path in sorted((folder / side).iterdir())[:8]] for side in "xy")
    return x, y


def test_real_clips(real: tuple[Clip, Clip]) -> None:
    x, y = real
    fused = averaged(x, y)
    calm = flicker(x, y, fused)
    excess, still, sources, pumping = values_of(calm)
    assert calm.share > 0.6
    assert excess < 0.02
    assert pumping < 0.01
    assert 0.3 < still < sources < 2.5
    changed = values_of(flicker(x, y, pumped(fused, 2)))
    assert changed[0] > 2
    assert changed[3] > 2.5
    assert changed[2] == sources
