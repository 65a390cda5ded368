"""Fusing units on Ray Data, again and again until each has a result.

A unit whose process or node dies has none. Ray Data would give it to the same actor once more, which waits for a place
on another node, and forever if a picture kills every process that decodes it. So a unit is not tried again in one pass:
what came without a result goes into the next pass, one pair at a time, and a pair whose process died each time is
reported like any other that cannot be fused.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from tcmoa_runtime.bulk.file_systems import open_storage
from tcmoa_runtime.bulk.tar_samples import count_samples
from tcmoa_runtime.bulk.units import PairFailure, PairSlice, Shard, Unit, UnitResult
from tcmoa_runtime.bulk.worker import (
    INDEX_COLUMN,
    RESULT_COLUMN,
    UNIT_COLUMN,
    BulkWorker,
    WorkerSettings,
    pack_unit,
)
from tcmoa_runtime.cluster.environment import is_debugging
from tcmoa_runtime.errors import InputError, TcmoaError, first_line
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.log_output import show_log_of_worker

if TYPE_CHECKING:
    import pyarrow

MAX_LOSSES: Final = 3
"""How often the process of a pair may die before the pair is reported: with others in a slice, then alone."""
MAX_ALL_LOST: Final = 8
"""If more units than this are lost, and all of them, it is not the fault of their pictures."""
_TASKS_PER_ACTOR: Final = 2
"""One in work and one waiting, so that an actor does not wait for the driver."""

_log = get_logger("bulk")


@dataclass(frozen=True)
class PoolSize:
    """The pool of actors.

    Attributes:
        num_actors: How many.
        cpus: Logical CPUs of each.
        gpus: GPUs of each.
    """

    num_actors: int
    cpus: float
    gpus: float


def run_passes(
    units: Sequence[Unit], settings: WorkerSettings, pool: PoolSize
) -> Iterator[tuple[Unit, UnitResult]]:
    """Yield the result of each unit as it comes.

    Raises:
        TcmoaError: Ray fails.
    """
    pending: Sequence[Unit] = units
    losses: dict[Unit, int] = {}
    while pending:
        lost = set(range(len(pending)))
        for index, result in _run_pass(pending, settings, pool):
            if index in lost:  # not the copy of a result that Ray made again
                lost.remove(index)
                yield pending[index], result
        if not lost:
            return
        if len(lost) == len(pending) > MAX_ALL_LOST and not losses:
            raise TcmoaError(
                f"the processes of all {len(pending)} units ended before a result came; expected them to stay alive",
                subject="Ray",
                remedy="Look at the memory of the nodes, and use fewer {actors}",
                settings={"actors": ...},
            )
        _log.warning(
            "the processes of %d units ended before their results came; fusing them again",
            len(lost),
            extra={"event": "units-lost", "count": len(lost)},
        )
        again: list[Unit] = []
        for unit in (pending[index] for index in sorted(lost)):
            losses[unit] = losses.get(unit, 0) + 1
            if losses[unit] >= MAX_LOSSES:
                yield unit, UnitResult(failures=[_lost(unit)])
                continue
            pieces = _split(unit, settings)
            losses |= dict.fromkeys(pieces, losses[unit])
            again += pieces
        pending = again
        settings = replace(settings, is_resumed=True)  # some may have been written before the process died


class PassesActor:
    """Leads a run from a node, for a program that is connected by `ray://`: Ray Data needs a process of the cluster."""

    def __init__(self, units: Sequence[Unit], settings: WorkerSettings, pool: PoolSize) -> None:
        """Take what `run_passes` takes."""
        show_log_of_worker()
        self._results = run_passes(units, settings, pool)

    def take(self) -> tuple[Unit, UnitResult] | TcmoaError | None:
        """Return the next result, an error that ends the run, or None after the last one."""
        try:
            return next(self._results, None)
        except TcmoaError as error:
            return error


def run_passes_there(
    units: Sequence[Unit], settings: WorkerSettings, pool: PoolSize
) -> Iterator[tuple[Unit, UnitResult]]:
    """Yield the result of each unit like `run_passes`, which runs in an actor of the cluster.

    Raises:
        TcmoaError: As `run_passes`, or the node of the actor died.
    """
    import ray

    leader: Any = ray.remote(PassesActor).options(num_cpus=0).remote(units, settings, pool)
    try:
        while True:
            taken: tuple[Unit, UnitResult] | TcmoaError | None = ray.get(leader.take.remote())
            if taken is None:
                return
            if isinstance(taken, TcmoaError):
                raise taken
            yield taken
    except ray.exceptions.RayError as error:
        raise TcmoaError(
            f"the process that led the run ended: {first_line(error, 200)}",
            subject="Ray",
            remedy="Run the same command to continue",
        ) from error


def _split(unit: Unit, settings: WorkerSettings) -> list[Unit]:
    """Return the pairs of a unit one by one; the unit itself if that is one pair, or cannot be read."""
    if isinstance(unit, Shard) and unit.num_samples is None:
        storage, _ = open_storage(settings.sources[0])
        with contextlib.suppress(InputError), storage.open(unit.path) as file:
            unit = replace(unit, num_samples=count_samples(file, unit.path))
    return unit.split() if len(unit) > 1 else [unit]


def _lost(unit: Unit) -> PairFailure:
    names = (
        (unit.names[0], unit.xs[0], unit.ys[0]) if isinstance(unit, PairSlice) else (unit.part, unit.path, "")
    )
    return PairFailure(
        *names,
        TcmoaError(
            f"the process that fused it ended {MAX_LOSSES} times; expected it to stay alive",
            subject=names[1],
            remedy="Look at the file, and at the memory of the nodes",
        ),
    )


def _run_pass(
    units: Sequence[Unit], settings: WorkerSettings, pool: PoolSize
) -> Iterator[tuple[int, UnitResult]]:
    import ray
    from ray.data import ActorPoolStrategy

    size = min(pool.num_actors, len(units))
    with _ray_data_settings():
        # A block for each unit: Ray Data's own repartition of a million rows takes minutes.
        blocks = [ray.put(block_of(index, unit)) for index, unit in enumerate(units)]
        dataset = ray.data.from_arrow_refs(cast("Any", blocks))
        results = dataset.map_batches(
            BulkWorker,
            fn_constructor_args=(settings,),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=1,
                max_size=size,
                initial_size=size,
                max_tasks_in_flight_per_actor=_TASKS_PER_ACTOR,
            ),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            scheduling_strategy="SPREAD",
            max_restarts=-1,
            max_task_retries=0,
        )
        for batch in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            rows = cast("pyarrow.Table", batch).select([INDEX_COLUMN, RESULT_COLUMN]).to_pylist()
            for row in rows:
                yield row[INDEX_COLUMN], pickle.loads(row[RESULT_COLUMN])


@contextlib.contextmanager
def _ray_data_settings() -> Iterator[None]:
    """Let Ray Data print nothing, and go on without the units whose process died."""
    import ray
    from ray.data import DataContext

    if not is_debugging():  # Ray Data sets up its log when it is imported
        logging.getLogger("ray.data").setLevel(logging.CRITICAL + 1)
    settings = {"enable_progress_bars": False, "print_on_execution_start": False, "max_errored_blocks": -1}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"ray\.")  # about Ray's own use of what it deprecates
        # Ray 2.64 will take these settings away, and has no others for them yet.
        warnings.filterwarnings("ignore", message=".*ray_remote_args")
        context = DataContext.get_current()
        previous = {name: getattr(context, name) for name in settings}
        try:
            for name, value in settings.items():
                setattr(context, name, value)
            yield
        except ray.exceptions.RayError as error:
            raise TcmoaError(f"stopped: {first_line(error, 200)}", subject="Ray Data") from error
        finally:
            for name, value in previous.items():
                setattr(context, name, value)


def block_of(index: int, unit: Unit) -> pyarrow.Table:
    """Return a unit with its number as the block of one row that an actor takes."""
    import pyarrow

    return pyarrow.table(
        {INDEX_COLUMN: [index], UNIT_COLUMN: pyarrow.array([pack_unit(unit)], pyarrow.binary())}
    )
