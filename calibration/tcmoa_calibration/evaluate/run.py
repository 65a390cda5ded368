"""`evaluate_pairs`: from pairs and contestants to an Evaluation."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from tcmoa_calibration.evaluate.cache import CACHE, Cache, result_key
from tcmoa_calibration.evaluate.contestants import DEFAULT_BASELINES, Contestant, FusedFolder, check_labels
from tcmoa_calibration.evaluate.measure import Measured, Plan, Task
from tcmoa_calibration.evaluate.report import REPORT, write_report
from tcmoa_calibration.evaluate.results import ContestantResult, Evaluation, Failure
from tcmoa_calibration.evaluate.video import measure_flicker
from tcmoa_calibration.evaluate.workers import available_cores, measure_all
from tcmoa_calibration.metrics import METRICS, Profile
from tcmoa_calibration.metrics.registry import check_profile
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.manifest import file_sha256
from tcmoa_runtime.pairs import PairPaths, find_pairs

RESULTS_JSON: Final = "results.json"
RESULTS_CSV: Final = "results.csv"
PICTURES: Final = "report_images"
"""Folder of the report's pictures, beside it."""

CLIP: Final = "the clip"
"""What a failure of all frames together is called."""

Progress = Callable[[int, int], None]
StrPath = str | os.PathLike[str]


def evaluate_pairs(
    pairs: StrPath | Sequence[PairPaths],
    y: StrPath | None = None,
    *,
    contestants: Sequence[Contestant] | None = None,
    profile: Profile = "correct",
    metrics: Iterable[str] | None = None,
    out: StrPath | None = None,
    fresh: bool = False,
    jobs: int | None = None,
    video: bool = False,
    progress: Progress = lambda _done, _of: None,
) -> Evaluation:
    """Measure contestants on pairs of sources.

    `pairs` is a folder (NAME_x.EXT, NAME_y.EXT), the folder of x where `y` is the other one, or what `find_pairs`
    gave. `contestants` are four baselines unless told otherwise. `metrics`: names of METRICS, all by default. With
    `out`, results.json, results.csv, report.html and its pictures are written there, and results are kept in
    cache.jsonl: another run computes what is missing or has changed; `fresh` starts over. `jobs`: processes, as many
    as there are cores by default. `video`: the pairs are the frames of one clip, by name in the order of time, and
    `flicker` is measured too; it is computed anew each time. `progress` is told how many results of how many are done.

    A source with 16 bits is stretched to 8 as the Fuser does; a fused image with 16 bits counts by its full range.
    Pairs and fused images that cannot be read, are missing or do not fit are in the result's `failures`, without
    figures. Raises InputError on wrong options and where nothing could be measured by them, MissingError where a
    package is not installed that a contestant needs.
    """
    found = find_pairs(pairs, y) if isinstance(pairs, str | os.PathLike) else list(pairs)
    if not found:
        raise InputError("no pairs of sources were given: expected at least one")
    entrants = list(map(Contestant.baseline, DEFAULT_BASELINES)) if contestants is None else list(contestants)
    check_labels(entrants)
    check_profile(profile)
    names = _metric_names(metrics)
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}: expected at least 1")
    for entry in entrants:
        if entry.kind == "fused":
            FusedFolder(Path(entry.source)).check(pair.name for pair in found)
    fingerprints = [entry.fingerprint() for entry in entrants]
    results = [ContestantResult(e.label, e.kind, e.description()) for e in entrants]
    evaluation = Evaluation(profile, names, [pair.name for pair in found], results)
    made = [] if out is None else [f for f in (Path(out), *Path(out).parents) if not f.exists()]
    folder = None if out is None else _open_folder(Path(out), fresh)
    pictures = None if folder is None else folder / PICTURES
    plan = Plan(profile, names, tuple(entrants), None if pictures is None else str(pictures))
    cache = None if folder is None or pictures is None else Cache(folder, pictures)
    board = _Board(evaluation, plan)
    tasks = list(board.tasks(found, fingerprints, cache))
    tasks.sort(key=_size, reverse=True)  # the longest first, so that no core waits long at the end
    done, total = 0, sum(len(task.keys) for task in tasks) + video * len(found) * len(entrants)
    progress(done, total)
    try:
        with closing(measure_all(plan, tasks, jobs or available_cores())) as arriving:
            for task, measured in arriving:
                for result in measured:
                    if cache is not None and result.error is None and result.contestant is not None:
                        cache.add(task.keys[result.contestant], result)
                    board.enter(task.name, result)
                    evaluation.measured += result.error is None
                done += len(task.keys)
                progress(done, total)
    except BaseException:
        if folder is not None:
            _leave_if_empty(folder, made)
        raise
    if video:
        for entry in entrants:
            _enter_flicker(evaluation, entry, found)
            done += len(found)
            progress(done, total)
    board.sort()
    if folder is not None:
        write_results(evaluation, folder)
    return evaluation


def _enter_flicker(evaluation: Evaluation, entry: Contestant, pairs: Sequence[PairPaths]) -> None:
    """Measure a clip, or say why it cannot be: one frame that is missing would look like a jump."""
    if len(pairs) < 2:
        why = f"the clip has {len(pairs)} frame: flicker needs at least 2"
    elif any(failure.contestant in (None, entry.label) for failure in evaluation.failures):
        why = "flicker is not measured, for frames are missing"
    else:
        try:
            evaluation.flicker[entry.label] = measure_flicker(pairs, entry)
        except InputError as error:
            why = str(error)
        else:
            return
    evaluation.failures.append(Failure(CLIP, entry.label, why))


