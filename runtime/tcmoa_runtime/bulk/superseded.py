"""Results in files with many that are there twice, as a newer file has them too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.bulk.columns import UNKNOWN_TIME, decode_name, time_numbers
from tcmoa_runtime.bulk.result_listing import ResultColumns
from tcmoa_runtime.bulk.units import PIECE_MARK, PairSlice, Unit

_OF_SLICE: Final = re.compile(rf"part-[0-9a-f]{{16}}({PIECE_MARK}[^/]*)?")


@dataclass(frozen=True)
class Superseded:
    """Results of pairs that have a newer one, too.

    Attributes:
        whole: Names of the files that hold no others.
        partly: Names of their pairs by those files that do.
    """

    whole: list[str] = field(default_factory=list)
    partly: dict[str, set[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.whole or self.partly)


def find_superseded(results: ResultColumns, units: Sequence[Unit] | None) -> Superseded:
    """Find the results in files with many that a newer result of their pair replaces.

    Args:
        results: The results that are there.
        units: The rows or samples that the run reads: results of one source file are compared, and of these only those
            older than it with the others, as rows may have one name. None for image files, whose results are compared
            in the files of all slices.
    """
    import pyarrow

    superseded = Superseded()
    if results.parts is None or not len(results.names):
        return superseded
    times, parts = time_numbers(results.times), np.asarray(results.parts)
    codes = results.name_codes()
    if units is None:
        is_of_run = np.array([_OF_SLICE.fullmatch(_stem(part)) is not None for part in results.part_names])
        is_known = is_of_run[parts] & (times != UNKNOWN_TIME)
        newest = np.full(codes.max() + 1, UNKNOWN_TIME)
        np.maximum.at(newest, codes[is_known], times[is_known])
        threshold = newest[codes]
    else:
        sources, changed = _sources_of(results.part_names, units)
        is_known = (sources >= 0)[parts] & (times != UNKNOWN_TIME)
        codes = codes * (sources.max() + 2) + sources[parts]
        threshold = changed[parts]
    is_current = is_known & (times >= threshold)
    rows = np.flatnonzero(is_known & ~is_current & np.isin(codes, codes[is_current]))
    num_results, num_superseded = (
        np.bincount(of, minlength=len(results.part_names)) for of in (parts, parts[rows])
    )
    is_whole = num_results == num_superseded
    for part in np.unique(parts[rows]).tolist():
        name = results.part_names[part]
        if is_whole[part]:
            superseded.whole.append(name)
        else:
            names = results.names.take(pyarrow.array(rows[parts[rows] == part])).to_pylist()
            superseded.partly[name] = set(map(decode_name, names))
    return superseded


def _sources_of(
    part_names: Sequence[str], units: Sequence[Unit]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of the source file of each file of results, -1 for that of another run, and its time."""
    numbers: dict[str, int] = {}
    sources: dict[str, tuple[int, int]] = {}
    for unit in units:
        if not isinstance(unit, PairSlice):
            time = UNKNOWN_TIME if unit.modified_ns is None else unit.modified_ns
            sources[unit.part] = numbers.setdefault(unit.path, len(numbers)), time
    found = []
    for name in part_names:
        part = _stem(name)
        while part and part not in sources:  # a piece of a unit; a unit's own name may have the mark
            part = part.rpartition(PIECE_MARK)[0]
        found.append(sources.get(part, (-1, UNKNOWN_TIME)))
    table = np.array(found, np.int64)
    return table[:, 0], table[:, 1]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
