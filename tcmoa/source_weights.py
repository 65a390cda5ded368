"""The fused image from the sources' own pixels: the network says how much of each source goes in, band by band.

A network with the output `source-weights` predicts an image like any TC-MoA, at half the frame's resolution and in luma
only. Instead of being shown, the image f is compared with the sources x and y in each band of a Laplacian pyramid
(Burt and Adelson, 1983): the share of x that explains f best, in least squares over a few pixels, is

    w = sum (f - y)(x - y) / sum (x - y)^2

(the one-parameter case of the guided filter's regression, He et al., 2013). A logistic curve of slope `gain` makes w
more decisive and keeps it within 0..1, and the bands w x + (1 - w) y are summed. So every band of the result lies
between those of the sources: no detail is lost to the network's bottleneck, and nothing is painted that no source has.
The finest band, which f does not have, takes the weights of the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from tcmoa_runtime.contract import Task

POOL: Final = 2
"""Side in pixels of the squares over which the sums of a band are taken first."""

REGULARIZER: Final = 1e-5
"""Added to the sums, for values in 0..1: where both sources are equal, w is 1/2."""


@dataclass(frozen=True)
class WeightRule:
    """How the weights of one task are derived.

    Attributes:
        levels: Bands of the pyramid besides the low one; the frame's sides are multiples of 2**(levels + 1).
        taps: Length of the binomial filter over the sums of a band, an odd number.
        gain: Steepness of the logistic curve at w = 1/2; 1 keeps the slope.
        low_taps: `taps` of the low band. A wide filter keeps halos and flicker low.
        low_gain: `gain` of the low band.
    """

    levels: int
    taps: int
    gain: float
    low_taps: int
    low_gain: float


RULES: Final = MappingProxyType[Task, WeightRule](
    {
        "vif": WeightRule(levels=4, taps=3, gain=6.0, low_taps=3, low_gain=10.0),
        "mef": WeightRule(levels=4, taps=3, gain=3.0, low_taps=3, low_gain=4.0),
        # One weight for all bands above the finest: in focus is a property of the place, not of the band.
        "mff": WeightRule(levels=1, taps=5, gain=4.0, low_taps=5, low_gain=4.0),
    }
)
"""The rule of each task, chosen by the places of the result among published methods; see the weights' card."""


def blend_sources(image: Tensor, x: Tensor, y: Tensor, task: Task) -> Tensor:
    """Fuse two sources by the weights that an image of the network implies.

    Args:
        image: The network's image f, luma [B, 1, H, W], about 0..1.
        x: Luma of the first source, [B, 1, H, W], 0..1. H and W are multiples of 2**(levels + 1), `levels`
            of the task's rule.
        y: Luma of the second source, of the same shape.
        task: The task.

    Returns:
        The fused luma, [B, 1, H, W].
    """
    rule = RULES[task]
    difference = x - y
    half = _halve(torch.cat((image - y, difference), 1))
    finest = difference - _double(half[:, 1:])
    bands: list[Tensor] = []
    weight: Tensor | None = None
    for _ in range(rule.levels - 1):
        coarser = _halve(half)
        band = half - _double(coarser)
        band_weight = weight_of_x(band[:, :1], band[:, 1:], rule.taps, rule.gain)
        weight = band_weight if weight is None else weight
        bands.append(band_weight * band[:, 1:])
        half = coarser
    low_weight = weight_of_x(half[:, :1], half[:, 1:], rule.low_taps, rule.low_gain)
    weight = low_weight if weight is None else weight
    low = low_weight * half[:, 1:]
    for band in reversed(bands):
        low = band + _double(low)
    return y + _double(low) + _double(weight) * finest


def weight_of_x(change: Tensor, difference: Tensor, taps: int, gain: float) -> Tensor:
    """Return the weight of x in 0..1, pixel by pixel, [B, 1, H, W].

    Args:
        change: f - y of one band, [B, 1, H, W].
        difference: x - y of the band.
        taps: Length of the binomial filter; see `WeightRule`.
        gain: Steepness of the logistic curve.
    """
    sums = F.avg_pool2d(torch.cat((change * difference, difference.square()), 1), POOL)
    sums = _smooth(sums, taps)
    share = (sums[:, :1] + REGULARIZER / 2) / (sums[:, 1:] + REGULARIZER)
    return _double(torch.sigmoid(4 * gain * (share - 0.5)))


def binomial(taps: int) -> list[float]:
    """Return the binomial filter of an odd length, with the sum 1; its variance is (taps - 1) / 4."""
    return [math.comb(taps - 1, k) / 2 ** (taps - 1) for k in range(taps)]


def _halve(image: Tensor) -> Tensor:
    return F.avg_pool2d(image, 2)


def _double(image: Tensor) -> Tensor:
    return F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)


def _smooth(image: Tensor, taps: int) -> Tensor:
    kernel = image.new_tensor(binomial(taps))
    channels, border = image.shape[1], taps // 2
    image = F.pad(image, (border, border, border, border), mode="replicate")
    image = F.conv2d(image, kernel.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(image, kernel.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
