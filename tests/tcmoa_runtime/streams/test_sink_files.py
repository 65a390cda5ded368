"""Files written by sinks: number, times and colors of the frames, and files that play after an interruption."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tcmoa_runtime import InputError, MissingError
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.install import install_command
from tcmoa_runtime.streams.interfaces import SinkError
from tcmoa_runtime.streams.sinks import SinkOptions, open_sink
from video_pieces import (
    FFMPEG,
    FFPROBE,
    HEIGHT,
    WIDTH,
    count_frames,
    fused,
    gradient,
    leftovers,
    probe,
    read_back,
    stream_format,
    write,
)

av = pytest.importorskip("av", reason="PyAV is not installed; `pip install 'tcmoa[stream]'` runs this")
pytestmark = pytest.mark.skipif(
    not (FFPROBE and FFMPEG), reason="ffmpeg is not installed; `apt-get install ffmpeg` runs this"
)


@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "v.mkv"])
def test_frame_count_rate_and_times_are_correct(tmp_path, name):
    path = write(tmp_path / name, [gradient(i) for i in range(50)])
    stream, times, container = probe(path)
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("h264", WIDTH, HEIGHT)
    assert stream["nb_read_frames"] == "50"
    assert float(Fraction(stream["avg_frame_rate"])) == pytest.approx(25, rel=0.01)
    np.testing.assert_allclose(times, np.arange(50) * 0.04, atol=6e-4)
    assert float(container["duration"]) == pytest.approx(2, abs=0.05)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_a_variable_rate_keeps_its_times(tmp_path, name):
    stamps = [0, 40, 85, 120, 500, 540, 1540]
    path = write(tmp_path / name, [gradient(i) for i in range(7)], stamps=stamps)
    np.testing.assert_allclose(probe(path)[1], np.array(stamps) / 1000, atol=6e-4)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_ffv1_is_bit_exact(tmp_path, order):
    images = [gradient(i) for i in range(5)]
    given = images if order == "rgb" else [np.ascontiguousarray(i[..., ::-1]) for i in images]
    path = write(tmp_path / "v.mkv", given, codec="ffv1", order=order)
    np.testing.assert_array_equal(read_back(path), images)


@pytest.mark.parametrize(("height", "space"), [(64, "smpte170m"), (720, "bt709")])
def test_colors_agree_with_the_tags(tmp_path, height, space):
    flat = np.zeros((height, WIDTH, 3), np.uint8)
    for i, color in enumerate(
        [(200, 30, 30), (30, 200, 30), (30, 30, 200), (250, 250, 250), (5, 5, 5), (200, 200, 40)]
    ):
        flat[:, i * 16 : i * 16 + 16] = color
    path = write(tmp_path / "v.mp4", [flat] * 3, encoder_options={"qp": "0"})
    stream, _, _ = probe(path)
    assert (stream["color_space"], stream["color_range"], stream["pix_fmt"]) == (space, "tv", "yuv420p")
    got = read_back(path)[1]
    assert np.abs(got[:, 8::16].astype(int) - flat[:, 8::16]).max() <= 3


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"codec": "h264"}, "h264"),
        ({"codec": "hevc"}, "hevc"),
        ({"codec": "mjpeg"}, "mjpeg"),
        ({"encoder": "libx264"}, "h264"),
    ],
)
def test_codecs_and_encoders(tmp_path, options, name):
    images = [gradient(i) for i in range(6)]
    path = write(tmp_path / "v.mp4", images, **options)
    assert probe(path)[0]["codec_name"] == name
    got = read_back(path)
    assert (
        np.abs(got.astype(int) - images).mean() < 8
    )  # 4:2:0 halves the color resolution of a steep gradient


def test_quality_changes_the_size(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(10)]
    fine, coarse = (write(tmp_path / f"{q}.mp4", noise, quality=q).stat().st_size for q in (10, 40))
    assert fine > 3 * coarse


def test_wrong_options_of_an_encoder_fail_before_the_first_frame(tmp_path):
    sink = open_sink(str(tmp_path / "v.mp4"), SinkOptions(encoder_options={"preset": "warp"}))
    with pytest.raises(SinkError, match=r"v\.mp4: cannot be written"):
        sink.open(stream_format())
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_an_odd_size_is_kept(tmp_path):
    path = write(tmp_path / "v.mp4", [gradient(i, 63, 97) for i in range(3)])
    stream, _, _ = probe(path)
    assert (stream["width"], stream["height"], stream["pix_fmt"]) == (97, 63, "yuv444p")


@pytest.mark.parametrize(
    ("name", "options"), [("v.mp4", {}), ("v.mov", {"codec": "mjpeg"}), ("v.mkv", {"codec": "hevc"})]
)
def test_the_shape_of_pixels_is_kept(tmp_path, name, options):
    sink = open_sink(str(tmp_path / name), SinkOptions(view="side-by-side", **options))
    sink.open(replace(stream_format(), sample_aspect_ratio=Fraction(16, 11)))
    sink.write(fused(0, gradient(0)))
    sink.close()
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)


def test_without_a_frame_no_file_is_left(tmp_path):
    sink = open_sink(str(tmp_path / "v.mp4"))
    sink.open(stream_format())
    sink.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs /proc, where no file can be made; Linux runs this"
)
def test_a_place_where_no_file_can_be_created_fails_before_the_first_frame():
    sink = open_sink("/proc/v.mp4")
    with pytest.raises(SinkError, match=r"/proc/v\.mp4: cannot be written: No such file or directory$"):
        sink.open(stream_format())
    sink.close()


def test_the_old_file_is_kept_until_the_new_one_is_complete(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"old")
    sink = open_sink(str(tmp_path / "v.mp4"))
    sink.open(stream_format())
    sink.write(fused(0, gradient(0)))
    assert (tmp_path / "v.mp4").read_bytes() == b"old"
    sink.close()
    assert probe(tmp_path / "v.mp4")[0]["nb_read_frames"] == "1"


ENDLESS = """
import sys, itertools
sys.path[:0] = sys.argv[3:]
from video_pieces import *
sink = open_sink(sys.argv[1])
sink.open(stream_format(240, 320))
rng = np.random.default_rng(0)
for i in itertools.count():
    sink.write(fused(i, rng.integers(0, 256, (240, 320, 3), np.uint8)))
    print(i, flush=True)
