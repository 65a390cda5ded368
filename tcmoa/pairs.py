"""Making honest pairs from one photograph: two focal planes, two exposures.

Images are float32 RGB in 0..1, [H, W, 3]; every function is deterministic in its generator.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


def smooth_mask(height: int, width: int, rng: np.random.Generator) -> Image:
    """A random soft-edged region, 0..1, [H, W, 1], covering about half of the image."""
    coarse = rng.standard_normal((4, 5)).astype(np.float32)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    edge = max(0.02, float(np.std(field)) * 0.1)
    mask = 1 / (1 + np.exp(-np.clip((field - np.median(field)) / edge, -30, 30)))
    return np.asarray(mask, np.float32)[..., None]


def focus_pair(photo: Image, mask: Image, sigma: float) -> tuple[Image, Image]:
    """(far focus, near focus): each sharp on its side of `mask` and blurred by a Gaussian on the other."""
    blurred = cv2.GaussianBlur(photo, (0, 0), sigma)
    return mask * photo + (1 - mask) * blurred, (1 - mask) * photo + mask * blurred


def exposure_pair(photo: Image, stops: float) -> tuple[Image, Image]:
    """(over-exposed, under-exposed): the photograph's light times 2**stops and 2**-stops, clipped as a sensor would.

    Light is the photograph to the power of 2.2; both results are quantised to 8 bits, so that shadows really
    are lost in the dark one.
    """
    light = np.clip(photo, 0, 1) ** 2.2
    both = []
    for gain in (2.0**stops, 2.0**-stops):
        value = np.clip(light * gain, 0, 1) ** (1 / 2.2)
        both.append((np.round(value * 255) / 255).astype(np.float32))
    return both[0], both[1]


def synthetic_infrared(photo: Image) -> Image:
    """A stand-in for an infrared frame, [H, W, 3] with equal channels: NOT what a thermal camera would see.

    Red against blue with a little inverted green, blurred a little and contrast-stretched: a picture of the same
    scene with other contrasts. For demonstrations without a real pair.
    """
    grey = 0.9 * photo[..., 0] - 0.3 * photo[..., 2] + 0.2 * (1 - photo[..., 1])
    grey = cv2.GaussianBlur(np.asarray(grey, np.float32), (0, 0), 1.2)
    low, high = np.percentile(grey, (1, 99))
    stretched = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1)
    return np.repeat(stretched[..., None], 3, axis=2).astype(np.float32)
