"""What an earlier run has left to do: pairs without a result, and those whose result is older than a source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.bulk.columns import decode_name
from tcmoa_runtime.bulk.pair_columns import PairColumns, SourceColumns
from tcmoa_runtime.bulk.record import ResultRecord
from tcmoa_runtime.bulk.storage import Storage
from tcmoa_runtime.bulk.units import PIECE_MARK, PairSlice, Unit, is_outdated

if TYPE_CHECKING:
    import pyarrow

_UNKNOWN: Final = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Remaining:
    """What is left to do of pairs of image files.

    Attributes:
        pairs: The pairs to fuse.
        num_skipped: Pairs whose results are there and are kept.
        num_outdated: Those of them whose results are older than a source.
        outdated_parts: Names of the files with many results, some of them older than a source, that are to be made
            again, each with the results in it whose pairs are no longer among the sources.
    """

    pairs: PairColumns
    num_skipped: int
    num_outdated: int
    outdated_parts: dict[str, list[str]]


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
        return Remaining(pairs, 0, 0, {})
    results = record.results_there()
    rows = pc.index_in(pairs.names, value_set=results.names)
    is_there = np.asarray(pc.is_valid(rows))
    of_results = pc.drop_null(rows)
    times = _numbers(results.times.take(of_results))
    there = pairs.select(is_there)
    changed = np.maximum(
        *(
            _source_times(source, storage)
            for source, storage in zip((there.x, there.y), storages, strict=True)
        )
    )
    is_old = (times != _UNKNOWN) & (times < changed)
    outdated_parts: dict[str, list[str]] = {}
    is_kept = np.ones(len(times), bool)
    if not update:
        pass
    elif results.parts is None:
        is_kept = ~is_old
    else:
        parts = np.asarray(results.parts.take(of_results))
        is_kept = ~np.isin(parts, parts[is_old])
        for part in np.unique(parts[is_old]).tolist():
            in_part = pc.filter(results.names, pc.equal(results.parts, part))
            gone = pc.filter(in_part, pc.invert(pc.is_in(in_part, value_set=pairs.names)))
            outdated_parts[results.part_names[part]] = list(map(decode_name, gone.to_pylist()))
    is_pending = ~is_there
    is_pending[np.flatnonzero(is_there)[~is_kept]] = True
    return Remaining(
        pairs.select(is_pending), int(is_kept.sum()), int((is_old & is_kept).sum()), outdated_parts
    )


def find_outdated_parts(units: Sequence[Unit], record: ResultRecord) -> list[str]:
    """Return the names of files with results of rows or samples that are older than the file of these."""
    sources = {unit.part: unit.modified_ns for unit in units if not isinstance(unit, PairSlice)}

    def source_time(part: str) -> int | None:
        while (
            part and part not in sources
        ):  # a piece of a unit, or one of that; a unit's own name may have the mark
            part = part.rpartition(PIECE_MARK)[0]
        return sources.get(part)

    return [
        name
        for name, modified_ns in record.list_parts()
        if is_outdated(modified_ns, source_time(name.rpartition(".")[0]))
    ]


def _source_times(source: SourceColumns, storage: Storage) -> NDArray[np.int64]:
    """Return when each file was changed last: as listed, or, of a disk, as its file system says now."""
    if source.times is not None:
        return _numbers(source.times)
    if storage.is_remote:
        return np.full(len(source.files), _UNKNOWN)
    return np.fromiter(map(_time_on_disk, source.paths()), np.int64, len(source.files))


def _time_on_disk(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116  # of a million files
    except OSError:  # which the process that reads it will report
        return _UNKNOWN


def _numbers(times: pyarrow.ChunkedArray) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(times, _UNKNOWN), np.int64)
