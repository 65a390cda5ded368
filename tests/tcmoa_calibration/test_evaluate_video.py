"""Evaluations of video: the frames of a clip, and their flicker."""

import json
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tcmoa_calibration.baselines import BASELINES
from tcmoa_calibration.evaluate import EvaluateOptions, Method, evaluate_pairs
from tcmoa_calibration.flicker import flicker
from tcmoa_runtime.images import read_image
from tcmoa_runtime.pairs import find_pairs

FRAMES = 4
OPTIONS = EvaluateOptions(baselines=("average",), metrics=("EN",), jobs=1, video=True)


def write(path, image):
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def clip(tmp_path):
    """Write a still scene with sensor noise, and in `pumped` its average with alternating brightness."""
    rng = np.random.default_rng(0)
    x, y = (cv2.GaussianBlur(rng.uniform(0, 255, (64, 80)), (0, 0), 4) for _ in range(2))
    for t in range(FRAMES):
        noisy = [np.clip(v + rng.normal(0, 0.7, v.shape), 0, 255).round() for v in (x, y)]
        for name, image in zip("xy", noisy, strict=True):
            write(tmp_path / "clip" / f"f{t:03d}_{name}.png", image.astype(np.uint8))
        mean = np.clip(np.mean(noisy, axis=0).round() + 4 * (t % 2), 0, 255)
        write(tmp_path / "pumped" / f"f{t:03d}.png", mean.astype(np.uint8))
    return tmp_path


def test_flicker_is_that_of_the_frames_in_the_order_of_their_names(clip):
    steps = []
    found = evaluate_pairs(
        clip / "clip",
        [Method.folder(clip / "pumped")],
        OPTIONS,
        out=clip / "out",
        on_progress=lambda done, total: steps.append((done, total)),
    )
    frames = [(read_image(pair.x), read_image(pair.y)) for pair in find_pairs(clip / "clip")]
    fused = [BASELINES["average"].fuse(x, y) for x, y in frames]
    assert found.flicker["average"] == flicker(*zip(*frames, strict=True), fused)
    assert found.flicker["average"].excess < 0.5
    assert found.flicker["pumped"].pumping > 3
    assert steps[-1] == (4 * FRAMES, 4 * FRAMES)

    stored = json.loads((clip / "out" / "results.json").read_text())
    assert stored["flicker"]["pumped"]["pumping"] == found.flicker["pumped"].pumping
    assert len(stored["flicker"]["pumped"]["steps"]) == FRAMES - 1
    page = (clip / "out" / "report.html").read_text()
    assert f">{found.flicker['pumped'].pumping:.4f}</td>" in page


def test_without_video_there_is_no_flicker(clip):
    found = evaluate_pairs(clip / "clip", options=replace(OPTIONS, video=False))
    assert found.flicker == {}
    assert found.to_json()["flicker"] == {}


def test_a_method_with_a_missing_frame_has_no_flicker(clip):
    (clip / "pumped" / "f002.png").unlink()
    found = evaluate_pairs(clip / "clip", [Method.folder(clip / "pumped")], OPTIONS)
    assert list(found.flicker) == ["average"]
    failures = [failure for failure in found.failures if failure.name == "the clip"]
    assert [(failure.method, failure.error.problem) for failure in failures] == [
        ("pumped", "frames are missing; expected all of them to measure flicker")
    ]


def test_one_frame_is_not_a_clip(clip):
    for path in (clip / "clip").glob("f00[1-9]_*"):
        path.unlink()
    found = evaluate_pairs(clip / "clip", options=OPTIONS)
    assert [str(failure.error) for failure in found.failures] == [
        "video: 1 frame; expected at least 2 to measure flicker"
    ]


def test_sixteen_bits_are_measured_but_have_no_flicker(clip):
    for path in (clip / "clip").glob("*_y.png"):
        write(path, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 40)
    found = evaluate_pairs(clip / "clip", options=OPTIONS)
    assert len(found.methods[0].images) == FRAMES
    assert found.failures[0].error.remedy == "Stretch the whole clip to 8 bits first"


def test_the_command_prints_a_table_of_flicker(clip):
    command = [sys.executable, "-c", "from tcmoa_runtime.cli import main; main()", "evaluate"]
    options = ["--pairs", "clip", "--fused", "pumped", "--baselines", "average", "--metrics", "EN", "--video"]
    done = subprocess.run(command + options, cwd=clip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split() for line in done.stdout.splitlines() if len(line.split()) == 6][-3:]
    assert header == ["flicker", "excess", "pumping", "still", "sources", "share"]
    assert float(rows[0][2]) > 3 > 0.5 > float(rows[1][2])
