"""Choosing smoothing and ranges: the scheme with the least error when all groups are in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tcmoa_calibration.quantize.error import QuantizationError
from tcmoa_calibration.quantize.evaluator import Measure
from tcmoa_calibration.quantize.scheme import Scheme
from tcmoa_calibration.quantize.steps import StepCounter
from tcmoa_runtime.options.quantize import (
    RANGE_METHODS,
    SMOOTHING_STRENGTHS,
    QuantizeOptions,
    RangeMethod,
)
from tcmoa_runtime.typing import OnMessage

MIN_PAIRS_TO_CLIP: Final = 6
"""Held-out pairs below which `auto` clips nothing: values that a few pairs do not show would be cut off unnoticed."""
MAX_ERROR_TO_CLIP: Final = 0.5
"""Share of the error without clipping, up to which `auto` clips. On multi-exposure pairs, a percentile that was 2.4 dB
better on eight held-out pairs was 8 dB worse on another pair, whose brightest channels no pair had shown."""


@dataclass(frozen=True)
class SchemeChoice:
    """A scheme, and the error of each scheme that was tried, with all groups in 8 bits."""

    scheme: Scheme
    tried: dict[Scheme, QuantizationError]

    @property
    def error(self) -> QuantizationError:
        """The error of the chosen scheme."""
        return self.tried[self.scheme]


def choose_scheme(
    measure: Measure,
    groups: Sequence[str],
    options: QuantizeOptions,
    num_held_out: int,
    steps: StepCounter,
    on_message: OnMessage,
) -> SchemeChoice:
    """Choose the strength of smoothing without clipping, then the ranges with the best strength."""
    strengths = SMOOTHING_STRENGTHS if options.smoothing is None else (options.smoothing,)
    methods = _methods(options, num_held_out, on_message)
    steps.expect(len(strengths) + len(methods) - 1)
    tried: dict[Scheme, QuantizationError] = {}

    def try_scheme(strength: float, method: RangeMethod) -> float:
        scheme = Scheme(strength, method)
        if scheme not in tried:
            tried[scheme] = measure(scheme, groups)
            on_message(f"{scheme}: {tried[scheme].describe()}")
        return tried[scheme].mean_squared_error

    unclipped = methods[0]
    strength = min(strengths, key=lambda strength: try_scheme(strength, unclipped))
    method = min(methods, key=lambda method: try_scheme(strength, method))
    limit = try_scheme(strength, unclipped) * MAX_ERROR_TO_CLIP
    if options.ranges == "auto" and try_scheme(strength, method) > limit:
        method = unclipped
    return SchemeChoice(Scheme(strength, method), tried)


def _methods(options: QuantizeOptions, num_held_out: int, on_message: OnMessage) -> tuple[RangeMethod, ...]:
    """Return the methods to try; `max`, which does not clip, is the first of `auto`."""
    if options.ranges != "auto":
        return (options.ranges,)
    if num_held_out < MIN_PAIRS_TO_CLIP:
        on_message(
            f"{num_held_out} held-out pairs: ranges that clip are tried only with {MIN_PAIRS_TO_CLIP} or more"
        )
        return ("max",)
    return RANGE_METHODS
