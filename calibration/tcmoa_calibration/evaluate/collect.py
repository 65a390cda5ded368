"""Collecting the outcomes of an evaluation into its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tcmoa_calibration.evaluate.measure import Measurement, Outcome
from tcmoa_calibration.evaluate.pictures import Picture
from tcmoa_calibration.evaluate.plan import Plan
from tcmoa_calibration.evaluate.ranking import rank_methods
from tcmoa_calibration.evaluate.results import Evaluation, Failure, MethodResult
from tcmoa_calibration.evaluate.speed import BundleSpeed
from tcmoa_calibration.flicker import Flicker
from tcmoa_runtime.errors import InputError, TcmoaError

CLIP: Final = "the clip"
"""Name of a failure of all frames together."""

_SOURCES: Final = ("x", "y")


def collect(
    plan: Plan,
    known: Sequence[Outcome],
    measured: Sequence[Outcome],
    clips: Sequence[Flicker | InputError],
    speeds: Sequence[BundleSpeed] = (),
) -> Evaluation:
    """Make the result, in the order of pairs and methods.

    Args:
        plan: The plan.
        known: Outcomes that needed no measuring.
        measured: Outcomes of this run.
        clips: Flicker of each method, or why it is missing; empty if the pairs are not the frames of a clip.
        speeds: Time and memory of the bundles, if they were measured.
    """
    positions = {pair.name: position for position, pair in enumerate(plan.pairs)}
    outcomes = sorted(
        (*known, *measured),
        key=lambda outcome: (positions[outcome.pair], -1 if outcome.method is None else outcome.method),
    )
    labels = [method.label for method in plan.settings.methods]
    failures = [
        Failure(outcome.pair, None if outcome.method is None else labels[outcome.method], outcome.result)
        for outcome in outcomes
        if isinstance(outcome.result, TcmoaError)
    ]
    failures += [
        Failure(CLIP, label, clip)
        for label, clip in zip(labels, clips, strict=False)
        if isinstance(clip, InputError)
    ]
    measurements = [
        (outcome.pair, outcome.method, outcome.result)
        for outcome in outcomes
        if isinstance(outcome.result, Measurement)
    ]
    methods = tuple(
        _method_result(plan, index, {pair: m for pair, method, m in measurements if method == index})
        for index in range(len(labels))
    )
    ranking = None
    if plan.is_ranked:
        values = {method.label: method.images for method in methods}
        ranking = rank_methods(values, plan.settings.metrics, plan.board)
    return Evaluation(
        profile=plan.settings.profile,
        metrics=plan.settings.metrics,
        pairs=tuple(positions),
        methods=methods,
        failures=tuple(failures),
        stretched=tuple(dict.fromkeys(pair for pair, _, m in measurements if m.stretched)),
        sources={pair: _only_sources(m.pictures) for pair, _, m in measurements if m.pictures},
        flicker={
            label: clip for label, clip in zip(labels, clips, strict=False) if isinstance(clip, Flicker)
        },
        ranking=ranking,
        speeds=tuple(speeds),
        num_measured=_count_measurements(measured),
        num_reused=_count_measurements(known),
    )


def _method_result(plan: Plan, index: int, measurements: dict[str, Measurement]) -> MethodResult:
    method = plan.settings.methods[index]
    return MethodResult(
        label=method.label,
        kind=method.kind,
        description=plan.descriptions[index],
        images={pair: m.values for pair, m in measurements.items()},
        skipped={pair: m.skipped for pair, m in measurements.items() if m.skipped},
        resized=tuple(pair for pair, m in measurements.items() if m.resized),
        pictures={
            pair: {kind: picture for kind, picture in m.pictures.items() if kind not in _SOURCES}
            for pair, m in measurements.items()
            if m.pictures
        },
    )


def _only_sources(pictures: dict[str, Picture]) -> dict[str, Picture]:
    return {kind: pictures[kind] for kind in _SOURCES}


def _count_measurements(outcomes: Sequence[Outcome]) -> int:
    return sum(isinstance(outcome.result, Measurement) for outcome in outcomes)
