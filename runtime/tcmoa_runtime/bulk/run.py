"""`fuse_in_bulk`: the Python API of `tcmoa bulk`."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from tcmoa_runtime.bulk.file_systems import is_one_file_system, make_absolute, open_storage
from tcmoa_runtime.bulk.pair_columns import PairColumns, PairUnits
from tcmoa_runtime.bulk.passes import PoolSize, run_passes, run_passes_there
from tcmoa_runtime.bulk.planning import BulkInput, FileInput, find_input
from tcmoa_runtime.bulk.record import ERRORS_NAME, ResultRecord
from tcmoa_runtime.bulk.remaining import find_remaining
from tcmoa_runtime.bulk.results import ResultFolder
from tcmoa_runtime.bulk.storage import Storage
from tcmoa_runtime.bulk.summary import BulkSummary, write_error_table
from tcmoa_runtime.bulk.superseded import find_superseded
from tcmoa_runtime.bulk.units import PairFailure, Unit, UnitResult
from tcmoa_runtime.bulk.worker import WorkerSettings
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cluster.address import CLIENT_SCHEME
from tcmoa_runtime.cluster.bundle_shipping import ship_bundle
from tcmoa_runtime.cluster.nodes import free_cpus
from tcmoa_runtime.cluster.session import RaySession, ray_session
from tcmoa_runtime.errors import InputError, SpellOption, TcmoaError, spell_for_python
from tcmoa_runtime.fusion_settings import settings_of
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.log import get_logger, log_step
from tcmoa_runtime.options.bulk import BulkOptions
from tcmoa_runtime.typing import OnMessage

OnProgress: TypeAlias = Callable[[int, int], None]
"""Takes the number of pairs that are done, and that of all; of tar files an estimate."""

SILENCE_S: Final = 120.0
"""Time after which a run says that it has no result yet."""

_log = get_logger("bulk")

_GPU_BACKENDS: Final = ("tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-rtx")


def fuse_in_bulk(
    bundle: str | Path,
    x: str | Path,
    y: str | Path | None,
    out: str | Path,
    options: BulkOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_message: OnMessage = log_step,
    spell_option: SpellOption = spell_for_python,
) -> BulkSummary:
    """Fuse many pairs on Ray, on this machine or a cluster.

    What is in the output folder is skipped, so a run that was stopped goes on where it was; results that are older than
    a source are counted, and made again if `options.update`. A pair that cannot be fused is a row of the table
    `_errors.csv` there, and does not end the run.

    Args:
        bundle: Folder of the bundle, or the name of a ready one.
        x: Folder of the first images, or of both; a CSV file of pairs; or a Parquet or tar file, or a folder of them. A
            path that every node sees, or a URI, e.g. `s3://bucket/visible`.
        y: Folder of the second images; None if `x` holds both.
        out: Folder of the results, a path or a URI.
        options: How to fuse, and where.
        on_progress: Called after each unit of pairs.
        on_message: Takes what is done before the first pair.
        spell_option: How the remedies in the table of errors spell options.

    Raises:
        InputError: There is no pair, or an option or the output folder is wrong.
        MissingError: Ray, a package or a device is missing.
        TcmoaError: Ray or a node fails.
    """
    start = time.monotonic()
    options = options or BulkOptions()
    opened = Bundle.open(bundle)
    prompt = Prompt.read(options.prompt_scale, options.prompt_shift)
    prompt.check_for(opened)
    shown = str(out).rstrip("/")
    x, out = make_absolute(x), make_absolute(out)
    y = None if y is None else make_absolute(y)
    found = find_input(x, y, options)
    storage, path = open_storage(out)
    results = ResultFolder(storage, path, options.container or found.container, options.format)
    _check_apart(found, storage, path)
    settings = settings_of(opened, options.fit or "auto", prompt, options.stretch)
    record = ResultRecord.open(results, settings, overwrite=options.overwrite)
    run = _Counts(list(found.failures), on_progress)
    pending = _pending(found, record, run, update=options.update)
    may_supersede = options.update and results.container != "files" and not record.is_new
    locations, read_units = found.locations, None if isinstance(found, FileInput) else found.units
    del found  # all pairs, of which few may be left
    if len(pending):  # else nothing is asked of Ray
        try:
            record.begin()
            if options.address is None:
                on_message("starting Ray on this machine")
            with ray_session(options.address, num_cpus=_num_cpus(options)) as session:
                pool = _pool_size(options, session)
                units, num_known = _units(pending, pool, results)
                shipped = ship_bundle(bundle, nodes=session.nodes)
                began_ns = record.claim()
                worker = WorkerSettings(
                    shipped,
                    options,
                    prompt,
                    locations,
                    out,
                    results.container,
                    is_resumed=not record.is_new,
                    run=record.run,
                    began_ns=began_ns,
                )
                run.begin(len(units), num_known, pool, session)
                on_message(
                    f"loading the bundle in {_count(run.num_actors, 'process', 'processes')} on "
                    f"{_count(run.num_nodes, 'node', 'nodes')}"
                )
                if not session.is_private:
                    _warn_without_room(pool)
                is_client = session.address is not None and session.address.startswith(CLIENT_SCHEME)
                with _watch_for_silence(run):
                    for _, result in (run_passes_there if is_client else run_passes)(units, worker, pool):
                        run.add(result)
            if may_supersede:
                record.list_again()
                record.remove_results(find_superseded(record.results_there(), read_units))
        except BaseException as error:
            # Processes of a cluster may still write results for some time after an interrupt.
            record.end(may_go_on=options.address is not None and not isinstance(error, TcmoaError))
            raise
        record.end(may_go_on=False)
    elif may_supersede:
        superseded = find_superseded(record.results_there(), read_units)
        if superseded:  # by a run that was stopped before it removed them
            record.claim()
            record.remove_results(superseded)
    failures = tuple(sorted(run.failures, key=lambda failure: (failure.name, failure.x)))
    errors_path = f"{path}/{ERRORS_NAME}"
    shown = storage.spell(path) if storage.is_remote else shown
    if failures:
        storage.make_folder(path)
        storage.write(errors_path, write_error_table(failures, spell_option))
    elif storage.exists(errors_path):
        storage.delete(errors_path)
    return BulkSummary(
        run.num_fused,
        run.num_skipped,
        run.num_outdated,
        failures,
        time.monotonic() - start,
        max(0.0, (run.first_at or time.monotonic()) - start),
        run.fuse_seconds,
        run.cpu_seconds,
        run.num_actors,
        run.num_nodes,
        run.backend,
        shown,
        f"{shown}/{ERRORS_NAME}" if failures else None,
    )


def _count(number: float, one: str, many: str) -> str:
    return f"{number:g} {one if number == 1 else many}"


class _Counts:
    """What is done so far."""

    def __init__(self, failures: list[PairFailure], on_progress: OnProgress | None) -> None:
        self.failures, self._on_progress = failures, on_progress
        self.num_fused = self.num_skipped = self.num_outdated = self.num_actors = self.num_nodes = 0
        self.fuse_seconds = self.cpu_seconds = 0.0
        self.backend = ""
        self.first_at: float | None = None
        self._num_units = self._done_units = self._known = self._begun = 0

    def begin(self, num_units: int, num_known: int, pool: PoolSize, session: RaySession) -> None:
        """Report the pairs that are to be fused, as far as they were counted."""
        self.num_actors, self.num_nodes = min(pool.num_actors, num_units), len(session.nodes)
        self._num_units, self._known = num_units, num_known
        self._begun = self._done

    def add(self, result: UnitResult) -> None:
        """Add the result of a unit; raises its fatal error."""
        if result.fatal is not None:
            raise result.fatal
        if self.first_at is None:
            self.first_at = time.monotonic() - result.seconds
        self.num_fused += result.num_fused
        self.num_skipped += result.num_skipped
        self.num_outdated += result.num_outdated
        self.failures += result.failures
        self.fuse_seconds += result.seconds
        self.cpu_seconds += result.cpu_seconds
        self.backend = self.backend or result.backend
        self._done_units += 1
        self._report()

    @property
    def _done(self) -> int:
        return self.num_fused + self.num_skipped + len(self.failures)

    def _report(self) -> None:
        if self._on_progress is None:
            return
        done = self._done - self._begun
        total = self._known
        if not total and self._done_units:  # tar files, whose samples were not counted
            total = round(done * self._num_units / self._done_units)
        self._on_progress(done, max(done, total))


def _pending(
    found: BulkInput, record: ResultRecord, run: _Counts, *, update: bool
) -> PairColumns | tuple[Unit, ...]:
    """Return what to fuse: pairs; or units that may hold some, as actors look into tables and tar files."""
    if not isinstance(found, FileInput):
        return found.units
    remaining = find_remaining(found.pairs, found.storages, record, update=update)
    run.num_skipped += remaining.num_skipped
    run.num_outdated += remaining.num_outdated
    return remaining.pairs


def _units(
    pending: PairColumns | tuple[Unit, ...], pool: PoolSize, results: ResultFolder
) -> tuple[Sequence[Unit], int]:
    """Return the units of work, and how many pairs they are known to hold."""
    if isinstance(pending, PairColumns):
        return PairUnits(pending, pool.num_actors, is_file_each=results.container != "files"), len(pending)
    return pending, sum(map(len, pending))


def _pool_size(options: BulkOptions, session: RaySession) -> PoolSize:
    cpus = options.threads or 1
    num_gpus = sum(node.num_gpus for node in session.nodes)
    uses_gpus = options.backend in _GPU_BACKENDS or (options.backend == "auto" and num_gpus > 0)
    if uses_gpus and num_gpus:
        return PoolSize(options.actors or max(1, int(num_gpus)), cpus, 1)
    fits = sum(int(node.num_cpus // cpus) for node in session.nodes)
    if not fits:
        most = max((node.num_cpus for node in session.nodes), default=0)
        raise InputError(
            f"{cpus}; expected at most {most:g}, the CPUs of the largest node", subject="threads"
        )
    return PoolSize(options.actors or fits, cpus, 0)  # more than fit now: a cluster may grow


def _warn_without_room(pool: PoolSize) -> None:
    """Say what a run waits for on a cluster whose CPUs others have taken."""
    free = free_cpus()
    if free < pool.cpus:
        _log.warning(
            "the cluster has %s of the %s that a process takes free; the run begins when others end",
            _count(free, "CPU", "CPUs"),
            _count(pool.cpus, "CPU", "CPUs"),
            extra={"event": "waits-for-room", "free_cpus": free, "cpus": pool.cpus},
        )


@contextlib.contextmanager
def _watch_for_silence(run: _Counts) -> Iterator[None]:
    """Say so if no first result comes: Ray starts processes that die again and again, and reports it on demand only."""

    def warn() -> None:
        if run.first_at is None:
            _log.warning(
                "no pair is fused after %g s: processes may run out of memory, or wait for room; TCMOA_LOG=info shows "
                "what Ray reports",
                SILENCE_S,
                extra={"event": "no-results", "seconds": SILENCE_S},
            )

    timer = threading.Timer(SILENCE_S, warn)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _num_cpus(options: BulkOptions) -> int | None:
    """Return the CPUs of a private Ray: enough for the actors that were asked for; None for those of the machine."""
    if options.actors is None:
        return None
    return max(len(os.sched_getaffinity(0)), options.actors * (options.threads or 1))


def _check_apart(found: BulkInput, storage: Storage, path: str) -> None:
    """Raise InputError if a source is in the folder of the results, or below it: `overwrite` removes what is there."""
    folder = Path(path)
    if not storage.is_remote:
        folder = folder.resolve()
    for source, place in found.folders():
        file = Path(place) if source.is_remote else Path(place).resolve()
        if is_one_file_system(source, storage) and file.is_relative_to(folder):
            raise InputError(
                f"sources are in it or below it, in {source.spell(str(file))}; expected a folder apart from them",
                subject=storage.spell(path),
                remedy="Choose another {out}",
                settings={"out": ...},
            )
