"""Outputs that would overwrite what is read are refused, and nothing is touched."""

import os
from pathlib import Path

import pytest

from tcmoa_runtime import InputError
from tcmoa_runtime.options.sink import SinkOptions
from tcmoa_runtime.streams.overwriting import check_outputs, path_of_source
from tcmoa_runtime.streams.sinks import open_sink


class Output:
    def __init__(self, *paths):
        self.paths = paths


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two sources as files, one as a folder, and links to them."""
    monkeypatch.chdir(tmp_path)
    for name in ("s.mp4", "y.mp4", "frames/0001.png", "frames/in_7.png", "bundle/bundle.json"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(name)
    os.link("s.mp4", "hard.mp4")
    Path("soft.mp4").symlink_to("s.mp4")
    Path("dangling.mp4").symlink_to("none.mp4")
    Path("linked").symlink_to("frames")
    return tmp_path


OVERWRITING = [
    ("s.mp4", "s.mp4"),
    ("s.mp4", "./s.mp4"),
    ("s.mp4", "frames/../s.mp4"),
    ("s.mp4", "hard.mp4"),
    ("s.mp4", "soft.mp4"),
    ("soft.mp4", "s.mp4"),
    ("none.mp4", "dangling.mp4"),
    ("frames", "frames/%06d.png"),
    ("frames/", "linked/%06d.png"),
    ("frames", "frames/0001.png"),
    ("frames/%04d.png", "frames/%d.png"),
    ("frames/in_%d.png", "linked/in_%03d.png"),
    ("frames/0001.png", "frames/%04d.png"),
    ("file:///proc/self/cwd/s.mp4", "s.mp4"),
]
ALLOWED = [
    ("s.mp4", "t.mp4"),
    ("frames", "frames/fused.mp4"),
    ("frames", "frames/log.jsonl"),
    ("frames/in_%d.png", "frames/out_%d.png"),
    ("frames/0001.png", "frames/out_%d.png"),
    ("s.mp4", "frames/%06d.png"),
    ("rtsp://host/s.mp4", "s.mp4"),
    ("-", "s.mp4"),
    ("/dev/null", "/dev/null"),
]


@pytest.mark.parametrize(("source", "output"), OVERWRITING)
def test_an_output_that_is_a_source_is_refused(places, source, output):
    with pytest.raises(InputError) as caught:
        check_outputs([Output(Path(output))], {"source y": path_of_source(source)})
    problem = "would overwrite the source y; expected another place. Choose another output."
    assert str(caught.value) == f"{Path(output)}: {problem}"


@pytest.mark.parametrize(("source", "output"), ALLOWED)
def test_other_outputs_are_allowed(places, source, output):
    check_outputs([Output(Path(output)), Output()], {"source x": path_of_source(source)})


def test_nothing_is_written_into_a_bundle(places):
    for place in ("bundle/fused.mp4", "bundle/bundle.json", "bundle/new/%06d.png", "frames/../bundle/log"):
        with pytest.raises(InputError, match="would overwrite the bundle"):
            check_outputs([Output(Path(place))], {"bundle": Path("bundle")})
    check_outputs([Output(Path("bundles/fused.mp4"))], {"bundle": Path("bundle")})


def test_two_outputs_of_one_url_are_refused():
    url = "rtsp://user:secret@host/x"
    sinks = [open_sink(url), open_sink(url, SinkOptions(view="blend"))]
    with pytest.raises(InputError) as caught:
        check_outputs(sinks, {"source x": Path("x.mkv")})
    assert str(caught.value) == ("rtsp://***@host/x: two outputs write it; expected one. Choose another one.")
    check_outputs([sinks[0], open_sink("rtsp://host/y")], {"bundle": Path("bundle")})


def test_two_outputs_of_one_file_are_refused(places):
    for first, second in (("t.mp4", "./t.mp4"), ("s.mp4", "hard.mp4")):
        with pytest.raises(InputError, match="two outputs write it; expected one"):
            check_outputs([Output(Path(first)), Output(Path(second))], {})
