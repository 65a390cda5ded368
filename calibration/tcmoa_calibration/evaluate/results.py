"""The result of an evaluation, and its forms for programs: a JSON object and a tidy table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Final

from tcmoa_calibration.evaluate.confidence import DESCRIPTION, Interval, difference_interval, mean_interval
from tcmoa_calibration.evaluate.methods import MethodKind
from tcmoa_calibration.evaluate.pictures import Picture
from tcmoa_calibration.evaluate.ranking import Ranking
from tcmoa_calibration.evaluate.speed import BundleSpeed
from tcmoa_calibration.flicker import Flicker
from tcmoa_calibration.metrics import METRICS, Profile
from tcmoa_runtime import __version__
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.options.evaluate import MetricName
from tcmoa_runtime.typing import JsonObject

FLICKER_COLUMNS: Final = ("excess", "pumping", "still", "sources", "share")
"""Fields of `Flicker` in the order of tables."""


@dataclass(frozen=True)
class MethodResult:
    """A method on all pairs.

    Attributes:
        label: Name in results.
        kind: What the method is.
        description: One line of text.
        images: Value by pair and metric; None if the metric has no value. Pairs that failed are left out.
        skipped: Reason by pair and metric without a value.
        resized: Pairs whose frames were resized to the bundle's size, and the result resized back.
        pictures: `fused`, `difference` and `prompt` by pair.
    """

    label: str
    kind: MethodKind
    description: str
    images: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    skipped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    resized: tuple[str, ...] = ()
    pictures: Mapping[str, Mapping[str, Picture]] = field(default_factory=dict)

    def column(self, metric: str) -> dict[str, float | None]:
        """Return a metric by pair."""
        return {name: values[metric] for name, values in self.images.items()}

    def mean(self, metric: str) -> Interval:
        """Compute the mean over the pairs that have a value."""
        return mean_interval([value for value in self.column(metric).values() if value is not None])


@dataclass(frozen=True)
class Failure:
    """A result that is missing.

    Attributes:
        name: Name of the pair, or `the clip` for the flicker of a video.
        method: Label of the method; None if the pair itself cannot be read.
        error: The reason.
    """

    name: str
    method: str | None
    error: TcmoaError

    @property
    def is_internal(self) -> bool:
        """Whether the cause is not the user's input."""
        return not isinstance(self.error, InputError)


