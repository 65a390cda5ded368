"""`tcmoa stream` as a user runs it: real processes, real files, signals, pipes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tcmoa_runtime import Fuser
from tcmoa_runtime.images import read_frame, write_image
from tcmoa_runtime.install import install_command
from video_pieces import FFMPEG, FFPROBE, audio_of, count_frames, gradient, leftovers, probe, write

av = pytest.importorskip("av", reason="PyAV is not installed; `pip install 'tcmoa[stream]'` runs this")
pytestmark = pytest.mark.skipif(
    not (FFPROBE and FFMPEG), reason="ffmpeg is not installed; `apt-get install ffmpeg` runs this"
)
COUNT = 24
JSON_KEYS = {
    "frames",
    "dropped",
    "latency_ms",
    "input_age_ms",
    "skew_ms",
    "sources",
    "stages_ms",
    "ended",
    "backend",
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """x.mkv and y.mkv of 130x100, lossless, y at another rate; and the same frames of x as images."""
    folder = tmp_path_factory.mktemp("clips")
    x = [gradient(i, 100, 130) for i in range(COUNT)]
    write(folder / "x.mkv", x, codec="ffv1")
    write(folder / "y.mkv", [gradient(3 * i, 100, 130)[::-1] for i in range(9)], codec="ffv1",
          stamps=[round(i * 1000 / 9) for i in range(9)])  # fmt: skip
    (folder / "images").mkdir()
    for i, image in enumerate(x):
        write_image(folder / "images" / f"f{i}.png", image)
    return folder


@pytest.fixture
def start(vif):
    """Start `tcmoa stream` on the micro bundle with one thread; killed at the end of the test."""
    running = []

    def call(*arguments, **options):
        command = [
            Path(sys.executable).with_name("tcmoa"),
            "stream",
            vif,
            "--threads",
            "1",
            *map(str, arguments),
        ]
        # A shell may have started the tests with interrupts ignored, which the command would inherit.
        process = subprocess.Popen(
            command,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        running.append(process)
        return process

    yield call
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def run_here(tcmoa, vif):
    """Run `tcmoa stream` on the micro bundle in this process; returns what it printed."""

    def call(*arguments):
        done = tcmoa("stream", vif, *arguments)
        assert done.code == 0, done.err
        return done.out

    return call


def finished(process, code=0, timeout=120):
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == code, err
    return out, err


def test_every_frame_of_two_files_in_order_with_its_time(clips, start, tmp_path, fuser):
    """x leads, the partner is the nearest in time, and the file holds what the fuser returns."""
    out, err = finished(
        start(clips / "x.mkv", clips / "y.mkv", "-o", tmp_path / "f.mkv", "--codec", "ffv1", "--json")
    )
    summary = json.loads(out)
    assert err == ""
    assert summary.keys() >= JSON_KEYS
    assert (summary["frames"], summary["ended"], summary["live"]) == (COUNT, "end", False)
    stream, times, _ = probe(tmp_path / "f.mkv")
    assert (stream["nb_read_frames"], float(Fraction(stream["avg_frame_rate"]))) == (
        str(COUNT),
        pytest.approx(25, rel=0.01),
    )
    np.testing.assert_allclose(times, np.arange(COUNT) * 0.04, atol=6e-4)
    with av.open(str(tmp_path / "f.mkv")) as container:
        got = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for i, image in enumerate(got):
        partner = min(range(9), key=lambda j: abs(round(j * 1000 / 9) - 40 * i))
        np.testing.assert_array_equal(
            image, fuser(gradient(i, 100, 130), gradient(3 * partner, 100, 130)[::-1])
        )


def test_image_sequences_in_and_out(clips, run_here, tmp_path, fuser):
    out = run_here(clips / "images", clips / "images", "-o", f"{tmp_path}/frames/%03d.png")
    assert f"{COUNT} frames in" in out
    for i in (0, 9, 10, 23):
        expected = fuser(gradient(i, 100, 130), gradient(i, 100, 130))
        np.testing.assert_array_equal(read_frame(tmp_path / "frames" / f"{i:03d}.png"), expected)


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A file of two minutes, which no test reads to its end."""
    path = tmp_path_factory.mktemp("endless") / "x.mkv"
    source = ("-f", "lavfi", "-i", "testsrc=size=130x100:rate=25:duration=120")
    subprocess.run([FFMPEG, "-v", "error", *source, "-c:v", "mjpeg", path], check=True)
    return path


