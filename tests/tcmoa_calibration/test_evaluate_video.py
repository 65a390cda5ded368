"""Evaluations of video: the frames of a clip, and what flickers."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tcmoa_calibration.baselines import BASELINES
from tcmoa_calibration.evaluate import Contestant, evaluate_pairs
from tcmoa_calibration.flicker import flicker
from tcmoa_runtime.images import read_image
from tcmoa_runtime.pairs import find_pairs

FRAMES = 4


def write(path, image):
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def clip(tmp_path):
    """A still scene with sensor noise, and in `wobbly` its average with a brightness that goes up and down."""
    rng = np.random.default_rng(0)
    x, y = (cv2.GaussianBlur(rng.uniform(0, 255, (64, 80)), (0, 0), 4) for _ in range(2))
    for t in range(FRAMES):
        noisy = [np.clip(v + rng.normal(0, 0.7, v.shape), 0, 255).round() for v in (x, y)]
        for name, image in zip("xy", noisy, strict=True):
            write(tmp_path / "clip" / f"f{t:03d}_{name}.png", image.astype(np.uint8))
        mean = np.clip(np.mean(noisy, axis=0).round() + 4 * (t % 2), 0, 255)
        write(tmp_path / "wobbly" / f"f{t:03d}.png", mean.astype(np.uint8))
    return tmp_path


def test_flicker_is_that_of_the_frames_in_the_order_of_their_names(clip):
    contestants = [Contestant.folder(clip / "wobbly"), Contestant.baseline("average")]
    done = []
    found = evaluate_pairs(
        clip / "clip",
        contestants=contestants,
        metrics=["EN"],
        out=clip / "out",
        jobs=1,
        video=True,
        progress=lambda n, of: done.append((n, of)),
    )
    frames = [(read_image(pair.x), read_image(pair.y)) for pair in find_pairs(clip / "clip")]
    fused = [BASELINES["average"].fuse(x, y) for x, y in frames]
    assert found.flicker["average"] == flicker(*zip(*frames, strict=True), fused)
    assert found.flicker["average"].excess < 0.5
    assert found.flicker["wobbly"].pumping > 3
    assert done[-1] == (4 * FRAMES, 4 * FRAMES)

    stored = json.loads((clip / "out" / "results.json").read_text())
    assert stored["flicker"]["wobbly"]["pumping"] == found.flicker["wobbly"].pumping
    assert len(stored["flicker"]["wobbly"]["steps"]) == FRAMES - 1
    page = (clip / "out" / "report.html").read_text()
    assert f">{found.flicker['wobbly'].pumping:.4f}</td>" in page


def test_without_video_nothing_is_said_of_flicker(clip):
    found = evaluate_pairs(
        clip / "clip", contestants=[Contestant.baseline("average")], metrics=["EN"], jobs=1
    )
    assert found.flicker == {}
    assert found.to_json()["flicker"] == {}


def test_a_missing_frame_leaves_the_clip_of_that_contestant_without_figures(clip):
    (clip / "wobbly" / "f002.png").unlink()
    contestants = [Contestant.folder(clip / "wobbly"), Contestant.baseline("average")]
    found = evaluate_pairs(clip / "clip", contestants=contestants, metrics=["EN"], jobs=1, video=True)
    assert list(found.flicker) == ["average"]
    told = [failure for failure in found.failures if failure.name == "the clip"]
    assert [(failure.contestant, failure.error) for failure in told] == [
        ("wobbly", "flicker is not measured, for frames are missing")
    ]


def test_one_frame_is_no_clip(clip):
    for path in (clip / "clip").glob("f00[1-9]_*"):
        path.unlink()
    found = evaluate_pairs(
        clip / "clip", contestants=[Contestant.baseline("average")], metrics=["EN"], jobs=1, video=True
    )
    assert [failure.error for failure in found.failures] == ["the clip has 1 frame: flicker needs at least 2"]


def test_sixteen_bits_are_refused_for_flicker_and_measured_else(clip):
    for path in (clip / "clip").glob("*_y.png"):
        write(path, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 40)
    found = evaluate_pairs(
        clip / "clip", contestants=[Contestant.baseline("average")], metrics=["EN"], jobs=1, video=True
    )
    assert len(found.contestants[0].images) == FRAMES
    assert "stretch the whole clip to 8 bits first" in found.failures[0].error


def test_the_command_prints_a_table_of_flicker(clip):
    command = [sys.executable, "-c", "from tcmoa_runtime.cli import main; main()", "evaluate"]
    options = ["--pairs", "clip", "--fused", "wobbly", "--baselines", "average", "--metrics", "EN", "--video"]
    done = subprocess.run(command + options, cwd=clip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split() for line in done.stdout.splitlines() if len(line.split()) == 6][-3:]
    assert header == ["flicker", "excess", "pumping", "still", "sources", "share"]
    assert float(rows[0][2]) > 3 > 0.5 > float(rows[1][2])
