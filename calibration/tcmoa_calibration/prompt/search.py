"""The search for alpha and beta of Eq. 8.

The first round tries a grid over the ranges, and the bundle's default. Each further round tries the eight neighbors of
the best prompt at half the step of the round before. Every prompt is fused once with every fit pair. The best prompt
and the default are then compared on the held-out pairs, which the search did not use. Only the choice of pairs is
random.

Routers, the other control of the paper, are folded into the graph: `tcmoa export` selects them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing

import numpy as np

from tcmoa_calibration.metrics.planes import Triple
from tcmoa_calibration.prompt.objective import Objective, parse_objective
from tcmoa_calibration.prompt.report import Prompt, PromptSearchResult, axis_values, round_prompt
from tcmoa_calibration.sample_fit import read_fitted_split
from tcmoa_calibration.sample_pairs import SamplePair, fused_to_rgb, graph_inputs
from tcmoa_runtime.backends.base import Backend
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import FUSED, PROMPT_SCALE, PROMPT_SHIFT
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.prompt_search import MIN_PAIRS, PromptSearchOptions
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import OnSteps, ignore_steps

_NUM_NEIGHBORS = 8


def search_prompt(
    bundle: Bundle,
    pairs: Sequence[PairPaths],
    options: PromptSearchOptions | None = None,
    *,
    on_progress: OnSteps = ignore_steps,
) -> PromptSearchResult:
    """Search the prompt that maximizes an objective; nothing is written.

    Args:
        bundle: The bundle to fuse with.
        pairs: Pairs of the task that the prompt is for.
        options: The objective, the ranges and the backend; None: the defaults.
        on_progress: Called with the number of finished fusions and of all fusions.

    Raises:
        InputError: The objective or the ranges are wrong, or fewer than 4 pairs are usable.
        MissingError: The backend needs a package or device that is missing.
        BundleError: The bundle is damaged.
    """
    options = PromptSearchOptions() if options is None else options
    objective = parse_objective(options.objective)
    objective.check_size(bundle.size)
    default = Prompt(*bundle.default_prompt)
    first_round = _first_round(options, default)
    split = read_fitted_split(
        bundle, pairs, options.fit, options.max_pairs, MIN_PAIRS, options.seed, one_each=True
    )
    num_prompts = len(first_round) + _NUM_NEIGHBORS * options.rounds
    total = num_prompts * len(split.fit) + 2 * len(split.held_out)
    loaded = load_backend(
        bundle, options.backend, threads=options.threads, trust_engines=options.trust_engines
    )
    with closing(loaded) as backend:
        scorer = _PromptScorer(bundle, backend, objective, on_progress, total)
        means = scorer.means(first_round, split.fit)
        best = _best_prompt(means, default)
        for number in range(1, options.rounds + 1):
            new = [prompt for prompt in _neighbors(best, options, number) if prompt not in means]
            scorer.count((_NUM_NEIGHBORS - len(new)) * len(split.fit))
            means |= scorer.means(new, split.fit)
            best = _best_prompt(means, default)
        with_default, with_best = zip(
            *(scorer.scores([default, best], pair) for pair in split.held_out), strict=True
        )
    return PromptSearchResult(objective, options, split, default, best, means, with_default, with_best)


def _first_round(options: PromptSearchOptions, default: Prompt) -> list[Prompt]:
    """Return the default and the grid, each prompt once."""
    alphas, betas = (axis_values(ends, options.grid) for ends in (options.scale_range, options.shift_range))
    prompts = list(dict.fromkeys([default, *(Prompt(a, b) for b in betas for a in alphas)]))
    if len(prompts) == 1:
        raise InputError(
            f"both ranges hold only the bundle's default, {default}; expected other prompts to try",
            subject="scale_range and shift_range",
            remedy="Widen one of the ranges",
        )
    return prompts


def _neighbors(best: Prompt, options: PromptSearchOptions, round_number: int) -> list[Prompt]:
    """Return the up to eight prompts around `best`, clipped to the ranges."""
    ranges, steps = (options.scale_range, options.shift_range), (options.grid - 1) * 2**round_number

    def shifted(axis: int, sign: int) -> float:
        low, high = ranges[axis]
        return round_prompt(min(max(best[axis] + sign * (high - low) / steps, low), high))

    signs = (-1, 0, 1)
    around = [Prompt(shifted(0, a), shifted(1, b)) for b in signs for a in signs if a or b]
    return [prompt for prompt in dict.fromkeys(around) if prompt != best]


def _best_prompt(means: Mapping[Prompt, float], default: Prompt) -> Prompt:
    """Return the prompt of the highest mean; of equal ones the nearest to the default, then the first."""
    return max(means, key=lambda prompt: (means[prompt], -math.dist(prompt, default)))


class _PromptScorer:
    """Fuses pairs with prompts, computes the objective, and reports progress."""

    def __init__(
        self, bundle: Bundle, backend: Backend, objective: Objective, on_progress: OnSteps, total: int
    ) -> None:
        self._bundle, self._backend, self._objective = bundle, backend, objective
        self._on_progress, self._done, self._total = on_progress, 0, total

    def means(self, prompts: Iterable[Prompt], pairs: Sequence[SamplePair]) -> dict[Prompt, float]:
        """Return the mean of the objective over the pairs, by prompt."""
        prompts = list(prompts)
        rows = [self.scores(prompts, pair) for pair in pairs]
        return {
            prompt: math.fsum(column) / len(rows)
            for prompt, column in zip(prompts, zip(*rows, strict=True), strict=True)
        }

    def scores(self, prompts: Sequence[Prompt], pair: SamplePair) -> list[float]:
        """Return the objective of one pair for each prompt; a graph with a batch fuses several at once."""
        batch = self._bundle.contract.batch
        inputs = graph_inputs(self._bundle, pair)
        scales, shifts = np.empty_like(inputs[PROMPT_SCALE]), np.empty_like(inputs[PROMPT_SHIFT])
        triple: Triple | None = None  # of one pair at a time: what metrics cache of the sources is large
        scores = []
        for start in range(0, len(prompts), batch):
            chunk = prompts[start : start + batch]
            for row in range(batch):
                scales[row], shifts[row] = chunk[min(row, len(chunk) - 1)]
            fused = self._backend.infer({**inputs, PROMPT_SCALE: scales, PROMPT_SHIFT: shifts})[FUSED]
            for row in range(len(chunk)):
                image = fused_to_rgb(self._bundle, fused[row : row + 1])
                triple = Triple(pair.x, pair.y, image) if triple is None else triple.with_fused(image)
                scores.append(self._objective.compute(triple))
            self.count(len(chunk))
        return scores

    def count(self, fusions: int) -> None:
        """Count fusions as finished."""
        self._done += fusions
        self._on_progress(self._done, self._total)
