"""`tcmoa stream` where outputs fail, sources lie, and paths look like syntax: each line and exit code."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from free_ports import free_port
from tcmoa_runtime.images import write_image
from tcmoa_runtime.location import redact
from tcmoa_runtime.streams.output_locks import OutputLocks, check_not_locked
from video_pieces import FFMPEG, FFPROBE, count_frames, gradient

av = pytest.importorskip("av", reason="PyAV is not installed; `pip install 'tcmoa[stream]'` runs this")
pytestmark = pytest.mark.skipif(
    not (FFPROBE and FFMPEG), reason="ffmpeg is not installed; `apt-get install ffmpeg` runs this"
)
FRAMES = 12


@pytest.fixture
def here(clip, tmp_path, monkeypatch):
    """The current folder, with s.mkv and y.mkv."""
    monkeypatch.chdir(tmp_path)
    for name in ("s.mkv", "y.mkv"):
        shutil.copy(clip, name)
    return tmp_path


@pytest.fixture
def stream(here, vif, tcmoa):
    """Function that runs `tcmoa stream` on s.mkv and y.mkv; returns the exit code, the summary and the lines."""

    def call(*arguments, sources=("s.mkv", "y.mkv")):
        done = tcmoa("stream", vif, *sources, *arguments, "--json", "--backend", "onnxruntime")
        summary = json.loads(done.out) if done.out else None
        return done.code, summary, [line.removeprefix("tcmoa: ") for line in done.err.splitlines()]

    return call


def images_in(folder):
    return len(list(Path(folder).glob("*.png")))


# Outputs that fail

FAILING = {
    "no server": (
        ["-o", "rtsp://127.0.0.1:1/x"],
        "rtsp://127.0.0.1:1/x: connection failed: Connection refused",
    ),
    "no listener": (["-o", "tcp://127.0.0.1:1"], "tcp://127.0.0.1:1: connection failed: Connection refused"),
    "no screen": (["-o", "window"], "window: this build of OpenCV has no windows"),
    "no place for a log": (
        ["--log", "/proc/log.jsonl"],
        "/proc/log.jsonl: cannot be written: No such file or directory",
    ),
    "no protocol or listener": (
        ["-o", "srt://127.0.0.1:1?passphrase=0123456789&timeout=1"],
        "srt://127.0.0.1:1?passphrase=***&timeout=1: connection failed: ",
    ),
    "no place for a video": (
        ["-o", "/proc/f.mp4"],
        "/proc/f.mp4: cannot be written: No such file or directory",
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_failing_output_alone_ends_the_run_with_its_error(stream, tree, here, case):
    before = tree(here)
    arguments, line = FAILING[case]
    code, summary, lines = stream(*arguments)
    assert (code, summary["frames"], summary["ended"]) == (2, 0, "error")
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {line}")
    (failed,) = summary["failed_outputs"].values()
    assert failed == summary["error"] == lines[0].removeprefix("error: ")
    assert tree(here) == before


@pytest.mark.parametrize("case", ["no server", "no place for a log", "no place for a video"])
def test_a_stream_that_cannot_start_prints_its_error_alone(tcmoa, here, vif, case):
    arguments, line = FAILING[case]
    done = tcmoa("stream", vif, "s.mkv", "y.mkv", *arguments, "--backend", "onnxruntime")
    assert (done.code, done.out) == (2, "")
    (printed,) = done.err.splitlines()
    assert printed.startswith(f"tcmoa: error: {line}")


def test_an_output_that_is_locked_while_sources_are_opened_is_refused_at_the_start(
    here, vif, tcmoa, monkeypatch
):
    """The early check has passed."""
    monkeypatch.setattr("tcmoa_runtime.streams.stream.check_not_locked", lambda *_, **__: None)
    locks = OutputLocks()
    locks.add(["o.mkv"])
    done = tcmoa("stream", vif, "s.mkv", "y.mkv", "-o", "o.mkv", "--backend", "onnxruntime")
    locks.close()
    done.assert_error(2, f"o.mkv: is being written by process {os.getpid()}")
    assert (done.out, done.err.count("\n")) == ("", 1)


def test_beside_failing_outputs_the_others_are_complete(stream):
    arguments = [argument for case in FAILING.values() for argument in case[0]]
    code, summary, lines = stream(*arguments, "-o", "kept/", "-o", "kept.mkv")
    assert (code, summary["frames"], summary["ended"]) == (2, FRAMES, "error")
    assert [images_in("kept"), count_frames("kept.mkv")] == [FRAMES, FRAMES]
    assert len(summary["failed_outputs"]) == len(FAILING)
    expected = [line for _, line in sorted(FAILING.values(), key=lambda case: "--log" in case[0])]
    assert lines[0] == f"warning: {expected[0]}; the other outputs go on"
    for line, problem in zip(lines[1:-1], expected[1:], strict=True):
        assert line.startswith(f"warning: {problem}")
    assert lines[-1] == f"error: {expected[0]}"


def test_an_encoder_that_cannot_be_opened_here_is_an_error(stream):
    """It needs a device that is missing."""
    code, summary, lines = stream("-o", "f.mp4", "-o", "kept/", "--encoder", "h264_v4l2m2m")
    if "FFmpeg has no encoder" in lines[-1]:
        pytest.skip("FFmpeg was built without this encoder; Linux wheels of PyAV run this")
    assert (code, images_in("kept")) == (2, FRAMES)
    assert lines[-1].startswith("error: f.mp4: cannot be written: ")
    assert summary["failed_outputs"].keys() == {"f.mp4"}
    assert not Path("f.mp4").exists()


def test_all_outputs_that_fail_are_listed(stream):
    code, summary, lines = stream("-o", "rtsp://127.0.0.1:1/x", "-o", "window")
    assert (code, summary["frames"], list(summary["failed_outputs"])) == (
        2,
        0,
        ["rtsp://127.0.0.1:1/x", "window"],
    )
    assert [line.partition(":")[0] for line in lines] == ["warning", "error"]


# Secrets, and names that a terminal obeys


def test_secrets_are_in_no_line_and_no_summary(stream):
    for target in (
        "rtsp://user:hem/melig@127.0.0.1:1/x",
        "tcp://127.0.0.1:1?password=hemmelig",
        "rtmp://127.0.0.1:1/live/hemmelig",
    ):
        code, summary, lines = stream("-o", target, sources=("s.mkv", "y.mkv"))
        assert code == 2
        assert "hem" not in json.dumps(summary) + " ".join(lines)
        code, _, lines = stream("-o", "o/", sources=(target, "y.mkv"))
        assert code == 2
        assert "hem" not in " ".join(lines)
    code, _, (line,) = stream("one", "more", "http://user:hem/melig@host/?hem")
    assert code == 2
    assert "hem" not in line


def test_metadata_and_names_cannot_control_the_terminal(stream, here):
    escape = "\x1b]0;owned\x07"
    with av.open(f"{here}/a{escape}.mkv", "w") as container:
        container.metadata["title"] = escape
        video = container.add_stream("mjpeg", rate=25)
        video.width, video.height, video.pix_fmt = 130, 100, "yuvj420p"
        video.metadata["title"] = video.metadata["handler_name"] = escape
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(gradient(i, 100, 130), format="rgb24")
            container.mux(video.encode(frame.reformat(format="yuvj420p")))
        container.mux(video.encode())
    code, summary, lines = stream("-o", f"b{escape}.mkv", "--copy-x", sources=(f"a{escape}.mkv", "y.mkv"))
    assert (code, summary["frames"]) == (0, 3)
    assert all(line.isprintable() for line in lines)
    code, _, lines = stream("-o", f"b{escape}.xyz")
    assert code == 2
    assert all(line.isprintable() for line in lines)


# Sources that are incomplete


@pytest.mark.parametrize("side", [0, 1])
def test_a_file_that_was_cut_is_an_error_after_its_frames(stream, here, side):
    data = Path("s.mkv").read_bytes()
    Path("cut.mkv").write_bytes(data[: len(data) * 55 // 100])
    sources = ["s.mkv", "y.mkv"]
    sources[side] = "cut.mkv"
    code, summary, lines = stream("-o", "kept.mkv", sources=sources)
    given = summary["sources"]["xy"[side]]
    assert code == 2
    assert given["frames_expected"] == FRAMES
    assert 1 < given["frames"] < 10
    assert summary["ended"] == "error"
    line = f"cut.mkv: ends early, after {given['frames']} of {FRAMES} frames"
    assert [
        text.startswith(f"{kind}: {line}") for text, kind in zip(lines, ("warning", "error"), strict=True)
    ]
    assert lines[-1].endswith("expected a complete file. Copy or record it again.")
    assert count_frames("kept.mkv") == summary["frames"] == (given["frames"] if side == 0 else FRAMES)


def test_damaged_images_are_counted_and_said(stream):
    for side in "xy":
        Path(side).mkdir()
        for i in range(4):
            write_image(f"{side}/{i}.png", gradient(i, 100, 130))
    Path("y/2.png").write_text("not an image")
    code, summary, lines = stream("-o", "o/", sources=("x", "y"))
    assert (code, summary["frames"], summary["status"]) == (0, 4, {"fused": 3, "held-y": 1})
    assert summary["sources"]["y"]["errors"] == 1
    (line,) = lines
    assert line.startswith(
        "warning: y: 1 of its frames could not be read (the first: y/2.png: not a readable image"
    )


# Sources that would be overwritten


def test_no_output_overwrites_a_source_or_the_bundle(stream, tree, here, vif):
    Path("x").mkdir()
    write_image("x/0.png", gradient(0, 100, 130))
    os.link("s.mkv", "hard.mkv")
    Path("soft.mkv").symlink_to("s.mkv")
    before, bundle = tree(here), tree(vif)
    for arguments, name in (
        (["-o", "s.mkv"], "source x"),
        (["-o", "./x/../s.mkv"], "source x"),
        (["-o", "o.mkv", "-o", "y.mkv"], "source y"),
        (["--log", "s.mkv"], "source x"),
        (["-o", "hard.mkv"], "source x"),
        (["-o", "soft.mkv"], "source x"),
        (["--log", str(vif / "bundle.json")], "bundle"),
        (["-o", f"{vif}/"], "bundle"),
    ):
        code, summary, lines = stream(*arguments)
        assert (code, summary) == (2, None)
        (line,) = lines
        assert line.endswith(f": would overwrite the {name}; expected another place. Choose another output.")
    for target in ("x/", "x", "x/%06d.png"):
        code, _, (line,) = stream("-o", target, sources=("x", "x"))
        assert code == 2
        assert line.endswith(": would overwrite the source x; expected another place. Choose another output.")
    code, _, (line,) = stream("-o", "o.mkv", "--log", "o.mkv")
    assert (code, line) == (2, "error: o.mkv: two outputs write it; expected one. Choose another one.")
    write_image("mask.png", np.zeros((13, 17), np.uint8))
    code, _, (line,) = stream("--prompt-shift", "mask.png", "--log", "mask.png")
    assert code == 2
    assert line.startswith("error: mask.png: would overwrite the mask")
    Path("mask.png").unlink()
    assert (tree(here), tree(vif)) == (before, bundle)


def test_an_output_that_another_stream_writes_is_refused(stream, tcmoa, vif, tree, here):
    before, locks = tree(here), OutputLocks()
    locks.add(["o.mkv"])
    line = (
        f"error: o.mkv: is being written by process {os.getpid()}; expected one stream at a time. Wait until it has "
        "ended, or choose another output."
    )
    assert stream("-o", "kept.mkv", "-o", "./o.mkv") == (2, None, [line])
    for options in (["--offset", "auto"], ["--page", "127.0.0.1:0"]):
        done = tcmoa("stream", vif, "s.mkv", "y.mkv", "-o", "o.mkv", *options)
        assert (done.code, done.out, done.err) == (2, "", f"tcmoa: {line}\n")
    assert tree(here) == before
    locks.close()
    lines = stream("-o", "o.mkv", "--offset", "auto")[2]
    assert lines[0] == "offset: measuring the motion in both sources"
    assert stream("-o", "o.mkv")[0] == 0
    check_not_locked(["o.mkv"])


@pytest.mark.parametrize(
    "url", ["udp://127.0.0.1:{}", "rtsp://u:secret@127.0.0.1:{}/x", "rtmp://127.0.0.1:{}/live/x"]
)
def test_a_url_to_which_another_stream_pushes_is_refused(stream, url):
    locks, url = OutputLocks("pair gate of fleet yard"), url.format(free_port())
    locks.add([url])
    for view in ("fused", "side-by-side"):
        code, _, lines = stream("-o", url, "--view", view)
        assert (code, lines) == (2, [
            f"error: {redact(url)}: is being written by process {os.getpid()} (pair gate of fleet yard); expected one "
            "stream at a time. Wait until it has ended, or choose another output."
        ])  # fmt: skip
    locks.close()
    if url.startswith("udp"):
        assert stream("-o", url)[0] == 0
        check_not_locked([url])


# Names that look like syntax

NAMES = [
    "10:30.mkv",
    "my%20drone.mkv",
    "50%d.mkv",
    "rtsp:x.mkv",
    "a|b.mkv",
    "file:a.mkv",
    "window.mkv",
    "#1?a=b.mkv",
]


@pytest.mark.parametrize("name", NAMES)
def test_an_existing_file_is_a_file_and_an_output_too(stream, name):
    shutil.copy("s.mkv", name)
    Path("o").mkdir()
    code, summary, lines = stream("-o", f"o/{name}", "-o", f"o/{name}.mp4", sources=(name, f"./{name}"))
    assert (code, summary["frames"], lines) == (0, FRAMES, [])
    assert [count_frames(f"./o/{name}"), count_frames(f"./o/{name}.mp4")] == [FRAMES, FRAMES]


def test_names_that_begin_with_a_dash(stream, vif, tcmoa):
    shutil.copy("s.mkv", "-x.mkv")
    shutil.copy("s.mkv", "-")
    code, summary, lines = stream("-o", "o.mkv", sources=("./-x.mkv", "./-"))
    assert (code, summary["frames"], lines) == (0, FRAMES, [])
    assert tcmoa("stream", "-o", "./-o.mkv", "--", vif, "-x.mkv", "./-").code == 0
    assert count_frames("./-o.mkv") == FRAMES


def test_a_slash_at_the_end(stream):
    code, summary, lines = stream("-o", "o.mkv/", sources=("s.mkv/", "y.mkv"))
    assert (code, summary["frames"], lines) == (0, FRAMES, [])
    assert images_in("o.mkv") == FRAMES
    code, _, (line,) = stream("-o", "s.mkv/", sources=("y.mkv", "y.mkv"))
    assert (code, line) == (2, "error: s.mkv/: s.mkv is a file; expected a folder")


def test_other_characters_of_a_pattern_are_taken_as_they_are(stream):
    code, _, lines = stream("-o", "o/100%_%s_%03d.png", "--frames", "2")
    assert (code, lines) == (0, [])
    assert sorted(path.name for path in Path("o").iterdir()) == ["100%_%s_000.png", "100%_%s_001.png"]
    code, summary, _ = stream("-o", "p/", sources=("o/100%_%s_%03d.png", "o/100%_%s_%03d.png"))
    assert (code, summary["frames"]) == (0, 2)


# Folders that do not belong together


def test_folders_are_paired_by_name_or_refused(stream):
    for name, numbers in (("x", range(5)), ("y", (0, 1, 3, 4)), ("z", range(1, 6))):
        Path(name).mkdir()
        for i in numbers:
            write_image(f"{name}/{i:02d}.png", gradient(i, 100, 130))
    code, summary, lines = stream("-o", "o/", sources=("x", "y"))
    assert (code, summary["status"]) == (0, {"fused": 4, "held-y": 1})
    assert lines == ["warning: x and y: paired by name; 1 image has no partner, the first is x/02.png"]
    code, summary, lines = stream("-o", "p/", sources=("x", "z"))
    assert (code, summary) == (2, None)
    assert lines == [
        "error: x and z: images 0 to 4 and 1 to 5; expected images of equal names or numbers. Rename them, or set "
        "--images-by place to pair them in their order."
    ]
    assert not Path("p").exists()
    code, summary, lines = stream("-o", "p/", "--images-by", "place", sources=("x", "z"))
    assert (code, summary["status"], lines) == (0, {"fused": 5}, [])
