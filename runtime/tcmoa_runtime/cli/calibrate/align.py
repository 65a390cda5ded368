"""`tcmoa calibrate align`: a bundle that aligns two fixed cameras, from sample pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcmoa_runtime.cli.calibrate.shared import OutOption, check_picture, print_rows, print_skipped
from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.options import BundleArgument, JsonOption, takes_options
from tcmoa_runtime.cli.printing import print_json
from tcmoa_runtime.cli.progress import status_line
from tcmoa_runtime.options.align import AlignOptions
from tcmoa_runtime.options.pairs import PairOptions
from tcmoa_runtime.pairs import find_source_pairs

if TYPE_CHECKING:
    from tcmoa_calibration.align import AlignmentResult


@takes_options(PairOptions, name="source")
@takes_options(AlignOptions)
def align(
    options: AlignOptions,
    source: PairOptions,
    bundle: BundleArgument,
    out: OutOption,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw the edges of x in red and of y in cyan, before and after.",
            rich_help_panel="Output",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Align two fixed cameras: estimate from sample pairs how one source is displaced, and correct it in the bundle.

    One matrix holds for all pairs, so the scene must be distant, or the cameras close to each other. `tcmoa fuse` and
    `tcmoa stream` apply it (about 1 ms for a frame of 640x480). The command fails when the uncertainty exceeds 1.5 px.

    Examples:

        tcmoa calibrate align night --pairs pairs -o night-aligned --move x --preview edges.png
    """
    module = require("tcmoa_calibration.align", "calibrate align", "calibration")
    found = find_source_pairs(source)
    if preview is not None:
        check_picture(preview, "--preview", found)
    with status_line("align") as on_message:
        result: AlignmentResult = module.calibrate_alignment(
            bundle, found, out, options, preview=preview, on_message=on_message
        )
    print_skipped(result.skipped)
    if as_json:
        print_json(result.to_json())
        return
    print_rows(_rows(result) + ([] if preview is None else [("preview", str(preview))]))


def _rows(result: AlignmentResult) -> list[tuple[str, str]]:
    """Return label and value of each line of the report."""
    alignment, estimate = result.estimate.alignment, result.estimate
    skipped = f", {len(result.skipped)} skipped" if result.skipped else ""
    moves = f"{alignment.source} by {estimate.shift_px:.2f} px on average, {alignment.model}"
    if estimate.already_aligned:
        moves = "nothing: the pairs are aligned already"
    models = ", ".join(f"{name} {score:.3f}" for name, score in estimate.scores.items())
    return [
        ("bundle", str(result.bundle.path)),
        ("moves", moves),
        ("uncertainty", f"{alignment.residual_px:.2f} px (jackknife standard error, RMS over the frame)"),
        (
            "correlation",
            f"{alignment.score_before:.3f} before, {alignment.score_after:.3f} after (edges of held-out pairs)",
        ),
        ("models", f"{models} (correlation at reduced size)"),
        ("pairs", f"{alignment.pairs}{skipped}"),
    ]
