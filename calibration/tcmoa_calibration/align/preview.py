"""A picture of the edges of both sources, before and after an alignment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.align.estimate import AlignmentEstimate
from tcmoa_calibration.align.pyramid import edge_plane
from tcmoa_calibration.sample_pairs import SamplePair
from tcmoa_runtime.alignment import Warp
from tcmoa_runtime.images import to_frame
from tcmoa_runtime.typing import Frame

_NUM_PAIRS = 2
_GAP_PX = 4
_GAP_GRAY = 128
_WHITE_STRENGTH = 1.5
"""Length of a vector of `edge_plane` that is drawn at full brightness."""


def draw_preview(samples: Sequence[SamplePair], estimate: AlignmentEstimate) -> Frame:
    """Draw the edges of x in red and those of y in cyan; edges that coincide are white.

    Args:
        samples: The pairs of the estimate, [H, W] each.
        estimate: The alignment to show.

    Returns:
        RGB [2 H, 2 W + 4, 3]: before on the left and after on the right, of the two pairs with the highest scores.
    """
    by_name = {sample.name: sample for sample in samples}
    names = sorted(estimate.pair_scores, key=lambda name: -estimate.pair_scores[name][1])[:_NUM_PAIRS]
    size = samples[0].x.shape[0], samples[0].x.shape[1]
    warp = Warp.from_alignment(estimate.alignment, size)
    rows = []
    for name in names:
        x, y = (to_frame(frame, "frame", 1) for frame in (by_name[name].x, by_name[name].y))
        after = (warp(x), y) if estimate.alignment.source == "x" else (x, warp(y))
        gap = np.full((size[0], _GAP_PX, 3), _GAP_GRAY, np.uint8)
        rows.append(np.hstack([_overlay_edges(x, y), gap, _overlay_edges(*after)]))
    return np.ascontiguousarray(np.vstack(rows))


def _overlay_edges(x: Frame, y: Frame) -> Frame:
    red, cyan = (_edge_brightness(frame[..., 0]) for frame in (x, y))
    return np.dstack([red, cyan, cyan])


def _edge_brightness(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    plane = edge_plane(image)
    strength = np.sqrt((plane * plane).sum(2))
    return np.asarray(np.clip(strength * (255 / _WHITE_STRENGTH), 0, 255), np.uint8)
