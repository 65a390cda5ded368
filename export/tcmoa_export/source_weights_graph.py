"""The sources' weights, as ONNX: bands, sums, logistic curve, and the sum of the weighted bands.

See `tcmoa.source_weights` for the computation. Planes are float32 NCHW, 0..255. Sides are even on every level, so that
halving and doubling are exact. They and the smoothing take two forms:

- For CPUs, sums along one axis and then the other, as gathers with constant indices and their weighted sum: OpenVINO
  doubles two planes of 320x240 in 0.7 ms so, and halves them in 0.3 ms. Its pooling would copy them into blocks of 16
  channels. With its bf16 hint every product, convolution and resize rounds its result to 8 bits, and everything that
  such a result goes into; what lies between them and the output stays float32. So the pixels of the sources reach the
  output exactly, also with that hint.
- For GPUs, the operators that engines have for it: average pooling, bilinear resize, and convolution by channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeAlias

import numpy as np

from tcmoa.source_weights import (
    GRAY_LEVEL,
    LEAST_EXPOSED,
    MAX_SHARE_TAPS,
    REGULARIZER,
    WELL_EXPOSED,
    WeightRule,
    binomial,
)
from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.token_layout import Index

_Terms: TypeAlias = Sequence[tuple[Index, float]]
"""A sum along an axis: for each term the positions that are read, one for each result, and their weight."""


@dataclass(frozen=True)
class _Level:
    """One level of a pyramid: planes [N, C, height, width]."""

    value: str
    channels: int
    height: int
    width: int

    def with_value(self, value: str, channels: int = 0) -> _Level:
        """Return a level of the same size with other planes, and as many of them unless said otherwise."""
        return replace(self, value=value, channels=channels or self.channels)


@dataclass(frozen=True)
class WeightGraph:
    """A graph under construction whose sources are weighed by a rule.

    Attributes:
        graph: Where nodes are added.
        rule: The rule of the task.
        by_gathers: Whether filters are sums of gathers, for CPUs, or the operators of engines, for GPUs.
    """

    graph: GraphBuilder
    rule: WeightRule
    by_gathers: bool

    def blend(self, half_image: str, x: str, y: str, size: tuple[int, int]) -> str:
        """Add the fused plane [N, 1, H, W].

        Args:
            half_image: The network's image, averaged over 2x2 pixels, [N, 1, H/2, W/2].
            x: Luma of the first source, [N, 1, H, W].
            y: Luma of the second source.
            size: (H, W).
        """
        graph, (height, width) = self.graph, size
        difference = graph.op("Sub", x, y)
        halves = self._halve(_Level(graph.concat((y, difference), 1), 2, height, width))
        half_y, half_difference = graph.split(halves.value, (1, 1))
        single = _Level(half_difference, 1, halves.height, halves.width)
        finest = graph.op("Sub", difference, self._double(single))
        change = graph.op("Sub", half_image, half_y)
        half = halves.with_value(graph.concat((change, half_difference, half_y), 1), 3)
        bands: list[str] = []
        weight, activity = "", ""
        for _ in range(self.rule.levels - 1):
            coarser = self._halve(half)
            band = half.with_value(graph.op("Sub", half.value, self._double(coarser)))
            band_weight, band_difference = self._weigh(band)
            weight = weight or band_weight
            bands.append(graph.mul(band_weight, band_difference))
            if self._needs_activity:
                own = graph.op("Abs", self._sources(band))
                activity = graph.add(activity, own) if activity else own
                activity = self._halve(half.with_value(activity, 2)).value
            half = coarser
        if self._needs_activity and not activity:
            beneath = graph.op("Sub", half.value, self._double(self._halve(half)))
            activity = graph.op("Abs", self._sources(half.with_value(beneath)))
        low_weight, low_difference = self._weigh_low(half, activity)
        weight = weight or low_weight
        low = half.with_value(graph.mul(low_weight, low_difference), 1)
        for band_part in reversed(bands):
            value = graph.add(band_part, self._double(low))
            low = _Level(value, 1, 2 * low.height, 2 * low.width)
        # The low bands and the finest band's weight are enlarged together.
        both = _Level(graph.concat((low.value, weight), 1), 2, height // 2, width // 2)
        coarse, fine_weight = graph.split(self._double(both), (1, 1))
        return graph.add(graph.add(y, coarse), graph.mul(fine_weight, finest))

    @property
    def _needs_activity(self) -> bool:
        return self.rule.low_measure == "activity" and self.rule.low_prior != 0

    def _sources(self, band: _Level) -> str:
        """Add (x, y) of (f - y, x - y, y): [N, 2, height, width]."""
        _, difference, y = self.graph.split(band.value, (1, 1, 1))
        return self.graph.concat((self.graph.add(y, difference), y), 1)

    def _weigh(self, band: _Level) -> tuple[str, str]:
        """Add the weight of x and the difference x - y of a band of (f - y, x - y, y)."""
        graph, rule = self.graph, self.rule
        compared, difference = self._compare(band)
        if rule.prior == 0:
            sums = self._halve(band.with_value(compared, 2), rule.taps)
            return self._logistic(sums, self._logit_of_share(sums.value, rule.gain)), difference
        sources = self._sources(band)
        products = graph.concat((compared, graph.mul(sources, sources)), 1)
        sums = self._halve(band.with_value(products, 4), rule.taps)
        of_share, energies = graph.split(sums.value, (2, 2))
        ratio = self._log_ratio(energies, (255 * GRAY_LEVEL) ** 2)
        logit = graph.add(
            self._logit_of_share(of_share, rule.gain), graph.mul(ratio, graph.scalar(rule.prior))
        )
        return self._logistic(sums, logit), difference

    def _weigh_low(self, low: _Level, activity: str) -> tuple[str, str]:
        """Add the weight of x and the difference x - y of the low band of (f - y, x - y, y)."""
        graph, rule = self.graph, self.rule
        compared, difference = self._compare(low)
        sums = self._halve(low.with_value(compared, 2), min(rule.low_taps, MAX_SHARE_TAPS))
        logit = self._logit_of_share(sums.value, rule.low_gain)
        if rule.low_prior != 0:
            measure, least = activity, 255 * GRAY_LEVEL
            if rule.low_measure == "exposedness":
                mean, deviation = WELL_EXPOSED
                distance = graph.add(self._sources(low), graph.scalar(-255 * mean))
                scale = graph.scalar(-1 / (2 * (255 * deviation) ** 2))
                measure = graph.op("Exp", graph.mul(graph.mul(distance, distance), scale))
                least = LEAST_EXPOSED
            averaged = self._halve(low.with_value(measure, 2), rule.low_taps)
            ratio = self._log_ratio(averaged.value, least)
            logit = graph.add(logit, graph.mul(ratio, graph.scalar(rule.low_prior)))
        return self._logistic(sums, logit), difference

    def _compare(self, band: _Level) -> tuple[str, str]:
        """Add ((f - y)(x - y), (x - y)^2), and return it with x - y."""
        graph = self.graph
        both, _ = graph.split(band.value, (2, 1))
        _, difference = graph.split(both, (1, 1))
        return graph.mul(both, difference), difference

    def _logit_of_share(self, sums: str, gain: float) -> str:
        """Add 4 gain (share - 1/2) from the sums [N, 2, height, width] of `_compare`."""
        graph, regularizer = self.graph, REGULARIZER * 255.0**2
        dividend, divisor = graph.split(sums, (1, 1))
        share = graph.op(
            "Div",
            graph.add(dividend, graph.scalar(regularizer / 2)),
            graph.add(divisor, graph.scalar(regularizer)),
        )
        return graph.add(graph.mul(share, graph.scalar(4 * gain)), graph.scalar(-2 * gain))

    def _log_ratio(self, measures: str, least: float) -> str:
        graph = self.graph
        x, y = graph.split(graph.add(measures, graph.scalar(least)), (1, 1))
        return graph.op("Log", graph.op("Div", x, y))

    def _logistic(self, sums: _Level, logit: str) -> str:
        return self._double(sums.with_value(self.graph.op("Sigmoid", logit), 1))

    def _halve(self, level: _Level, taps: int = 1) -> _Level:
        """Add means over 2x2 pixels, and a binomial filter over these; the ends are repeated."""
        height, width = level.height // 2, level.width // 2
        if self.by_gathers:
            value = self._sum_along(level.value, 2, _halving(level.height), _smoothing(height, taps))
            value = self._sum_along(value, 3, _halving(level.width), _smoothing(width, taps))
        else:
            value = self.graph.op("AveragePool", level.value, kernel_shape=[2, 2], strides=[2, 2])
            if taps > 1:
                value = self._convolve(value, level.channels, taps)
        return _Level(value, level.channels, height, width)

    def _convolve(self, value: str, channels: int, taps: int) -> str:
        """Add a binomial filter along both axes; the ends are repeated."""
        graph, border = self.graph, taps // 2
        pads = graph.integers([0, 0, border, border, 0, 0, border, border], "pads")
        value = graph.op("Pad", value, pads, mode="edge")
        kernel = np.array(binomial(taps), np.float32)
        for shape in ((1, 1, taps, 1), (1, 1, 1, taps)):
            weights = np.tile(kernel.reshape(shape), (channels, 1, 1, 1))
            value = graph.op("Conv", value, graph.floats(weights, "binomial"), group=channels)
        return value

    def _double(self, level: _Level) -> str:
        """Add a bilinear resize by 2 (half pixel); the ends are repeated."""
        if self.by_gathers:
            value = self._sum_along(level.value, 3, _doubling(level.width))
            return self._sum_along(value, 2, _doubling(level.height))
        scales = self.graph.floats(np.array([1, 1, 2, 2], np.float32), "scales")
        return self.graph.op(
            "Resize",
            level.value,
            "",
            scales,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )

    def _sum_along(self, value: str, axis: int, *stages: _Terms) -> str:
        """Add weighted sums of positions along an axis, one stage after the other."""
        for terms in stages:
            if len(terms) > 1:
                value = self._gathered_sum(value, axis, terms)
        return value

    def _gathered_sum(self, value: str, axis: int, terms: _Terms) -> str:
        graph = self.graph
        by_weight: dict[float, list[str]] = {}
        for index, weight in terms:
            by_weight.setdefault(weight, []).append(graph.gather(value, index, axis))
        sums = [
            graph.mul(reduce(graph.add, values), graph.scalar(weight)) for weight, values in by_weight.items()
        ]
        return reduce(graph.add, sums)


def _halving(length: int) -> _Terms:
    """Return the terms of the means of pairs."""
    return [(np.arange(start, length, 2), 0.5) for start in (0, 1)]


def _doubling(length: int) -> _Terms:
    """Return the terms of a linear resize by 2 (half pixel)."""
    position = np.arange(2 * length)
    near = position // 2
    far = np.clip(near + np.where(position % 2, 1, -1), 0, length - 1)
    return [(near, 0.75), (far, 0.25)]


def _smoothing(length: int, taps: int) -> _Terms:
    """Return the terms of a binomial filter."""
    position = np.arange(length)
    return [
        (np.clip(position + tap - taps // 2, 0, length - 1), weight)
        for tap, weight in enumerate(binomial(taps))
    ]
