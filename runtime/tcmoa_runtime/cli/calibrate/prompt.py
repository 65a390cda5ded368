"""`tcmoa calibrate prompt`: alpha and beta of Eq. 8 for a task that the model was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.calibrate.options import AsJson, BundlePath, Out, Overwrite, Pairs, X, Y, sample_pairs
from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.progress import console, counted_bar, print_json
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.prompts import parse_number

if TYPE_CHECKING:
    from tcmoa_calibration.prompt_search import PromptCalibration


def prompt(
    bundle: BundlePath,
    out: Out,
    pairs: Pairs = None,
    x: X = None,
    y: Y = None,
    objective: Annotated[
        str,
        typer.Option(
            metavar="METRICS",
            help="What to maximise: a metric of `tcmoa evaluate`, or a sum as Qabf+0.5*SSIM. MSE, RMSE, CE and Qcv, "
            "of which less is better, count against.",
        ),
    ] = "Qabf",
    scale_range: Annotated[
        str, typer.Option(metavar="LOW:HIGH", help="Where to search alpha, within -16:16.")
    ] = "0.5:1.5",
    shift_range: Annotated[
        str, typer.Option(metavar="LOW:HIGH", help="Where to search beta, within -16:16.")
    ] = "-0.5:0.5",
    grid: Annotated[int, typer.Option(help="Values of alpha and of beta that are tried first.")] = 5,
    rounds: Annotated[int, typer.Option(help="How often the step around the best is then halved.")] = 2,
    most: Annotated[int, typer.Option(help="Pairs to use at most; a third of them is held out.")] = 24,
    seed: Annotated[int, typer.Option(help="Chooses the pairs, and those held out.")] = 0,
    backend: Annotated[
        str, typer.Option(help="What runs the bundle: onnxruntime, openvino, tensorrt, ...")
    ] = "onnxruntime",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores when not given.")] = None,
    surface: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the objective over alpha and beta.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Search the default prompt that fuses sample pairs best, and write it into a new bundle.

    Alpha and beta are searched on two thirds of the pairs. Where they do no better than the bundle's own default on
    the pairs held out, no bundle is written (exit code 2). Routers are chosen by `tcmoa export --routers`.
    """
    module = require("tcmoa_calibration.prompt_search", "calibrate prompt", "calibration")
    opened = Bundle.open(bundle)
    ranges = _range(scale_range, "--scale-range"), _range(shift_range, "--shift-range")
    found = sample_pairs(pairs, x, y)
    with counted_bar("searching") as (_, progress):
        calibration: PromptCalibration = module.calibrate_prompt(
            opened,
            found,
            out,
            objective=objective,
            scale_range=ranges[0],
            shift_range=ranges[1],
            grid=grid,
            rounds=rounds,
            most=most,
            seed=seed,
            backend=backend,
            threads=threads,
            surface=surface,
            overwrite=overwrite,
            progress=progress,
        )
    search = calibration.search
    for line in search.samples.skipped:
        _note(f"left out: {line}")
    for name in search.at_border:
        _note(f"the best {name} lies at an end of --{name}-range: a wider range may hold a better one")
    if not search.gain.excludes_zero:
        _note("the difference is not certain on so few or so different pairs: more of them tell")
    if as_json:
        print_json(calibration.to_json())
        return
    held = search.to_json()["held_out"]
    print(
        f"{out}: {search.best} instead of {search.default}; {search.objective.text} "
        f"{held['before']:.5g} -> {held['after']:.5g} on {module.told_pairs(search.samples.held)} held out, "
        f"difference {module.told_gain(search.gain)}"
    )


def _range(text: str, name: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    if not colon or ":" in high:
        raise InputError(f"{name} is {text!r}: expected LOW:HIGH, as 0.5:1.5")
    return parse_number(low, name), parse_number(high, name)


def _note(text: str) -> None:
    console.print(f"tcmoa: note: {text}", markup=False, soft_wrap=True)
