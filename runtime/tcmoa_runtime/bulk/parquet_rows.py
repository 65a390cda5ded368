"""Rows of Parquet files: units of some hundred rows, also of row groups of a million, and reading their cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tcmoa_runtime.bulk.storage import Storage
from tcmoa_runtime.bulk.units import RowGroup
from tcmoa_runtime.errors import InputError, first_line

MAX_ROWS: Final = 256
"""Most rows of a unit: its results are in memory until their file is written."""
MAX_GROUP_ROWS: Final = 1 << 24
"""Most rows of a row group; a damaged file may claim any number."""
_BATCH_ROWS: Final = 64
"""Rows that are in memory at once."""


def list_row_groups(storage: Storage, path: str) -> tuple[list[str], list[RowGroup]]:
    """Return the names of the columns of a Parquet file, and its rows as units.

    Raises:
        InputError: It is no Parquet file.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    shown, stem = storage.spell(path), Path(path).stem
    try:
        with storage.open(path) as file, ParquetFile(file) as table:
            names, metadata = list(table.schema_arrow.names), table.metadata
            sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"not a Parquet file: {first_line(error, 200)}", subject=shown) from error
    units: list[RowGroup] = []
    first = 0
    for index, size in enumerate(sizes):
        if size > MAX_GROUP_ROWS:
            raise InputError(f"a row group of {size} rows; expected at most {MAX_GROUP_ROWS}", subject=shown)
        part = f"{stem}-{index:04}"
        if 0 < size <= MAX_ROWS:
            units.append(RowGroup(part, path, index, first, size))
        elif size:
            step = -(-size // -(-size // MAX_ROWS))
            units += [
                RowGroup(f"{part}-{start:08}", path, index, first, size, start, min(start + step, size))
                for start in range(0, size, step)
            ]
        first += size
    return names, units


def read_rows(
    storage: Storage, unit: RowGroup, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number in its row group and the cells of each row of a unit, by those columns that there are.

    Raises:
        InputError: The rows cannot be read.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    stop = unit.num_rows if unit.stop is None else unit.stop
    try:
        with storage.open(unit.path) as file, ParquetFile(file) as table:
            given = [column for column in columns if column in table.schema_arrow.names]
            row = 0
            for batch in table.iter_batches(_BATCH_ROWS, row_groups=[unit.index], columns=given):
                wanted = batch.slice(max(0, unit.start - row), max(0, stop - max(row, unit.start)))
                yield from enumerate(wanted.to_pylist(), max(row, unit.start))
                row += batch.num_rows
                if row >= stop:
                    return
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"cannot be read: {first_line(error, 200)}", subject=storage.spell(unit.path)
        ) from error
