"""Files as sources: every frame, in order, with its timestamp and its colors."""

import os
import re
import shutil
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tcmoa_runtime import InputError, MissingError
from tcmoa_runtime.images import read_frame, stretch_to_uint8, write_image
from tcmoa_runtime.install import install_command
from tcmoa_runtime.streams.interfaces import SourceError
from tcmoa_runtime.streams.sources import RawFormat, SourceOptions, open_source
from tcmoa_runtime.streams.sources.paced import Paced

av = pytest.importorskip("av", reason="PyAV is not installed; `pip install 'tcmoa[stream]'` runs this")
FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(
    FFMPEG is None, reason="ffmpeg is not installed; `apt-get install ffmpeg` runs this"
)
HEIGHT, WIDTH = 64, 96


def coded(number, height=HEIGHT, width=WIDTH):
    """A frame whose eight blocks encode its number in binary; compression preserves it."""
    image = np.full((height, width, 3), 30, np.uint8)
    for bit in range(8):
        if number >> bit & 1:
            image[:, bit * width // 8 : (bit + 1) * width // 8] = 220
    return image


def decoded(image):
    gray = image if image.ndim == 2 else image[..., 1]
    blocks = gray.reshape(gray.shape[0], 8, -1).mean(axis=(0, 2))
    return sum(1 << bit for bit in range(8) if blocks[bit] > 125)


def encode(
    path,
    images,
    *,
    codec="libx264",
    rate=25,
    pixels="yuv420p",
    stamps=None,
    options=None,
    container=None,
    **context,
):
    """Write a video with PyAV; `stamps` are milliseconds."""
    base = Fraction(1, 1000) if stamps else Fraction(1) / Fraction(rate)
    with av.open(f"file:{path}", "w", options=container or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(rate), options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = pixels, base
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for i, image in enumerate(images):
            form = "gray16le" if image.dtype == np.uint16 else "gray" if image.ndim == 2 else "rgb24"
            frame = av.VideoFrame.from_ndarray(image, format=form)
            frame.pts, frame.time_base = stamps[i] if stamps else i, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_all(source):
    frames = list(iter(source.read, None))
    source.close()
    return frames


def opened(path, **options):
    return open_source(str(path), SourceOptions(**options))


def test_frames_are_in_display_order(tmp_path):
    """Three consecutive B-frames: the order of decoding differs from that of display."""
    path = encode(tmp_path / "v.mp4", [coded(i) for i in range(40)], options={"bf": "3", "b-adapt": "0"})
    source = opened(path)
    assert (source.size, source.rate, source.live) == ((HEIGHT, WIDTH), 25, False)
    frames = read_all(source)
    assert [decoded(f.image) for f in frames] == list(range(40))
    assert [f.index for f in frames] == list(range(40))
    np.testing.assert_allclose([f.time for f in frames], np.arange(40) / 25, atol=1e-3)
    assert source.errors == 0


@pytest.mark.parametrize("rate", [30, 9, Fraction(30000, 1001)])
def test_rates(tmp_path, rate):
    source = opened(encode(tmp_path / "v.mkv", [coded(i) for i in range(20)], rate=rate))
    assert float(source.rate) == pytest.approx(float(rate), rel=0.02)
    np.testing.assert_allclose([f.time for f in read_all(source)], np.arange(20) / float(rate), atol=2e-3)


def test_a_variable_rate_keeps_its_times(tmp_path):
    stamps = [0, 40, 80, 200, 210, 700]
    source = opened(encode(tmp_path / "v.mp4", [coded(i) for i in range(6)], stamps=stamps))
    frames = read_all(source)
    assert [round(f.time * 1000) for f in frames] == stamps
    assert [decoded(f.image) for f in frames] == list(range(6))


@pytest.mark.parametrize("space", ["bt709", "smpte170m"])
@pytest.mark.parametrize("full", [False, True])
@needs_ffmpeg
def test_colors_follow_the_stated_matrix_and_range(tmp_path, space, full):
    """FFmpeg converted the image, and wrote matrix and range into the header."""
    colors = np.array(
        [[200, 30, 30], [30, 200, 30], [30, 30, 200], [240, 240, 240], [15, 15, 15], [200, 200, 40]]
    )
    image = np.repeat(np.repeat(colors[None].astype(np.uint8), 64, 0), 16, 1)
    write_image(tmp_path / "i.png", image)
    levels = "full" if full else "limited"
    scale = f"scale=out_color_matrix={space}:out_range={levels}:flags=accurate_rnd+full_chroma_int"
    tags = ["-colorspace", space, "-color_range", "pc" if full else "tv", "-color_primaries", "bt709"]
    subprocess.run(
        [FFMPEG, "-v", "error", "-i", tmp_path / "i.png", "-vf", f"{scale},format=yuv444p", "-c:v", "libx264",
         "-qp", "0", *tags, "-color_trc", "bt709", tmp_path / "v.mkv"],
        check=True,
    )  # fmt: skip
    for order in ("rgb", "bgr"):
        got = read_all(opened(tmp_path / "v.mkv", channel_order=order))[0].image[32, 8::16]
        got = got if order == "rgb" else got[:, ::-1]
        assert np.abs(got.astype(int) - colors).max() <= 3


def test_gray_stays_gray(tmp_path):
    images = [coded(i)[..., 0] for i in range(5)]
    frames = read_all(opened(encode(tmp_path / "v.mkv", images, codec="ffv1", pixels="gray")))
    for frame, image in zip(frames, images, strict=True):
        np.testing.assert_array_equal(frame.image, image)


def thermal(count):
    """Frames of a 16-bit camera: a narrow range of counts."""
    rng = np.random.default_rng(4)
    scene = rng.integers(29_000, 31_000, (HEIGHT, WIDTH))
    return [(scene + rng.integers(0, 3, scene.shape)).astype(np.uint16) for _ in range(count)]


def test_16_bit_gray_is_stretched(tmp_path):
    images = thermal(4)
    frames = read_all(opened(encode(tmp_path / "v.mkv", images, codec="ffv1", pixels="gray16le")))
    for frame, image in zip(frames, images, strict=True):
        assert (frame.image.dtype, frame.image.shape) == (np.uint8, (HEIGHT, WIDTH))
        assert np.abs(frame.image.astype(int) - stretch_to_uint8(image)).max() <= 2


@needs_ffmpeg
def test_a_rotated_file_is_rotated_as_by_ffmpeg(tmp_path):
    encode(tmp_path / "v.mp4", [coded(1)] * 3)
    call = [FFMPEG, "-v", "error"]
    turn = ["-metadata:s:v:0", "rotate=90"]
    subprocess.run([*call, "-i", tmp_path / "v.mp4", "-c", "copy", *turn, tmp_path / "t.mp4"], check=True)
    subprocess.run([*call, "-i", tmp_path / "t.mp4", "-frames:v", "1", tmp_path / "t.png"], check=True)
    source = opened(tmp_path / "t.mp4")
    assert source.size == (WIDTH, HEIGHT)
    expected = read_frame(tmp_path / "t.png")
    assert np.abs(read_all(source)[0].image.astype(int) - expected).mean() < 4


MATRICES = {
    "as it is": (1, 0, 0, 1),
    "mirrored columns": (-1, 0, 0, 1),
    "mirrored rows": (1, 0, 0, -1),
    "half turn": (-1, 0, 0, -1),
    "quarter turn": (0, 1, -1, 0),
    "three quarters": (0, -1, 1, 0),
    "transposed": (0, 1, 1, 0),
    "transposed and turned": (0, -1, -1, 0),
}


@needs_ffmpeg
def test_all_display_matrices_give_what_ffmpeg_shows(tmp_path):
    """The matrix is patched into the header of one file, whose pixels are wider than high."""
    path = tmp_path / "v.mp4"
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24], image[:16, 24:], image[16:, :24] = (250, 10, 10), (10, 250, 10), (10, 10, 250)
    encode(path, [image] * 3, options={"qp": "0"}, sample_aspect_ratio=Fraction(4, 3))
    data = path.read_bytes()
    start = data.index(b"tkhd") + 44
    for name, (a, b, c, d) in MATRICES.items():
        matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        turned = tmp_path / f"{name}.mp4"
        turned.write_bytes(data[:start] + matrix + data[start + 36 :])
        call = [
            FFMPEG,
            "-v",
            "error",
            "-i",
            turned,
            "-frames:v",
            "1",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-",
        ]
        raw = subprocess.run(call, capture_output=True, check=True).stdout
        source = opened(turned)
        got = read_all(source)[0].image
        expected = np.frombuffer(raw, np.uint8).reshape(got.shape)
        assert np.abs(got.astype(int) - expected).mean() < 2, name
        assert source.sample_aspect_ratio == (Fraction(4, 3) if a else Fraction(3, 4)), name


FORMS = [("mp4", {"movflags": "faststart"}), ("mov", {"movflags": "faststart"}), ("mkv", {}), ("avi", {})]


@pytest.mark.parametrize(("suffix", "header"), FORMS)
@pytest.mark.parametrize("codec", ["mjpeg", "libx264"])
def test_a_cut_file_is_an_error_after_its_frames_and_a_complete_one_is_not(tmp_path, suffix, header, codec):
    path = tmp_path / f"v.{suffix}"
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    images = list(np.random.default_rng(0).integers(0, 256, (50, 48, 64, 3), np.uint8))
    encode(path, images, codec=codec, pixels=pixels, container=header, gop_size=10)
    assert len(read_all(opened(path))) == 50
    cut = tmp_path / f"cut.{suffix}"
    data = path.read_bytes()
    cut.write_bytes(data[: len(data) * 55 // 100])
    source = opened(cut)
    frames = []
    with pytest.raises(SourceError) as caught:
        frames.extend(iter(source.read, None))
    line = (
        rf"{cut}: ends early, after (\d+) of (\d+) frames \(.*\).*; expected a complete file\. Copy or record"
    )
    match = re.match(line, str(caught.value))
    assert int(match[1]) == source.frames == len(frames)
    assert int(match[2]) == source.frames_expected == pytest.approx(50, abs=1)
    assert 5 < len(frames) < 45
    source.close()


def test_audio_that_is_longer_than_the_video_is_no_cut(tmp_path):
    call = [
        FFMPEG,
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=64x48:rate=25:duration=1",
        "-f",
        "lavfi",
    ]
    for suffix in ("mp4", "mkv", "avi", "ts"):
        path = tmp_path / f"v.{suffix}"
        subprocess.run([*call, "-i", "sine=duration=3", path], check=True)
        assert len(read_all(opened(path))) == 25


def test_damage_in_the_middle_loses_only_some_frames(tmp_path):
    path = encode(tmp_path / "v.ts", [coded(i) for i in range(100)], options={"g": "10", "bf": "0"})
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : third + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    frames = read_all(opened(path))
    assert len(frames) > 60
    assert decoded(frames[-1].image) == 99
    times = [f.time for f in frames]
    assert times == sorted(times)


def test_frames_keep_a_size_that_changes(tmp_path):
    for name, size in (("a", (64, 96)), ("b", (32, 48))):
        encode(tmp_path / f"{name}.ts", [coded(i, *size) for i in range(5)], options={"g": "1", "bf": "0"})
    (tmp_path / "joined.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    source = opened(tmp_path / "joined.ts")
    sizes = [f.image.shape[:2] for f in read_all(source)]
    assert source.size == (64, 96)
    assert set(sizes) == {(64, 96), (32, 48)}


# Images


def test_a_folder_of_images_is_sorted_by_number(tmp_path):
    for i in (10, 9, 2, 1, 100):
        write_image(tmp_path / f"frame{i}.png", coded(i))
    source = opened(tmp_path, rate=Fraction(10))
    frames = read_all(source)
    assert [decoded(f.image) for f in frames] == [1, 2, 9, 10, 100]
    assert [f.time for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert (source.size, source.rate) == ((HEIGHT, WIDTH), 10)


def test_a_pattern_keeps_the_gaps_in_its_numbers(tmp_path):
    for i in (7, 8, 11):
        write_image(tmp_path / f"f{i:04d}_x.png", coded(i))
    write_image(tmp_path / "f12_x.png", coded(12))  # not as %04d writes it
    frames = read_all(open_source(str(tmp_path / "f%04d_x.png")))
    assert [(f.pts, decoded(f.image)) for f in frames] == [(0, 7), (1, 8), (4, 11)]


def test_an_unreadable_image_is_skipped_and_the_others_keep_their_times(tmp_path):
    for i in range(4):
        write_image(tmp_path / f"{i}.png", coded(i))
    (tmp_path / "1.png").write_bytes(b"no image")
    source = opened(tmp_path)
    assert [(f.pts, f.index, decoded(f.image)) for f in read_all(source)] == [(0, 0, 0), (2, 1, 2), (3, 2, 3)]
    assert source.errors == 1


def test_images_are_in_the_requested_channel_order(tmp_path):
    write_image(tmp_path / "0.png", np.full((8, 8, 3), (200, 100, 50), np.uint8))
    assert tuple(read_all(opened(tmp_path, channel_order="bgr"))[0].image[0, 0]) == (50, 100, 200)


def test_16_bit_images_are_stretched(tmp_path):
    import cv2

    images = thermal(3)
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    for frame, image in zip(read_all(opened(tmp_path)), images, strict=True):
        assert np.abs(frame.image.astype(int) - stretch_to_uint8(image)).max() <= 2


# In real time


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_paced_file_returns_frames_when_they_are_due(tmp_path, monkeypatch):
    for i in range(5):
        write_image(tmp_path / f"{i}.png", coded(i))
    clock = Clock()
    paced = Paced(opened(tmp_path, rate=Fraction(10)), clock=clock)
    monkeypatch.setattr(paced._closed, "wait", lambda seconds: setattr(clock, "now", clock.now + seconds))
    clock.now = 50.0
    frames = read_all(paced)
    assert [f.arrived for f in frames] == pytest.approx([50, 50.1, 50.2, 50.3, 50.4])
    assert (paced.live, paced.errors) == (True, 0)


def test_realtime_makes_a_file_live(tmp_path):
    write_image(tmp_path / "0.png", coded(0))
    source = opened(tmp_path, realtime=True)
    assert source.live
    source.close()
    assert source.read() is None


# Raw video


@needs_ffmpeg
@pytest.mark.parametrize("pixels", ["rgb24", "bgr24", "yuv420p", "nv12", "yuyv422", "gray", "gray16le"])
def test_raw_video_on_stdin_of_a_real_process(tmp_path, pixels):
    """FFmpeg writes to a pipe; a process with `open_source` reads from it."""
    for i in range(6):
        write_image(tmp_path / f"{i}.png", coded(i + 1))
    code = (
        "import sys; from tcmoa_runtime.streams.sources import *\n"
        f"s = open_source('-', SourceOptions(raw=RawFormat.parse('{WIDTH}x{HEIGHT}:{pixels}'), rate=Fraction(30)))\n"
        "while (f := s.read()) is not None:\n"
        "    g = f.image if f.image.ndim == 2 else f.image[..., 1]\n"
        f"    b = g.reshape({HEIGHT}, 8, -1).mean(axis=(0, 2))\n"
        "    print(f.pts, f.image.shape, sum(1 << i for i in range(8) if b[i] > 125), f.image.dtype)\n"
        "print(s.errors, s.live)"
    ).replace("import *", "import *; from fractions import Fraction")
    done = subprocess.run(
        f"{FFMPEG} -v error -i {tmp_path}/%d.png -f rawvideo -pix_fmt {pixels} - | {{ cat; printf abc; }} | "
        f'{sys.executable} -c "$CODE"',
        shell=True, env={**os.environ, "CODE": code}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    shape = (HEIGHT, WIDTH) if pixels.startswith("gray") else (HEIGHT, WIDTH, 3)
    assert done.stdout.splitlines() == [*(f"{i} {shape} {i + 1} uint8" for i in range(6)), "1 True"]


def test_raw_formats():
    assert RawFormat.parse("640x480:gray16le") == RawFormat(640, 480, "gray16le")
    for text in ("640:gray", "0x480:gray", "640x480", "axb:gray"):
        with pytest.raises(InputError, match="expected WIDTHxHEIGHT:PIXELS"):
            RawFormat.parse(text)
    with pytest.raises(InputError, match="expected one of rgb24"):
        open_source("-", SourceOptions(raw=RawFormat(4, 4, "xyz")))
    with pytest.raises(InputError, match="even size"):
        open_source("-", SourceOptions(raw=RawFormat(5, 4, "nv12")))
    with pytest.raises(InputError, match=r"raw video without a format\. Set raw=RawFormat"):
        open_source("-")


# Errors


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video at all")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.png").write_text("no image")
    for name, words in {
        "none.mp4": "no such file or folder",
        "text.mp4": "cannot be opened: Invalid data",
        "empty.mp4": "cannot be opened",
        "folder": "a folder without images",
        "bad": "none of its 1 images can be read",
        "folder/%04d.png": "no image matches this pattern",
        "none/%04d.png": "expected a pattern with one number",
        "folder/%d_%d.png": "expected a pattern with one number",
    }.items():
        with pytest.raises(SourceError, match=words) as caught:
            open_source(str(tmp_path / name))
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="scheme 'ftp'; expected one of rtsp"):
        open_source("ftp://user:secret@host/v.mp4")
    with pytest.raises(SourceError, match="/dev/video99: no such camera"):
        open_source("/dev/video99")
    with pytest.raises(InputError, match="which only stdin "):
        open_source(str(tmp_path), SourceOptions(raw=RawFormat(4, 4, "gray")))


def test_a_file_with_audio_only_is_refused(tmp_path):
    with av.open(str(tmp_path / "s.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(SourceError, match="no video, only audio"):
        opened(tmp_path / "s.m4a")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate": Fraction(0)}, "rate: 0; expected more than 0"),
        ({"reconnect": -1}, "reconnect: -1"),
        ({"timeout": 0}, "timeout: 0"),
        ({"stretch": (99, 1)}, "percentiles"),
    ],
)
def test_wrong_options(tmp_path, options, words):
    write_image(tmp_path / "0.png", coded(0))
    with pytest.raises(InputError, match=words):
        opened(tmp_path, **options)


def test_without_pyav_the_error_names_the_extra(tmp_path, monkeypatch):
    path = encode(tmp_path / "v.mkv", [coded(0)])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingError, match=re.escape(install_command("stream"))):
        open_source(str(path))


def test_closing_is_safe_at_any_time(tmp_path):
    source = opened(encode(tmp_path / "v.mkv", [coded(i) for i in range(5)]))
    source.read()
    source.close()
    source.close()
    assert source.read() is None
    assert Path(source.name).exists()
