"""Prompts for a task that the model was not trained on: alpha and beta of Eq. 8, searched on sample pairs.

    calibrate_prompt(Bundle.open("vif-640x480"), find_pairs("medical"), "medical-640x480", objective="Qabf+0.5*SSIM")

writes a bundle of the same graph whose `prompt_default` has the higher mean of the objective: found on two thirds of
the pairs, and believed only where it does better than the bundle's own default on the third that the search never saw.
Routers, the other control of the paper, are folded into the graph: they are chosen by `tcmoa export --routers`.

The search: a grid over the ranges and the bundle's own default, then, `rounds` times, the eight neighbours of the best
at half the step of before. Every prompt is fused once with every pair; nothing is drawn at random but the pairs.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from tcmoa_calibration.evaluate.confidence import METHOD, Interval, interval
from tcmoa_calibration.metrics.frames import Triple
from tcmoa_calibration.metrics.registry import METRICS
from tcmoa_calibration.samples import Sample, Samples, aligned, graph_inputs, read_samples, rgb_of
from tcmoa_calibration.surface import Surface, surface_picture
from tcmoa_runtime.backends.base import Backend
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.bundle_write import check_place, check_target, derive_bundle
from tcmoa_runtime.contract import FUSED, PROMPT_SCALE, PROMPT_SHIFT
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import check_writable, write_image
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.prompts import LARGEST

VERSION: Final = 1
"""Of the search: the same one, seed and pairs give the same prompt."""

OBJECTIVE: Final = "Qabf"
SCALE_RANGE: Final = (0.5, 1.5)
SHIFT_RANGE: Final = (-0.5, 0.5)
LEAST: Final = 4
MOST: Final = 24
GRID: Final = 5
ROUNDS: Final = 2

MOST_GRID: Final = 33
MOST_ROUNDS: Final = 8
LARGEST_WEIGHT: Final = 1e6

_DECIMALS: Final = 6
"""Prompts are rounded to these, so that one reached on two ways is one."""

_NAME: Final = "|".join(re.escape(name) for name in sorted(METRICS, key=len, reverse=True))
_TERM: Final = re.compile(
    rf"\s*(?P<sign>[+-]?)\s*(?:(?P<weight>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)\s*\*\s*)?"
    rf"(?P<name>{_NAME})\s*(?=[+-]|$)"
)

Range = tuple[float, float]
Progress = Callable[[int, int], None]
"""Called with the fusions done, and with how many there are."""


class Prompt(NamedTuple):
    """Alpha and beta of Eq. 8."""

    scale: float
    shift: float

    def __str__(self) -> str:
        return f"alpha {self.scale:g}, beta {self.shift:g}"

    def to_json(self) -> dict[str, float]:
        """As in bundle.json."""
        return {"scale": self.scale, "shift": self.shift}


@dataclass(frozen=True)
class Objective:
    """A weighted sum of metrics, profile `correct`, to be maximised; `parse_objective` makes one of its text."""

    text: str
    terms: tuple[tuple[float, str], ...]
    """Signed weights and names of METRICS."""

    def of(self, triple: Triple) -> float:
        """Its value for one fused image."""
        return math.fsum(weight * METRICS[name].of(triple) for weight, name in self.terms)

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise InputError when frames of (height, width) are too small for one of its metrics."""
        for _, name in self.terms:
            if min(size) < METRICS[name].min_side:
                raise InputError(
                    f"objective is {self.text!r}: {name} needs frames of at least {METRICS[name].min_side} pixels a "
                    f"side, this bundle's are {size[1]}x{size[0]}; choose another metric"
                )


def parse_objective(text: str) -> Objective:
    """`Qabf`, or a sum such as `Qabf + 0.5*SSIM - 0.01*EN`: [WEIGHT*]METRIC terms between + and -.

    A metric of which less is better (MSE, RMSE, CE, Qcv) always counts against, whether + or - stands before it.
    Raises InputError on anything else, on a metric named twice, and on weights that are not above 0 and up to 1e6.
    """
    terms: dict[str, float] = {}
    at = 0
    while at < len(text) or not terms:
        found = _TERM.match(text, at)
        if found is None or (terms and not found["sign"]):
            raise _malformed(text, at)
        name, weight = found["name"], 1.0 if found["weight"] is None else float(found["weight"])
        if not 0 < weight <= LARGEST_WEIGHT:
            raise InputError(
                f"objective is {text!r}: the weight {found['weight']} of {name} is not above 0 and up to "
                f"{LARGEST_WEIGHT:g}; leave the metric out, or give another weight"
            )
        if name in terms:
            raise InputError(
                f"objective is {text!r}: {name} stands there twice; name it once, with one weight"
            )
        against = found["sign"] == "-" or not METRICS[name].higher_is_better
        terms[name] = -weight if against else weight
        at = found.end()
    return Objective("".join(text.split()), tuple((weight, name) for name, weight in terms.items()))


