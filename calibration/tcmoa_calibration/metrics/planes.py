"""The three images of a measurement, and the planes that the metrics are computed on.

- uint8 stays; uint16 is divided by 257 and rounded, so that its full range becomes 0..255. Stretch a source that uses
  a part of 16 bits (e.g. 14-bit infrared) with `tcmoa_runtime.images.stretch_to_uint8` first, as the Fuser does.
- [H, W], [H, W, 1], RGB [H, W, 3] and RGBA [H, W, 4] (alpha is dropped) may be mixed: a gray source with a fused image
  in color is common.
- Color becomes its luma, rounded to 8 bits as `rgb2gray` does (profiles `correct` and `tang`), or R, G and B are
  measured one by one and averaged (profiles `vifb` and `mefb`, if the fused image has color; gray sources are
  repeated).
- Other types, floats too, are refused: a metric with the constant 255 has no meaning on another scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, cast

import numpy as np

from tcmoa_calibration.luma import Plane, check_image, reduce_to_uint8, rounded_luma
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import Frame, ImageLike

T = TypeVar("T")


class Planes:
    """One plane each of x, y and the fused image, and intermediate results that several metrics share."""

    def __init__(
        self,
        a: Plane,
        b: Plane,
        f: Plane,
        *,
        source_cache: dict[Callable[[Plane], object], object] | None = None,
    ) -> None:
        """Take three planes [H, W].

        Args:
            a: Plane of x.
            b: Plane of y.
            f: Plane of the fused image.
            source_cache: Results of a and b alone, shared with the planes of other fused images of the same sources.
        """
        self.a, self.b, self.f = a, b, f
        self._cache: dict[Callable[[Planes], object], object] = {}
        self._source_cache = {} if source_cache is None else source_cache

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return cast("tuple[int, int]", self.f.shape)

    @property
    def all(self) -> tuple[Plane, Plane, Plane]:
        """The planes a, b and f."""
        return self.a, self.b, self.f

    def cached(self, compute: Callable[[Planes], T]) -> T:
        """Return `compute(self)`, computed once: metrics share gradients, moments and histograms this way."""
        if compute not in self._cache:
            self._cache[compute] = compute(self)
        return cast("T", self._cache[compute])

    def map(self, compute: Callable[[Plane], T]) -> tuple[T, T, T]:
        """Return `compute` of a, b and f; of a and b once for all fused images of a pair (`Triple.with_fused`)."""
        if compute not in self._source_cache:
            self._source_cache[compute] = compute(self.a), compute(self.b)
        from_a, from_b = cast("tuple[T, T]", self._source_cache[compute])
        return from_a, from_b, compute(self.f)


@dataclass
class _SourcePlanes:
    """The planes of x and y for one treatment of color, and the results of them alone."""

    a: Plane
    b: Plane
    cache: dict[Callable[[Plane], object], object] = field(default_factory=dict)


class Triple:
    """Both sources and the fused image, checked and of one size."""

    def __init__(self, x: ImageLike, y: ImageLike, fused: ImageLike) -> None:
        """Check the images.

        Raises:
            InputError: An image has another dtype or shape than this module accepts, or the sizes differ.
        """
        self.images = tuple(_to_frame(image, name) for image, name in ((x, "x"), (y, "y"), (fused, "fused")))
        self._sources: dict[str, _SourcePlanes] = {}
        sizes = [image.shape[:2] for image in self.images]
        if len(set(sizes)) > 1:
            listed = ", ".join(f"{n} {w}x{h}" for n, (h, w) in zip(("x", "y", "fused"), sizes, strict=True))
            raise InputError(f"sizes differ: {listed}; expected one size", remedy="Resize the images first")
        self._luma: list[Planes] | None = None
        self._channels: list[Planes] | None = None
        self._side_by_side: list[Planes] | None = None

    def with_fused(self, fused: ImageLike) -> Triple:
        """Return another fused image with the same sources, whose results are not computed again."""
        triple = Triple(self.images[0], self.images[1], fused)
        triple._sources = self._sources
        return triple

    @property
    def min_side(self) -> int:
        """The smaller one of height and width, in pixels."""
        return int(min(self.images[2].shape[:2]))

    def luma(self) -> list[Planes]:
        """Return one measurement: the luma of each image."""
        if self._luma is None:
            self._luma = [self._planes("luma", rounded_luma)]
        return self._luma

    def channels(self) -> list[Planes]:
        """Return three measurements, R, G and B; one if the fused image is gray or no image has color."""
        if self._channels is None:
            fused = self.images[2]
            if fused.ndim == 2 or all(_is_gray(image) for image in self.images):
                self._channels = self.luma()
            else:
                self._channels = [
                    self._planes(f"channel {c}", partial(_channel, channel=c)) for c in range(3)
                ]
        return self._channels

    def side_by_side(self) -> list[Planes]:
        """Return one measurement: R, G and B side by side, [H, 3 W]; the luma if the fused image is gray."""
        if self.images[2].ndim == 2:
            return self.luma()
        if self._side_by_side is None:
            self._side_by_side = [self._planes("side by side", _join_channels)]
        return self._side_by_side

    def _planes(self, view: str, to_plane: Callable[[Frame], Plane]) -> Planes:
        x, y, fused = self.images
        if view not in self._sources:
            self._sources[view] = _SourcePlanes(to_plane(x), to_plane(y))
        sources = self._sources[view]
        return Planes(sources.a, sources.b, to_plane(fused), source_cache=sources.cache)


def _to_frame(image: ImageLike, name: str) -> Frame:
    """Return uint8 [H, W] or [H, W, 3]."""
    return reduce_to_uint8(check_image(image, name, (np.uint8, np.uint16), drop_alpha=True))


def _channel(image: Frame, channel: int) -> Plane:
    plane = image if image.ndim == 2 else image[..., channel]
    return plane.astype(np.float64)


def _join_channels(image: Frame) -> Plane:
    return np.hstack([_channel(image, c) for c in range(3)])


def _is_gray(image: Frame) -> bool:
    if image.ndim == 2:
        return True
    return bool(np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2]))
