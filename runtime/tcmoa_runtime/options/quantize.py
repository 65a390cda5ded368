"""Choices of `tcmoa calibrate int8` and `tcmoa calibrate fp8`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias, get_args

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.option import Option, check_choices, check_minimum
from tcmoa_runtime.typing import ExportTarget, FitMode

LowPrecision: TypeAlias = Literal["int8", "fp8"]
"""A number format of 8 bits; fp8 is E4M3."""

RangeMethod: TypeAlias = Literal["max", "percentile", "entropy", "mse"]
"""How the range of an activation is chosen."""

RANGE_METHODS: Final[tuple[RangeMethod, ...]] = get_args(RangeMethod)
SMOOTHING_STRENGTHS: Final = (0.0, 0.35, 0.5, 0.65)
"""Strengths that are tried if none is given; 0 is no smoothing."""
DEFAULT_MIN_PSNR_DB: Final = 45.0
MIN_PAIRS: Final = 4
"""Pairs that a calibration needs: one of them is held out."""

_QUALITY, _METHOD, _PAIRS, _OUTPUT = "Quality", "Method", "Source pairs", "Output"


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """How the backbone of a bundle is quantized, and what the image may lose.

    `number_format` has no option of its own: it is the name of the command.
    """

    number_format: LowPrecision = "int8"
    min_psnr: Annotated[
        float | None,
        Option(
            f"Lowest PSNR to float32 on held-out pairs; {DEFAULT_MIN_PSNR_DB:g} if no limit is given.",
            group=_QUALITY,
            metavar="DB",
        ),
    ] = None
    max_qabf_drop: Annotated[
        float | None,
        Option("Largest drop of the mean Qabf on held-out pairs.", group=_QUALITY, metavar="DROP"),
    ] = None
    smoothing: Annotated[
        float | None,
        Option(
            "Strength of SmoothQuant, from 0 (none) to below 1; by default (auto) the best of "
            f"{', '.join(f'{strength:g}' for strength in SMOOTHING_STRENGTHS)}.",
            group=_METHOD,
            metavar="STRENGTH",
        ),
    ] = None
    ranges: Annotated[
        Literal["auto", RangeMethod],
        Option(
            "How the ranges of activations are chosen. max clips nothing; auto clips where that halves the error.",
            group=_METHOD,
        ),
    ] = "auto"
    target: Annotated[
        ExportTarget,
        Option(
            "Where int8 is used. The graph runs everywhere; with gpu engines move 11 to 12 % fewer bytes, and CPUs "
            "compute a twelfth of the products in float32.",
            group=_METHOD,
        ),
    ] = "cpu"
    sensitivity: Annotated[
        bool,
        Option("Measure every half block alone and the whole trade-off, even if not needed.", group=_METHOD),
    ] = False
    fit: Annotated[
        FitMode,
        Option(
            "How pairs of another size than the bundle's become samples: as tiles of both (auto, tile), padded, or "
            "resized; exact and pad skip those that do not fit.",
            group=_PAIRS,
        ),
    ] = "auto"
    max_pairs: Annotated[
        int,
        Option("Number of pairs to use at most; a third of them is held out.", group=_PAIRS, metavar="N"),
    ] = 24
    seed: Annotated[int, Option("Seed of the choice of pairs and tokens.", group=_PAIRS, metavar="N")] = 0
    overwrite: Annotated[bool, Option("Replace an existing bundle.", group=_OUTPUT)] = False

    def __post_init__(self) -> None:
        """Check every field by itself.

        Raises:
            InputError: A field is out of range; the subject is its name.
        """
        check_choices(self)
        if self.smoothing is not None and not 0 <= self.smoothing < 1:
            raise InputError(f"{self.smoothing:g}; expected from 0 (none) to below 1", subject="smoothing")
        check_minimum("max_pairs", self.max_pairs, MIN_PAIRS)
        check_minimum("seed", self.seed, 0)