def write_results(evaluation: Evaluation, folder: Path) -> None:
    """results.json, results.csv and report.html, each whole or not at all."""
    text = json.dumps(evaluation.to_json(), indent=1, allow_nan=False)
    write_bytes(folder / RESULTS_JSON, text.encode())
    # a file name need not be valid text; what is not becomes "?"
    write_bytes(folder / RESULTS_CSV, evaluation.to_csv().encode("utf-8", "replace"))
    write_report(evaluation, folder / REPORT, PICTURES)


class _Board:
    """Where results are entered, and what is still missing."""

    def __init__(self, evaluation: Evaluation, plan: Plan) -> None:
        self.evaluation, self.plan = evaluation, plan
        self._folders = {
            i: FusedFolder(Path(entry.source))
            for i, entry in enumerate(plan.contestants)
            if entry.kind == "fused"
        }

    def tasks(
        self, pairs: Sequence[PairPaths], fingerprints: Sequence[dict[str, Any]], cache: Cache | None
    ) -> Iterator[Task]:
        """What is to be measured; what the cache knows is entered, and what is not there is told as a failure."""
        for pair in pairs:
            try:
                x_hash, y_hash = _hash(pair.x), _hash(pair.y)
            except InputError as error:
                self.enter(pair.name, Measured(None, str(error)))
                continue
            keys = {}
            for i, fingerprint in enumerate(fingerprints):
                try:
                    depends = dict(fingerprint)
                    if i in self._folders:
                        depends["sha256"] = _hash(self._folders[i].find(pair.name))
                except InputError as error:
                    self.enter(pair.name, Measured(i, str(error)))
                    continue
                key = result_key(self.plan, depends, x_hash, y_hash)
                known = cache.get(key, self.plan, i) if cache is not None else None
                if known is None:
                    keys[i] = key
                else:
                    self.enter(pair.name, known)
                    self.evaluation.reused += 1
            if keys:
                yield Task(pair.name, str(pair.x), str(pair.y), x_hash, y_hash, keys)

    def enter(self, name: str, result: Measured) -> None:
        """A result, or why there is none."""
        evaluation, i = self.evaluation, result.contestant
        if result.error is not None or i is None:
            label = None if i is None else self.plan.contestants[i].label
            evaluation.failures.append(Failure(name, label, result.error or "", result.fault))
            return
        entry = evaluation.contestants[i]
        entry.images[name] = result.values
        if result.skipped:
            entry.skipped[name] = result.skipped
        if result.resized:
            entry.resized.append(name)
        if result.stretched and name not in evaluation.stretched:
            evaluation.stretched.append(name)
        pictures = dict(result.pictures)
        if pictures:
            evaluation.sources[name] = {which: pictures.pop(which) for which in ("x", "y")}
            entry.pictures[name] = pictures

    def sort(self) -> None:
        """Everything in the order of the pairs, however it arrived."""
        evaluation = self.evaluation
        place = {name: i for i, name in enumerate(evaluation.pairs)}
        for entry in evaluation.contestants:
            entry.images = {name: entry.images[name] for name in evaluation.pairs if name in entry.images}
            entry.skipped = {name: entry.skipped[name] for name in evaluation.pairs if name in entry.skipped}
            entry.resized.sort(key=place.__getitem__)
        evaluation.stretched.sort(key=place.__getitem__)
        evaluation.failures.sort(key=lambda failure: place.get(failure.name, len(place)))


def _metric_names(metrics: Iterable[str] | None) -> tuple[str, ...]:
    if metrics is None:
        return tuple(METRICS)
    names = tuple(dict.fromkeys([metrics] if isinstance(metrics, str) else metrics))
    for name in names:
        if name not in METRICS:
            raise InputError(f"metric {name!r} is not known: expected some of {', '.join(METRICS)}")
    if not names:
        raise InputError(f"no metrics to measure: expected some of {', '.join(METRICS)}")
    return names


def _open_folder(folder: Path, fresh: bool) -> Path:
    """A folder for results, made if need be; InputError where it holds results of somebody else."""
    ours = (folder / CACHE).exists()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder for the results")
    if not ours:
        for name in (RESULTS_JSON, RESULTS_CSV, REPORT, PICTURES):
            if (folder / name).exists():
                raise InputError(
                    f"{folder}: holds a {name} that is not of an evaluation; choose another folder"
                )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            (folder / CACHE).unlink(missing_ok=True)
        (folder / CACHE).touch()  # before the rest: by it a folder is known as ours
        (folder / PICTURES).mkdir(exist_ok=True)
        if fresh:
            for picture in (folder / PICTURES).glob("*.jpg"):
                picture.unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot be used for results: {error.strerror}") from error
    return folder


def _leave_if_empty(folder: Path, made: Sequence[Path]) -> None:
    """Take away what `_open_folder` made where nothing was measured: it would look like an evaluation."""
    with suppress(OSError):  # of a folder that holds anything, nothing is taken
        if (folder / CACHE).stat().st_size == 0:
            (folder / PICTURES).rmdir()
            (folder / CACHE).unlink()
            for empty in made:
                empty.rmdir()


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _size(task: Task) -> int:
    """Bytes of both files: a guess at how long a pair takes."""
    try:
        return Path(task.x).stat().st_size + Path(task.y).stat().st_size
    except OSError:
        return 0
