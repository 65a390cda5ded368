"""The sources' weights, as ONNX: bands, sums, logistic curve, and the sum of the weighted bands.

See `tcmoa.source_weights` for the computation. Planes are float32 NCHW, 0..255. Sides are even on every level, so that
halving and doubling are exact. Both, and the smoothing, are sums along one axis and then the other, in two forms:

- For CPUs, gathers with constant indices, and their weighted sum. OpenVINO doubles two planes of 320x240 in 0.7 ms so,
  in 2.5 ms by products with matrices and in 6 ms by a resize; halving by its pooling copies planes into blocks of 16
  channels (36 ms, instead of 0.3). With its bf16 hint every product, convolution and resize rounds its result to 8
  bits, and everything that such a result goes into; what lies between them and the output stays float32. So the
  pixels of the sources reach the output exactly, in every precision.
- For GPUs, products with constant matrices, one kernel each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa.source_weights import REGULARIZER, WeightRule, binomial
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


@dataclass(frozen=True)
class WeightGraph:
    """A graph under construction whose sources are weighed by a rule.

    Attributes:
        graph: Where nodes are added.
        rule: The rule of the task.
        by_gathers: Whether sums along an axis are gathers, for CPUs, or products with matrices, for GPUs.
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
        half = _Level(
            graph.concat((graph.op("Sub", half_image, half_y), half_difference), 1),
            2,
            halves.height,
            halves.width,
        )
        bands: list[str] = []
        weight = ""
        for _ in range(self.rule.levels - 1):
            coarser = self._halve(half)
            band = graph.op("Sub", half.value, self._double(coarser))
            band_weight, band_difference = self._weigh(
                _Level(band, 2, half.height, half.width), self.rule.taps, self.rule.gain
            )
            weight = weight or band_weight
            bands.append(graph.mul(band_weight, band_difference))
            half = coarser
        low_weight, low_difference = self._weigh(half, self.rule.low_taps, self.rule.low_gain)
        weight = weight or low_weight
        low = _Level(graph.mul(low_weight, low_difference), 1, half.height, half.width)
        for band in reversed(bands):
            low = _Level(graph.add(band, self._double(low)), 1, 2 * low.height, 2 * low.width)
        # The low bands and the finest band's weight are enlarged together.
        both = _Level(graph.concat((low.value, weight), 1), 2, height // 2, width // 2)
        coarse, fine_weight = graph.split(self._double(both), (1, 1))
        return graph.add(graph.add(y, coarse), graph.mul(fine_weight, finest))

    def _weigh(self, band: _Level, taps: int, gain: float) -> tuple[str, str]:
        """Add the weight of x and the difference x - y of a band of (f - y, x - y)."""
        graph = self.graph
        _, difference = graph.split(band.value, (1, 1))
        products = graph.mul(band.value, difference)
        sums = self._halve(_Level(products, 2, band.height, band.width), taps)
        regularizer = REGULARIZER * 255.0**2
        dividend, divisor = graph.split(sums.value, (1, 1))
        share = graph.op(
            "Div",
            graph.add(dividend, graph.scalar(regularizer / 2)),
            graph.add(divisor, graph.scalar(regularizer)),
        )
        slope = 4 * gain
        argument = graph.add(graph.mul(share, graph.scalar(slope)), graph.scalar(-slope / 2))
        logistic = _Level(graph.op("Sigmoid", argument), 1, sums.height, sums.width)
        return self._double(logistic), difference

    def _halve(self, level: _Level, taps: int = 1) -> _Level:
        """Add means over 2x2 pixels, and a binomial filter over these; the ends are repeated."""
        height, width = level.height // 2, level.width // 2
        value = self._sum_along(level.value, 2, _halving(level.height), _smoothing(height, taps))
        value = self._sum_along(value, 3, _halving(level.width), _smoothing(width, taps))
        return _Level(value, level.channels, height, width)

    def _double(self, level: _Level) -> str:
        """Add a bilinear resize by 2 (half pixel); the ends are repeated."""
        value = self._sum_along(level.value, 3, _doubling(level.width))
        return self._sum_along(value, 2, _doubling(level.height))

    def _sum_along(self, value: str, axis: int, *stages: _Terms) -> str:
        """Add weighted sums of positions along an axis, one stage after the other."""
        graph = self.graph
        if self.by_gathers:
            for terms in stages:
                if len(terms) > 1:
                    value = self._gathered_sum(value, axis, terms)
            return value
        matrix = reduce(np.matmul, [_to_matrix(terms) for terms in stages])
        if axis == 3:
            return graph.linear(value, matrix)
        return graph.op("MatMul", graph.floats(np.ascontiguousarray(matrix.T), "rows"), value)

    def _gathered_sum(self, value: str, axis: int, terms: _Terms) -> str:
        graph = self.graph
        by_weight: dict[float, list[str]] = {}
        for index, weight in terms:
            by_weight.setdefault(weight, []).append(graph.gather(value, index, axis))
        sums = [
            graph.mul(reduce(graph.add, values), graph.scalar(weight)) for weight, values in by_weight.items()
        ]
        return reduce(graph.add, sums)


def _to_matrix(terms: _Terms) -> NDArray[np.float32]:
    """Return the matrix [length, number of results] by which rows are multiplied."""
    length = 1 + max(int(index.max()) for index, _ in terms)
    matrix = np.zeros((length, len(terms[0][0])), np.float32)
    for index, weight in terms:
        np.add.at(matrix, (index, np.arange(len(index))), weight)
    return matrix


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
