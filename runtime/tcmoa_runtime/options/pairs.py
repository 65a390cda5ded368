"""Options that name pairs of source images, for every command that takes pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.option import Option

PAIRS_GROUP: Final = "Source pairs"
PAIRS_METAVAR: Final = "DIR|FILE.csv"

XPattern: TypeAlias = Annotated[
    str | None,
    Option(
        "Names of the first sources, if they differ from the second ones in more than _x and _y. Files of one {id} "
        "are a pair; * is any text, and / a folder.",
        group=PAIRS_GROUP,
        metavar="'VIS{id}.png'",
    ),
]
YPattern: TypeAlias = Annotated[
    str | None, Option("Names of the second sources.", group=PAIRS_GROUP, metavar="'IR{id}.png'")
]


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """Where pairs of source images are: one folder, two folders, or a table; `tcmoa_runtime.pairs` finds them."""

    pairs: Annotated[
        Path | None,
        Option(
            "Folder of pairs NAME_x.EXT and NAME_y.EXT, or a CSV file with the columns x,y or x,y,name and paths "
            "relative to it.",
            group=PAIRS_GROUP,
            metavar=PAIRS_METAVAR,
            is_subject=False,
        ),
    ] = None
    x: Annotated[
        Path | None,
        Option(
            "Folder of the first sources, in place of a folder of pairs.", group=PAIRS_GROUP, metavar="DIR"
        ),
    ] = None
    y: Annotated[
        Path | None,
        Option(
            "Folder of the second sources, with the names of the first ones.",
            group=PAIRS_GROUP,
            metavar="DIR",
        ),
    ] = None
    x_pattern: XPattern = None
    y_pattern: YPattern = None

    @property
    def has_pairs(self) -> bool:
        """Whether any option is given."""
        return any(
            value is not None for value in (self.pairs, self.x, self.y, self.x_pattern, self.y_pattern)
        )

    def check_pairs(self) -> None:
        """Check that the options name pairs in one way.

        Raises:
            InputError: None is given, or they do not belong together.
        """
        given = [name for name in ("pairs", "x", "y") if getattr(self, name) is not None]
        if given not in (["pairs"], ["x", "y"]):
            text = " and ".join("{" + name + "}" for name in given)
            raise InputError(
                "none given; expected a folder, a CSV file or two folders"
                if not given
                else f"{len(given)} of three options given; expected one folder or CSV file, or two folders",
                subject="source pairs",
                remedy="Set {pairs}, or {x} and {y}" + (f", instead of {text}" if given else ""),
                settings={"pairs": ..., "x": ..., "y": ...},
            )
        check_patterns(self.x_pattern, self.y_pattern)


def check_patterns(x_pattern: str | None, y_pattern: str | None) -> None:
    """Raise InputError when only one of the two patterns is given."""
    if (x_pattern is None) != (y_pattern is None):
        alone, missing = ("y_pattern", "x_pattern") if x_pattern is None else ("x_pattern", "y_pattern")
        raise InputError(
            "given alone; expected a pattern for each of the two sources",
            subject=alone,
            remedy="Set {" + missing + "} too",
            settings={missing: ...},
        )
