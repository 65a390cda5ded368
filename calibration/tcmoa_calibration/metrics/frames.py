"""The three images of a measurement: what is taken, and the grey planes that the metrics see.

- uint8 stays as it is; uint16 is divided by 257 and rounded, so that its full range becomes 0..255. A source with 14
  bits in 16 wants `tcmoa_runtime.images.stretch_to_uint8` first, which is what the Fuser does to it.
- [H, W], [H, W, 1], [H, W, 3] (RGB) and [H, W, 4] (alpha dropped) are taken, mixed as they come: a grey source beside a
  colour fused image is no mistake.
- Colour becomes either its luma, rounded to 8 bits as `rgb2gray` does (profile `correct`, and Tang's toolbox), or three
  measurements whose mean counts (VIFB and MEFB, where the fused image has colour; grey ones are repeated).
- All else, floats among it, is refused: a metric with `255` in its constants has no meaning on another scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import LUMA

Plane = NDArray[np.float64]
"""[H, W] of whole numbers in 0..255, or what was computed from such."""

T = TypeVar("T")

FULL_16_TO_8: Final = 257
"""65535 / 255."""


class Planes:
    """One grey plane each of x (`a`), y (`b`) and fused (`f`), with what the metrics computed from them so far.

    `of_sources` is what was computed of a alone and of b alone, shared with the planes of other fused images.
    """

    def __init__(
        self, a: Plane, b: Plane, f: Plane, *, of_sources: dict[Callable[[Plane], Any], Any] | None = None
    ) -> None:
        self.a, self.b, self.f = a, b, f
        self._known: dict[Callable[[Planes], Any], Any] = {}
        self._of_sources = {} if of_sources is None else of_sources

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return cast("tuple[int, int]", self.f.shape)

    @property
    def each(self) -> tuple[Plane, Plane, Plane]:
        """The planes a, b and f."""
        return self.a, self.b, self.f

    def once(self, compute: Callable[[Planes], T]) -> T:
        """`compute(self)`, done at its first asking only: how metrics share gradients, moments and histograms."""
        if compute not in self._known:
            self._known[compute] = compute(self)
        return cast("T", self._known[compute])

    def of_each(self, compute: Callable[[Plane], T]) -> tuple[T, T, T]:
        """`compute` of a, b and f; of a and b once for all fused images of one pair (`Triple.with_fused`)."""
        if compute not in self._of_sources:
            self._of_sources[compute] = compute(self.a), compute(self.b)
        of_a, of_b = cast("tuple[T, T]", self._of_sources[compute])
        return of_a, of_b, compute(self.f)


@dataclass
class _SourcePlanes:
    """The planes of x and y in one of the ways to see colour, with what was computed of them alone."""

    a: Plane
    b: Plane
    known: dict[Callable[[Plane], Any], Any] = field(default_factory=dict)


class Triple:
    """Checked x, y and fused image of one size."""

    def __init__(self, x: Any, y: Any, fused: Any) -> None:
        self.images = tuple(
            _to_uint8(image, name) for image, name in ((x, "x"), (y, "y"), (fused, "fused"))
        )  # [H, W] or [H, W, 3] each
        self._sources: dict[str, _SourcePlanes] = {}
        sizes = [image.shape[:2] for image in self.images]
        if len(set(sizes)) > 1:
            told = ", ".join(f"{n} {w}x{h}" for n, (h, w) in zip(("x", "y", "fused"), sizes, strict=True))
            raise InputError(
                f"the images differ in size ({told}): expected three of one size; resize them first"
            )
        self._luma: list[Planes] | None = None
        self._channels: list[Planes] | None = None
        self._abreast: list[Planes] | None = None

    def with_fused(self, fused: Any) -> Triple:
        """Another fused image of the same sources; what depends on the sources alone is not computed again."""
        triple = Triple(self.images[0], self.images[1], fused)
        triple._sources = self._sources
        return triple

    @property
    def shortest_side(self) -> int:
        """The lesser of height and width."""
        return int(min(self.images[2].shape[:2]))

    def luma(self) -> list[Planes]:
        """One measurement, on the luma of the images that have colour."""
        if self._luma is None:
            self._luma = [self._planes("luma", to_luma)]
        return self._luma

    def channels(self) -> list[Planes]:
        """Three measurements, on R, G and B; one where the fused image is grey or no image has colour."""
        if self._channels is None:
            fused = self.images[2]
            if fused.ndim == 2 or all(_is_grey(image) for image in self.images):
                self._channels = self.luma()
            else:
                self._channels = [
                    self._planes(f"channel {c}", partial(_channel, channel=c)) for c in range(3)
                ]
        return self._channels

    def abreast(self) -> list[Planes]:
        """One measurement, on R, G and B put side by side [H, 3 W]; on luma where the fused image is grey."""
        if self.images[2].ndim == 2:
            return self.luma()
        if self._abreast is None:
            self._abreast = [self._planes("abreast", _side_by_side)]
        return self._abreast

    def _planes(self, view: str, to_plane: Callable[[NDArray[np.uint8]], Plane]) -> Planes:
        x, y, fused = self.images
        if view not in self._sources:
            self._sources[view] = _SourcePlanes(to_plane(x), to_plane(y))
        sources = self._sources[view]
        return Planes(sources.a, sources.b, to_plane(fused), of_sources=sources.known)


def to_luma(image: NDArray[np.uint8]) -> Plane:
    """[H, W] or [H, W, 3] to its luma (BT.601), rounded to whole numbers."""
    if image.ndim == 2:
        return image.astype(np.float64)
    luma: Plane = np.floor(image.astype(np.float64) @ np.asarray(LUMA) + 0.5)
    return luma


def _channel(image: NDArray[np.uint8], channel: int) -> Plane:
    plane = image if image.ndim == 2 else image[..., channel]
    return plane.astype(np.float64)


def _side_by_side(image: NDArray[np.uint8]) -> Plane:
    return np.hstack([_channel(image, c) for c in range(3)])


def _is_grey(image: NDArray[np.uint8]) -> bool:
    if image.ndim == 2:
        return True
    return bool(np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2]))


def _to_uint8(image: Any, name: str) -> NDArray[np.uint8]:
    try:
        array = np.asarray(image)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is a {type(image).__name__} that is no array: expected an image") from error
    if array.dtype not in (np.uint8, np.uint16):
        odd = array.dtype.kind == "f" and not np.isfinite(array).all()
        holding = " that holds NaN or infinity" if odd else ""
        raise InputError(
            f"{name} is {array.dtype}{holding}: metrics take uint8 or uint16; scale it to 0..255, round and convert it"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    elif array.ndim == 3 and array.shape[2] == 4:
        array = array[..., :3]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] != 3):
        raise InputError(
            f"{name} has shape {list(array.shape)}: expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"
        )
    if array.size == 0:
        raise InputError(f"{name} has shape {list(array.shape)}: it holds no pixels")
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) + FULL_16_TO_8 // 2) // FULL_16_TO_8
    return array.astype(np.uint8, copy=False)
