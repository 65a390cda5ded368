"""Choices of `tcmoa calibrate align`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from tcmoa_runtime.alignment import MotionModel
from tcmoa_runtime.options.option import Option, check_choices, check_minimum
from tcmoa_runtime.typing import SourceName

MIN_PAIRS: Final = 4
"""Pairs that an alignment needs: each fold of the cross-validation holds at least one."""


@dataclass(frozen=True, kw_only=True)
class AlignOptions:
    """How an alignment is estimated from sample pairs."""

    move: Annotated[SourceName, Option("Source that is moved onto the other.", group="Estimate")] = "y"
    model: Annotated[
        Literal["auto", MotionModel],
        Option(
            "Motion model. auto takes the simplest whose score on held-out pairs is within one standard error "
            "of the best.",
            group="Estimate",
        ),
    ] = "auto"
    replace: Annotated[
        bool,
        Option("Accept a bundle that has an alignment, and estimate a new one.", group="Estimate"),
    ] = False
    max_pairs: Annotated[
        int, Option("Number of pairs to use at most.", group="Source pairs", metavar="N")
    ] = 32
    seed: Annotated[int, Option("Seed of the choice of pairs.", group="Source pairs", metavar="N")] = 0
    overwrite: Annotated[bool, Option("Replace an existing bundle.", group="Output")] = False

    def __post_init__(self) -> None:
        """Check every field by itself.

        Raises:
            InputError: A field is out of range; the subject is its name.
        """
        check_choices(self)
        check_minimum("max_pairs", self.max_pairs, MIN_PAIRS)
        check_minimum("seed", self.seed, 0)
