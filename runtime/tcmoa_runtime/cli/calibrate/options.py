"""What the commands of `tcmoa calibrate` share: options, and the pairs that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.pairs import PairPaths, find_pairs

BundlePath = Annotated[Path, typer.Argument(help="The bundle.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle.")]
Pairs = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Sources: NAME_x.EXT and NAME_y.EXT in one folder.")
]
X = Annotated[
    Path | None, typer.Option("--x", metavar="DIR", help="Or the first sources in a folder of their own,")
]
Y = Annotated[Path | None, typer.Option("--y", metavar="DIR", help="and the second ones, of equal names.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is at --out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def sample_pairs(pairs: Path | None, x: Path | None, y: Path | None) -> list[PairPaths]:
    """The pairs of `--pairs`, or of `--x` and `--y`; InputError unless it is one of the two."""
    if x is not None and y is not None and pairs is None:
        return find_pairs(x, y)
    if pairs is not None and x is None and y is None:
        return find_pairs(pairs)
    raise InputError("which pairs? give --pairs DIR, or --x DIR and --y DIR")
