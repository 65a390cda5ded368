"""Fuse two short videos with the OpenCV example and compare the result with the Python runtime.

python check_videos.py FUSE_VIDEOS BUNDLES
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from tcmoa_runtime import Fuser


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    """Write a Motion JPEG video with 10 frames per second."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height))
    assert writer.isOpened(), path
    for frame in frames:
        writer.write(frame)
    writer.release()


def read_video(path: Path) -> list[np.ndarray]:
    """Return all frames of a video, uint8 [H, W, 3] in BGR order."""
    video, frames = cv2.VideoCapture(str(path)), []
    while True:
        good, frame = video.read()
        if not good:
            return frames
        frames.append(frame)


def blurred(frame: np.ndarray) -> np.ndarray:
    """Return the blurred luma of a frame as a flat array, without the details that JPEG loses."""
    return cv2.blur(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), (5, 5)).ravel().astype(float)


def main() -> None:
    """Run the example; a failed check exits with its message."""
    program, bundle = Path(sys.argv[1]), Path(sys.argv[2]) / "vif-gray"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x = np.fromfile(bundle.with_name("vif-gray-reference") / "x.raw", np.uint8).reshape(112, 112, 3)
        y = np.fromfile(bundle.with_name("vif-gray-reference") / "y.raw", np.uint8).reshape(112, 112)
        write_video(folder / "x.avi", [np.roll(x, 4 * i, axis=1) for i in range(6)])
        write_video(
            folder / "y.avi", [np.repeat(np.roll(y, 4 * i, axis=1)[..., None], 3, axis=2) for i in range(5)]
        )
        command = [program, bundle, folder / "x.avi", folder / "y.avi", folder / "out.avi"]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "5 frames of 112x112 with openvino (CPU)" in done.stdout, (
            done.stdout
        )  # the length of the shorter video
        fused = read_video(folder / "out.avi")
        assert len(fused) == 5, len(fused)
        with Fuser.load(bundle, backend="openvino") as fuser:
            for i, pair in enumerate(
                zip(read_video(folder / "x.avi"), read_video(folder / "y.avi"), strict=False)
            ):
                # JPEG loses most of the fine color noise that random weights produce; blurred luma remains.
                correlation = np.corrcoef(blurred(fuser(*pair)), blurred(fused[i]))[0, 1]
                assert correlation > 0.9, (
                    f"frame {i} has a correlation of {correlation:.3f} with the result of the Python runtime"
                )
        command = [program, bundle, "none.avi", "none.avi", folder / "out.avi"]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "none.avi: cannot be read; expected a video" in done.stderr, done.stderr
    print("videos fused")


if __name__ == "__main__":
    main()
