"""Planning an evaluation: check the input, and find the pairs that have to be measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tcmoa_calibration.evaluate.board import Board, read_board
from tcmoa_calibration.evaluate.cache import MeasurementCache, measurement_key
from tcmoa_calibration.evaluate.measure import MeasureSettings, Outcome, PairJob
from tcmoa_calibration.evaluate.methods import FusedFolder, Method, check_methods
from tcmoa_calibration.evaluate.registration import find_registration
from tcmoa_calibration.evaluate.worker_pool import available_cores
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.manifest import file_sha256
from tcmoa_runtime.options.evaluate import METRIC_NAMES, EvaluateOptions, MetricName, Profile
from tcmoa_runtime.pairs import PairPaths, find_pairs
from tcmoa_runtime.typing import JsonObject


@dataclass(frozen=True)
class Plan:
    """A checked evaluation.

    Attributes:
        pairs: The pairs.
        settings: Methods, metrics, profile and the folder of pictures.
        descriptions: A line of text for each method.
        fingerprints: `Method.fingerprint` of each method.
        is_video: Whether the pairs are the frames of a clip.
        num_processes: Processes that measure.
        board: Published methods among which the methods are ranked.
        with_speed: Whether time and memory of the bundles are measured.
    """

    pairs: tuple[PairPaths, ...]
    settings: MeasureSettings
    descriptions: tuple[str, ...]
    fingerprints: tuple[JsonObject, ...]
    is_video: bool
    num_processes: int
    board: Board | None = None
    with_speed: bool = False

    @property
    def is_ranked(self) -> bool:
        """Whether the methods are ranked: there is a board, or several bundles are compared."""
        return self.board is not None or _count_bundles(self.settings.methods) > 1

    @property
    def num_results(self) -> int:
        """Number of results: every method on every pair."""
        return len(self.pairs) * len(self.settings.methods)


@dataclass(frozen=True)
class Work:
    """Pairs to measure, and outcomes that are known already.

    Attributes:
        jobs: The pairs to measure, the largest first.
        known: Measurements from the cache, and errors of files that cannot be read.
    """

    jobs: tuple[PairJob, ...]
    known: tuple[Outcome, ...]

    @property
    def num_to_measure(self) -> int:
        """Number of results that the jobs give."""
        return sum(len(job.keys) for job in self.jobs)


def make_plan(
    pairs: str | os.PathLike[str] | Sequence[PairPaths],
    methods: Sequence[Method],
    options: EvaluateOptions,
    pictures: Path | None,
) -> Plan:
    """Find the pairs and check the methods.

    Args:
        pairs: A folder of NAME_x.EXT and NAME_y.EXT, or what `find_pairs` returned.
        methods: Methods, before the baselines of the options.
        options: The options.
        pictures: Folder for pictures; None to draw none.

    Raises:
        InputError: There are no pairs or methods, two methods have one label, or a folder, a bundle or weights cannot
            be read.
    """
    found = tuple(find_pairs(pairs) if isinstance(pairs, str | os.PathLike) else pairs)
    if not found:
        raise InputError("no pairs; expected at least one", subject="pairs")
    methods = (*methods, *map(Method.baseline, dict.fromkeys(options.baselines)))
    check_methods(methods)
    for method in methods:
        if method.kind == "fused":
            FusedFolder(Path(method.source)).check(pair.name for pair in found)
    has_bundles = _count_bundles(methods) > 1
    if has_bundles:  # before the work starts, in which a damaged one would be found late
        for method in methods:
            if method.kind == "bundle":
                Bundle.open(method.source).check()
    board = None if options.board is None else read_board(options.board)
    if board is not None:
        board.check_pairs({pair.name for pair in found})
    profile, metrics = _profile_and_metrics(options, board)
    return Plan(
        pairs=found,
        settings=MeasureSettings(profile, metrics, methods, pictures, find_registration(methods)),
        descriptions=tuple(method.describe() for method in methods),
        fingerprints=tuple(method.fingerprint() for method in methods),
        is_video=options.video,
        num_processes=options.jobs or available_cores(),
        board=board,
        with_speed=has_bundles and options.speed,
    )


def _count_bundles(methods: Sequence[Method]) -> int:
    return sum(method.kind == "bundle" for method in methods)


def _profile_and_metrics(
    options: EvaluateOptions, board: Board | None
) -> tuple[Profile, tuple[MetricName, ...]]:
    """Return what to compute: as the options say, or as the board was computed.

    Raises:
        InputError: The options contradict the board.
    """
    if board is None:
        return options.profile, tuple(dict.fromkeys(options.metrics or METRIC_NAMES))
    if options.profile not in ("correct", board.profile):
        raise InputError(
            f"{options.profile}; expected {board.profile}, with which {board.path} was computed",
            subject="profile",
        )
    metrics = tuple(dict.fromkeys(options.metrics or board.metrics))
    missing = [name for name in board.metrics if name not in metrics]
    if missing:
        raise InputError(
            f"without {', '.join(missing)}; expected all metrics of {board.path}",
            subject="metrics",
            remedy="Leave them out to compute those of the board",
        )
    return board.profile, metrics


def find_work(plan: Plan, cache: MeasurementCache | None) -> Work:
    """Look every result up in the cache, and make jobs for those that it lacks."""
    jobs: list[PairJob] = []
    known: list[Outcome] = []
    folders = {
        index: FusedFolder(Path(method.source))
        for index, method in enumerate(plan.settings.methods)
        if method.kind == "fused"
    }
    for pair in plan.pairs:
        try:
            x_hash, y_hash = _hash(pair.x), _hash(pair.y)
        except InputError as error:
            known.append(Outcome(pair.name, None, error))
            continue
        keys: dict[int, str] = {}
        for index, fingerprint in enumerate(plan.fingerprints):
            try:
                fused = {"sha256": _hash(folders[index].find(pair.name))} if index in folders else {}
            except InputError as error:
                known.append(Outcome(pair.name, index, error))
                continue
            key = measurement_key(plan.settings, {**fingerprint, **fused}, x_hash, y_hash)
            measurement = None if cache is None else cache.get(key, plan.settings)
            if measurement is None:
                keys[index] = key
            else:
                known.append(Outcome(pair.name, index, measurement))
        if keys:
            jobs.append(PairJob(pair, x_hash, y_hash, keys))
    jobs.sort(key=_size_in_bytes, reverse=True)  # a long job at the end would keep one core busy alone
    return Work(tuple(jobs), tuple(known))


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", subject=path) from error


def _size_in_bytes(job: PairJob) -> int:
    """Return the size of both files, an estimate of how long the pair takes."""
    try:
        return job.pair.x.stat().st_size + job.pair.y.stat().st_size
    except OSError:
        return 0
