"""`tcmoa calibrate prompt`: alpha and beta of Eq. 8 for a task that the model was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcmoa_runtime.cli.calibrate.shared import OutOption, check_picture, print_note, print_skipped
from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.options import (
    BundleArgument,
    JsonOption,
    TextForm,
    flag_of,
    parse_number,
    takes_options,
)
from tcmoa_runtime.cli.printing import print_json, print_line
from tcmoa_runtime.cli.progress import counted_bar
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.pairs import PairOptions
from tcmoa_runtime.options.prompt_search import PromptSearchOptions
from tcmoa_runtime.pairs import find_source_pairs

if TYPE_CHECKING:
    from tcmoa_calibration.prompt import PromptCalibrationResult


def _parse_range(text: str) -> tuple[float, float]:
    """Parse LOW:HIGH."""
    parts = text.split(":")
    if len(parts) != 2:
        raise InputError(f"{text!r}; expected LOW:HIGH, e.g. 0.5:1.5")
    return parse_number(parts[0]), parse_number(parts[1])


def _format_range(value: Any) -> str:
    return f"{value[0]:g}:{value[1]:g}"


_RANGE = TextForm(_parse_range, _format_range, "LOW:HIGH")


@takes_options(PairOptions, name="source")
@takes_options(PromptSearchOptions, forms={"scale_range": _RANGE, "shift_range": _RANGE})
def prompt(
    options: PromptSearchOptions,
    source: PairOptions,
    bundle: BundleArgument,
    out: OutOption,
    surface: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Draw the objective over alpha and beta.", rich_help_panel="Output"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search the default prompt that fuses sample pairs best, and write it into a new bundle.

    Alpha and beta are searched on two thirds of the pairs. If they are no better than the bundle's default on the
    held-out pairs, no bundle is written (exit code 2). `tcmoa export --routers` selects the routers.

    Examples:

        tcmoa calibrate prompt night --pairs medical -o medical --objective Qabf+0.5*SSIM --surface surface.png
    """
    module = require("tcmoa_calibration.prompt", "calibrate prompt", "calibration")
    found = find_source_pairs(source)
    if surface is not None:
        check_picture(surface, "--surface", found)
    with counted_bar("prompt") as (_, on_progress):
        result: PromptCalibrationResult = module.calibrate_prompt(
            bundle, found, out, options, surface=surface, on_progress=on_progress
        )
    search = result.search
    print_skipped(search.pairs.skipped)
    for name in search.at_border:
        print_note(f"the best prompt is at an end of {flag_of(name)}; a wider range may contain a better one")
    if not search.gain.excludes_zero:
        print_note(
            f"the gain is not significant on {len(search.pairs.held_out)} held-out pairs; use more pairs"
        )
    if as_json:
        print_json(result.to_json())
        return
    print_line(f"{out}: {search.describe()}")
