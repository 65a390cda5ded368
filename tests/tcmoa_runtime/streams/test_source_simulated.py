"""Simulated cameras: what they show, when, and what else is refused."""

import threading
import time
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from tcmoa_runtime import Fuser, Stream
from tcmoa_runtime.contract import TASKS
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.interfaces import SourceError
from tcmoa_runtime.streams.sources import SourceOptions, open_source
from tcmoa_runtime.streams.sources.simulated import PERIOD_SECONDS, SimulatedCamera


class Clock:
    """A clock that tests move."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def frame_at(location, seconds, **options):
    clock = Clock()
    clock.now = seconds
    return SimulatedCamera(location, SourceOptions(**options), clock=clock).read()


@pytest.mark.parametrize("task", TASKS)
def test_x_and_y_of_a_task_are_two_pictures_of_640x480(task):
    x, y = (frame_at(f"simulated://{task}/{side}", 1000.0) for side in "xy")
    assert x.image.shape == y.image.shape == (480, 640, 3)
    assert x.image.dtype == y.image.dtype == np.uint8
    assert x.pts == y.pts == 25000
    assert not np.array_equal(x.image, y.image)


def test_a_location_without_a_task_is_of_visible_and_infrared():
    assert np.array_equal(frame_at("simulated://y", 3.0).image, frame_at("simulated://vif/y", 3.0).image)


def test_the_camera_pans_and_comes_back():
    start = frame_at("simulated://x", 0.0).image
    side = frame_at("simulated://x", PERIOD_SECONDS / 2).image
    assert not np.array_equal(start, side)
    assert np.array_equal(frame_at("simulated://x", PERIOD_SECONDS).image, start)


def test_channels_are_in_the_order_of_the_bundle():
    rgb = frame_at("simulated://x", 3.0).image
    assert np.array_equal(frame_at("simulated://x", 3.0, channel_order="bgr").image, rgb[..., ::-1])
    assert not np.array_equal(rgb, rgb[..., ::-1])


def test_frames_that_were_not_read_in_time_are_skipped():
    clock = Clock()
    camera = SimulatedCamera("simulated://x", SourceOptions(rate=Fraction(10)), clock=clock)
    numbers = []
    for seconds in (1000.0, 1000.1, 1000.75, 1000.8):
        clock.now = seconds
        frame = camera.read()
        numbers.append((frame.pts, frame.index))
    assert numbers == [(10000, 0), (10001, 1), (10007, 2), (10008, 3)]


def test_close_wakes_a_read_that_waits():
    camera = SimulatedCamera("simulated://x", SourceOptions(rate=Fraction(1, 60)), clock=Clock())
    camera.read()
    frames = []
    reading = threading.Thread(target=lambda: frames.append(camera.read()))
    reading.start()
    time.sleep(0.05)
    camera.close()
    reading.join(60)
    assert frames == [None]


@pytest.mark.parametrize(
    "location", ["simulated://z", "simulated://", "simulated://mff", "simulated://vif/x/y"]
)
def test_other_names_are_refused_in_one_line(location):
    with pytest.raises(SourceError) as caught:
        open_source(location)
    assert str(caught.value) == (
        f"{location}: no such simulated camera; expected simulated://x, simulated://y, or another task's, "
        "e.g. simulated://mef/x"
    )


def test_a_stream_fuses_both():
    with (
        Fuser.load("nano-vif", "onnxruntime", fit="exact") as fuser,
        Stream(fuser, "simulated://x", "simulated://y", StreamOptions(frames=100)) as stream,
    ):
        # On a busy machine one camera may be read late, but not always.
        same = (f for f in stream if f.status == "fused" and abs(f.x.pts - f.y.pts) <= 1)
        assert len(list(islice(same, 2))) == 2
