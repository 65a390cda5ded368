"""Pairs of images as planes of edges, at several sizes.

The two sources share where edges are and how they are oriented, but not which side is brighter. Each image becomes a
plane of double-angle gradients,

    f = (gx^2 - gy^2, 2 gx gy) / (|g| n)        n: RMS gradient around the pixel, plus a floor for noise

which is the same for an image and its negative. Matrices are in centered coordinates, in which 1 is half the longer
side of the frame, so that one matrix holds at every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.alignment import Matrix
from tcmoa_runtime.images import resize_frame
from tcmoa_runtime.typing import FrameSize

Plane = NDArray[np.float32]
Indices = NDArray[np.intp]
"""Numbers of pairs."""

MIN_SIDE: Final = 48
"""Pixels of the shorter side, below which a frame has too few edges to compare."""
MIN_LONGER_SIDE: Final = 96
"""Pixels of the longer side, below which frames are not halved further."""
MAX_LONGER_SIDE: Final = 800
"""Pixels of the longer side, beyond which frames are reduced."""

MONOMIALS: Final = tuple((p, q) for p in range(5) for q in range(5 - p))
"""Exponents of u and v in `PyramidLevel.monomials`."""

_NOISE_SIGMA, _NORM_SIGMA, _PLANE_SIGMA = 1.0, 6.0, 0.7
"""Pixels of the level: blur of the image, of n, and of the plane."""
_NOISE_FLOOR = 2.0
"""Gray levels per pixel that are added to n."""
_MAX_STRENGTH = 2.5
"""Limit of |f|, so that a single strong edge does not outweigh the others."""
_BORDER = 2
"""Pixels at the edge of the frame that are not compared."""


def centered_to_pixels(frame: FrameSize, size: FrameSize | None = None) -> Matrix:
    """Return the matrix [3, 3] from centered coordinates to pixels.

    Args:
        frame: (height, width) of the frame that defines the coordinates.
        size: (height, width) to which the frame is resized; None: the same.
    """
    half = max(frame) / 2
    pixels = np.array([[half, 0, (frame[1] - 1) / 2], [0, half, (frame[0] - 1) / 2], [0, 0, 1]])
    if size is None or size == frame:
        return pixels
    across, down = size[1] / frame[1], size[0] / frame[0]
    resize = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
    return np.asarray(resize @ pixels)


def level_sizes(frame: FrameSize) -> list[FrameSize]:
    """Return the sizes (height, width) at which a frame is compared, the smallest first."""
    scale = min(1.0, MAX_LONGER_SIDE / max(frame))
    sizes = [(round(frame[0] * scale), round(frame[1] * scale))]
    while max(sizes[-1]) >= 2 * MIN_LONGER_SIDE and min(sizes[-1]) >= MIN_SIDE:
        sizes.append((round(sizes[-1][0] / 2), round(sizes[-1][1] / 2)))
    return sizes[::-1]


def edge_plane(image: NDArray[np.uint8]) -> Plane:
    """Compute the double-angle gradients of a gray image [H, W].

    Returns:
        float32 [H, W, 2]; the length of each vector is the strength of the edge relative to its surroundings.
    """
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), _NOISE_SIGMA)
    gx = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 16)  # half the difference of two pixels
    gy = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 16)
    energy = gx * gx + gy * gy
    norm = np.sqrt(np.maximum(cv2.GaussianBlur(energy, (0, 0), _NORM_SIGMA), 0)) + _NOISE_FLOOR
    length = np.sqrt(energy)
    factor = np.minimum(1 / norm, _MAX_STRENGTH / np.maximum(length, 1e-6)) / np.maximum(length, 1e-6)
    plane = np.dstack([(gx * gx - gy * gy) * factor, 2 * gx * gy * factor])
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), _PLANE_SIGMA), np.float32)


def correlate(fixed: Plane, moving: Plane) -> tuple[float, float, float]:
    """Correlate two planes.

    Returns:
        The normalized correlation, the gain that fits `gain * moving` to `fixed` best, and the squared norm of the
        remaining difference.
    """
    product = float(np.vdot(fixed, moving))
    fixed_energy, moving_energy = float(np.vdot(fixed, fixed)), float(np.vdot(moving, moving))
    if fixed_energy < 1e-6 or moving_energy < 1e-6:
        return 0.0, 0.0, 0.0
    gain = product / moving_energy
    return product / np.sqrt(fixed_energy * moving_energy), gain, fixed_energy - gain * product


class PyramidLevel:
    """All pairs at one size.

    Attributes:
        size: (height, width).
        fixed: The planes of the source that stays, float32 [2, H, W] each.
        moving: The planes of the source that is moved, float32 [H, W, 2] each, as `cv2.remap` takes them.
        monomials: u^p v^q of each pixel in centered coordinates, float32 [len(MONOMIALS), H * W].
    """

    def __init__(
        self,
        fixed: Sequence[NDArray[np.uint8]],
        moving: Sequence[NDArray[np.uint8]],
        frame: FrameSize,
        size: FrameSize,
    ) -> None:
        """Compute the planes.

        Args:
            fixed: Gray images [H, W] of size `frame`.
            moving: As many images of the other source.
            frame: (height, width) of the images.
            size: (height, width) at which they are compared.
        """
        self.size = size
        fixed_planes, moving_planes = (
            [edge_plane(i if i.shape == size else resize_frame(i, size)) for i in images]
            for images in (fixed, moving)
        )
        self.fixed = [np.stack(cv2.split(plane)) for plane in fixed_planes]
        self.moving = moving_planes
        self._to_pixels = centered_to_pixels(frame, size)
        self._to_centered = np.linalg.inv(self._to_pixels)
        x, y = np.meshgrid(np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32))
        self._x, self._y = x, y
        u = (self._to_centered[0, 0] * x + self._to_centered[0, 2]).ravel()
        v = (self._to_centered[1, 1] * y + self._to_centered[1, 2]).ravel()
        self.monomials = np.stack([u**p * v**q for p, q in MONOMIALS]).astype(np.float32)

    @property
    def pixels_per_unit(self) -> float:
        """Length of 1 in centered coordinates, in pixels of this level."""
        return float(self._to_pixels[0, 0])

    def source_coordinates(self, matrix: Matrix) -> tuple[Plane, Plane, NDArray[np.bool_]]:
        """Map every pixel by `matrix` (centered coordinates).

        Returns:
            x and y of the moved source, float32 [H, W], and a mask [H, W] of the pixels that have data in both.
        """
        h = self._to_pixels @ matrix @ self._to_centered
        h = (h / h[2, 2]).astype(np.float32)
        depth = h[2, 0] * self._x + h[2, 1] * self._y + 1
        x = (h[0, 0] * self._x + h[0, 1] * self._y + h[0, 2]) / depth
        y = (h[1, 0] * self._x + h[1, 1] * self._y + h[1, 2]) / depth
        height, width = self.size
        last = _BORDER + 1
        mask = (x > _BORDER) & (x < width - last) & (y > _BORDER) & (y < height - last) & (depth > 0)
        for edge in (mask[:_BORDER], mask[-_BORDER:], mask[:, :_BORDER], mask[:, -_BORDER:]):
            edge[...] = False
        return x, y, mask

    def scores(self, matrix: Matrix, pairs: Indices) -> NDArray[np.float64]:
        """Return the correlation of each of the pairs after moving by `matrix`."""
        x, y, mask = self.source_coordinates(matrix)
        weights = mask.astype(np.float32)
        found = []
        for index in pairs:
            warped = np.stack(cv2.split(cv2.remap(self.moving[index], x, y, cv2.INTER_LINEAR))) * weights
            found.append(correlate(self.fixed[index] * weights, warped)[0])
        return np.array(found)
