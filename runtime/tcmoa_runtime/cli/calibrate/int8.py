"""`tcmoa calibrate int8` and `fp8`: a bundle in 8 bits from a float32 one and real pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcmoa_runtime.cli.calibrate.options import AsJson, BundlePath, Out, Overwrite, Pairs, X, Y, sample_pairs
from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.progress import counted_bar, print_json
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import check_writable, write_image

if TYPE_CHECKING:
    from tcmoa_calibration.quantize import Budget, Calibration

_MinPsnr = Annotated[
    float | None,
    typer.Option(metavar="DB", help="Least PSNR to float32 on pairs held out; 45 where no bound is given."),
]
_MaxDrop = Annotated[
    float | None, typer.Option(metavar="D", help="Most that Qabf may fall by on those pairs.")
]
_Smoothing = Annotated[
    str, typer.Option(metavar="S", help="Strength from 0 (none) to below 1, or auto to try some.")
]
_Ranges = Annotated[str, typer.Option(help="max, percentile, entropy, mse, or auto to try all.")]
_Sensitivity = Annotated[
    bool, typer.Option("--sensitivity", help="Measure each half block, and the whole trade-off.")
]
_Curve = Annotated[
    Path | None, typer.Option(metavar="FILE.png", help="Measure the whole trade-off, and draw it.")
]
_Most = Annotated[int, typer.Option("--most", metavar="N", min=1, help="Use at most so many pairs.")]
_Seed = Annotated[int, typer.Option(min=0, help="Chooses the pairs and the tokens that are looked at.")]


def _command(number_format: str, told: str) -> Callable[..., None]:
    """The command of one format; both take the same options."""

    def command(
        bundle: BundlePath,
        out: Out,
        pairs: Pairs = None,
        x: X = None,
        y: Y = None,
        min_psnr: _MinPsnr = None,
        max_qabf_drop: _MaxDrop = None,
        smoothing: _Smoothing = "auto",
        ranges: _Ranges = "auto",
        sensitivity: _Sensitivity = False,
        curve: _Curve = None,
        most: _Most = 24,
        seed: _Seed = 0,
        overwrite: Overwrite = False,
        as_json: AsJson = False,
    ) -> None:
        quantise = require("tcmoa_calibration.quantize", f"calibrate {number_format}", "calibration")
        strength = _strength(smoothing)
        budget: Budget = quantise.DEFAULT_BUDGET
        if min_psnr is not None or max_qabf_drop is not None:
            budget = quantise.Budget(min_psnr, max_qabf_drop)
        if curve is not None:
            if curve.suffix.lower() != ".png":
                raise InputError(f"--curve is {curve}: expected the name of a .png file")
            check_writable(curve)
        found = sample_pairs(pairs, x, y)
        with counted_bar("calibrate") as (say, progress):
            result: Calibration = quantise.calibrate_low_precision(
                bundle,
                found,
                out,
                number_format=number_format,
                budget=budget,
                smoothing=strength,
                ranges=ranges,
                sensitivity=sensitivity or curve is not None,
                most_pairs=most,
                seed=seed,
                overwrite=overwrite,
                say=say,
                progress=progress,
            )
        if curve is not None:
            title, chosen = f"{result.bundle.preset} {result.bundle.task}, {number_format}", result.groups
            write_image(curve, quantise.draw_curve(result.curve, budget, chosen - len(result.kept), title))
        if as_json:
            print_json(_figures(result))
            return
        for label, value in _rows(result):
            print(f"{label:<10}  {value}")

    command.__doc__ = told
    return command


int8 = _command(
    "int8",
    """Quantise a bundle's backbone to INT8, as much of it as the picture allows.

    Takes a float32 bundle and real pairs of its task. Half blocks that suffer most stay in float32 until the bounds
    hold. An interrupted run goes on where it was.
    """,
)
fp8 = _command(
    "fp8",
    """Quantise a bundle's backbone to FP8 (E4M3), for TensorRT on Ada, Hopper and Blackwell GPUs.

    Takes a float32 bundle and real pairs of its task. CPUs run the result as a slow simulation; `tcmoa build` makes
    the engine.
    """,
)


def _strength(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"--smoothing is {text!r}: expected a number from 0 to below 1, or auto") from error


def _rows(result: Calibration) -> list[tuple[str, str]]:
    total = result.groups
    stays = f"; float32: {', '.join(result.kept)}" if result.kept else ""
    left_out = f", {len(result.samples.skipped)} left out" if result.samples.skipped else ""
    return [
        (
            "bundle",
            f"{result.bundle.path}, {result.bytes_after / result.bytes_before:.2f} of the size before",
        ),
        ("8 bits", f"{result.linears} linears, {total - len(result.kept)} of {total} half blocks{stays}"),
        ("chosen", f"smoothing {result.smoothing:g}, ranges {result.ranges}"),
        ("to float32", f"{result.damage.line()}, on {len(result.samples.held)} pairs held out"),
        ("pairs", f"{len(result.samples.fit)} for ranges, {len(result.samples.held)} held out{left_out}"),
    ]


def _figures(result: Calibration) -> dict[str, Any]:
    def damage(of: Any) -> dict[str, Any]:
        return {
            "psnr_db": None if of.mean_square == 0 else of.psnr_db,
            "worst_psnr_db": None if of.worst_mean_square == 0 else of.worst_psnr_db,
            "qabf_drop": of.qabf_drop,
        }

    return {
        "bundle": str(result.bundle.path),
        "smoothing": result.smoothing,
        "ranges": result.ranges,
        **damage(result.damage),
        "groups": result.groups,
        "kept_float32": result.kept,
        "linears": result.linears,
        "size_ratio": result.bytes_after / result.bytes_before,
        "fit_pairs": [sample.name for sample in result.samples.fit],
        "held_pairs": [sample.name for sample in result.samples.held],
        "skipped": result.samples.skipped,
        "tried": {name: damage(of) for name, of in result.tried.items()},
        "sensitivity": {name: damage(of) for name, of in result.sensitivity.items()},
        "curve": [
            {"quantised_groups": step.quantised_groups, "share": step.share, **damage(step.damage)}
            for step in result.curve
        ],
    }
