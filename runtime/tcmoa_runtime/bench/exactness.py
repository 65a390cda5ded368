"""How close the frames of a less exact backend are to those of float32 on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import read_frame, resize_frame
from tcmoa_runtime.shipped_pairs import shipped_pairs
from tcmoa_runtime.typing import BackendName, Frame

EQUAL_PSNR_DB: Final = 100.0
"""Stands for an infinite PSNR: all values are equal."""


def pair_frames(bundle: Bundle) -> Iterator[tuple[str, Frame, Frame]]:
    """Yield the shipped pairs of a bundle's task: name, x and y, resized to the bundle's size."""
    for pair in shipped_pairs(bundle.task):
        x, y = (resize_frame(read_frame(path), bundle.size) for path in (pair.x, pair.y))
        yield pair.name, x, y


def psnr_db(frame: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Return the PSNR of a frame in dB; `EQUAL_PSNR_DB` at most."""
    error = float(np.square(frame.astype(np.float64) - expected).mean())
    return EQUAL_PSNR_DB if error == 0 else min(10 * math.log10(255**2 / error), EQUAL_PSNR_DB)


def min_psnr_db(
    bundle: Bundle, name: BackendName, reference: BackendName = "openvino", threads: int | None = None
) -> float:
    """Return the lowest PSNR of a backend's frames to those of another one, over the shipped pairs, in dB.

    Raises:
        TcmoaError: One of the two does not run the bundle.
    """
    with closing(load_backend(bundle, name, threads=threads)) as backend:
        frames = [Fuser(bundle, backend)(x, y) for _, x, y in pair_frames(bundle)]
    with closing(load_backend(bundle, reference, threads=threads)) as backend:
        expected = [Fuser(bundle, backend)(x, y) for _, x, y in pair_frames(bundle)]
    return min(psnr_db(*both) for both in zip(frames, expected, strict=True))
