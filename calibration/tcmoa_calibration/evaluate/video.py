"""Contestants on video: the pairs are the frames of one clip, and what flickers is measured across them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tcmoa_calibration.evaluate.contestants import Contestant
from tcmoa_calibration.evaluate.entrants import Entrant, Image, enter
from tcmoa_calibration.evaluate.measure import read_pair
from tcmoa_calibration.flicker import Flicker, flicker
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import Frame
from tcmoa_runtime.pairs import PairPaths


def measure_flicker(pairs: Sequence[PairPaths], contestant: Contestant) -> Flicker:
    """Flicker of what `contestant` makes of `pairs`, the frames of one clip in the order of time.

    Frames are read and fused one after the other, two held at a time. Raises InputError for a frame that cannot be
    read, for frames of different sizes, and for sources of 16 bits: stretched one by one they would flicker by
    themselves.
    """
    entrant = enter(contestant)
    try:
        x, y, fused = _Clip(pairs, entrant).streams()
        return flicker(x, y, fused)
    finally:
        entrant.close()


class _Clip:
    """One pass over the frames as three streams in step: each frame is read once, by whoever asks first."""

    def __init__(self, pairs: Sequence[PairPaths], entrant: Entrant) -> None:
        self.pairs, self.entrant = pairs, entrant
        self._number = -1
        self._frames: tuple[Frame, Frame] | None = None

    def streams(self) -> tuple[Iterator[Frame], Iterator[Frame], Iterator[Image]]:
        """x, y and fused."""
        return (
            (self._sources(i)[0] for i in range(len(self.pairs))),
            (self._sources(i)[1] for i in range(len(self.pairs))),
            (self._fused(i) for i in range(len(self.pairs))),
        )

    def _sources(self, number: int) -> tuple[Frame, Frame]:
        if self._frames is None or number != self._number:
            pair = self.pairs[number]
            x, y, stretched = read_pair(pair.x, pair.y)
            if stretched:
                raise InputError(
                    f"{pair.name}: 16-bit sources have no flicker defined; stretch the whole clip to 8 bits first"
                )
            self._number, self._frames = number, (x, y)
        return self._frames

    def _fused(self, number: int) -> Image:
        return self.entrant.fuse(self.pairs[number].name, *self._sources(number)).image
