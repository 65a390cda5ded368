"""For scenes that stand still: the last fused picture again, as long as its sources and its prompt have not changed.

After a few blocks of shifted windows every token depends on the whole picture, so what did not change cannot be kept
window by window: the picture is reused whole or fused anew. Compared is the pair at hand with the pair that was last
*fused*, not with the one last shown, so that a slow drift adds up until it is seen. A source has changed where

    max over its cells of mean |now - last fused| > tolerance                                           grey levels

with the mean over the 8x8 pixels of a cell and their channels. Tolerance 0 asks for the same bytes, and gives the
picture that fusing would have given.

Cells are small so that small things count. A person out of M3SVD, shrunk to 8x3 pixels and moved by one, changes a cell
by 8 and its window of 64x64 pixels by 0.3 in the mean, less than the noise there; 4x2 pixels change a cell by 3.5, by
5.4 once moved by two. Noise of standard deviation s in both pictures changes the worst cell of 640x480 by 1.4 s. On two
clips of fixed cameras (M3SVD, 640x480, 20 frames) a frame changes the worst cell by 87 or more, as something moves in
each: nothing is reused at a tolerance up to 16. What stands still there is changed by the video's own coding and by
leaves: the worst cell of 320x160 pixels by 3 to 23 from frame to frame, 9 in the median. Reused there at 4 and 8, the
picture is 44 to 51 dB from fusing afresh (`tiny`), as far as the sources are from each other: 43 dB and more.

Comparing costs 0.5 ms for two frames of 640x480x3, keeping what was fused 0.2 ms (a core of a Xeon).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.streams.control import Value
from tcmoa_runtime.typing import Frame

CELL: Final = 8
"""Pixels of a cell across."""


@dataclass(frozen=True, slots=True)
class _Fused:
    """The last frame that was fused, all of it copies."""

    x: Frame
    y: Frame
    scale: Value
    shift: Value
    image: Frame
    prompt: NDArray[np.float32] | None


class Reuse:
    """The last fused frame of one stream, and whether it still holds; not for several threads at once."""

    def __init__(self, tolerance: float) -> None:
        """`tolerance` in grey levels, 0 to 255; 0 for pictures that are the same in every byte. Raises InputError."""
        number = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
        if not (number and 0 <= tolerance <= 255):  # which no NaN is
            raise InputError(f"reuse is {tolerance!r}: expected grey levels, from 0 to 255")
        self.tolerance: Final = float(tolerance)
        self._last: _Fused | None = None

    def unchanged(self, x: Frame, y: Frame, scale: Value, shift: Value) -> bool:
        """Whether the last fused frame holds for x and y, uint8 [H, W, 3] or [H, W], and alpha and beta."""
        last = self._last
        return (
            last is not None
            and np.array_equal(scale, last.scale)
            and np.array_equal(shift, last.shift)
            and self._same(x, last.x)
            and self._same(y, last.y)
        )

    def keep(
        self,
        x: Frame,
        y: Frame,
        scale: Value,
        shift: Value,
        image: Frame,
        prompt: NDArray[np.float32] | None = None,
    ) -> None:
        """Remember what was just fused: `image` uint8 [H, W, 3] and `prompt` float32 [K, 2, gh, gw] of x and y."""
        kept = None if prompt is None else prompt.copy()
        self._last = _Fused(x.copy(), y.copy(), _copied(scale), _copied(shift), image.copy(), kept)

    def again(self) -> tuple[Frame, NDArray[np.float32] | None]:
        """The last fused picture and its prompts; copies, as whoever got them before may have drawn on them."""
        last = self._kept()
        return last.image.copy(), None if last.prompt is None else last.prompt.copy()

    @property
    def sources(self) -> tuple[Frame, Frame]:
        """x and y that the last fused picture shows; not to be written to."""
        last = self._kept()
        return last.x, last.y

    def _kept(self) -> _Fused:
        if self._last is None:
            raise RuntimeError("nothing was fused yet")
        return self._last

    def _same(self, now: Frame, before: Frame) -> bool:
        if self.tolerance == 0 or now.shape != before.shape:
            return np.array_equal(now, before)
        return largest_change(now, before) <= self.tolerance


def largest_change(now: Frame, before: Frame) -> float:
    """Largest over 8x8 cells of the mean absolute difference of two frames uint8 [H, W, C] or [H, W], grey levels.

    At the lower and right edges a cell is what the frame has of it.
    """
    import cv2

    height, width = now.shape[:2]
    change = cv2.absdiff(np.ascontiguousarray(now), np.ascontiguousarray(before))
    below, beside = -height % CELL, -width % CELL
    if below or beside:
        change = cv2.copyMakeBorder(change, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    down, across = (height + below) // CELL, (width + beside) // CELL
    # Sums of 8 rows, then of 8 columns and their channels: exact, and a third of the time of a box filter.
    rows = change.reshape(down, CELL, -1).sum(1, dtype=np.uint16)  # [down, W * C]
    sums = cv2.reduce(
        rows.reshape(down * across, -1), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32F
    )  # [down * across, 1]
    counts = np.outer(_lengths(height, down), _lengths(width, across)) * (now.size // (height * width))
    return float((np.asarray(sums, np.float64).reshape(down, across) / counts).max())


def _lengths(pixels: int, cells: int) -> NDArray[np.intp]:
    """How many of the pixels lie in each cell, [cells]."""
    return np.minimum(CELL, pixels - CELL * np.arange(cells))


def _copied(value: Any) -> Value:
    return float(value) if np.ndim(value) == 0 else np.array(value, np.float32)
