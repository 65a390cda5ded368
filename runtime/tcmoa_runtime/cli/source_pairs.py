"""Options that name pairs of source images, for `tcmoa calibrate` and `tcmoa evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.pairs import PairPaths, find_pairs

_GROUP = "Source pairs"

PairsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of the pairs NAME_x.EXT and NAME_y.EXT.",
        rich_help_panel=_GROUP,
        show_default=False,
    ),
]
XOption = Annotated[
    Path | None,
    typer.Option(
        "--x",
        metavar="DIR",
        help="Instead of `--pairs`: folder of the first sources.",
        rich_help_panel=_GROUP,
        show_default=False,
    ),
]
YOption = Annotated[
    Path | None,
    typer.Option(
        "--y",
        metavar="DIR",
        help="Folder of the second sources, with the names of the first ones.",
        rich_help_panel=_GROUP,
        show_default=False,
    ),
]


def find_source_pairs(pairs: Path | None, x: Path | None, y: Path | None) -> list[PairPaths]:
    """Find the pairs of `--pairs`, or of `--x` and `--y`; raises InputError unless one of the two is given."""
    if x is not None and y is not None and pairs is None:
        return find_pairs(x, y)
    if pairs is not None and x is None and y is None:
        return find_pairs(pairs)
    given = [f"--{name}" for name, value in (("pairs", pairs), ("x", x), ("y", y)) if value is not None]
    raise InputError(
        f"{' and '.join(given) or 'no folder'} given; expected --pairs DIR, or --x DIR and --y DIR",
        subject="source pairs",
    )
