"""What an evaluation found, and its forms for machines: one JSON object, one tidy table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final

from tcmoa_calibration.evaluate.confidence import METHOD, Interval, interval, paired
from tcmoa_calibration.evaluate.pictures import Picture
from tcmoa_calibration.flicker import Flicker
from tcmoa_calibration.metrics import METRICS, Profile
from tcmoa_runtime import __version__


@dataclass
class ContestantResult:
    """One contestant on all pairs."""

    label: str
    kind: str
    what: str
    """One line: what it is."""
    images: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """Pair: metric: value; None where there is none, for a reason in `skipped`. Pairs that failed are not here."""
    skipped: dict[str, dict[str, str]] = field(default_factory=dict)
    """Pair: metric: why it has no value."""
    resized: list[str] = field(default_factory=list)
    """Pairs whose frames were resized to the bundle's size, and the result back."""
    pictures: dict[str, dict[str, Picture]] = field(default_factory=dict)
    """Pair: `fused`, `difference` and `prompt`."""

    def column(self, metric: str) -> dict[str, float | None]:
        """A metric by pair."""
        return {name: values[metric] for name, values in self.images.items()}

    def mean(self, metric: str) -> Interval:
        """Over the images that have it."""
        return interval([value for value in self.column(metric).values() if value is not None])


@dataclass(frozen=True)
class Failure:
    """What could not be measured."""

    name: str
    """Of the pair."""
    contestant: str | None
    """None where the pair itself is at fault."""
    error: str
    fault: bool = False
    """Whether it is ours, not the user's."""


