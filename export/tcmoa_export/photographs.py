"""Image pairs made from the photographs in scikit-image, for the demo and for checks without real pairs.

Focus and exposure pairs imitate a lens and a sensor. The "infrared" image of task `vif` is synthetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from tcmoa.synthetic_pairs import exposure_pair, focus_pair, smooth_mask, synthetic_infrared
from tcmoa_runtime.errors import MissingError
from tcmoa_runtime.install import install_hint
from tcmoa_runtime.options.option import check_choice
from tcmoa_runtime.typing import Frame, FrameSize

PHOTOGRAPHS: Final = ("astronaut", "coffee", "chelsea")
"""Color photographs in the scikit-image wheel: 512x512, 600x400 and 451x300 pixels."""


@dataclass(frozen=True)
class PhotographPair:
    """Two RGB frames [H, W, 3] made from one photograph.

    Attributes:
        name: Name of the photograph.
        x: First source.
        y: Second source.
        origin: How they were made, in a few words.
    """

    name: str
    x: Frame
    y: Frame
    origin: str


def photograph(name: str, height: int, width: int) -> Frame:
    """Return one of `PHOTOGRAPHS`, scaled to cover height x width and cropped at the center, RGB.

    Raises:
        InputError: The name is unknown.
        MissingError: scikit-image is not installed.
    """
    check_choice("photograph", name, PHOTOGRAPHS)
    try:
        from skimage import data
    except ImportError as error:
        raise MissingError("scikit-image is not installed", remedy=install_hint("export")) from error
    image = np.asarray(getattr(data, name)(), np.uint8)
    scale = max(height / image.shape[0], width / image.shape[1])
    size = max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(image, size[::-1], interpolation=interpolation), np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return np.ascontiguousarray(resized[top : top + height, left : left + width])


def make_pair(task: str, name: str, size: FrameSize, seed: int = 0) -> PhotographPair:
    """Make a pair for a task from a photograph.

    Args:
        task: `vif`, `mef` or `mff`.
        name: One of `PHOTOGRAPHS`.
        size: (height, width) in pixels.
        seed: Seed of the random mask of `mff`; equal seeds give equal pairs.
    """
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
    x_frame, y_frame = (np.round(np.clip(s, 0, 1) * 255).astype(np.uint8) for s in (x, y))
    return PhotographPair(name, x_frame, y_frame, origin)