def _malformed(text: str, at: int) -> InputError:
    """Why there is no term at `at`: a name that is none, or no such sum at all."""
    name = re.match(r"[\s+-]*(?:[\d.]+(?:[eE][+-]?\d+)?\s*\*)?\s*([A-Za-z][\w-]*)", text[at:])
    if name is not None:
        word = name[1]
        alike = next((m for m in METRICS if m.lower() == word.lower()), None)
        if word not in METRICS:
            meant = "" if alike is None else f" (did you mean {alike}?)"
            return InputError(
                f"objective is {text!r}: metric {word!r} is not known{meant}: expected some of {', '.join(METRICS)}"
            )
    return InputError(
        f"objective is {text!r}: expected a metric, or a sum such as Qabf+0.5*SSIM; it cannot be read from "
        f"{text[at:].strip()!r} on"
    )


@dataclass(frozen=True)
class PromptSearch:
    """What a search found; `gain` decides whether it is to be believed."""

    objective: Objective
    scale_range: Range
    shift_range: Range
    grid: int
    seed: int
    samples: Samples
    default: Prompt
    best: Prompt
    means: dict[Prompt, float]
    """The objective's mean over the fit pairs, for every prompt that was tried, in the order of trying."""
    held_default: tuple[float, ...]
    """The objective on each held-out pair with the default."""
    held_best: tuple[float, ...]
    gain: Interval = field(init=False)
    """Of the mean of `held_best` - `held_default`."""

    def __post_init__(self) -> None:
        differences = [b - d for b, d in zip(self.held_best, self.held_default, strict=True)]
        object.__setattr__(self, "gain", interval(differences))

    @property
    def is_better(self) -> bool:
        """Whether the best does better than the default on the held-out pairs, in the mean."""
        return self.best != self.default and self.gain.mean is not None and self.gain.mean > 0

    @property
    def at_border(self) -> tuple[str, ...]:
        """Which of `scale` and `shift` is best at an end of its range, so that a wider one may do better."""
        ranges = (("scale", self.best.scale, self.scale_range), ("shift", self.best.shift, self.shift_range))
        return tuple(name for name, value, (low, high) in ranges if low < high and value in (low, high))

    def to_json(self) -> dict[str, Any]:
        """What goes into bundle.json as `prompt_calibration`."""
        return {
            "version": VERSION,
            "objective": self.objective.text,
            "profile": "correct",
            "seed": self.seed,
            "scale_range": list(self.scale_range),
            "shift_range": list(self.shift_range),
            "grid": self.grid,
            "tried": len(self.means),
            "best": self.best.to_json(),
            "before": self.default.to_json(),
            "fit": {
                "pairs": [sample.name for sample in self.samples.fit],
                "before": self.means[self.default],
                "after": self.means[self.best],
            },
            "held_out": {
                "pairs": [sample.name for sample in self.samples.held],
                "before": math.fsum(self.held_default) / len(self.held_default),
                "after": math.fsum(self.held_best) / len(self.held_best),
                "difference": self.gain.mean,
                "half_width": self.gain.half_width,
                "confidence": METHOD,
            },
        }


@dataclass(frozen=True)
class PromptCalibration:
    """A new bundle, and the search behind its default prompt."""

    bundle: Bundle
    search: PromptSearch

    def to_json(self) -> dict[str, Any]:
        """For programs: what bundle.json holds, every prompt that was tried, and the pairs that were left out."""
        return {
            "bundle": str(self.bundle.path),
            "prompt_default": self.search.best.to_json(),
            "prompt_calibration": self.search.to_json(),
            "surface": [
                {**prompt.to_json(), "mean": round(mean, 9)} for prompt, mean in self.search.means.items()
            ],
            "skipped": self.search.samples.skipped,
        }


