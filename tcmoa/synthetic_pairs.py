"""Pairs made from one photograph: two focal planes, two exposures, or an imitation of an infrared image.

Images are float32 RGB in 0..1, [H, W, 3]; every function is deterministic for a given generator.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage: TypeAlias = NDArray[np.float32]
"""float32 [H, W, C] in 0..1."""


def smooth_mask(height: int, width: int, rng: np.random.Generator) -> FloatImage:
    """Draw a random region with soft edges, [H, W, 1] in 0..1, that covers about half of the image."""
    coarse = rng.standard_normal((4, 5)).astype(np.float32)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    edge = max(0.02, float(np.std(field)) * 0.1)
    mask = 1 / (1 + np.exp(-np.clip((field - np.median(field)) / edge, -30, 30)))
    return np.asarray(mask, np.float32)[..., None]


def focus_pair(photo: FloatImage, mask: FloatImage, sigma: float) -> tuple[FloatImage, FloatImage]:
    """Return (far focus, near focus): far is sharp where `mask` is 1, near where it is 0; the rest is blurred."""
    blurred = cv2.GaussianBlur(photo, (0, 0), sigma)
    return mask * photo + (1 - mask) * blurred, (1 - mask) * photo + mask * blurred


def exposure_pair(photo: FloatImage, stops: float) -> tuple[FloatImage, FloatImage]:
    """Return (over-exposed, under-exposed): the light of the photograph times 2**stops and 2**-stops, clipped.

    Light is the photograph to the power of 2.2. Both results are quantized to 8 bits, so that shadows are really lost
    in the dark one.
    """
    light = np.clip(photo, 0, 1) ** 2.2
    both = []
    for gain in (2.0**stops, 2.0**-stops):
        value = np.clip(light * gain, 0, 1) ** (1 / 2.2)
        both.append((np.round(value * 255) / 255).astype(np.float32))
    return both[0], both[1]


def synthetic_infrared(photo: FloatImage) -> FloatImage:
    """Imitate an infrared image of a photograph, [H, W, 3] with equal channels. It is NOT what a thermal camera sees.

    Red minus blue plus some inverted green, slightly blurred and stretched: the same scene with other contrasts, for
    demonstrations without a real pair.
    """
    gray = 0.9 * photo[..., 0] - 0.3 * photo[..., 2] + 0.2 * (1 - photo[..., 1])
    gray = cv2.GaussianBlur(np.asarray(gray, np.float32), (0, 0), 1.2)
    low, high = np.percentile(gray, (1, 99))
    stretched = np.clip((gray - low) / max(float(high - low), 1e-6), 0, 1)
    return np.repeat(stretched[..., None], 3, axis=2).astype(np.float32)