"""


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_after_a_kill_the_hidden_file_can_be_played(tmp_path, name):
    folders = [str(Path(__file__).parents[2])]
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, tmp_path / name, "x", *folders], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if int(line) == 120:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (hidden,) = leftovers(tmp_path)
    assert not (tmp_path / name).exists()
    assert count_frames(tmp_path / hidden) >= 120  # 121 were written, of which the last may be missing


WRITTEN_AT_ONCE = [
    ("v.mp4", "h264"),
    ("v.mov", "mjpeg"),
    ("v.mkv", "h264"),
    ("v.mp4", "hevc"),
    ("v.mkv", "ffv1"),
]


@pytest.mark.parametrize(("name", "codec"), WRITTEN_AT_ONCE)
def test_every_frame_but_the_last_is_in_the_hidden_file_at_once(tmp_path, name, codec):
    """However slowly frames come: nothing waits in the encoder, in a fragment or in a buffer."""
    sink = open_sink(str(tmp_path / name), SinkOptions(codec=codec))
    sink.open(stream_format())
    for i in range(4):
        sink.write(fused(i, gradient(i)))
    shutil.copy(tmp_path / leftovers(tmp_path)[0], tmp_path / f"copy-{name}")
    assert count_frames(tmp_path / f"copy-{name}") >= 3
    sink.close()
    assert count_frames(tmp_path / name) == 4


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("a small file system cannot be mounted; root on Linux runs this")
    yield folder
    for _ in range(50):
        if not subprocess.run(["umount", folder], capture_output=True, check=False).returncode:
            return
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "v.mkv"])
def test_a_full_disk_is_reported_and_the_frames_that_fit_can_be_played(small_disk, name):
    path = small_disk / name
    sink = open_sink(str(path), SinkOptions(quality=5))
    sink.open(stream_format(240, 320))
    rng = np.random.default_rng(0)

    def endless():
        for i in range(1000):
            sink.write(fused(i, rng.integers(0, 256, (240, 320, 3), np.uint8)))

    with pytest.raises(
        SinkError, match=f"{name}: writing failed: No space left on device; the frames before are kept"
    ):
        endless()
    sink.close()
    assert [p.name for p in small_disk.iterdir()] == [name]
    assert count_frames(path) >= 3


def test_a_full_disk_is_reported_with_the_number_of_images(small_disk):
    sink = open_sink(f"{small_disk}/frames/")
    sink.open(stream_format(240, 320))
    rng = np.random.default_rng(0)

    def endless():
        for i in range(1000):
            sink.write(fused(i, rng.integers(0, 256, (240, 320, 3), np.uint8)))

    with pytest.raises(SinkError, match="No space left on device; 4 frames are in"):
        endless()
    sink.close()
    assert len(list((small_disk / "frames").iterdir())) == 4


# Images, raw


def test_images_are_numbered_and_have_the_right_colors(tmp_path):
    for order in ("rgb", "bgr"):
        given = gradient(0) if order == "rgb" else np.ascontiguousarray(gradient(0)[..., ::-1])
        sink = open_sink(f"{tmp_path}/{order}/%03d.png")
        sink.open(stream_format(order=order))
        sink.write(fused(0, given))
        sink.write(fused(7, given))
        sink.close()
        assert sorted(p.name for p in (tmp_path / order).iterdir()) == ["000.png", "007.png"]
        np.testing.assert_array_equal(read_frame(tmp_path / order / "007.png"), gradient(0))


def test_a_folder_without_images_is_removed(tmp_path):
    sink = open_sink(f"{tmp_path}/a/b/")
    sink.open(stream_format())
    assert (tmp_path / "a" / "b").is_dir()
    sink.close()
    assert list(tmp_path.iterdir()) == []


RAW = """
import sys
sys.path[:0] = sys.argv[1:]
from video_pieces import *
from tcmoa_runtime.streams.sinks.raw import RawVideoSink
sink = RawVideoSink()
sink.open(stream_format(order="bgr"))
try:
    for i in range(1000 if "long" in sys.argv else 3):
        sink.write(fused(i, np.ascontiguousarray(gradient(i)[..., ::-1])))
