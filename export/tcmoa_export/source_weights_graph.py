"""The sources' weights, as ONNX: bands, sums, logistic curve, and the sum of the weighted bands.

See `tcmoa.source_weights` for the computation. Planes are float32 NCHW with one channel, 0..255. Sides are even on
every level, so that halving and doubling are exact. Both are matrix products: OpenVINO would copy planes of one or two
channels into blocks of 16 for its pooling, and its resize is slower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcmoa.source_weights import BINOMIAL, REGULARIZER, WeightRule
from tcmoa_export.graph_builder import GraphBuilder


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
        images: Number of images, N.
    """

    graph: GraphBuilder
    rule: WeightRule
    images: int

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
                _Level(band, 2, half.height, half.width), self.rule.gain
            )
            weight = weight or band_weight
            bands.append(graph.mul(band_weight, band_difference))
            half = coarser
        low_weight, low_difference = self._weigh(half, self.rule.low_gain)
        weight = weight or low_weight
        low = _Level(graph.mul(low_weight, low_difference), 1, half.height, half.width)
        for band in reversed(bands):
            low = _Level(graph.add(band, self._double(low)), 1, 2 * low.height, 2 * low.width)
        # The low bands and the finest band's weight are enlarged together.
        both = _Level(graph.concat((low.value, weight), 1), 2, height // 2, width // 2)
        coarse, fine_weight = graph.split(self._double(both), (1, 1))
        return graph.add(graph.add(y, coarse), graph.mul(fine_weight, finest))

    def _weigh(self, band: _Level, gain: float) -> tuple[str, str]:
        """Add the weight of x and the difference x - y of a band of (f - y, x - y)."""
        graph = self.graph
        _, difference = graph.split(band.value, (1, 1))
        products = graph.mul(band.value, difference)
        sums = self._smooth(self._halve(_Level(products, 2, band.height, band.width)))
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

    def _halve(self, level: _Level) -> _Level:
        """Add means over 2x2 pixels: columns in pieces of a row, then rows, each by one matrix product."""
        graph, height, width = self.graph, level.height // 2, level.width // 2
        piece = math.gcd(level.width, 64)
        pieces = graph.reshape(
            level.value, self.images * level.channels * level.height * level.width // piece, piece
        )
        columns = graph.linear(pieces, _halving(piece))
        shape = (self.images, level.channels, level.height, width)
        rows = graph.floats(np.ascontiguousarray(_halving(level.height).T), "rows")
        return _Level(graph.op("MatMul", rows, graph.reshape(columns, *shape)), level.channels, height, width)

    def _double(self, level: _Level) -> str:
        """Add a bilinear resize by 2 (half pixel), by one matrix product for each axis."""
        graph = self.graph
        columns = graph.linear(level.value, _doubling(level.width))
        rows = graph.floats(np.ascontiguousarray(_doubling(level.height).T), "rows")
        return graph.op("MatMul", rows, columns)

    def _smooth(self, level: _Level) -> _Level:
        graph, taps = self.graph, self.rule.taps
        binomial = np.array(BINOMIAL[taps], np.float32)
        kernel = np.outer(binomial, binomial) / binomial.sum() ** 2
        border = taps // 2
        pads = [0, 0, border, border, 0, 0, border, border]
        padded = graph.op("Pad", level.value, graph.integers(pads, "pads"), mode="edge")
        weights = graph.floats(np.tile(kernel, (level.channels, 1, 1, 1)), "binomial")
        smooth = graph.op("Conv", padded, weights, group=level.channels)
        return _Level(smooth, level.channels, level.height, level.width)


def _halving(length: int) -> NDArray[np.float32]:
    """Return the matrix [length, length / 2] that maps a row to the means of its pairs."""
    matrix = np.zeros((length, length // 2), np.float32)
    matrix[np.arange(length), np.arange(length) // 2] = 0.5
    return matrix


def _doubling(length: int) -> NDArray[np.float32]:
    """Return the matrix [length, 2 * length] that enlarges a row bilinearly; the ends are repeated."""
    matrix = np.zeros((length, 2 * length), np.float32)
    for position in range(2 * length):
        near, far = position // 2, position // 2 + (1 if position % 2 else -1)
        matrix[near, position] += 0.75
        matrix[min(max(far, 0), length - 1), position] += 0.25
    return matrix
