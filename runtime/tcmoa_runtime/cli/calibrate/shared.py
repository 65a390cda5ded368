"""What the commands of `tcmoa calibrate` share besides the source pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tcmoa_runtime.cli.printing import print_line, print_report
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import check_writable
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.source_files import SourceFiles

OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Folder of the new bundle.", rich_help_panel="Output")
]

_MAX_SKIPPED_SHOWN = 5


def check_picture(path: Path, flag: str, pairs: Sequence[PairPaths]) -> None:
    """Raise InputError unless `path` is a .png file that can be written and no source of `pairs`.

    `flag` is the option that names it.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}; expected the name of a .png file", subject=flag)
    SourceFiles(source for pair in pairs for source in (pair.x, pair.y)).check(
        check_writable(path), option=flag.removeprefix("--")
    )


def print_skipped(skipped: Sequence[str]) -> None:
    """Print why pairs were skipped on stderr, the first few of them."""
    for line in skipped[:_MAX_SKIPPED_SHOWN]:
        print_note(f"skipped {line}")
    if len(skipped) > _MAX_SKIPPED_SHOWN:
        print_note(f"skipped {len(skipped) - _MAX_SKIPPED_SHOWN} more pairs")


def print_note(text: str) -> None:
    """Print a note on stderr."""
    print_report("note", text)


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print labels and values in two columns."""
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print_line(f"{label:<{width}}  {value}")