except SinkError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


def raw_process(*more):
    folders = [str(Path(__file__).parents[2])]
    return [sys.executable, "-c", RAW, *folders, *more]


def test_ffmpeg_reads_the_raw_video_from_stdout(tmp_path):
    first = subprocess.Popen(raw_process(), stdout=subprocess.PIPE)
    subprocess.run(
        [FFMPEG, "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-i", "-", "-c:v",
         "ffv1", tmp_path / "v.mkv"],
        stdin=first.stdout, check=True,
    )  # fmt: skip
    first.stdout.close()
    assert first.wait(60) == 0
    np.testing.assert_array_equal(read_back(tmp_path / "v.mkv"), [gradient(i) for i in range(3)])


def test_a_closed_pipe_is_reported_in_one_line():
    process = subprocess.Popen(raw_process("long"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.buffer.read(100)
    process.stdout.close()
    assert process.wait(60) == 2
    assert process.stderr.read() == "stdout: the reader has closed the pipe\n"
    process.stderr.close()


# Wrong targets and options fail before the first frame


def test_wrong_targets_and_options_are_refused(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_text("")
    for text, words in {
        f"{tmp_path}/folder.mp4": "a folder; expected a file name",
        f"{tmp_path}/none/v.mp4": r"does not exist\. Create the folder first\.",
        f"{tmp_path}/v.xyz": "expected one of .mp4, .mov, .mkv, FOLDER/",
        f"{tmp_path}/v.png": r"Number the images by a pattern, e\.g\. v-%06d\.png\.",
        f"{tmp_path}/file/%d.png": "is a file; expected a folder",
        f"{tmp_path}/%d.xyz": "image format '.xyz'; expected .bmp",
        "ftp://user:secret@host/v": "URL scheme 'ftp'; expected one of rtsp",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            open_sink(text)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
    for options, words in (
        ({"codec": "xyz"}, "codec: 'xyz'; expected one of h264, hevc, ffv1, mjpeg"),
        ({"encoder": "xyz"}, "FFmpeg has no encoder 'xyz' here; expected the codec h264, hevc, ffv1, mjpeg"),
        ({"encoder": "aac"}, "the encoder 'aac' encodes audio; expected video"),
        (
            {"codec": "hevc", "encoder": "libx265"},
            "encoder: codec hevc and encoder libx265; expected one of the two",
        ),
        ({"codec": "ffv1"}, "the container mp4 cannot hold ffv1; expected matroska"),
        ({"view": "sideways"}, "view: 'sideways'; expected one of fused, side-by-side, blend"),
    ):
        with pytest.raises(InputError, match=words):
            open_sink(str(tmp_path / "v.mp4"), SinkOptions(**options))
    assert leftovers(tmp_path) == []


def test_without_pyav_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingError, match=re.escape(install_command("stream"))):
        open_sink(str(tmp_path / "v.mp4"))
    assert open_sink(f"{tmp_path}/frames/").name == f"{tmp_path}/frames/"  # needs no PyAV


LIMITED = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    exec({ENDLESS!r})
except Exception as error:
    print(error)
    sink.close()
"""


def test_a_file_size_limit_is_reported(tmp_path):
    """A limit on the size of files acts like a full disk."""
    folders = [str(Path(__file__).parents[2])]
    command = [sys.executable, "-c", LIMITED, tmp_path / "v.mkv", "x", *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "v.mkv: writing failed: File too large" in done.stdout
    assert (tmp_path / "v.mkv").stat().st_size <= 300_000
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 300_000


def test_a_window_needs_an_opencv_with_windows():
    sink = open_sink("window")
    with pytest.raises(SinkError, match="window: this build of OpenCV has no windows"):
        sink.open(stream_format())
    sink.close()
