"""Choosing the groups that stay in float32: as few as the error budget allows, the most sensitive first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tcmoa_calibration.quantize.error import ErrorBudget, QuantizationError
from tcmoa_calibration.quantize.evaluator import Measure
from tcmoa_calibration.quantize.scheme import Scheme
from tcmoa_calibration.quantize.steps import StepCounter
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.quantize import LowPrecision
from tcmoa_runtime.typing import JsonObject, OnMessage

_CURVE_PARTS = 8
_MAX_NAMED = 3


@dataclass(frozen=True)
class TradeOffPoint:
    """The error with some groups in 8 bits.

    Attributes:
        num_quantized: Number of groups in 8 bits.
        share: Their share of the multiplications of the backbone.
        error: The error with them.
    """

    num_quantized: int
    share: float
    error: QuantizationError

    def to_json(self) -> JsonObject:
        """Return the point as a JSON object."""
        return {"quantized_groups": self.num_quantized, "share": self.share, **self.error.to_json()}


@dataclass(frozen=True)
class Allocation:
    """Which groups stay in float32.

    Attributes:
        kept_float32: Those groups, the most sensitive first.
        error: The error with all others in 8 bits.
        sensitivity: The error of each group alone in 8 bits; empty if it was not measured.
        curve: The points that were measured, from all groups in 8 bits downward.
    """

    kept_float32: list[str]
    error: QuantizationError
    sensitivity: dict[str, QuantizationError]
    curve: list[TradeOffPoint]


class _TradeOff:
    """Measures points of the trade-off, each once."""

    def __init__(
        self,
        measure: Measure,
        scheme: Scheme,
        multiplications: Mapping[str, int],
        number_format: LowPrecision,
        on_message: OnMessage,
    ) -> None:
        self._measure, self._scheme, self._multiplications = measure, scheme, multiplications
        self._number_format, self._on_message = number_format, on_message
        self._points: dict[int, TradeOffPoint] = {}

    def add(self, groups: Sequence[str], error: QuantizationError) -> TradeOffPoint:
        """Add a measured point."""
        total = len(self._multiplications)
        share = sum(self._multiplications[g] for g in groups) / sum(self._multiplications.values())
        point = TradeOffPoint(len(groups), share, error)
        self._points[len(groups)] = point
        self._on_message(f"{len(groups)} of {total} groups in {self._number_format}: {error.describe()}")
        return point

    def point(self, groups: Sequence[str]) -> TradeOffPoint:
        """Measure the point with `groups` in 8 bits."""
        known = self._points.get(len(groups))
        return self.add(groups, self._measure(self._scheme, groups)) if known is None else known

    def curve(self) -> list[TradeOffPoint]:
        """Return all points, those with most groups in 8 bits first."""
        return [self._points[count] for count in sorted(self._points, reverse=True)]


def allocate_groups(
    measure: Measure,
    scheme: Scheme,
    error_of_all: QuantizationError,
    multiplications: Mapping[str, int],
    budget: ErrorBudget,
    *,
    number_format: LowPrecision,
    measure_all: bool,
    steps: StepCounter,
    on_message: OnMessage,
) -> Allocation:
    """Find the fewest groups that must stay in float32 for the error to be within the budget.

    Args:
        measure: Measures the error with some groups in 8 bits.
        scheme: Smoothing and ranges.
        error_of_all: The error with all groups in 8 bits.
        multiplications: Number of multiplications of each group, in the order of the graph.
        budget: Limits of the error.
        number_format: Name of the format, for messages.
        measure_all: Measure every group and the whole trade-off even if all groups are within the budget.
        steps: Counts measurements.
        on_message: Called with a line of text for each measurement.

    Raises:
        InputError: Not even the least sensitive group is within the budget.
    """
    groups = list(multiplications)
    trade_off = _TradeOff(measure, scheme, multiplications, number_format, on_message)
    whole = trade_off.add(groups, error_of_all)
    if budget.allows(whole.error) and not measure_all:
        return Allocation([], whole.error, {}, trade_off.curve())
    steps.expect(len(groups))
    sensitivity: dict[str, QuantizationError] = {}
    for group in groups:
        sensitivity[group] = measure(scheme, [group])
        on_message(f"{group} alone: {sensitivity[group].describe()}")
    order = sorted(groups, key=lambda group: -sensitivity[group].mean_squared_error)
    if measure_all:
        for num_kept in sorted({round(len(order) * part / _CURVE_PARTS) for part in range(_CURVE_PARTS)}):
            trade_off.point(order[num_kept:])
    low, high = 0, len(order) - 1
    if not budget.allows(trade_off.point(order[high:]).error):
        raise _budget_error(budget, whole, trade_off.point(order[high:]), order, number_format)
    while low < high:  # bisection: more groups in float32 are assumed to be no worse
        middle = (low + high) // 2
        if budget.allows(trade_off.point(order[middle:]).error):
            high = middle
        else:
            low = middle + 1
    return Allocation(order[:high], trade_off.point(order[high:]).error, sensitivity, trade_off.curve())


def _describe_order(order: Sequence[str]) -> str:
    """Say which groups forbid it, the most sensitive first."""
    if len(order) <= _MAX_NAMED:
        return f"the most sensitive first: {', '.join(order)}"
    return f"the most sensitive first: {', '.join(order[:_MAX_NAMED])} and {len(order) - _MAX_NAMED} more"


def _budget_error(
    budget: ErrorBudget,
    whole: TradeOffPoint,
    last: TradeOffPoint,
    order: Sequence[str],
    number_format: LowPrecision,
) -> InputError:
    limits = {"min_psnr": budget.min_psnr, "max_qabf_drop": budget.max_qabf_drop}
    names = [name for name, limit in limits.items() if limit is not None]
    return InputError(
        f"all groups in {number_format} give {whole.error.describe()}, and the least sensitive group alone gives "
        f"{last.error.describe()}; expected {budget.describe()} ({_describe_order(order)})",
        subject="error budget",
        remedy=f"Relax {' and '.join(f'{{{name}}}' for name in names)}. No bundle was written.",
        settings=dict.fromkeys(names, ...),
    )
