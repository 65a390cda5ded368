"""`tcmoa calibrate align`: a bundle that brings two fixed cameras together, from sample pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcmoa_runtime.alignment import MODELS
from tcmoa_runtime.cli.calibrate.options import AsJson, BundlePath, Out, Overwrite, Pairs, X, Y, sample_pairs
from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.progress import console, print_json, status_line
from tcmoa_runtime.errors import InputError

if TYPE_CHECKING:
    from tcmoa_calibration.alignment import Aligned

_TOLD = 5
"""Left-out pairs that are told about one by one."""


def align(
    bundle: BundlePath,
    out: Out,
    pairs: Pairs = None,
    x: X = None,
    y: Y = None,
    move: Annotated[str, typer.Option(metavar="x|y", help="The source that is moved onto the other.")] = "y",
    model: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(MODELS[1:])}, or auto: the simplest that pairs held out cannot tell from the best."
        ),
    ] = "auto",
    most: Annotated[int, typer.Option("--most", metavar="N", min=4, help="Use at most so many pairs.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the pairs, and what is held out when.")] = 0,
    preview: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the edges of x in red and y in cyan, before and after."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="The bundle aligns already: forget that and estimate anew.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Align two fixed cameras: estimate from sample pairs how one source lies to the other, and let the bundle move it.

    All pairs share one matrix, so the scene should be some way off, or the cameras close together. `fuse` and `stream`
    apply it by themselves (about 1 ms a frame of 640x480). Pairs that do not tell it to 1.5 pixels are refused.
    """
    alignment = require("tcmoa_calibration.alignment", "calibrate align", "calibration")
    if preview is not None and preview.suffix.lower() != ".png":
        raise InputError(f"--preview is {preview}: expected the name of a .png file")
    found = sample_pairs(pairs, x, y)
    with status_line("aligning") as say:
        result: Aligned = alignment.calibrate_alignment(
            bundle,
            found,
            out,
            move=move,
            model=None if model == "auto" else model,
            most=most,
            seed=seed,
            replace=replace,
            overwrite=overwrite,
            preview=preview,
            say=say,
        )
    if as_json:
        print_json(result.to_json())
        return
    for line in result.skipped[:_TOLD]:
        console.print(f"tcmoa: left out {line}", markup=False, soft_wrap=True)
    lines = _rows(result) + ([] if preview is None else [("preview", str(preview))])
    width = max(len(label) for label, _ in lines)
    for label, value in lines:
        print(f"{label:<{width}}  {value}")


def _rows(result: Aligned) -> list[tuple[str, str]]:
    found, estimate = result.estimate.alignment, result.estimate
    left_out = f", {len(result.skipped)} left out" if result.skipped else ""
    moves = f"{found.source} by {estimate.shift_px:.2f} pixels on average, {found.model}"
    if estimate.already_aligned:
        moves = "nothing: the pairs are aligned already, the bundle leaves them as they are"
    others = ", ".join(f"{name} {score:.3f}" for name, score in estimate.scores.items())
    return [
        ("bundle", str(result.bundle.path)),
        ("moves", moves),
        (
            "sure to",
            f"{found.residual_px:.2f} pixels (RMS over the frame, from estimates that leave pairs out)",
        ),
        (
            "edges",
            f"correlation {found.score_before:.3f} before, {found.score_after:.3f} after, on pairs held out",
        ),
        ("models", f"{others}, at the size at which they were compared"),
        ("pairs", f"{found.pairs}{left_out}"),
    ]
