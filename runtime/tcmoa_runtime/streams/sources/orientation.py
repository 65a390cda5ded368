"""Orientation of decoded frames, as the container states it by a display matrix."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

from tcmoa_runtime.typing import Frame


class Orientation(NamedTuple):
    """How a decoded image becomes the one to show: first transposed, then mirrored.

    These are the eight symmetries of a rectangle: four rotations, and four with a mirror.
    """

    transpose: bool = False
    mirror_columns: bool = False
    mirror_rows: bool = False

    @classmethod
    def from_matrix(cls, matrix: tuple[int, ...]) -> Orientation:
        """Return the nearest orientation to a display matrix.

        Args:
            matrix: (a, b, u, c, d, v, x, y, w) of FFmpeg and MP4; a point (p, q) is shown at (a p + c q, b p + d q).
        """
        a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    def apply(self, image: Frame) -> Frame:
        """Return an image [H, W] or [H, W, 3] as it is to be shown; a view."""
        if self.transpose:
            image = image.swapaxes(0, 1)
        if self.mirror_columns:
            image = image[:, ::-1]
        return image[::-1] if self.mirror_rows else image


AS_DECODED = Orientation()


def orientation_of(frame: Any) -> Orientation:
    """Return the orientation of a frame of PyAV."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return Orientation.from_matrix(struct.unpack("=9i", bytes(data)[:36]))
    return AS_DECODED


def as_shown(image: Frame, orientation: Orientation) -> Frame:
    """Return a contiguous image as it is to be shown."""
    return np.ascontiguousarray(orientation.apply(image))