def wait_for(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def log_lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize(
    ("number", "pace"),
    [
        (signal.SIGINT, "--realtime"),
        (signal.SIGINT, "--every-frame"),
        (signal.SIGTERM, "--realtime"),
        (signal.SIGTERM, "--every-frame"),
        (signal.SIGHUP, "--every-frame"),
    ],
)
def test_signals_end_the_stream_with_complete_files(start, endless, tmp_path, number, pace):
    x, log = endless, tmp_path / "log.jsonl"
    process = start(x, x, "-o", tmp_path / "f.mp4", "--log", log, "--json", pace)
    wait_for(lambda: log_lines(log) > 10)
    process.send_signal(number)
    out, _ = finished(process)
    summary = json.loads(out)
    assert summary["ended"] == "stopped"
    assert count_frames(tmp_path / "f.mp4") == summary["frames"] > 10
    assert log_lines(log) == summary["frames"]
    assert leftovers(tmp_path) == []


def test_a_pipe_in_and_a_pipe_out(clips, start, tmp_path):
    """Raw video from one process, and to another."""
    source = subprocess.Popen(
        [FFMPEG, "-v", "error", "-i", clips / "x.mkv", "-f", "rawvideo", "-pix_fmt", "bgr24", "-"],
        stdout=subprocess.PIPE,
    )
    process = start(
        "-",
        clips / "y.mkv",
        "--raw-x",
        "130x100:bgr24",
        "--every-frame",
        "-o",
        "-",
        stdin=source.stdout,
        text=False,
    )
    source.stdout.close()
    out, err = process.communicate(timeout=120)
    source.wait()
    assert (process.returncode, err) == (0, b"")
    assert len(out) == COUNT * 100 * 130 * 3


def test_audio_of_x_is_copied(run_here, tmp_path):
    x = tmp_path / "x.mp4"
    subprocess.run(
        [FFMPEG, "-v", "error", "-f", "lavfi", "-i", "testsrc=size=130x100:rate=25:duration=1", "-f", "lavfi", "-i",
         "sine=duration=1", "-c:a", "aac", x],
        check=True,
    )  # fmt: skip
    run_here(x, x, "-o", tmp_path / "f.mp4", "--copy-x")
    assert audio_of(tmp_path / "f.mp4")[0] == ["h264", "aac"]


def test_a_disk_that_fills_up(start, endless, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a small file system cannot be mounted; root on Linux runs this")
    try:
        process = start(endless, endless, "-o", folder / "f.mp4", "--quality", "1", "--json")
        out, err = finished(process, code=2)
        (line,) = [line for line in err.splitlines() if "error" in line]
        assert f"{folder}/f.mp4: writing failed: No space left on device" in line
        assert json.loads(out)["ended"] == "error"
        assert count_frames(folder / "f.mp4") >= 3
    finally:
        process.kill()
        process.wait()
        subprocess.run(["umount", folder], check=True)


def test_prompt_options_fuse_as_the_fuser_does(clips, run_here, tmp_path, vif):
    options = ["--prompt-shift", "0.3", "--prompt-scale", "1.5", "--frames", "2"]
    run_here(clips / "images", clips / "images", "-o", f"{tmp_path}/o/", *options)
    image = gradient(1, 100, 130)
    with Fuser.load(vif) as fuser:
        expected = fuser(image, image, scale=1.5, shift=0.3)
    np.testing.assert_array_equal(read_frame(tmp_path / "o" / "000001.png"), expected)


def test_each_start_writes_files_of_its_own(clips, run_here, tmp_path):
    out, log = tmp_path / "{time}-fused.mkv", tmp_path / "{time}.jsonl"
    run_here(clips / "x.mkv", clips / "y.mkv", "--frames", "1", "-o", out, "--log", log)
    written, logged = sorted(path.name for path in tmp_path.iterdir() if "{" not in path.name)
    assert re.fullmatch(r"\d{8}T\d{6}Z\.jsonl", logged)
    assert written == logged.replace(".jsonl", "-fused.mkv")


def test_still_frames_are_fused_once(run_here, tmp_path):
    """Six frames, of which the first three and the last three are equal."""
    frames = tmp_path / "in"
    frames.mkdir()
    for i in range(6):
        write_image(frames / f"{i}.png", gradient(i // 3, 100, 130))
    out = run_here(frames, frames, "-o", f"{tmp_path}/plain/")
    assert "reused" not in out
    out = run_here(frames, frames, "-o", f"{tmp_path}/reused/", "--reuse", "0")
    assert "6 frames in" in out
    assert ", 4 reused, " in out
    for i in range(6):
        plain, reused = (read_frame(tmp_path / name / f"00000{i}.png") for name in ("plain", "reused"))
        np.testing.assert_array_equal(reused, plain)
    out = run_here(frames, frames, "--json", "--reuse", "255", "--log", tmp_path / "log.jsonl")
    summary = json.loads(out)
    assert (summary["frames"], summary["reused"], summary["reuse"]) == (6, 5, 255)
    logged = [json.loads(line)["reused"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged == [False] + [True] * 5


def test_live_files_report_the_age_of_their_frames(run_here, endless, tmp_path):
    summary = json.loads(
        run_here(endless, endless, "--realtime", "--frames", "20", "--json", "-o", f"{tmp_path}/o/")
    )
    assert (summary["live"], summary["frames"]) == (True, 20)
    assert summary["input_age_ms"]["p50"] > 0


WRONG = {
    "nothing to do": ("{x} {y}", "no output requested. Give --out, --page or --log, or --json"),
    "no such file": ("{x} none.mkv -o {out}", "none.mkv: no such file or folder"),
    "both on stdin": ("- - -o {out}", "both sources are stdin (-); expected one at most"),
    "stdout twice": ("{x} {y} -o - --json", "two outputs on stdout"),
    "no raw format": ("- {y} -o {out}", "raw video without a format. Give --raw-x 640x480:gray16le"),
    "bad raw format": ("- {y} -o {out} --raw-x 640", "--raw-x: '640'; expected WIDTHxHEIGHT:PIXELS"),
    "bad lead": ("{x} {y} -o {out} --lead z", "Invalid value for '--lead': 'z' is not one of 'x', 'y'"),
    "bad policy": ("{x} {y} -o {out} --on-loss panic", "Invalid value for '--on-loss'"),
    "bad offset": (
        "{x} {y} -o {out} --offset soon",
        "--offset: 'soon'; expected seconds, auto or timestamps",
    ),
    "bad rate": ("{x} {y} -o {out} --rate fast", "--rate: 'fast'; expected frames per second"),
    "bad option": ("{x} {y} -o {out} --option-x tcp", "--option-x: 'tcp'; expected NAME=VALUE"),
    "bad view": ("{x} {y} -o {out} --view up", "Invalid value for '--view'"),
    "bad codec": ("{x} {y} -o {out} --codec warp", "Invalid value for '--codec'"),
    "bad ramp": ("{x} {y} -o {out} --ramp -1", "--ramp: -1"),
    "bad reuse": ("{x} {y} -o {out} --reuse -1", "--reuse: -1.0; expected 0 to 255 gray levels"),
    "reuse that is no number": ("{x} {y} -o {out} --reuse nan", "--reuse: nan; expected a finite number"),
    "bad frames": ("{x} {y} -o {out} --frames 0", "--frames: 0; expected a whole number"),
    "bad stretch": ("{x} {y} -o {out} --stretch 99,1", "expected two percentiles, 0 <= LOW < HIGH"),
    "bad backend": ("{x} {y} -o {out} --backend warp", "Invalid value for '--backend'"),
    "copy of images": ("{images} {y} -o {out} --copy-x", "can be copied"),
    "log in no folder": ("{x} {y} --log none/log.jsonl", "the folder none does not exist"),
    "offset of a pipe": (
        "- {y} -o {out} --offset auto --raw-x 130x100:gray",
        "auto opens both sources twice",
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_wrong_input_is_one_line_and_leaves_nothing(case, clips, tcmoa, vif, tmp_path, tree):
    arguments, words = WRONG[case]
    places = {
        "x": clips / "x.mkv",
        "y": clips / "y.mkv",
        "images": clips / "images",
        "out": tmp_path / "f.mp4",
    }
    tcmoa("stream", vif, *arguments.format(**places).split()).assert_error(2, words)
    assert tree(tmp_path) == {}


def test_another_size_is_refused_with_a_remedy(clips, tcmoa, exported, tmp_path):
    write_image(tmp_path / "0.png", gradient(0, 50, 50))
    tcmoa("stream", exported("vif"), tmp_path, clips / "images", "-o", tmp_path / "f.mp4").assert_error(
        2,
        "x is 50x50; expected 130x100, the size of this bundle. Set --fit to tile, pad or resize, or export a bundle",
    )


def test_without_pyav_the_error_names_the_extra(clips, tcmoa, vif, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    tcmoa("stream", vif, clips / "x.mkv", clips / "y.mkv", "-o", f"{tmp_path}/o/").assert_error(
        3, install_command("stream")
    )


def test_a_real_clip_keeps_its_frames(start, tmp_path, val_pairs):
    """M3SVD, 640x480 JPEGs resized to the micro bundle's size and back."""
    clip = val_pairs.parent / "video" / "m3svd_0111_1753"
    finished(
        start(clip / "x", clip / "y", "--fit", "resize", "-o", tmp_path / "f.mkv", "--view", "side-by-side")
    )
    stream, times, _ = probe(tmp_path / "f.mkv")
    assert (stream["width"], stream["height"], len(times)) == (1920, 480, len(list((clip / "x").iterdir())))
