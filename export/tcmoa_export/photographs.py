"""Pairs made from photographs that scikit-image ships, for the demo and for checks where no real pair is at hand.

Focus and exposure pairs are made as a lens and a sensor would; the "infrared" of `vif` is a stand-in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tcmoa.pairs import exposure_pair, focus_pair, smooth_mask, synthetic_infrared
from tcmoa_runtime.errors import InputError, MissingError

Frame = NDArray[np.uint8]

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea")
"""Colour photographs inside the scikit-image wheel: 512x512, 600x400 and 451x300 pixels."""


@dataclass(frozen=True)
class MadePair:
    """Two uint8 RGB frames [H, W, 3] and how they were made, in a few words."""

    name: str
    x: Frame
    y: Frame
    origin: str


def photograph(name: str, height: int, width: int) -> Frame:
    """One of `PHOTOGRAPHS`, scaled to cover height x width and cut in the middle, RGB.

    Raises MissingError when scikit-image is not installed, InputError on an unknown name.
    """
    if name not in PHOTOGRAPHS:
        raise InputError(f"photograph is {name!r}: expected one of {', '.join(PHOTOGRAPHS)}")
    try:
        from skimage import data
    except ImportError as error:
        raise MissingError("scikit-image is not installed; run `pip install 'tcmoa[export]'`") from error
    image = np.asarray(getattr(data, name)(), np.uint8)
    scale = max(height / image.shape[0], width / image.shape[1])
    size = max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale))
    shrinking = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(image, size[::-1], interpolation=shrinking), np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return np.ascontiguousarray(resized[top : top + height, left : left + width])


def made_pair(task: str, name: str, size: tuple[int, int], seed: int = 0) -> MadePair:
    """A pair for `task` of (height, width) pixels from the photograph `name`; deterministic in `seed`."""
    photo = photograph(name, *size).astype(np.float32) / np.float32(255)
    if task == "mff":
        sigma = max(size) / 160
        x, y = focus_pair(photo, smooth_mask(*size, np.random.default_rng(seed)), sigma)
        origin = f"one photograph, blurred on either side (Gaussian, sigma {sigma:.1f})"
    elif task == "mef":
        x, y = exposure_pair(photo, 2.0)
        origin = "one photograph, two stops brighter and darker, clipped"
    else:
        x, y = photo, synthetic_infrared(photo)
        origin = "a photograph and a SYNTHETIC second source: no thermal camera saw this"
    first, second = (np.round(np.clip(s, 0, 1) * 255).astype(np.uint8) for s in (x, y))
    return MadePair(name, first, second, origin)
