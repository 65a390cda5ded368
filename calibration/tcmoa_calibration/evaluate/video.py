"""Flicker of methods on video: the pairs are the frames of one clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tcmoa_calibration.evaluate.measure import Outcome, SourceImages, read_sources
from tcmoa_calibration.evaluate.methods import Method
from tcmoa_calibration.evaluate.plan import Plan
from tcmoa_calibration.evaluate.registration import Registration
from tcmoa_calibration.evaluate.runners import MethodRunner, load_runner
from tcmoa_calibration.flicker import Flicker, flicker
from tcmoa_calibration.luma import ImageArray
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import Frame

_MIN_FRAMES: Final = 2


def measure_clips(plan: Plan, outcomes: Sequence[Outcome]) -> Iterator[Flicker | InputError]:
    """Measure the flicker of each method, or give the reason why it cannot be measured.

    A method with a missing frame is not measured, because the gap would look like flicker.
    """
    for index, method in enumerate(plan.settings.methods):
        has_gap = any(
            isinstance(outcome.result, TcmoaError) and outcome.method in (None, index) for outcome in outcomes
        )
        if len(plan.pairs) < _MIN_FRAMES:
            yield InputError(
                f"{len(plan.pairs)} frame; expected at least {_MIN_FRAMES} to measure flicker",
                subject="video",
            )
        elif has_gap:
            yield InputError("frames are missing; expected all of them to measure flicker", subject="video")
        else:
            try:
                yield measure_flicker(plan.pairs, method, plan.settings.registration)
            except InputError as error:
                yield error


def measure_flicker(
    pairs: Sequence[PairPaths], method: Method, registration: Registration | None = None
) -> Flicker:
    """Measure the flicker of a method on the frames of one clip, in temporal order.

    Frames are read and fused one after the other; two are in memory.

    Raises:
        InputError: A frame cannot be read, frames have different sizes, or sources have 16 bits: stretching each frame
            by itself would cause flicker.
    """
    runner = load_runner(method)
    try:
        x, y, fused = _ClipReader(pairs, runner, registration).streams()
        return flicker(x, y, fused)
    finally:
        runner.close()


class _ClipReader:
    """Reads the frames as three streams in step, each frame once."""

    def __init__(
        self, pairs: Sequence[PairPaths], runner: MethodRunner, registration: Registration | None
    ) -> None:
        self._pairs, self._runner, self._registration = pairs, runner, registration
        self._index = -1
        self._sources: SourceImages | None = None

    def streams(self) -> tuple[Iterator[Frame], Iterator[Frame], Iterator[ImageArray]]:
        """Return the frames of x, of y and of the fused video."""
        indices = range(len(self._pairs))
        return (
            (self._read(i).x for i in indices),
            (self._read(i).y for i in indices),
            (self._fuse(i) for i in indices),
        )

    def _read(self, index: int) -> SourceImages:
        if self._sources is None or index != self._index:
            pair = self._pairs[index]
            sources = read_sources(pair, self._registration)
            if sources.is_stretched:
                raise InputError(
                    "16 bits; expected 8 bits to measure flicker",
                    subject=pair.name,
                    remedy="Stretch the whole clip to 8 bits first",
                )
            self._index, self._sources = index, sources
        return self._sources

    def _fuse(self, index: int) -> ImageArray:
        sources = self._read(index)
        return self._runner.fuse(self._pairs[index].name, *sources.for_method(self._runner)).image
