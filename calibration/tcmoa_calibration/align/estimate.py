"""Estimating one matrix for all pairs of two fixed cameras, and how certain it is.

The score of a matrix is the normalized correlation of the planes of edges (`pyramid`), averaged over the pairs. The
best matrix is searched from coarse to fine: on a small frame over rotations, zooms and shifts (`coarse`), then by
Gauss-Newton steps on larger and larger frames (`refine`).

The pairs are split into folds, and each fold is scored by a matrix that was estimated from the other folds. The
simplest motion model within one standard error of the best is chosen. The spread of the folds' matrices gives the
delete-group jackknife's standard error (Efron & Tibshirani 1993) of the matrix of all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.align.coarse import MAX_SHIFT, best_start, correlate_shifts
from tcmoa_calibration.align.pyramid import (
    MIN_SIDE,
    Indices,
    PyramidLevel,
    centered_to_pixels,
    level_sizes,
)
from tcmoa_calibration.align.refine import refine_through
from tcmoa_calibration.sample_pairs import SamplePair, check_pair_count
from tcmoa_runtime.alignment import (
    MOTION_MODELS,
    Alignment,
    Matrix,
    MotionModel,
    describe_matrix_fault,
    map_points,
)
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import format_size, to_frame
from tcmoa_runtime.log import log_step
from tcmoa_runtime.options.align import MIN_PAIRS, AlignOptions
from tcmoa_runtime.typing import FrameSize, OnMessage, SourceName

MIN_SCORE: Final = 0.08
"""Gradient correlation on held-out pairs, below which the pairs do not determine an alignment."""
MAX_RESIDUAL_PX: Final = 1.5
"""Standard error of a matrix, RMS over the frame, beyond which it is refused."""
MAX_FOLDS: Final = 5
MAX_SELECTION_SIDE: Final = 400
"""Pixels of the longer side up to which the model is selected; only the selected one is refined beyond."""

Scores = NDArray[np.float64]
"""Correlation of each pair."""


@dataclass(frozen=True)
class AlignmentEstimate:
    """An alignment and how the pairs support it.

    Attributes:
        alignment: The entry for bundle.json.
        scores: Mean gradient correlation on held-out pairs, by motion model.
        shift_px: Mean displacement over the frame, in pixels.
        pair_scores: Gradient correlation (before, after) of each pair, by its name.
    """

    alignment: Alignment
    scores: dict[str, float]
    shift_px: float
    pair_scores: dict[str, tuple[float, float]]

    @property
    def already_aligned(self) -> bool:
        """Whether the best alignment is to move nothing."""
        return self.alignment.model == "identity"


@dataclass(frozen=True)
class Folds:
    """A split of the pairs for cross-validation.

    Attributes:
        subsets: Pairs that a matrix is estimated from: first all of them, then all but each fold.
        held_out: The pairs of each fold.
    """

    subsets: list[Indices]
    held_out: list[Indices]

    @classmethod
    def split(cls, num_pairs: int) -> Folds:
        """Split pairs, which are in random order, into up to `MAX_FOLDS` folds."""
        everyone = np.arange(num_pairs)
        num_folds = min(MAX_FOLDS, num_pairs)
        fold = everyone % num_folds
        return cls(
            [everyone, *(np.flatnonzero(fold != f) for f in range(num_folds))],
            [np.flatnonzero(fold == f) for f in range(num_folds)],
        )

    def scores(self, matrices: Sequence[Matrix], level: PyramidLevel) -> Scores:
        """Score each pair by the matrix that was estimated without it; `matrices` are those of `subsets`."""
        scores = np.empty(len(self.subsets[0]))
        for pairs, matrix in zip(self.held_out, matrices[1:], strict=True):
            scores[pairs] = level.scores(matrix, pairs)
        return scores


def estimate_alignment(
    samples: Sequence[SamplePair],
    options: AlignOptions | None = None,
    *,
    on_message: OnMessage = log_step,
) -> AlignmentEstimate:
    """Estimate the alignment of pairs of one size.

    Args:
        samples: At least 4 pairs.
        options: The source to move, the motion model and the seed to record; None: the defaults.
        on_message: Called with a line of text for each step.

    Raises:
        InputError: The pairs are too few or too small, their correlation is too low, or the result too uncertain.
    """
    options = AlignOptions() if options is None else options
    size = _check_samples(samples)
    on_message(f"comparing {len(samples)} pairs")
    levels = _build_levels(samples, options.move, size)
    folds = Folds.split(len(samples))
    small = [level for level in levels if max(level.size) <= MAX_SELECTION_SIDE] or levels[:1]
    large = levels[len(small) :]

    models = MOTION_MODELS if options.model == "auto" else (options.model,)
    on_message("selecting the motion model" if options.model == "auto" else f"estimating the {options.model}")
    starts = _estimate_on_small_frames(models, small, folds)
    scores = {model: folds.scores(starts[model], small[-1]) for model in models}
    model = select_model(scores)

    on_message(f"refining the {model}")
    matrices = _refine_all(starts[model], large, folds, model)
    before = levels[-1].scores(np.eye(3), folds.subsets[0])
    after = folds.scores(matrices, levels[-1])
    # The identity has no spread: its uncertainty is that of the simplest model that moves anything.
    spread = matrices
    if model == "identity" and options.model == "auto":
        spread = _refine_all(starts["translation"], large, folds, "translation")
    residual_px = jackknife_px([_in_pixels(m, size) for m in spread[1:]], size)
    matrix = np.eye(3) if model == "identity" else _in_pixels(matrices[0], size)
    if model != "identity":
        matrix = matrix / matrix[2, 2]
    _check_estimate(float(after.mean()), residual_px, matrix, size)
    return _to_estimate(samples, options, model, matrix, residual_px, scores, before, after)


def _check_samples(samples: Sequence[SamplePair]) -> FrameSize:
    """Check number and size of the pairs; return the size (height, width)."""
    check_pair_count(len(samples), len(samples), MIN_PAIRS)
    size = samples[0].x.shape[0], samples[0].x.shape[1]
    if min(size) < MIN_SIDE:
        raise InputError(
            f"{format_size(size)}; expected at least {MIN_SIDE} pixels a side for an alignment",
            subject="frames",
        )
    return size


def _build_levels(samples: Sequence[SamplePair], move: SourceName, size: FrameSize) -> list[PyramidLevel]:
    x = [to_frame(sample.x, "x", 1)[..., 0] for sample in samples]
    y = [to_frame(sample.y, "y", 1)[..., 0] for sample in samples]
    fixed, moving = (y, x) if move == "x" else (x, y)
    return [PyramidLevel(fixed, moving, size, level_size) for level_size in level_sizes(size)]


def _estimate_on_small_frames(
    models: Sequence[MotionModel], levels: Sequence[PyramidLevel], folds: Folds
) -> dict[MotionModel, list[Matrix]]:
    """Estimate the matrix of each subset of the folds, for each model, from the coarse search on.

    Affine and homography start from the similarity where that is among the models.
    """
    found: dict[MotionModel, list[Matrix]] = {"identity": [np.eye(3) for _ in folds.subsets]}
    to_search = [model for model in MOTION_MODELS[1:] if model in models]
    if not to_search:
        return found
    correlations = correlate_shifts(levels[0])
    for model in to_search:
        similarity = found.get("similarity")
        if similarity is not None and model in ("affine", "homography"):
            starts = similarity
        else:
            starts = [best_start(correlations, pairs, levels[0], model) for pairs in folds.subsets]
        found[model] = _refine_all(starts, levels, folds, model)
    return found


def _refine_all(
    starts: Sequence[Matrix], levels: Sequence[PyramidLevel], folds: Folds, model: MotionModel
) -> list[Matrix]:
    """Refine the matrix of each subset of the folds."""
    return [
        refine_through(levels, start, pairs, model)
        for start, pairs in zip(starts, folds.subsets, strict=True)
    ]


def select_model(scores: Mapping[MotionModel, Scores]) -> MotionModel:
    """Select the simplest model whose scores are within one standard error of the best, compared pair by pair."""
    best = max(scores.values(), key=lambda values: float(values.mean()))
    for model in MOTION_MODELS:
        if model in scores:
            loss = best - scores[model]
            if float(loss.mean()) <= float(loss.std(ddof=1)) / np.sqrt(len(loss)):
                return model
    raise AssertionError("the best model is at distance 0 from itself")


def jackknife_px(matrices: Sequence[Matrix], size: FrameSize) -> float:
    """Return the standard error in pixels, RMS over the frame, of matrices that each leave one fold out."""
    points = frame_points(size)
    places = np.stack([map_points(matrix, points) for matrix in matrices])  # [folds, 2, points]
    squares = ((places - places.mean(0)) ** 2).sum(1)
    count = len(matrices)
    return float(np.sqrt((count - 1) / count * squares.sum(0).mean()))


def frame_points(size: FrameSize, count: int = 9) -> Matrix:
    """Return a grid of points (x, y, 1) over a frame of (height, width), its corners included, [3, count^2]."""
    x, y = np.meshgrid(np.linspace(0, size[1] - 1, count), np.linspace(0, size[0] - 1, count))
    return np.stack([x.ravel(), y.ravel(), np.ones(x.size)])


def _in_pixels(matrix: Matrix, size: FrameSize) -> Matrix:
    """Convert a matrix from centered coordinates to pixels of the frame."""
    to_pixels = centered_to_pixels(size)
    return np.asarray(to_pixels @ matrix @ np.linalg.inv(to_pixels))


def _check_estimate(score: float, residual_px: float, matrix: Matrix, size: FrameSize) -> None:
    """Raise InputError when an estimate is not good enough to be applied."""
    remedy = (
        f"Provide more pairs, with structures that both sources show, and first bring the cameras within "
        f"{MAX_SHIFT * max(size):.0f} pixels, 6 degrees and 12 % of each other"
    )
    if not score >= MIN_SCORE:
        raise InputError(
            f"gradient correlation of held-out pairs is {score:.3f} after alignment; expected at least {MIN_SCORE}",
            subject="pairs",
            remedy=remedy,
        )
    if not residual_px <= MAX_RESIDUAL_PX:
        raise InputError(
            f"alignment uncertainty is {residual_px:.2f} px; expected at most {MAX_RESIDUAL_PX} px",
            subject="pairs",
            remedy=f"{remedy}, or choose a simpler {{model}}",
            settings={"model": ...},
        )
    problem = describe_matrix_fault(matrix, size)
    if problem is not None:
        raise InputError(
            f"the estimated matrix is not usable, {problem}; expected a small move of the frame",
            subject="pairs",
            remedy=remedy,
        )


def _to_estimate(
    samples: Sequence[SamplePair],
    options: AlignOptions,
    model: MotionModel,
    matrix: Matrix,
    residual_px: float,
    scores: Mapping[MotionModel, Scores],
    before: Scores,
    after: Scores,
) -> AlignmentEstimate:
    """Round the numbers and collect them."""
    first, second, third = ((float(r[0]), float(r[1]), float(r[2])) for r in matrix)
    alignment = Alignment(
        source=options.move,
        rows=(first, second, third),
        model=model,
        residual_px=round(residual_px, 4),
        score_before=round(float(before.mean()), 4),
        score_after=round(float(after.mean()), 4),
        pairs=len(samples),
        seed=options.seed,
    )
    points = frame_points((samples[0].x.shape[0], samples[0].x.shape[1]))
    return AlignmentEstimate(
        alignment,
        {name: round(float(values.mean()), 4) for name, values in scores.items()},
        round(float(np.hypot(*(map_points(matrix, points) - points[:2])).mean()), 3),
        {s.name: (float(b), float(a)) for s, b, a in zip(samples, before, after, strict=True)},
    )