def calibrate_prompt(
    bundle: Bundle,
    pairs: Sequence[PairPaths],
    out: str | os.PathLike[str],
    *,
    objective: str = OBJECTIVE,
    scale_range: Range = SCALE_RANGE,
    shift_range: Range = SHIFT_RANGE,
    grid: int = GRID,
    rounds: int = ROUNDS,
    most: int = MOST,
    seed: int = 0,
    backend: str = "onnxruntime",
    threads: int | None = None,
    surface: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PromptCalibration:
    """Search a default prompt on up to `most` of the pairs and write `bundle` with it to `out`.

    `grid`: values per axis of the first grid; `rounds`: how often the step is halved afterwards. `surface`: an image
    file for the objective over alpha and beta, which is written whether or not there is a bundle.
    Raises InputError on wrong options, on fewer than 4 usable pairs, when `out` or `surface` must not or cannot be
    written, and when nothing does better than the bundle's own default on the held-out pairs: no bundle is written
    then. MissingError and BundleError as `load_backend`.
    """
    target = Path(out)
    picture = None if surface is None else _check_picture(surface)
    check_target(target, overwrite=overwrite)
    search = search_prompt(
        bundle,
        pairs,
        objective=objective,
        scale_range=scale_range,
        shift_range=shift_range,
        grid=grid,
        rounds=rounds,
        most=most,
        seed=seed,
        backend=backend,
        threads=threads,
        progress=progress,
    )
    if picture is not None:
        write_image(picture, surface_picture(surface_of(search)))
    if not search.is_better:
        raise InputError(_refusal(bundle, search, picture))
    changes = {"prompt_default": search.best.to_json(), "prompt_calibration": search.to_json()}
    return PromptCalibration(derive_bundle(bundle, target, changes, overwrite=overwrite), search)


def search_prompt(
    bundle: Bundle,
    pairs: Sequence[PairPaths],
    *,
    objective: str = OBJECTIVE,
    scale_range: Range = SCALE_RANGE,
    shift_range: Range = SHIFT_RANGE,
    grid: int = GRID,
    rounds: int = ROUNDS,
    most: int = MOST,
    seed: int = 0,
    backend: str = "onnxruntime",
    threads: int | None = None,
    progress: Progress | None = None,
) -> PromptSearch:
    """Search without writing anything; arguments and errors as those of `calibrate_prompt`."""
    goal = parse_objective(objective)
    ranges = _check_range(scale_range, "scale range"), _check_range(shift_range, "shift range")
    for value, name, least, largest in (
        (grid, "grid", 2, MOST_GRID),
        (rounds, "rounds", 0, MOST_ROUNDS),
        (most, "most", LEAST, math.inf),
        (seed, "seed", 0, math.inf),
    ):
        if not least <= value <= largest:
            upto = "or more" if largest == math.inf else f"to {largest}"
            raise InputError(f"{name} is {value}: expected {least} {upto}")
    size = bundle.contract.height, bundle.contract.width
    goal.check_size(size)
    default = Prompt(*bundle.default_prompt)
    alphas, betas = (_axis(ends, grid) for ends in ranges)
    first = dict.fromkeys([default, *(Prompt(a, b) for b in betas for a in alphas)])
    if len(first) == 1:
        raise InputError(f"both ranges hold the bundle's own {default} alone: nothing to search; widen one")
    samples = aligned(bundle, read_samples(pairs, size, most=most, least=LEAST, seed=seed))
    with closing(load_backend(bundle, backend, threads=threads)) as loaded:
        total = (len(first) + 8 * rounds) * len(samples.fit) + 2 * len(samples.held)
        scorer = _Scorer(bundle, loaded, goal, progress, total)
        means = scorer.means(first, samples.fit)
        best = _best(means, default)
        for number in range(1, rounds + 1):
            around = [p for p in _neighbours(best, ranges, (grid - 1) * 2**number) if p not in means]
            scorer.skip((8 - len(around)) * len(samples.fit))
            means |= scorer.means(around, samples.fit)
            best = _best(means, default)
        of_default, of_best = zip(*(scorer.scores([default, best], s) for s in samples.held), strict=True)
    return PromptSearch(goal, *ranges, grid, seed, samples, default, best, means, of_default, of_best)


def surface_of(search: PromptSearch) -> Surface:
    """What the picture of a search shows."""
    verdict = "better" if search.is_better else "NOT better"
    alphas, betas = (_axis(ends, search.grid) for ends in (search.scale_range, search.shift_range))
    return Surface(
        means={(prompt.scale, prompt.shift): mean for prompt, mean in search.means.items()},
        alphas=alphas,
        betas=betas,
        best=search.best,
        default=search.default,
        title=f"{search.objective.text}, mean of {told_pairs(search.samples.fit)}",
        note=f"best: {search.best}; on {told_pairs(search.samples.held)} held out {verdict} than the default",
    )


class _Scorer:
    """Fuses and measures, and counts."""

    def __init__(
        self, bundle: Bundle, backend: Backend, objective: Objective, progress: Progress | None, total: int
    ) -> None:
        self._bundle, self._backend, self._objective = bundle, backend, objective
        self._progress, self._done, self._total = progress, 0, total

    def means(self, prompts: Iterable[Prompt], samples: Sequence[Sample]) -> dict[Prompt, float]:
        """The objective's mean over the samples, by prompt."""
        wanted = list(prompts)
        rows = [self.scores(wanted, sample) for sample in samples]
        return {
            prompt: math.fsum(column) / len(rows)
            for prompt, column in zip(wanted, zip(*rows, strict=True), strict=True)
        }

    def scores(self, prompts: Sequence[Prompt], sample: Sample) -> list[float]:
        """The objective for each of the prompts on one sample; a graph with a batch does several at once."""
        batch = self._bundle.contract.batch
        inputs = graph_inputs(self._bundle, sample)
        scales, shifts = np.empty_like(inputs[PROMPT_SCALE]), np.empty_like(inputs[PROMPT_SHIFT])
        triple: Triple | None = None  # of one sample at a time: what metrics keep of sources is large
        scores = []
        for start in range(0, len(prompts), batch):
            some = prompts[start : start + batch]
            for row in range(batch):
                scales[row], shifts[row] = some[min(row, len(some) - 1)]
            fused = self._backend.infer({**inputs, PROMPT_SCALE: scales, PROMPT_SHIFT: shifts})[FUSED]
            for row in range(len(some)):
                image = rgb_of(self._bundle, fused[row : row + 1])
                triple = Triple(sample.x, sample.y, image) if triple is None else triple.with_fused(image)
                scores.append(self._objective.of(triple))
            self.skip(len(some))
        return scores

    def skip(self, count: int) -> None:
        """Count fusions as done."""
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


def _axis(ends: Range, count: int) -> list[float]:
    """`count` values from end to end, one where the ends are the same."""
    low, high = ends
    values = np.linspace(low, high, count if low < high else 1)
    return [round(value, _DECIMALS) + 0.0 for value in values.tolist()]  # + 0.0: no minus zero


def _neighbours(best: Prompt, ranges: tuple[Range, Range], parts: int) -> list[Prompt]:
    """The up to eight prompts around `best` at steps of one `parts`-th of the ranges, kept inside of them."""

    def moved(axis: int, by: int) -> float:
        low, high = ranges[axis]
        return round(min(max(best[axis] + by * (high - low) / parts, low), high), _DECIMALS) + 0.0

    signs = (-1, 0, 1)
    around = [Prompt(moved(0, a), moved(1, b)) for b in signs for a in signs if a or b]
    return [prompt for prompt in dict.fromkeys(around) if prompt != best]


def _best(means: dict[Prompt, float], default: Prompt) -> Prompt:
    """The prompt of the highest mean; of equal ones the nearest to the default, then the first."""
    return max(means, key=lambda prompt: (means[prompt], -math.dist(prompt, default)))


def _check_range(given: Range, name: str) -> Range:
    """The range if it is one within what the runtime takes, else InputError."""
    low, high = (float(end) for end in given)
    if not -LARGEST <= low <= high <= LARGEST:  # NaN, too
        order = "; its ends are reversed" if low > high else ""
        raise InputError(
            f"{name} is {low:g}:{high:g}: expected LOW:HIGH, LOW not above HIGH, within {-LARGEST:g}:{LARGEST:g}{order}"
        )
    return low, high


def _check_picture(path: str | os.PathLike[str]) -> Path:
    """The path if it looks as if it can be written, long before it is; else InputError."""
    target = check_writable(path)
    check_place(target)
    return target


def _refusal(bundle: Bundle, search: PromptSearch, picture: Path | None) -> str:
    """One line: what was best, and by how much it fell short."""
    fit, held = told_pairs(search.samples.fit), told_pairs(search.samples.held)
    seen = "" if picture is None else f"; {picture} shows the search"
    advice = f"no bundle was written: keep {bundle.path}, or try more pairs, other ranges or another objective{seen}"
    text, default, of_default = search.objective.text, search.default, search.means[search.default]
    if search.best == default:
        tried = f"of {len(search.means)} prompts on {fit} ({text} {of_default:.5g})"
        return f"the bundle's own default, {default}, is the best {tried}; {advice}"
    searched = f"{text} {search.means[search.best]:.5g} against {of_default:.5g} on the {fit} searched"
    return (
        f"found nothing better than the bundle's own default, {default}: the best of {len(search.means)} prompts, "
        f"{search.best}, has {searched}, but differs by {told_gain(search.gain)} on {held} held out; {advice}"
    )


def told_pairs(samples: Sequence[Sample]) -> str:
    """How many there are, in words."""
    return "1 pair" if len(samples) == 1 else f"{len(samples)} pairs"


def told_gain(gain: Interval) -> str:
    """A difference with its confidence in words: `+0.0123 ± 0.004`."""
    spread = "" if gain.half_width is None else f" ± {gain.half_width:.2g}"
    return f"{gain.mean:+.3g}{spread}"
