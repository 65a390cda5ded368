"""Columns of Arrow for what an archive holds a million of: 25 to 50 bytes for a name, where Python takes 70 to 300."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow

UNKNOWN_TIME: Final = np.iinfo(np.int64).min
"""In place of null in arrays of numpy: before every time."""
_CHUNK_ROWS: Final = 1 << 16


def encode_name(name: str) -> bytes:
    """Return a name as it is in columns: its bytes, which need not be UTF-8 on a disk."""
    return name.encode("utf-8", "surrogateescape")


def decode_name(data: bytes) -> str:
    """Return the name that `encode_name` made bytes of."""
    return data.decode("utf-8", "surrogateescape")


def time_numbers(times: pyarrow.ChunkedArray) -> NDArray[np.int64]:
    """Return times as numbers, `UNKNOWN_TIME` for null."""
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(times, UNKNOWN_TIME), np.int64)


class ColumnsBuilder:
    """Collects rows of names and times, of which only some ten thousand are objects of Python."""

    def __init__(self, num_names: int, num_times: int) -> None:
        """Take the number of columns of each kind; names come first in a row."""
        self._num_names, self._num_columns = num_names, num_names + num_times
        self._rows: list[tuple[bytes | int | None, ...]] = []
        self._chunks: list[list[pyarrow.Array]] = [[] for _ in range(self._num_columns)]

    def add(self, *row: bytes | int | None) -> None:
        """Add a row; the time of what has none is None."""
        self._rows.append(row)
        if len(self._rows) == _CHUNK_ROWS:
            self._flush()

    def finish(self) -> list[pyarrow.ChunkedArray]:
        """Return the columns: large_binary for names, int64 for times."""
        import pyarrow

        self._flush()
        types = self._types()
        return [pyarrow.chunked_array(chunks, kind) for chunks, kind in zip(self._chunks, types, strict=True)]

    def _types(self) -> list[pyarrow.DataType]:
        import pyarrow

        is_name = [index < self._num_names for index in range(self._num_columns)]
        return [pyarrow.large_binary() if name else pyarrow.int64() for name in is_name]

    def _flush(self) -> None:
        import pyarrow

        if not self._rows:
            return
        for chunks, kind, cells in zip(
            self._chunks, self._types(), zip(*self._rows, strict=True), strict=True
        ):
            chunks.append(pyarrow.array(cells, kind))
        self._rows.clear()
