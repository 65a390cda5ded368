"""Windows, convolutions and Fourier transforms in float64: the only file here that calls SciPy."""

from __future__ import annotations

from typing import Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.metrics.frames import Plane
from tcmoa_runtime.errors import MissingError

try:
    import scipy.fft as scipy_fft  # type: ignore[import-untyped]
except ImportError as error:
    raise MissingError(
        "image metrics need SciPy, which is not installed: pip install 'tcmoa[calibration]'"
    ) from error

Border = Literal["valid", "zero", "edge", "mirror"]

_BORDERS: Final = {
    "valid": "BORDER_CONSTANT",
    "zero": "BORDER_CONSTANT",
    "edge": "BORDER_REPLICATE",
    "mirror": "BORDER_REFLECT",
}
"""OpenCV's names."""


def gaussian_taps(size: int, sigma: float) -> Plane:
    """[size], sum 1; its outer product with itself is the square Gaussian window."""
    taps = np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / (2 * sigma**2))
    return cast("Plane", taps / taps.sum())


def separable(plane: Plane, down: Plane, across: Plane, border: Border) -> Plane:
    """Correlation of [H, W] with the window down[:, None] * across[None, :], both of odd length.

    `valid` keeps the places where the window lies inside: [H - len(down) + 1, W - len(across) + 1].
    """
    import cv2

    # In float64 throughout, as SciPy's correlate1d, whose result it is to rounding, in a fifth of the time.
    out = cv2.sepFilter2D(plane, cv2.CV_64F, across, down, borderType=getattr(cv2, _BORDERS[border]))
    if border == "valid":
        rows, columns = len(down) // 2, len(across) // 2
        out = out[rows : out.shape[0] - rows, columns : out.shape[1] - columns]
    return cast("Plane", out)


def blur(plane: Plane, taps: Plane, border: Border = "valid") -> Plane:
    """`separable` with the same taps both ways."""
    return separable(plane, taps, taps, border)


def sobel(plane: Plane, border: Border = "zero") -> tuple[Plane, Plane]:
    """Derivatives across and down, [H, W] each, weights 1 2 1 and -1 0 1; the border as MATLAB's conv2 'same'."""
    smooth, slope = np.array([1.0, 2.0, 1.0]), np.array([-1.0, 0.0, 1.0])
    return separable(plane, smooth, slope, border), separable(plane, slope, smooth, border)


def prewitt(plane: Plane, border: Border = "zero") -> tuple[Plane, Plane]:
    """Derivatives across and down, weights 1 1 1 and -1 0 1."""
    smooth, slope = np.ones(3), np.array([-1.0, 0.0, 1.0])
    return separable(plane, smooth, slope, border), separable(plane, slope, smooth, border)


def fft2(plane: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Two-dimensional Fourier transform."""
    return cast("NDArray[np.complex128]", scipy_fft.fft2(plane))


def ifft2(spectrum: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Its inverse."""
    return cast("NDArray[np.complex128]", scipy_fft.ifft2(spectrum))


def rfft2(plane: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Half of the Fourier transform of a real plane, [H, W // 2 + 1]."""
    return cast("NDArray[np.complex128]", scipy_fft.rfft2(plane))


def irfft2(spectrum: NDArray[np.complex128], shape: tuple[int, int]) -> Plane:
    """Its inverse, [H, W]."""
    return cast("Plane", scipy_fft.irfft2(spectrum, s=shape))


def frequencies(count: int) -> Plane:
    """[count] frequencies of an FFT in its order, as fractions of Nyquist: 0 .. 1, then negative ones."""
    return cast("Plane", scipy_fft.fftfreq(count) * 2)


def half_frequencies(count: int) -> Plane:
    """[count // 2 + 1], as `frequencies`, for the short axis of rfft2."""
    return cast("Plane", scipy_fft.rfftfreq(count) * 2)
