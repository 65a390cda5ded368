"""What a prompt search found: as a value, as JSON, in words and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from tcmoa_calibration.evaluate.confidence import DESCRIPTION, Interval, mean_interval
from tcmoa_calibration.prompt.objective import Objective
from tcmoa_calibration.prompt.surface import Surface
from tcmoa_calibration.sample_pairs import PairSplit
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.prompt_search import PromptSearchOptions, Range
from tcmoa_runtime.typing import JsonObject

VERSION: Final = 1
"""Version of the search: with the same one, the same seed and pairs give the same prompt."""

_PROMPT_DECIMALS: Final = 6
"""Prompts are rounded, so that the same one reached by different steps is tried once."""


class Prompt(NamedTuple):
    """Alpha (`scale`) and beta (`shift`) of Eq. 8."""

    scale: float
    shift: float

    def __str__(self) -> str:
        return f"alpha {self.scale:g}, beta {self.shift:g}"

    def to_json(self) -> JsonObject:
        """Return the entry of bundle.json."""
        return {"scale": self.scale, "shift": self.shift}


@dataclass(frozen=True)
class PromptSearchResult:
    """The best prompt of a search, compared with the bundle's default on held-out pairs.

    Attributes:
        objective: What was maximized.
        options: Where it was searched.
        pairs: The pairs of the search, and the held-out ones.
        default: The default prompt of the bundle.
        best: The prompt with the highest mean on the fit pairs.
        means: Mean of the objective over the fit pairs, for every prompt that was tried, in that order.
        held_out_default: The objective on each held-out pair with `default`.
        held_out_best: The objective on each held-out pair with `best`.
        gain: Mean of `held_out_best` - `held_out_default`, with its confidence interval.
    """

    objective: Objective
    options: PromptSearchOptions
    pairs: PairSplit
    default: Prompt
    best: Prompt
    means: Mapping[Prompt, float]
    held_out_default: tuple[float, ...]
    held_out_best: tuple[float, ...]
    gain: Interval = field(init=False)

    def __post_init__(self) -> None:
        """Compute `gain`."""
        differences = [b - d for b, d in zip(self.held_out_best, self.held_out_default, strict=True)]
        object.__setattr__(self, "gain", mean_interval(differences))

    @property
    def is_better(self) -> bool:
        """Whether the best prompt has a higher mean than the default on the held-out pairs."""
        return self.best != self.default and self.gain.mean is not None and self.gain.mean > 0

    @property
    def at_border(self) -> tuple[str, ...]:
        """Those of `scale_range` and `shift_range` at whose ends the best prompt is: a wider range may be better."""
        options = self.options
        ends = (
            ("scale_range", self.best.scale, options.scale_range),
            ("shift_range", self.best.shift, options.shift_range),
        )
        return tuple(name for name, value, (low, high) in ends if low < high and value in (low, high))

    @property
    def held_out_means(self) -> tuple[float, float]:
        """Mean of the objective over the held-out pairs, with the default and with the best prompt."""
        count = len(self.held_out_default)
        return math.fsum(self.held_out_default) / count, math.fsum(self.held_out_best) / count

    def to_json(self) -> JsonObject:
        """Return the entry `prompt_calibration` of bundle.json."""
        before, after = self.held_out_means
        return {
            "version": VERSION,
            "objective": self.objective.text,
            "profile": "correct",
            "seed": self.options.seed,
            "scale_range": list(self.options.scale_range),
            "shift_range": list(self.options.shift_range),
            "grid": self.options.grid,
            "tried": len(self.means),
            "best": self.best.to_json(),
            "before": self.default.to_json(),
            "fit": {
                "pairs": [pair.name for pair in self.pairs.fit],
                "before": self.means[self.default],
                "after": self.means[self.best],
            },
            "held_out": {
                "pairs": [pair.name for pair in self.pairs.held_out],
                "before": before,
                "after": after,
                "difference": self.gain.mean,
                "half_width": self.gain.half_width,
                "confidence": DESCRIPTION,
            },
        }

    def describe(self) -> str:
        """Describe the gain on the held-out pairs in one line."""
        before, after = self.held_out_means
        return (
            f"{self.best} instead of {self.default}; {self.objective.text} {before:.5g} -> {after:.5g} on "
            f"{format_count(len(self.pairs.held_out), 'held-out pair')}, difference {format_gain(self.gain)}"
        )


def axis_values(ends: Range, count: int) -> list[float]:
    """Return `count` evenly spaced values over a range, or one where its ends are equal."""
    low, high = ends
    return [round_prompt(value) for value in np.linspace(low, high, count if low < high else 1).tolist()]


def round_prompt(value: float) -> float:
    """Round alpha or beta; never to minus zero."""
    return round(value, _PROMPT_DECIMALS) + 0.0


def no_gain_error(bundle: Bundle, search: PromptSearchResult, picture: Path | None) -> InputError:
    """Return the error of a search whose best prompt is no better than the default on the held-out pairs."""
    fit = format_count(len(search.pairs.fit), "pair")
    held_out = format_count(len(search.pairs.held_out), "held-out pair")
    text, num_prompts = search.objective.text, len(search.means)
    default_mean, best_mean = search.means[search.default], search.means[search.best]
    if search.best == search.default:
        problem = (
            f"the default prompt, {search.default}, is the best of {num_prompts} on {fit} "
            f"({text} {default_mean:.5g})"
        )
    else:
        problem = (
            f"the default prompt, {search.default}, is not improved by the best of {num_prompts}, {search.best}: "
            f"{text} is {best_mean:.5g} instead of {default_mean:.5g} on {fit} of the search, but differs by "
            f"{format_gain(search.gain)} on {held_out}"
        )
    seen = "" if picture is None else f" {picture} shows the search."
    return InputError(
        f"{problem}; expected a gain on the held-out pairs",
        subject=bundle.path,
        remedy=f"Keep the bundle, or try more pairs, other ranges or another objective. No bundle was written.{seen}",
    )


def to_surface(search: PromptSearchResult) -> Surface:
    """Return what the picture of a search shows."""
    options = search.options
    verdict = "better" if search.is_better else "NOT better"
    return Surface(
        means={(prompt.scale, prompt.shift): mean for prompt, mean in search.means.items()},
        alphas=axis_values(options.scale_range, options.grid),
        betas=axis_values(options.shift_range, options.grid),
        best=search.best,
        default=search.default,
        title=f"{search.objective.text}, mean of {format_count(len(search.pairs.fit), 'pair')}",
        note=f"best: {search.best}; {verdict} than the default on "
        f"{format_count(len(search.pairs.held_out), 'held-out pair')}",
    )


def format_count(count: int, noun: str) -> str:
    """Format a count, e.g. `1 pair` or `4 pairs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_gain(gain: Interval) -> str:
    """Format a difference with its confidence interval, e.g. `+0.0123 ± 0.004`."""
    half_width = "" if gain.half_width is None else f" ± {gain.half_width:.2g}"
    return f"{gain.mean:+.3g}{half_width}"
