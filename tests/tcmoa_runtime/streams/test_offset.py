"""The offset between two clocks, measured from motion; refused if the motion does not determine it."""

from fractions import Fraction

import numpy as np
import pytest

from stream_pieces import ScriptedSource, copying_fuser
from tcmoa_runtime import InputError, Stream
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams import offset, stream
from tcmoa_runtime.streams.interfaces import SourceError
from tcmoa_runtime.streams.offset import Motion, estimate_offset, measure_offset, measure_offset_of


def scene(at, *, infrared=False):
    """A disc that moves irregularly, at time `at`: bright on dark, or dark on bright with noise."""
    path = np.random.default_rng(7)
    knots = np.arange(0, 20, 0.35)
    speed = np.maximum(0, path.normal(0, 1, len(knots))) * 40
    way = np.interp(at, knots, np.cumsum(speed * 0.35))
    rows, columns = np.mgrid[:96, :128]
    disc = (rows - 48) ** 2 + (columns - 20 - way % 88) ** 2 < 15**2
    image = np.where(disc, 220, 40)
    if infrared:
        image = 200 - image * 0.6 + np.random.default_rng(int(at * 1000)).normal(0, 2, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def sources(offset, rate_x=30, rate_y=30, seconds=11):
    """y's own clock is `offset` seconds behind: what y stamps t, x stamps t + offset."""
    stamps_x = [round(i * 1000 / rate_x) for i in range(seconds * rate_x)]
    stamps_y = [round(i * 1000 / rate_y) for i in range(seconds * rate_y)]
    x = ScriptedSource(stamps_x, rate=Fraction(rate_x), images=[scene(3 + s / 1000) for s in stamps_x])
    y = ScriptedSource(
        stamps_y,
        rate=Fraction(rate_y),
        images=[scene(3 + s / 1000 + offset, infrared=True) for s in stamps_y],
    )
    return x, y


@pytest.mark.parametrize(
    ("offset", "rates"), [(0.0, (30, 30)), (0.42, (30, 9)), (-1.3, (25, 30)), (2.0, (30, 30))]
)
def test_the_offset_is_found_within_a_frame(offset, rates):
    found = measure_offset(*sources(offset, *rates))
    assert found.offset == pytest.approx(offset, abs=0.5 / min(rates))
    assert found.score > 0.6


def test_the_offset_is_added_to_the_source_that_does_not_lead():
    x, y = sources(0.5)
    assert measure_offset(x, y, lead="y").offset == pytest.approx(-0.5, abs=0.02)


def still(count=330):
    image = np.full((96, 128), 90, np.uint8)
    noise = np.random.default_rng(1)
    return ScriptedSource(
        [i * 33 for i in range(count)],
        images=[(image + noise.integers(0, 3, image.shape)).astype(np.uint8) for _ in range(count)],
    )


def test_a_scene_without_motion_is_refused():
    with pytest.raises(InputError, match=r"offset: no offset stands out .* Give offset in seconds"):
        measure_offset(sources(0.0)[0], still())


def test_regular_motion_is_refused():
    def swinging():
        return ScriptedSource(
            [i * 33 for i in range(330)],
            images=[np.roll(scene(3.0), round(20 * np.sin(i / 4)), axis=1) for i in range(330)],
        )

    with pytest.raises(InputError, match="no offset stands out"):
        measure_offset(swinging(), swinging())


def test_too_short_a_source_is_refused():
    x, _ = sources(0.0)
    with pytest.raises(InputError, match="y has 10 frames in"):
        measure_offset(x, still(10))


def test_a_source_that_fails_is_reported():
    x, _ = sources(0.0)
    broken = ScriptedSource([i * 33 for i in range(330)], fails_after=5)
    with pytest.raises(SourceError, match="broke"):
        measure_offset(x, broken)


def test_a_change_of_brightness_is_no_motion():
    motion = Motion()
    for i in range(30):
        motion.add(np.full((96, 128), 50 + 5 * i, np.uint8), i / 30)
    assert max(motion.values) < 1e-3


def test_a_recalibration_of_the_thermal_camera_does_no_harm():
    x, y = sources(0.3)
    y._images[100] = 255 - y._images[100]
    assert measure_offset(x, y).offset == pytest.approx(0.3, abs=0.03)


def test_motion_without_frames_is_refused():
    with pytest.raises(InputError, match="x has 1 frames"):
        estimate_offset(Motion(), Motion())


def test_sources_that_can_be_opened_only_once_are_refused_and_closed(monkeypatch):
    x, y = sources(0.0)
    closed = []
    for source in (x, y):
        monkeypatch.setattr(source, "close", lambda source=source: closed.append(source), raising=False)
    for given in ((x, y), ("-", "y.mp4"), ("x.mp4", y)):
        with pytest.raises(InputError, match="auto opens both sources twice"):
            measure_offset_of(*given, StreamOptions(offset="auto"))
    assert closed == [x, y, y]


def test_a_stream_measures_its_offset(bundle, monkeypatch):
    for module in (offset, stream):
        monkeypatch.setattr(module, "open_sources", lambda *_: dict(zip("xy", sources(0.42), strict=True)))
    options = StreamOptions(offset="auto", frames=5)
    with Stream(copying_fuser(bundle, fit="resize"), "x", "y", options) as running:
        assert len(list(running)) == 5
    assert running.options.offset == round(running.offset_estimate.offset, 4)
    assert running.options.offset == pytest.approx(0.42, abs=0.02)
