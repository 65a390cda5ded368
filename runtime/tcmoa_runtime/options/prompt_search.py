"""Choices of `tcmoa calibrate prompt`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from tcmoa_runtime.contract import MAX_PROMPT
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.fuser import TRUST_ENGINES_HELP
from tcmoa_runtime.options.option import Option, check_choices, check_minimum, check_range
from tcmoa_runtime.typing import BackendChoice, FitMode

Range = tuple[float, float]
"""(low, high)."""

MIN_PAIRS: Final = 4
"""Pairs that a search needs: one of them is held out."""
MAX_GRID: Final = 33
MAX_ROUNDS: Final = 8

_SEARCH, _PAIRS, _BACKEND = "Search", "Source pairs", "Backend"


@dataclass(frozen=True, kw_only=True)
class PromptSearchOptions:
    """What a search for the default prompt maximizes, and where it searches."""

    objective: Annotated[
        str,
        Option(
            "What to maximize: a metric of `tcmoa evaluate`, or a sum, e.g. Qabf+0.5*SSIM. MSE, RMSE, CE and Qcv, "
            "for which less is better, are always subtracted.",
            group=_SEARCH,
            metavar="METRICS",
        ),
    ] = "Qabf"
    scale_range: Annotated[
        Range,
        Option(f"Values of alpha to search, within -{MAX_PROMPT:g}:{MAX_PROMPT:g}.", group=_SEARCH),
    ] = (0.5, 1.5)
    shift_range: Annotated[
        Range,
        Option(f"Values of beta to search, within -{MAX_PROMPT:g}:{MAX_PROMPT:g}.", group=_SEARCH),
    ] = (-0.5, 0.5)
    grid: Annotated[
        int, Option(f"Values of alpha and of beta in the first round, 2 to {MAX_GRID}.", group=_SEARCH)
    ] = 5
    rounds: Annotated[
        int,
        Option(
            f"Further rounds, 0 to {MAX_ROUNDS}; each tries the neighbors of the best at half the step.",
            group=_SEARCH,
        ),
    ] = 2
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
    seed: Annotated[int, Option("Seed of the choice of pairs.", group=_PAIRS, metavar="N")] = 0
    backend: Annotated[BackendChoice, Option("What runs the graph.", group=_BACKEND)] = "onnxruntime"
    threads: Annotated[int | None, Option("CPU threads; all cores if not given.", group=_BACKEND)] = None
    trust_engines: Annotated[bool, Option(TRUST_ENGINES_HELP, group=_BACKEND)] = False
    overwrite: Annotated[bool, Option("Replace an existing bundle.", group="Output")] = False

    def __post_init__(self) -> None:
        """Check every field by itself, but for the metrics of `objective`.

        Raises:
            InputError: A field is out of range; the subject is its name.
        """
        check_choices(self)
        _check_prompt_range("scale_range", self.scale_range)
        _check_prompt_range("shift_range", self.shift_range)
        check_range("grid", self.grid, 2, MAX_GRID)
        check_range("rounds", self.rounds, 0, MAX_ROUNDS)
        check_minimum("max_pairs", self.max_pairs, MIN_PAIRS)
        check_minimum("seed", self.seed, 0)
        if self.threads is not None:
            check_minimum("threads", self.threads, 1)


def _check_prompt_range(subject: str, ends: Range) -> None:
    low, high = ends
    if low > high:
        raise InputError(f"{low:g}:{high:g} is reversed; expected the lower end first", subject=subject)
    if not -MAX_PROMPT <= low <= high <= MAX_PROMPT:  # refuses NaN too
        raise InputError(
            f"{low:g}:{high:g}; expected a range within {-MAX_PROMPT:g}:{MAX_PROMPT:g}", subject=subject
        )