@dataclass(frozen=True)
class Evaluation:
    """Methods measured on pairs; the first method is the one that the others are compared with.

    `to_json` returns what `tcmoa evaluate --json` prints:

    - `profile`, `metrics` {name: {`higher_is_better`}}, `pairs` [name], `tool`.
    - `images` {pair: {metric: value}} and `mean` {metric: value} of the first method.
    - `confidence_method`: how every `confidence`, the half-width of an interval, is computed.
    - `methods` {label: {`kind`, `description`, `images`, `mean`, `confidence`, `n` (number of pairs with a value),
      `resized` [pair], `skipped` {pair: {metric: reason}}, `versus_first` {metric: {`mean`, `confidence`, `n`,
      `significant`}}}}: every method. `versus_first` is null for the first one; `significant` is true if the interval
      of the paired difference does not contain 0.
    - `contestants`: the same as `methods`, under the name that versions before 0.6 used and programs may still read.
    - `stretched` [pair]: pairs with 16-bit sources, stretched to 8 bits as the Fuser does.
    - `failed` [{`name`, `method`, `error`}]: `method`, the label of the method, is null if the pair itself
      cannot be read.
    - `flicker` {label: fields of `tcmoa_calibration.flicker.Flicker`}: empty unless the pairs are frames of a clip.
    - `ranking` {`metrics`, `pairs` (a number), `of` (number of methods), `methods` and `published` {label: {`place`,
      `score` (mean of the ranks, 1 is best), `ranks` {metric: rank}}}, `unranked` [label]}: only with a board, or with
      several bundles; `published` are the methods of the board.
    - `speed` {label: {`backend`, `task`, `size`, `precision`, `operators`, `kernels`, and `load_ms`, `first_ms`,
      `p50_ms`, `p99_ms`, `peak_mb`, `frames`, `spread`, or `error`}}: only with several bundles.
    - `measured` and `reused`: number of results computed in this run, and taken from the cache.

    A missing value is null, with its reason in `skipped`. An interval is null if n is below 2.

    Attributes:
        profile: How the metrics were computed.
        metrics: Names of the metrics.
        pairs: Names of the pairs.
        methods: Results by method.
        failures: Results that are missing.
        stretched: Pairs with 16-bit sources.
        sources: Pictures `x` and `y` by pair.
        flicker: Flicker by label, if the pairs are the frames of a clip and all were fused.
        ranking: Places of the methods; None without a board and several bundles.
        speeds: Time and memory of several bundles.
        num_measured: Results computed in this run.
        num_reused: Results taken from the cache.
    """

    profile: Profile
    metrics: tuple[MetricName, ...]
    pairs: tuple[str, ...]
    methods: tuple[MethodResult, ...]
    failures: tuple[Failure, ...] = ()
    stretched: tuple[str, ...] = ()
    sources: Mapping[str, Mapping[str, Picture]] = field(default_factory=dict)
    flicker: Mapping[str, Flicker] = field(default_factory=dict)
    ranking: Ranking | None = None
    speeds: tuple[BundleSpeed, ...] = ()
    num_measured: int = 0
    num_reused: int = 0

    @cached_property
    def means(self) -> dict[str, list[Interval]]:
        """Mean of each method, by metric."""
        return {name: [method.mean(name) for method in self.methods] for name in self.metrics}

    @cached_property
    def differences(self) -> dict[str, list[Interval]]:
        """Mean difference of each other method to the first, by metric, over the pairs that both have."""
        first = self.methods[0]
        return {
            name: [
                difference_interval(method.column(name), first.column(name)) for method in self.methods[1:]
            ]
            for name in self.metrics
        }

    def is_best(self, metric: str) -> list[bool]:
        """Return, for each method, whether its mean is the best one; False if it is the only one with a mean."""
        means = [interval.mean for interval in self.means[metric]]
        known = [mean for mean in means if mean is not None]
        if len(known) < 2:
            return [False] * len(means)
        best = max(known) if METRICS[metric].higher_is_better else min(known)
        return [mean == best for mean in means]

    def decimals(self, metric: str) -> int:
        """Return the number of decimals of this metric's means and differences."""
        return num_decimals(interval.mean for interval in self.means[metric])

    @property
    def has_unequal_pairs(self) -> bool:
        """Whether methods were measured on different pairs, so that their means are hard to compare."""
        return len({frozenset(method.images) for method in self.methods}) > 1

    def to_json(self) -> JsonObject:
        """Return the evaluation as a JSON object; see the class."""
        methods = {method.label: self._method_json(i, method) for i, method in enumerate(self.methods)}
        first = self.methods[0]
        return {
            "profile": self.profile,
            "metrics": {n: {"higher_is_better": METRICS[n].higher_is_better} for n in self.metrics},
            "pairs": list(self.pairs),
            "images": first.images,
            "mean": methods[first.label]["mean"],
            "confidence_method": DESCRIPTION,
            "methods": methods,
            "contestants": methods,
            "stretched": list(self.stretched),
            "failed": [{"name": f.name, "method": f.method, "error": str(f.error)} for f in self.failures],
            "flicker": {label: asdict(flicker) for label, flicker in self.flicker.items()},
            **({} if self.ranking is None else {"ranking": self.ranking.to_json()}),
            **({"speed": {speed.label: speed.to_json() for speed in self.speeds}} if self.speeds else {}),
            "measured": self.num_measured,
            "reused": self.num_reused,
            "tool": f"tcmoa {__version__}",
        }

    def _method_json(self, index: int, method: MethodResult) -> JsonObject:
        means = {name: self.means[name][index] for name in self.metrics}
        return {
            "kind": method.kind,
            "description": method.description,
            "images": method.images,
            "mean": {name: m.mean for name, m in means.items()},
            "confidence": {name: m.half_width for name, m in means.items()},
            "n": {name: m.n for name, m in means.items()},
            "resized": list(method.resized),
            "skipped": method.skipped,
            "versus_first": None if index == 0 else self._versus_first(index),
        }

    def _versus_first(self, index: int) -> JsonObject:
        differences = {name: self.differences[name][index - 1] for name in self.metrics}
        return {
            name: {"mean": d.mean, "confidence": d.half_width, "n": d.n, "significant": d.excludes_zero}
            for name, d in differences.items()
        }

    def to_csv(self) -> str:
        """Return a table with one row for each value: method, image, metric, value, reason."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("method", "image", "metric", "value", "reason"))
        for method in self.methods:
            for name, values in method.images.items():
                reasons = method.skipped.get(name, {})
                for metric, value in values.items():
                    shown = "" if value is None else repr(value)
                    reason = reasons.get(metric, "")
                    writer.writerow((_as_text(method.label), _as_text(name), metric, shown, _as_text(reason)))
        return text.getvalue()


def _as_text(cell: str) -> str:
    """Return a cell that a spreadsheet takes as text: a name that begins like a formula gets an apostrophe."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def format_interval(interval: Interval, decimals: int, *, sign: bool = False) -> str:
    """Format a mean and its interval, e.g. `0.5124 ±0.0213`; `-` without a mean."""
    if interval.mean is None:
        return "-"
    text = f"{interval.mean:{'+' if sign else ''}.{decimals}f}"
    return text if interval.half_width is None else f"{text} ±{interval.half_width:.{decimals}f}"


def num_decimals(values: Iterable[float | None]) -> int:
    """Return the decimals that show four digits of the largest value, as in tables of papers: 0.5124, 12.35."""
    whole = int(max((abs(value) for value in values if value is not None), default=0.0))
    return max(0, 4 - len(str(whole))) if whole else 4


def format_flicker(flicker: Flicker) -> list[str]:
    """Format the values of FLICKER_COLUMNS; `-` for a missing one."""
    values = [getattr(flicker, name) for name in FLICKER_COLUMNS]
    return ["-" if value is None else f"{value:.4f}" for value in values]
