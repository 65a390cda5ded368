"""Images, videos of them, and what ffprobe reports about a video."""

import json
import shutil
import subprocess
from fractions import Fraction

import numpy as np

from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat
from tcmoa_runtime.streams.sinks import SinkOptions, open_sink

__all__ = [
    "SinkError",
    "SinkOptions",
    "StreamFormat",
    "fused",
    "gradient",
    "np",
    "open_sink",
    "stream_format",
]

FFPROBE, FFMPEG = shutil.which("ffprobe"), shutil.which("ffmpeg")
HEIGHT, WIDTH = 64, 96
BASE = Fraction(1, 1000)


def gradient(index, height=HEIGHT, width=WIDTH):
    """A moving gradient in which all colors occur and no two frames are equal."""
    rows, columns = np.mgrid[:height, :width]
    red = (columns * 2 + index * 5) % 256
    return np.stack([red, (rows * 3) % 256, (rows + columns + index) % 256], axis=-1).astype(np.uint8)


def fused(index, image, *, pts=None, x=None, y=None):
    pts = index * 40 if pts is None else pts
    return FusedFrame(image, pts, BASE, index, "fused", x, y, 0.0, 0.0, 0.0)


def stream_format(height=HEIGHT, width=WIDTH, order="rgb", *, live=False, rate=25):
    return StreamFormat(height, width, order, BASE, Fraction(rate), live)


def write(path, images, *, stamps=None, order="rgb", **options):
    sink = open_sink(str(path), SinkOptions(**options))
    sink.open(stream_format(*images[0].shape[:2], order))
    try:
        for i, image in enumerate(images):
            sink.write(fused(i, image, pts=None if stamps is None else stamps[i]))
    finally:
        sink.close()
    return path


def probe(path):
    """The video stream and the container by ffprobe, and the times of the frames in seconds."""
    entries = "stream=codec_name,width,height,avg_frame_rate,nb_read_frames,color_space,color_range,pix_fmt"
    done = subprocess.run(
        [FFPROBE, "-v", "error", "-count_frames", "-select_streams", "v", "-show_entries",
         f"{entries}:frame=best_effort_timestamp_time:format=duration", "-of", "json", path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    return (
        found["streams"][0],
        [float(f["best_effort_timestamp_time"]) for f in found["frames"]],
        found["format"],
    )


def count_frames(path):
    """Number of frames that can be decoded; the file may be truncated, or empty."""
    entries = ["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]
    call = [FFPROBE, "-v", "quiet", "-count_frames", *entries, path]
    found = subprocess.run(call, capture_output=True, text=True, check=False).stdout.split()
    return int(found[0].strip(",")) if found and found[0][0].isdigit() else 0


def read_back(path, pixels="rgb24"):
    """All frames, decoded and converted by FFmpeg, uint8 [N, H, W, 3]."""
    stream, times, _ = probe(path)
    done = subprocess.run(
        [FFMPEG, "-v", "error", "-i", path, "-vsync", "0", "-vf", "scale=flags=accurate_rnd+full_chroma_int",
         "-f", "rawvideo", "-pix_fmt", pixels, "-"],
        capture_output=True, check=True,
    )  # fmt: skip
    return np.frombuffer(done.stdout, np.uint8).reshape(len(times), stream["height"], stream["width"], 3)


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def audio_of(path):
    done = subprocess.run(
        [FFPROBE, "-v", "error", "-show_entries",
         "stream=codec_name,codec_type:packet=codec_type,pts_time:format_tags=title", "-of", "json", path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    times = [float(p["pts_time"]) for p in found["packets"] if p["codec_type"] == "audio"]
    return [s["codec_name"] for s in found["streams"]], times, found["format"].get("tags", {})
