"""CSV files of pairs: the columns x,y or x,y,name, with or without a header, paths relative to the file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.regular_file import read_regular_file

TABLE_SUFFIXES: Final = frozenset({".csv", ".tsv", ".txt"})
MAX_TABLE_BYTES: Final = 64 << 20
MAX_NAME_BYTES: Final = 200
"""A name becomes a file name, which may have 255 bytes with its extension and while it is written."""

_COLUMNS: Final = ("x", "y", "name")


def read_table(path: Path) -> list[tuple[str, Path, Path]]:
    """Read name, x and y of each row; a pair without a name has the name of x.

    Raises:
        InputError: The file cannot be read, a row is malformed, or a name is used twice or is no file name.
    """
    try:
        data = read_regular_file(path, max_bytes=MAX_TABLE_BYTES, follow_links=True)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", subject=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"no UTF-8 text at byte {error.start}; expected a CSV file", subject=path) from error
    rows = list(_read_rows(path, text))
    if not rows:
        raise InputError("no pairs; expected rows of x,y or x,y,name", subject=path)
    stems = [_own_name(x) for _, (x, _, name) in rows if not name]
    is_unique = len(set(stems)) == len(stems)
    found: dict[str, tuple[int, Path, Path]] = {}
    for line, (x, y, given) in rows:
        name = given or (_own_name(x) if is_unique else _long_name(x))
        _check_name(path, line, name)
        if name in found:
            raise _wrong_row(
                path,
                line,
                f"the name {name!r} is that of line {found[name][0]} too; expected another one",
                "Give each pair a name in a third column",
            )
        found[name] = (line, path.parent / x, path.parent / y)
    return [(name, x, y) for name, (_, x, y) in found.items()]


def _read_rows(path: Path, text: str) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Yield line number and cells of each row but the header and empty ones."""
    lines = text.splitlines()
    reader = csv.reader(lines, delimiter=_delimiter(lines), strict=True)
    order: Sequence[int] = (0, 1, 2)
    is_first = True
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if not any(row):
                continue
            if is_first and {"x", "y"} <= {cell.lower() for cell in row}:
                header = [cell.lower() for cell in row]
                order = [header.index(name) if name in header else len(header) for name in _COLUMNS]
                is_first = False
                continue
            is_first = False
            yield reader.line_num, _pick(path, reader.line_num, row, order)
    except csv.Error as error:
        raise _wrong_row(path, reader.line_num, f"{error}; expected a row of x,y or x,y,name") from error


def _delimiter(lines: Sequence[str]) -> str:
    first = next((line for line in lines if line.strip()), "")
    return next((delimiter for delimiter in ",\t;" if delimiter in first), ",")


def _pick(path: Path, line: int, row: list[str], order: Sequence[int]) -> tuple[str, str, str]:
    is_headed = tuple(order) != (0, 1, 2)
    if not is_headed and not 2 <= len(row) <= 3:
        raise _wrong_row(path, line, f"{len(row)} columns; expected x,y or x,y,name")
    x, y, name = (row[index] if index < len(row) else "" for index in order)
    if not x or not y:
        raise _wrong_row(path, line, f"no path for {'y' if x else 'x'}; expected two paths")
    if "\0" in x + y:
        raise _wrong_row(path, line, "a path with a NUL character; expected two paths")
    return x, y, name


def _own_name(x: str) -> str:
    return Path(x).stem.removesuffix("_x")


def _long_name(x: str) -> str:
    """Return a name that holds the folders of x, e.g. `bunker-VIS`."""
    path = Path(x).with_suffix("")
    return "-".join(part for part in path.parts if part not in ("..", path.anchor))


def _check_name(path: Path, line: int, name: str) -> None:
    if name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise _wrong_row(path, line, f"the name {name!r}; expected a file name without an extension")
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
        raise _wrong_row(
            path, line, f"a name of {len(name)} characters; expected at most {MAX_NAME_BYTES} bytes"
        )


def _wrong_row(path: Path, line: int, problem: str, remedy: str | None = None) -> InputError:
    return InputError(problem, subject=f"{path}, line {line}", remedy=remedy)
