"""Objectives: weighted sums of metrics, read from text such as `Qabf+0.5*SSIM`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from tcmoa_calibration.metrics.planes import Triple
from tcmoa_calibration.metrics.registry import METRICS
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import format_size
from tcmoa_runtime.typing import FrameSize

MAX_WEIGHT: Final = 1e6

_NAME: Final = "|".join(re.escape(name) for name in sorted(METRICS, key=len, reverse=True))
_TERM: Final = re.compile(
    rf"\s*(?P<sign>[+-]?)\s*(?:(?P<weight>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)\s*\*\s*)?"
    rf"(?P<name>{_NAME})\s*(?=[+-]|$)"
)
_ANY_NAME: Final = re.compile(r"[\s+-]*(?:[\d.]+(?:[eE][+-]?\d+)?\s*\*)?\s*([A-Za-z][\w-]*)")


@dataclass(frozen=True)
class Objective:
    """A weighted sum of metrics of profile `correct`, to be maximized; see `parse_objective`.

    Attributes:
        text: The sum as it was given, without spaces.
        terms: Signed weight and name of each metric.
    """

    text: str
    terms: tuple[tuple[float, str], ...]

    def compute(self, triple: Triple) -> float:
        """Compute the objective of one fused image."""
        return math.fsum(weight * METRICS[name].compute(triple) for weight, name in self.terms)

    def check_size(self, size: FrameSize) -> None:
        """Raise InputError when frames of (height, width) are too small for one of the metrics."""
        for _, name in self.terms:
            min_side = METRICS[name].min_side
            if min(size) < min_side:
                raise InputError(
                    f"{name} cannot be computed for {format_size(size)}; expected frames of at least {min_side} "
                    f"pixels a side",
                    subject="objective",
                    remedy="Choose another metric",
                )


def parse_objective(text: str) -> Objective:
    """Parse a metric, e.g. `Qabf`, or a sum of terms [WEIGHT*]METRIC, e.g. `Qabf + 0.5*SSIM - 0.01*EN`.

    A metric of which less is better (MSE, RMSE, CE, Qcv) gets a negative weight whether + or - stands before it.

    Raises:
        InputError: The text is something else, names a metric twice, or has a weight that is not above 0 and up to
            `MAX_WEIGHT`.
    """
    weights: dict[str, float] = {}
    position = 0
    while position < len(text) or not weights:
        term = _TERM.match(text, position)
        if term is None or (weights and not term["sign"]):
            raise _malformed(text, position)
        name, weight = term["name"], 1.0 if term["weight"] is None else float(term["weight"])
        if not 0 < weight <= MAX_WEIGHT:
            raise InputError(
                f"{text!r} has the weight {term['weight']} for {name}; expected one above 0 and up to {MAX_WEIGHT:g}",
                subject="objective",
                remedy="Omit the metric, or choose another weight",
            )
        if name in weights:
            raise InputError(f"{text!r} names {name} twice; expected each metric once", subject="objective")
        is_subtracted = term["sign"] == "-" or not METRICS[name].higher_is_better
        weights[name] = -weight if is_subtracted else weight
        position = term.end()
    return Objective("".join(text.split()), tuple((weight, name) for name, weight in weights.items()))


def _malformed(text: str, position: int) -> InputError:
    """Return the error of a text that has no term at `position`: an unknown metric, or not a sum."""
    found = _ANY_NAME.match(text[position:])
    if found is not None and found[1] not in METRICS:
        name = found[1]
        similar = next((metric for metric in METRICS if metric.lower() == name.lower()), None)
        suggestion = "" if similar is None else f" (did you mean {similar}?)"
        return InputError(
            f"{text!r} has the unknown metric {name!r}{suggestion}; expected some of {', '.join(METRICS)}",
            subject="objective",
        )
    return InputError(
        f"{text!r} cannot be parsed from {text[position:].strip()!r} on; expected a metric, or a sum such as "
        f"Qabf+0.5*SSIM",
        subject="objective",
    )
