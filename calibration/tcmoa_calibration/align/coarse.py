"""Coarse search: rotations and zooms on a grid, and all shifts at once by Fourier transforms.

The correlations of all pairs are averaged before the best is chosen, as correlation planes are in particle image
velocimetry (Meinhart, Wereley & Santiago 2000): a pair that is ambiguous by itself still contributes.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft  # type: ignore[import-untyped]

from tcmoa_calibration.align.pyramid import Indices, Plane, PyramidLevel
from tcmoa_runtime.alignment import Matrix, MotionModel

ROTATIONS: Final = np.deg2rad(np.arange(-6.0, 6.1, 1.5))
ZOOMS: Final = np.arange(0.88, 1.121, 0.03)
MAX_SHIFT: Final = 1 / 8
"""Largest shift in each direction, in longer sides of the frame."""


def max_shift_px(level: PyramidLevel) -> int:
    """Return `MAX_SHIFT` in pixels of a level."""
    return max(1, round(max(level.size) * MAX_SHIFT))


def correlate_shifts(level: PyramidLevel) -> NDArray[np.float32]:
    """Correlate every pair at every rotation, zoom and shift.

    Returns:
        Correlations [rotations, zooms, pairs, shifts down, shifts right].
    """
    reach = max_shift_px(level)
    shape = tuple(int(fft.next_fast_len(side + reach)) for side in level.size)
    fixed = [np.conj(fft.fft2(_to_unit_norm(np.dstack(tuple(plane))), shape)) for plane in level.fixed]
    found = np.empty((len(ROTATIONS), len(ZOOMS), len(fixed), 2 * reach + 1, 2 * reach + 1), np.float32)
    for i, angle in enumerate(ROTATIONS):
        for j, zoom in enumerate(ZOOMS):
            x, y, _ = level.source_coordinates(_rotation_and_zoom(angle, zoom))
            for k, plane in enumerate(level.moving):
                warped = cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
                spectrum = fft.fft2(_to_unit_norm(np.asarray(warped, np.float32)), shape)
                correlation = fft.ifft2(spectrum * fixed[k]).real
                around_zero = np.roll(correlation, (reach, reach), (0, 1))
                found[i, j, k] = around_zero[: 2 * reach + 1, : 2 * reach + 1]
    return found


def best_start(
    correlations: NDArray[np.float32], pairs: Indices, level: PyramidLevel, model: MotionModel
) -> Matrix:
    """Return the matrix of the highest mean correlation over `pairs`; for a translation, of the best shift alone."""
    mean = correlations[:, :, pairs].mean(2)
    if model == "translation":
        middle = len(ROTATIONS) // 2, len(ZOOMS) // 2
        shifts_only = np.full_like(mean, -1)
        shifts_only[middle] = mean[middle]
        mean = shifts_only
    i, j, down, right = np.unravel_index(int(mean.argmax()), mean.shape)
    reach = max_shift_px(level)
    shift = np.eye(3)
    shift[:2, 2] = np.array([int(right) - reach, int(down) - reach]) / level.pixels_per_unit
    return _rotation_and_zoom(float(ROTATIONS[i]), float(ZOOMS[j])) @ shift


def _rotation_and_zoom(angle: float, zoom: float) -> Matrix:
    c, s = zoom * np.cos(angle), zoom * np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _to_unit_norm(plane: Plane) -> NDArray[np.complex64]:
    """Write [H, W, 2] as complex numbers of mean 0 and norm 1; the real part of a product is then a correlation."""
    numbers = plane[..., 0] + 1j * plane[..., 1]
    numbers = numbers - numbers.mean()
    return np.asarray(numbers / max(float(np.linalg.norm(numbers)), 1e-6), np.complex64)
