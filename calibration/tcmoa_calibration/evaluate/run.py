"""`evaluate_pairs`: plan, measure, collect, write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tcmoa_calibration.evaluate.cache import MeasurementCache
from tcmoa_calibration.evaluate.collect import collect
from tcmoa_calibration.evaluate.measure import Measurement, Outcome
from tcmoa_calibration.evaluate.methods import Method
from tcmoa_calibration.evaluate.output import PICTURES, OutputFolder
from tcmoa_calibration.evaluate.plan import Plan, Work, find_work, make_plan
from tcmoa_calibration.evaluate.results import Evaluation
from tcmoa_calibration.evaluate.speed import BundleSpeed, measure_speeds
from tcmoa_calibration.evaluate.video import measure_clips
from tcmoa_calibration.evaluate.worker_pool import measure_all
from tcmoa_calibration.flicker import Flicker
from tcmoa_runtime.bench.measure import NUM_ROUNDS
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.evaluate import EvaluateOptions
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import OnSteps, ignore_steps


def evaluate_pairs(
    pairs: str | os.PathLike[str] | Sequence[PairPaths],
    methods: Sequence[Method] = (),
    options: EvaluateOptions | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    on_progress: OnSteps = ignore_steps,
) -> Evaluation:
    """Evaluate fusion methods on pairs of sources.

    A source with 16 bits is stretched to 8 as the Fuser does; a fused image with 16 bits is divided by 257. Pairs and
    fused images that are missing, unreadable or of a wrong size become `Evaluation.failures`.

    Args:
        pairs: A folder of NAME_x.EXT and NAME_y.EXT, or what `tcmoa_runtime.pairs.find_pairs` returned. With
            `options.video` they are the frames of one clip, and their names have the temporal order.
        methods: The methods, before the baselines of the options. The first one is compared with the others.
        options: Baselines, metrics, profile and how the work is done; the defaults if None.
        out: Folder for results.json, results.csv, report.html, its pictures, and cache.jsonl: another run with the same
            folder measures only what is missing or has changed. Flicker, time and memory are measured each time.
        on_progress: Called with the number of finished results and their total.

    Raises:
        InputError: There are no pairs or methods, two methods have one label, a folder, a bundle or weights cannot be
            read, or `out` cannot be used.
        MissingError: A package or device that a method requires is missing.
    """
    options = options or EvaluateOptions()
    plan = make_plan(pairs, methods, options, None if out is None else Path(out) / PICTURES)
    if out is None:
        return _evaluate(plan, None, on_progress)
    folder = OutputFolder.open(Path(out), fresh=options.fresh)
    try:
        evaluation = _evaluate(plan, folder.cache, on_progress)
    except BaseException:
        folder.remove_if_empty()
        raise
    folder.write(evaluation)
    return evaluation


def _evaluate(plan: Plan, cache: MeasurementCache | None, on_progress: OnSteps) -> Evaluation:
    work = find_work(plan, cache)
    num_steps = work.num_to_measure + plan.is_video * plan.num_results + plan.with_speed * NUM_ROUNDS
    progress = _Progress(num_steps, on_progress)
    measured = list(_measure(plan, work, cache, progress))
    clips: list[Flicker | InputError] = []
    if plan.is_video:
        for clip in measure_clips(plan, (*work.known, *measured)):
            clips.append(clip)
            progress.advance(len(plan.pairs))
    speeds: list[BundleSpeed] = []
    if plan.with_speed:
        speeds = measure_speeds(plan.settings.methods, lambda _done, _total: progress.advance(1))
    return collect(plan, work.known, measured, clips, speeds)


def _measure(
    plan: Plan, work: Work, cache: MeasurementCache | None, progress: _Progress
) -> Iterator[Outcome]:
    """Measure all jobs, and add each measurement to the cache at once."""
    with closing(measure_all(plan.settings, work.jobs, plan.num_processes)) as finished:
        for job, outcomes in finished:
            for outcome in outcomes:
                result = outcome.result
                if cache is not None and outcome.method is not None and isinstance(result, Measurement):
                    cache.add(job.keys[outcome.method], result)
                yield outcome
            progress.advance(len(job.keys))


class _Progress:
    """Counts finished steps."""

    def __init__(self, total: int, on_progress: OnSteps) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress
        on_progress(0, total)

    def advance(self, steps: int) -> None:
        self._done += steps
        self._on_progress(self._done, self._total)
