"""How plausible a fused picture is: what it keeps of both sources, and what no fusion network should do.

    score = structure - (brightness + color + identity) / 32

Structure is 0 to 1, the other three are in gray levels, 0 is best. It says which conventions of one network are right,
not which network is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tcmoa_export.wrap.color import COLOR_SPACES
from tcmoa_runtime.contract import Task
from tcmoa_runtime.typing import Frame

Floats = NDArray[np.float32]

LEVELS_PER_POINT: Final = 32.0
"""Gray levels of error that count as much as all structure."""

_BLUR: Final = 4.0
"""Standard deviation in pixels, beyond which brightness is compared."""
_FLAT: Final = 16.0
"""Squared gradient in gray levels below which a place counts as flat."""


@dataclass(frozen=True)
class Score:
    """Parts of a score, means over pairs.

    Attributes:
        structure: How similar its gradients are to the stronger ones of both sources, 0 to 1.
        brightness: How far its local brightness is outside of that of both sources, in gray levels.
        color: How far its chroma is from that of the sources, in gray levels.
        identity: How far it is from a picture that is given as both sources, in gray levels.
    """

    structure: float
    brightness: float
    color: float
    identity: float

    @property
    def value(self) -> float:
        """The score, 1 is best; it may be below 0."""
        return self.structure - (self.brightness + self.color + self.identity) / LEVELS_PER_POINT


def mean_score(scores: list[Score]) -> Score:
    """Average scores part by part."""
    count = len(scores)
    return Score(
        structure=sum(score.structure for score in scores) / count,
        brightness=sum(score.brightness for score in scores) / count,
        color=sum(score.color for score in scores) / count,
        identity=sum(score.identity for score in scores) / count,
    )


def score_picture(task: Task, x: Frame, y: Frame, fused: Frame, repeated: Frame) -> Score:
    """Score a fused picture.

    Args:
        task: The task; for `vif` color is that of x.
        x: First source, uint8 [H, W, 3] RGB.
        y: Second source.
        fused: The picture fused of both.
        repeated: The picture fused of x and x.
    """
    (luma_x, chroma_x), (luma_y, chroma_y), (luma, chroma) = (_split(frame) for frame in (x, y, fused))
    return Score(
        structure=_structure(task, luma_x, luma_y, luma),
        brightness=_brightness(luma_x, luma_y, luma),
        color=_color(chroma_x, chroma_x if task == "vif" else chroma_y, chroma),
        identity=float(np.abs(repeated.astype(np.float32) - x).mean()),
    )


def _split(frame: Frame) -> tuple[Floats, Floats]:
    """Return luma [H, W] and chroma [H, W, 2]."""
    space, rgb = COLOR_SPACES["full"], frame.astype(np.float32)
    return (rgb @ space.luma)[..., 0], rgb @ space.chroma


def _structure(task: Task, x: Floats, y: Floats, fused: Floats) -> float:
    """Compare the gradient of the picture with the stronger one of both sources at each place.

    For `vif` half of it is a comparison with x alone: networks for it keep the visible scene, into which the infrared
    one is fused, and infrared cameras have noise where the visible picture is flat.
    """
    of_x, of_y, found = (_gradient(plane) for plane in (x, y, fused))
    is_stronger = np.square(of_x).sum(-1, keepdims=True) >= np.square(of_y).sum(-1, keepdims=True)
    stronger = _similarity(np.where(is_stronger, of_x, of_y), found)
    return (stronger + _similarity(of_x, found)) / 2 if task == "vif" else stronger


def _gradient(plane: Floats) -> Floats:
    return np.stack((cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1)), -1)


def _similarity(expected: Floats, found: Floats) -> float:
    """Compare gradients [H, W, 2] in size and direction, weighted by the strength of the expected ones: 0 to 1."""
    weight = np.square(expected).sum(-1)
    product = np.maximum((expected * found).sum(-1), 0)
    similar = (2 * product + _FLAT) / (weight + np.square(found).sum(-1) + _FLAT)
    amount = np.sqrt(weight) + 1
    return float((similar * amount).sum() / amount.sum())


def _brightness(x: Floats, y: Floats, fused: Floats) -> float:
    of_x, of_y, found = (cv2.GaussianBlur(plane, (0, 0), _BLUR) for plane in (x, y, fused))
    below, above = np.minimum(of_x, of_y) - found, found - np.maximum(of_x, of_y)
    return float(np.maximum(0, np.maximum(below, above)).mean())


def _color(x: Floats, y: Floats, fused: Floats) -> float:
    """Compare the chroma with that between the chroma of both sources which is nearest to it."""
    direction = y - x
    length = np.maximum(np.square(direction).sum(-1, keepdims=True), 1e-6)
    share = np.clip(((fused - x) * direction).sum(-1, keepdims=True) / length, 0, 1)
    return float(np.abs(fused - (x + share * direction)).mean())