@dataclass
class Evaluation:
    """Contestants measured on pairs; the first one is what the others are compared with.

    `to_json` is what `tcmoa evaluate --json` prints:

    - `profile`, `metrics` {name: {`higher_is_better`}}, `pairs` [name], `tool`
    - `images` {pair: {metric: value}} and `mean` {metric: value}: of the first contestant
    - `confidence_method`: how every `confidence` came about, each the half-width of an interval
    - `contestants` {label: {`kind`, `what`, `images`, `mean`, `confidence`, `n` (images behind a mean), `resized`
      [pair], `skipped` {pair: {metric: reason}}, `versus_first` {metric: {`mean`, `confidence`, `n`, `real`}}, which is
      null for the first one}}. `real` tells whether the interval of the paired difference leaves out 0.
    - `stretched` [pair]: those with 16-bit sources, stretched to 8 bits as the Fuser does
    - `failed` [{`name`, `contestant`, `error`}]: `contestant` is null where the pair itself could not be read
    - `flicker` {label: fields of `tcmoa_calibration.flicker.Flicker`}: of video only, else empty
    - `measured` and `reused`: results computed in this run, and taken from the cache

    A value that does not exist is null, and its reason stands in `skipped`; an interval is null where n is below 2.
    """

    profile: Profile
    metrics: tuple[str, ...]
    pairs: list[str]
    contestants: list[ContestantResult]
    failures: list[Failure] = field(default_factory=list)
    stretched: list[str] = field(default_factory=list)
    sources: dict[str, dict[str, Picture]] = field(default_factory=dict)
    """Pair: pictures of `x` and `y`."""
    flicker: dict[str, Flicker] = field(default_factory=dict)
    """By contestant, where the pairs are the frames of a clip and could all be fused."""
    measured: int = 0
    reused: int = 0

    @cached_property
    def means(self) -> dict[str, list[Interval]]:
        """Metric: mean of each contestant."""
        return {name: [entry.mean(name) for entry in self.contestants] for name in self.metrics}

    @cached_property
    def differences(self) -> dict[str, list[Interval]]:
        """Metric: mean difference of each contestant but the first to the first, over the images of both."""
        first = self.contestants[0]
        return {
            name: [paired(entry.column(name), first.column(name)) for entry in self.contestants[1:]]
            for name in self.metrics
        }

    def best(self, metric: str) -> list[bool]:
        """Whose mean is the best one; of one contestant nobody's."""
        means = [entry.mean for entry in self.means[metric]]
        known = [mean for mean in means if mean is not None]
        if len(known) < 2:
            return [False] * len(means)
        best = max(known) if METRICS[metric].higher_is_better else min(known)
        return [mean == best for mean in means]

    def places(self, metric: str) -> int:
        """Digits after the point for this metric's means and differences."""
        return decimals(mean.mean for mean in self.means[metric])

    @property
    def uneven(self) -> bool:
        """Whether contestants were measured on different images, which makes their means hard to compare."""
        return len({frozenset(entry.images) for entry in self.contestants}) > 1

    def to_json(self) -> dict[str, Any]:
        """See the class."""
        first = self.contestants[0]
        contestants = {e.label: self._contestant_json(i, e) for i, e in enumerate(self.contestants)}
        return {
            "profile": self.profile,
            "metrics": {n: {"higher_is_better": METRICS[n].higher_is_better} for n in self.metrics},
            "pairs": self.pairs,
            "images": first.images,
            "mean": contestants[first.label]["mean"],
            "confidence_method": METHOD,
            "contestants": contestants,
            "stretched": self.stretched,
            "failed": [{"name": f.name, "contestant": f.contestant, "error": f.error} for f in self.failures],
            "flicker": {label: asdict(found) for label, found in self.flicker.items()},
            "measured": self.measured,
            "reused": self.reused,
            "tool": f"tcmoa {__version__}",
        }

    def _contestant_json(self, position: int, entry: ContestantResult) -> dict[str, Any]:
        means = {name: self.means[name][position] for name in self.metrics}
        return {
            "kind": entry.kind,
            "what": entry.what,
            "images": entry.images,
            "mean": {name: m.mean for name, m in means.items()},
            "confidence": {name: m.half_width for name, m in means.items()},
            "n": {name: m.n for name, m in means.items()},
            "resized": entry.resized,
            "skipped": entry.skipped,
            "versus_first": None if position == 0 else self._versus_first(position),
        }

    def _versus_first(self, position: int) -> dict[str, Any]:
        told = {name: self.differences[name][position - 1] for name in self.metrics}
        return {
            name: {"mean": d.mean, "confidence": d.half_width, "n": d.n, "real": d.excludes_zero}
            for name, d in told.items()
        }

    def to_csv(self) -> str:
        """One row per figure: contestant, image, metric, value; `reason` where there is no value."""
        text = io.StringIO()
        write = csv.writer(text, lineterminator="\n").writerow
        write(("contestant", "image", "metric", "value", "reason"))
        for entry in self.contestants:
            for name, values in entry.images.items():
                reasons: Mapping[str, str] = entry.skipped.get(name, {})
                for metric, value in values.items():
                    write(
                        (
                            entry.label,
                            name,
                            metric,
                            "" if value is None else repr(value),
                            reasons.get(metric, ""),
                        )
                    )
        return text.getvalue()


def shown(interval_of: Interval, places: int, *, sign: bool = False) -> str:
    """`0.5124 ±0.0213` with so many digits after the point; `-` without a mean."""
    mean, half_width = interval_of.mean, interval_of.half_width
    if mean is None:
        return "-"
    text = f"{mean:{'+' if sign else ''}.{places}f}"
    return text if half_width is None else f"{text} ±{half_width:.{places}f}"


def decimals(values: Iterable[float | None]) -> int:
    """Digits after the point that show four digits of the largest value, as tables of papers do: 0.5124, 12.35."""
    whole = int(max((abs(value) for value in values if value is not None), default=0.0))
    return max(0, 4 - len(str(whole))) if whole else 4


FLICKER_FIGURES: Final = ("excess", "pumping", "still", "sources", "share")
"""Fields of a `Flicker` in the order of tables."""


def flicker_cells(found: Flicker) -> list[str]:
    """The figures of FLICKER_FIGURES as text; `-` where there is none."""
    values = [getattr(found, name) for name in FLICKER_FIGURES]
    return ["-" if value is None else f"{value:.4f}" for value in values]
