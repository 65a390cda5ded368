"""Pairs on disk for evaluations: small photographs, and what is wrong with real folders."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

Image = NDArray[np.uint8]

SIZE = (64, 80)
"""Height and width: all metrics take it."""


def scene(number: int, size: tuple[int, int] = SIZE) -> tuple[Image, Image]:
    """x [H, W, 3] and y [H, W] of one scene: parts of a photograph, the one dark on the left, the other grey."""
    h, w = size
    top, left = (20 + 37 * number) % (513 - h), (40 + 53 * number) % (513 - w)
    x = data.astronaut()[top : top + h, left : left + w].copy()
    y = np.ascontiguousarray(255 - x.mean(axis=2).astype(np.uint8) // 2)
    x[:, : w // 2] //= 3
    return x, y


def write(path: Path, image: NDArray[np.generic]) -> Path:
    """RGB or grey, of any type that the format holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = image[..., ::-1] if image.ndim == 3 else image
    ok, encoded = cv2.imencode(path.suffix, np.ascontiguousarray(shown))
    assert ok
    path.write_bytes(encoded.tobytes())
    return path


def write_pairs(folder: Path, names: str | list[str]) -> Path:
    """NAME_x.png and NAME_y.png for each name."""
    for number, name in enumerate(names):
        x, y = scene(number)
        write(folder / f"{name}_x.png", x)
        write(folder / f"{name}_y.png", y)
    return folder


def write_fused(folder: Path, names: str | list[str], suffix: str = "") -> Path:
    """NAME{suffix}.png: x with y's brightness mixed in, differently for each name."""
    for number, name in enumerate(names):
        x, y = scene(number)
        mixed = (x.astype(np.uint16) * (3 + number) + y[..., None].astype(np.uint16) * 4) // (7 + number)
        write(folder / f"{name}{suffix}.png", mixed.astype(np.uint8))
    return folder
