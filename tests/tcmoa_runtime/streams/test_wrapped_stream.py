"""Streams of wrapped networks: without control of a prompt, and with extremes that are held over time."""

import logging

import numpy as np
import pytest

from micro_model import frames
from page_pieces import call, request, running_page
from stream_pieces import ListSink, ScriptedSource
from tcmoa_runtime import Bundle, Fuser, Stream
from tcmoa_runtime.errors import InputError, NoPromptError
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.control import StreamControl
from tcmoa_runtime.streams.extremes import ExtremesFilter
from tcmoa_runtime.streams.keyboard import apply_key
from wrapped_pieces import HEIGHT, WIDTH, write_two_layers

SIZE = (HEIGHT, WIDTH)
NO_PROMPT = "this network has no prompt; expected a bundle of `tcmoa export`. Leave it out."


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory):
    """A bundle of a small wrapped network."""
    return Bundle.open(write_two_layers(tmp_path_factory.mktemp("wrapped") / "two-layers"))


@pytest.fixture(scope="module")
def stretched(tmp_path_factory):
    """A bundle of a wrapped network that stretches x by its own extremes."""
    return Bundle.open(write_two_layers(tmp_path_factory.mktemp("wrapped") / "stretched", stretches=1))


def sources(x, y):
    """Two files of these frames, at 25 frames per second."""
    times = [40 * index for index in range(len(x))]
    return ScriptedSource(times, size=SIZE, images=x), ScriptedSource(times, size=SIZE, images=y)


def run_stream(bundle, x, y, **options):
    """Run a stream of these frames; return the fused images and the stream."""
    sink = ListSink()
    with Fuser.load(bundle.path, "onnxruntime", threads=1) as fuser:
        stream = Stream(fuser, *sources(x, y), StreamOptions(**options), sinks=[sink])
        stream.run()
    return [frame.image for frame in sink.frames], stream


def test_a_stream_gives_the_bytes_of_the_fuser(wrapped):
    x, y = frames(*SIZE, 3, seed=1), frames(*SIZE, 3, seed=2)
    images, stream = run_stream(wrapped, x, y)
    with Fuser.load(wrapped.path, "onnxruntime", threads=1) as fuser:
        np.testing.assert_array_equal(np.stack(images), fuser(x, y))
    assert stream.control.prompt() == (None, None)


def test_reuse_and_the_flicker_filter_need_no_prompt(wrapped):
    x, y = np.stack([frames(*SIZE, 1, seed=1)[0]] * 3), np.stack([frames(*SIZE, 1, seed=2)[0]] * 3)
    images, stream = run_stream(wrapped, x, y, reuse=0, deflicker=0.5)
    assert stream.stats.snapshot()["reused"] == 2
    assert all(np.array_equal(image, images[0]) for image in images)


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        (lambda control: control.set(scale=1.0), "scale"),
        (lambda control: control.set(shift=0.2), "shift"),
        (lambda control: control.set_region(rectangle=(0, 0, 8, 8)), "region"),
        (lambda control: control.clear_region(), "region"),
        (lambda control: control.reset(), "prompt"),
    ],
)
def test_control_of_the_prompt_is_refused(change, subject):
    with pytest.raises(NoPromptError) as raised:
        change(StreamControl((0, 0), size=SIZE, has_prompt=False))
    assert str(raised.value) == f"{subject}: {NO_PROMPT}"


def test_keys_change_nothing():
    control = StreamControl((0, 0), size=SIZE, has_prompt=False)
    assert not any(apply_key(control, key) for key in ("up", "left", "r"))


def test_the_page_says_that_there_is_no_prompt(wrapped):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed; `pip install 'tcmoa[stream]'` runs this")
    x, y = (ScriptedSource([40 * i for i in range(200)], size=SIZE) for _ in range(2))
    with (
        Fuser.load(wrapped.path, "onnxruntime", threads=1) as fuser,
        running_page(wrapped, fuser=fuser, x=x, y=y) as (page, _),
    ):
        state = call(page, "/api/state")[1]
        assert (state["stream"]["has_prompt"], state["stream"]["prompt_count"], state["grid"]) == (
            False,
            0,
            [0, 0],
        )
        for method, path, body, subject in (
            ("POST", "/api/control", {"shift": 0.2}, "shift"),
            ("PUT", "/api/region", {"rectangle": [0, 0, 8, 8]}, "region"),
            ("POST", "/api/reset", {}, "prompt"),
        ):
            assert call(page, path, method, body) == (400, {"error": f"{subject}: {NO_PROMPT}"})
        assert request(page, "/")[2].decode().count('class="of-prompt"') == 4


# Extremes


def flashing(count=6):
    """Dim frames of x, each with one bright pixel of another level."""
    x = np.stack([frames(*SIZE, 1, seed=3)[0] // 3] * count)
    x[:, 5, 5] = np.linspace(100, 255, count).astype(np.uint8)[:, None]
    return x, np.stack([frames(*SIZE, 1, seed=4)[0]] * count)


def test_a_stretched_network_is_said_to_flicker_once(stretched, caplog):
    caplog.set_level(logging.WARNING, "tcmoa")
    run_stream(stretched, *flashing(3))
    assert [record.getMessage() for record in caplog.records] == [
        "two-layers stretches each picture by its own minimum and maximum, which flickers in videos; the option "
        "hold_extremes smooths them over time"
    ]


def test_held_extremes_flicker_less(stretched, caplog):
    caplog.set_level(logging.WARNING, "tcmoa")
    x, y = flashing()

    def change_of(images):
        return float(np.abs(np.diff(np.stack(images).astype(int), axis=0)).mean())

    own, held = run_stream(stretched, x, y)[0], run_stream(stretched, x, y, hold_extremes=2)[0]
    np.testing.assert_array_equal(held[0], own[0])
    assert change_of(held) < change_of(own) / 5
    assert len(caplog.records) == 1  # of the first stream


def test_there_are_no_extremes_to_hold_in_another_network(wrapped):
    x, y = frames(*SIZE, 2, seed=1), frames(*SIZE, 2, seed=2)
    with pytest.raises(InputError) as raised:
        run_stream(wrapped, x, y, hold_extremes=2)
    assert str(raised.value) == (
        "hold_extremes: 2 s, but this network stretches no picture by its own extremes; expected 0. Leave it out."
    )


def test_extremes_follow_with_the_time_constant():
    held = ExtremesFilter(0.5)
    assert held.held_at(0.0) is None
    held.add(np.float32([[0, 100]]), 0.0)
    held.add(np.float32([[50, 200]]), 0.5)
    share = 1 - np.exp(-1)
    np.testing.assert_allclose(held.held_at(0.6), [[50 * share, 100 + 100 * share]], rtol=1e-6)
    held.add(np.float32([[np.nan, 1]]), 0.6)
    assert np.isfinite(held.held_at(0.7)).all()
    assert held.held_at(3.0) is None  # after a gap
    held.add(np.float32([[5, 6]]), 3.0)
    np.testing.assert_allclose(held.held_at(3.1), [[5, 6]])


def test_the_time_constant_is_checked():
    with pytest.raises(InputError, match=r"^hold_extremes: -1; expected"):
        StreamOptions(hold_extremes=-1)
