"""A simulated camera: one source of a shipped pair, seen by a camera that pans, as a network stream.

    python camera.py x 9001 [HOST]

Listens on a TCP port, of all hosts if none is given, and sends MPEG-TS at 10 frames per second to one client at a time.
Two of these, x and y, show the same part of the scene at the same time: the position follows the clock of the machine.
"""

from __future__ import annotations

import math
import sys
import time
from fractions import Fraction
from typing import Final

import av
import cv2
import numpy as np

from tcmoa_runtime.images import read_frame
from tcmoa_runtime.shipped_pairs import shipped_pairs

SIZE: Final = (640, 480)
RATE: Final = 10
PERIOD_S: Final = 20.0
"""Time in which the camera pans to one side and back."""


def read_scene(side: str) -> np.ndarray:
    """Return a source of the first shipped pair of visible and infrared, larger than a frame: uint8 [H, W, 3]."""
    pair = shipped_pairs("vif")[0]
    image = read_frame(pair.x if side == "x" else pair.y)
    factor = 1.25 * max(SIZE[0] / image.shape[1], SIZE[1] / image.shape[0])
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def view(scene: np.ndarray, seconds: float) -> np.ndarray:
    """Return what the camera sees at a time: uint8 [480, 640, 3]."""
    width, height = SIZE
    turn = (1 - math.cos(2 * math.pi * seconds / PERIOD_S)) / 2
    left = round(turn * (scene.shape[1] - width))
    top = round(turn * (scene.shape[0] - height))
    return scene[top : top + height, left : left + width]


def send(scene: np.ndarray, port: int, host: str) -> None:
    """Wait for a client and send frames until it has gone."""
    with av.open(f"tcp://{host}:{port}?listen=1", "w", format="mpegts") as container:
        stream = container.add_stream(
            "libx264", RATE, {"preset": "ultrafast", "tune": "zerolatency", "g": str(RATE)}
        )
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, RATE)
        start = math.floor(time.time() * RATE)
        index = start
        while True:
            time.sleep(max(0.0, index / RATE - time.time()))
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(view(scene, index / RATE)), format="rgb24"
            )
            frame.pts, frame.time_base = index - start, Fraction(1, RATE)
            for packet in stream.encode(frame):
                container.mux(packet)
            index = max(index + 1, math.floor(time.time() * RATE))


def main() -> None:
    """Serve one client after the other."""
    side, port, *hosts = sys.argv[1:]
    scene = read_scene(side)
    while True:
        try:
            send(scene, int(port), *hosts or ("0.0.0.0",))
        except OSError as error:  # the client has gone
            print(f"camera {side}: {error.strerror}", flush=True)


if __name__ == "__main__":
    main()
