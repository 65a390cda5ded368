"""Pairs of image files for evaluations, made from small photographs."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

Image = NDArray[np.uint8]

SIZE = (64, 80)
"""Height and width, large enough for every metric."""


def scene(number: int, size: tuple[int, int] = SIZE) -> tuple[Image, Image]:
    """Return x [H, W, 3] and y [H, W] of one scene: parts of a photograph, one dark on the left, one gray."""
    h, w = size
    top, left = (20 + 37 * number) % (513 - h), (40 + 53 * number) % (513 - w)
    x = data.astronaut()[top : top + h, left : left + w].copy()
    y = np.ascontiguousarray(255 - x.mean(axis=2).astype(np.uint8) // 2)
    x[:, : w // 2] //= 3
    return x, y


def write(path: Path, image: NDArray[np.generic]) -> Path:
    """Write an image, RGB or gray, of any dtype that the format can hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = image[..., ::-1] if image.ndim == 3 else image
    is_encoded, encoded = cv2.imencode(path.suffix, np.ascontiguousarray(ordered))
    assert is_encoded
    path.write_bytes(encoded.tobytes())
    return path


def write_pairs(folder: Path, names: str | list[str]) -> Path:
    """Write NAME_x.png and NAME_y.png for each name."""
    for number, name in enumerate(names):
        x, y = scene(number)
        write(folder / f"{name}_x.png", x)
        write(folder / f"{name}_y.png", y)
    return folder


def write_fused(folder: Path, names: str | list[str], suffix: str = "") -> Path:
    """Write NAME{suffix}.png: x mixed with y, with different weights for each name."""
    for number, name in enumerate(names):
        x, y = scene(number)
        mixed = (x.astype(np.uint16) * (3 + number) + y[..., None].astype(np.uint16) * 4) // (7 + number)
        write(folder / f"{name}{suffix}.png", mixed.astype(np.uint8))
    return folder
