"""Pieces of contact sheets: images with labels, side by side and below each other, on white."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from tcmoa_runtime.typing import Frame

MARGIN_PX: Final = 6
LABEL_PX: Final = 22
"""Height of a label."""


def scale_to_height(frame: Frame, height: int) -> Frame:
    """Scale a frame to a height in pixels."""
    size = (round(frame.shape[1] * height / frame.shape[0]), height)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def label_above(image: Frame, text: str, height: int = LABEL_PX) -> Frame:
    """Add a line of text in ASCII above an image; what does not fit its width is cut off.

    Args:
        image: uint8 [H, W, 3].
        text: The line.
        height: Height of the line in pixels, from which the size of the letters follows.
    """
    bar = np.full((height, image.shape[1], 3), 255, np.uint8)
    scale = height / LABEL_PX
    baseline = height - round(7 * scale)
    cv2.putText(
        bar,
        text,
        (2, baseline),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.45 * scale,
        (0, 0, 0),
        max(1, round(scale)),
        cv2.LINE_AA,
    )
    return np.concatenate((bar, image))


def join_images(images: Sequence[Frame]) -> Frame:
    """Put images of one height side by side."""
    return np.concatenate([_pad(image, MARGIN_PX, MARGIN_PX) for image in images], axis=1)


def stack_images(rows: Sequence[Frame]) -> Frame:
    """Put images below each other."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate([_pad(row, 0, width - row.shape[1]) for row in rows])


def _pad(image: Frame, below: int, right: int) -> Frame:
    """Pad with white."""
    return np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=255)
