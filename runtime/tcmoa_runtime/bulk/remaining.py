"""What an earlier run has left to do: pairs without a result, and those whose result is older than a source."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.bulk.columns import UNKNOWN_TIME, time_numbers
from tcmoa_runtime.bulk.pair_columns import PairColumns, SourceColumns
from tcmoa_runtime.bulk.record import ResultRecord
from tcmoa_runtime.bulk.storage import Storage


@dataclass(frozen=True)
class Remaining:
    """What is left to do of pairs of image files.

    Attributes:
        pairs: The pairs to fuse.
        num_skipped: Pairs whose results are there and are kept.
        num_outdated: Those of them whose results are older than a source.
    """

    pairs: PairColumns
    num_skipped: int
    num_outdated: int


def find_remaining(
    pairs: PairColumns, storages: tuple[Storage, Storage], record: ResultRecord, *, update: bool
) -> Remaining:
    """Find the pairs that have no result; with `update`, also those whose result is older than a source.

    Args:
        pairs: All pairs.
        storages: The file systems of x and y.
        record: Lists the results.
        update: Whether results that are older than a source are to be made again.

    Raises:
        InputError: A file with many results cannot be read.
    """
    import pyarrow.compute as pc

    if record.is_new:
        return Remaining(pairs, 0, 0)
    results = record.results_there().newest()
    rows = pc.index_in(pairs.names, value_set=results.names)
    is_there = np.asarray(pc.is_valid(rows))
    of_results = pc.drop_null(rows)
    times = time_numbers(results.times.take(of_results))
    there = pairs.select(is_there)
    changed = np.maximum(
        *(
            _source_times(source, storage)
            for source, storage in zip((there.x, there.y), storages, strict=True)
        )
    )
    is_old = (times != UNKNOWN_TIME) & (times < changed)
    is_kept = ~is_old if update else np.ones(len(times), bool)
    is_pending = ~is_there
    is_pending[np.flatnonzero(is_there)[~is_kept]] = True
    return Remaining(pairs.select(is_pending), int(is_kept.sum()), int((is_old & is_kept).sum()))


def _source_times(source: SourceColumns, storage: Storage) -> NDArray[np.int64]:
    """Return when each file was changed last: as listed, or, of a disk, as its file system says now."""
    if source.times is not None:
        return time_numbers(source.times)
    if storage.is_remote:
        return np.full(len(source.files), UNKNOWN_TIME)
    return np.fromiter(map(_time_on_disk, source.paths()), np.int64, len(source.files))


def _time_on_disk(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116  # of a million files
    except OSError:  # which the process that reads it will report
        return UNKNOWN_TIME
