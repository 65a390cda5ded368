"""The methods by name, and the checks of what they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from tcmoa_calibration.baselines.color import to_color
from tcmoa_calibration.baselines.pixels import average, maximum, mertens
from tcmoa_calibration.baselines.pyramids import activity, exposure, laplacian
from tcmoa_calibration.baselines.selection import focus, patches
from tcmoa_calibration.luma import check_image
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.evaluate import BaselineName
from tcmoa_runtime.typing import Frame, ImageLike


@dataclass(frozen=True)
class Baseline:
    """A classical fusion method.

    Attributes:
        name: Name in BASELINES.
        description: The method and its source, in one line.
        method: Fuses two images of one shape, [H, W] or [H, W, 3].
    """

    name: BaselineName
    description: str
    method: Callable[[Frame, Frame], Frame]

    def fuse(self, x: ImageLike, y: ImageLike) -> Frame:
        """Fuse two images.

        Args:
            x: First source, uint8 [H, W], [H, W, 1] or RGB [H, W, 3].
            y: Second source, of the same height and width.

        Returns:
            uint8 [H, W, 3] if a source has three channels, else [H, W].

        Raises:
            InputError: Another dtype or shape, an image without pixels, or sources of different sizes.
        """
        first, second = (check_image(image, name, (np.uint8,)) for image, name in ((x, "x"), (y, "y")))
        if first.shape[:2] != second.shape[:2]:
            (hx, wx), (hy, wy) = first.shape[:2], second.shape[:2]
            raise InputError(
                f"x is {wx}x{hx}, y is {wy}x{hy}; expected sources of one size",
                remedy="Resize one of them first",
            )
        if first.ndim != second.ndim:
            first, second = to_color(first), to_color(second)
        return self.method(np.ascontiguousarray(first), np.ascontiguousarray(second))


BASELINES: Final[dict[str, Baseline]] = {
    baseline.name: baseline
    for baseline in (
        Baseline("average", "mean of both sources, rounded", average),
        Baseline("maximum", "larger value of both sources, per channel", maximum),
        Baseline("laplacian", "Laplacian pyramid, stronger detail selected (Burt, Adelson 1983)", laplacian),
        Baseline("mertens", "exposure fusion (Mertens 2007)", mertens),
        Baseline("patches", "each 16x16 patch from the source with the larger peak gradient", patches),
        Baseline("activity", "Laplacian pyramid, detail and base weighted by activity", activity),
        Baseline("exposure", "Laplacian pyramid, base weighted by mean well-exposedness", exposure),
        Baseline("focus", "sharper source by a decision map with a guided filter", focus),
    )
}
"""Every method by its name."""
