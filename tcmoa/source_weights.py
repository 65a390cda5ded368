"""The fused image from the sources' own pixels: the network says how much of each source goes in, band by band.

A network with the output `source-weights` predicts an image like any TC-MoA, at half the frame's resolution and in luma
only. The image is not shown; it decides between the sources x and y in each band of a Laplacian pyramid (Burt and
Adelson, 1983). A band's weight of x, pixel by pixel, is

    w = sigmoid(4 gain (share - 1/2) + prior log(measure of x / measure of y))

- `share` = sum (f - y)(x - y) / sum (x - y)^2 is the share of x that explains the network's image f best, in least
  squares over a few pixels: the one-parameter case of the guided filter's regression (He et al., 2013). Through it the
  prompts act, and all that the network knows of a pixel's surroundings.
- The measures are the classical ones: energy of the band (Burt and Kolczynski, 1993), activity of all bands for the low
  band, or how well exposed it is (Mertens et al., 2007). They say what holds without any context.

The bands w x + (1 - w) y are summed. So every band of the result lies between those of the sources: no detail is lost
to the network's bottleneck, and nothing is painted that no source has. The finest band, which f does not have, takes
the weights of the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from tcmoa_runtime.contract import Task

POOL: Final = 2
"""Side in pixels of the squares over which the sums of a band are taken first."""

REGULARIZER: Final = 1e-5
"""Added to the sums, for values in 0..1: where both sources are equal, the share is 1/2."""

GRAY_LEVEL: Final = 1 / 255
"""Added to activities, and its square to energies: below a gray level there is only noise to compare."""

WELL_EXPOSED: Final = (0.5, 0.25)
"""Mean and standard deviation of the Gaussian of well-exposedness (Mertens et al. use a deviation of 0.2)."""

LEAST_EXPOSED: Final = 1e-4
"""Added to well-exposednesses."""

Measure: TypeAlias = Literal["activity", "exposedness"]
"""What the sources' low bands are compared by."""


@dataclass(frozen=True)
class WeightRule:
    """How the weights of one task are derived.

    Attributes:
        levels: Bands of the pyramid besides the low one; the frame's sides are multiples of 2**(levels + 1).
        taps: Length of the binomial filter over the sums of a band, an odd number.
        gain: Weight of the network: slope of the logistic curve at w = 1/2, over that of the share.
        prior: Weight of the energies' logarithm.
        low_taps: `taps` of the low band's measures. A wide filter keeps halos and flicker low.
        low_gain: `gain` of the low band.
        low_prior: Weight of the logarithm of the low band's measures.
        low_measure: What the low bands are compared by.
    """

    levels: int
    taps: int
    gain: float
    prior: float
    low_taps: int
    low_gain: float
    low_prior: float
    low_measure: Measure


RULES: Final = MappingProxyType[Task, WeightRule](
    {
        "vif": WeightRule(
            levels=4,
            taps=3,
            gain=2.0,
            prior=2.0,
            low_taps=33,
            low_gain=2.0,
            low_prior=5.0,
            low_measure="activity",
        ),
        "mef": WeightRule(
            levels=4,
            taps=3,
            gain=1.5,
            prior=1.0,
            low_taps=33,
            low_gain=1.5,
            low_prior=1.0,
            low_measure="exposedness",
        ),
        # One weight for all bands: in focus is a property of the place, not of the band.
        "mff": WeightRule(
            levels=1,
            taps=5,
            gain=4.0,
            prior=0.0,
            low_taps=5,
            low_gain=6.0,
            low_prior=3.0,
            low_measure="activity",
        ),
    }
)
"""The rule of each task, chosen by the places of the result among published methods; see the weights' card."""

MAX_SHARE_TAPS: Final = 9
"""Longest filter over the share's sums of the low band: the network looks around by itself."""


def blend_sources(image: Tensor, x: Tensor, y: Tensor, task: Task) -> Tensor:
    """Fuse two sources by the weights that an image of the network and the sources' bands imply.

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
    half = _halve(torch.cat((image - y, difference, y), 1))
    finest = difference - _double(half[:, 1:2])
    bands: list[Tensor] = []
    weight: Tensor | None = None
    activity: Tensor | None = None
    for _ in range(rule.levels - 1):
        coarser = _halve(half)
        band = half - _double(coarser)
        band_weight = weight_of_x(band, rule)
        weight = band_weight if weight is None else weight
        bands.append(band_weight * band[:, 1:2])
        own = _sources(band).abs()
        activity = own if activity is None else _halve(activity) + own
        half = coarser
    # With one level there is no band; the activity is that of what the next level would split off.
    activity = _sources(half - _double(_halve(half))).abs() if activity is None else _halve(activity)
    low_weight = low_weight_of_x(half, activity, rule)
    weight = low_weight if weight is None else weight
    low = low_weight * half[:, 1:2]
    for band in reversed(bands):
        low = band + _double(low)
    return y + _double(low) + _double(weight) * finest


def weight_of_x(band: Tensor, rule: WeightRule) -> Tensor:
    """Return the weight of x in one band, pixel by pixel: [B, 1, H, W] in 0..1.

    Args:
        band: The band of (f - y, x - y, y), [B, 3, H, W].
        rule: The task's rule.
    """
    products = torch.cat((band[:, :2] * band[:, 1:2], _sources(band).square()), 1)
    sums = _smooth(F.avg_pool2d(products, POOL), rule.taps)
    logit = 4 * rule.gain * (_share(sums) - 0.5)
    logit = logit + rule.prior * _log_ratio(sums[:, 2:], GRAY_LEVEL**2)
    return _double(torch.sigmoid(logit))


def low_weight_of_x(low: Tensor, activity: Tensor, rule: WeightRule) -> Tensor:
    """Return the weight of x in the low band, pixel by pixel: [B, 1, H, W] in 0..1.

    Args:
        low: The low band of (f - y, x - y, y), [B, 3, H, W].
        activity: Sum of the absolute values of x's and y's bands, [B, 2, H, W].
        rule: The task's rule.
    """
    products = F.avg_pool2d(low[:, :2] * low[:, 1:2], POOL)
    share = _share(_smooth(products, min(rule.low_taps, MAX_SHARE_TAPS)))
    measure, least = activity, GRAY_LEVEL
    if rule.low_measure == "exposedness":
        mean, deviation = WELL_EXPOSED
        measure, least = torch.exp(-(_sources(low) - mean).square() / (2 * deviation**2)), LEAST_EXPOSED
    measure = _smooth(F.avg_pool2d(measure, POOL), rule.low_taps)
    logit = 4 * rule.low_gain * (share - 0.5) + rule.low_prior * _log_ratio(measure, least)
    return _double(torch.sigmoid(logit))


def _sources(band: Tensor) -> Tensor:
    """Return (x, y) of (f - y, x - y, y): [B, 2, H, W]."""
    return torch.cat((band[:, 2:] + band[:, 1:2], band[:, 2:]), 1)


def _share(sums: Tensor) -> Tensor:
    return (sums[:, :1] + REGULARIZER / 2) / (sums[:, 1:2] + REGULARIZER)


def _log_ratio(measures: Tensor, least: float) -> Tensor:
    return torch.log((measures[:, :1] + least) / (measures[:, 1:] + least))


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
