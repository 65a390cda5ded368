"""`tcmoa calibrate int8` and `fp8`: a bundle in 8 bits from a float32 one and real pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcmoa_runtime.cli.export import need
from tcmoa_runtime.cli.progress import counted_bar, print_json
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import check_writable, write_image
from tcmoa_runtime.pairs import find_pairs

if TYPE_CHECKING:
    from tcmoa_calibration.quantise import Budget, Calibration

_Bundle = Annotated[Path, typer.Argument(help="A float32 bundle.")]
_Pairs = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Real pairs of its task: NAME_x.EXT and NAME_y.EXT in one folder."),
]
_X = Annotated[Path | None, typer.Option("--x", metavar="DIR", help="Or the first sources in a folder,")]
_Y = Annotated[Path | None, typer.Option("--y", metavar="DIR", help="and the second ones, of equal names.")]
_Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle.")]
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
    Path | None, typer.Option(metavar="FILE.png", help="Draw the trade-off; with --sensitivity.")
]
_Most = Annotated[int, typer.Option("--most", metavar="N", min=1, help="Use at most so many pairs.")]
_Seed = Annotated[int, typer.Option(min=0, help="Chooses the pairs and the tokens that are looked at.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def int8(
    bundle: _Bundle,
    out: _Out,
    pairs: _Pairs = None,
    x: _X = None,
    y: _Y = None,
    min_psnr: _MinPsnr = None,
    max_qabf_drop: _MaxDrop = None,
    smoothing: _Smoothing = "auto",
    ranges: _Ranges = "auto",
    sensitivity: _Sensitivity = False,
    curve: _Curve = None,
    most: _Most = 24,
    seed: _Seed = 0,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Quantise a bundle's backbone to INT8, as much of it as the picture allows.

    Half blocks that suffer most stay in float32 until the bounds hold. An interrupted run goes on where it was.
    """
    options = (min_psnr, max_qabf_drop, smoothing, ranges, sensitivity, curve, most, seed, overwrite, as_json)
    _run("int8", bundle, (pairs, x, y), out, *options)


def fp8(
    bundle: _Bundle,
    out: _Out,
    pairs: _Pairs = None,
    x: _X = None,
    y: _Y = None,
    min_psnr: _MinPsnr = None,
    max_qabf_drop: _MaxDrop = None,
    smoothing: _Smoothing = "auto",
    ranges: _Ranges = "auto",
    sensitivity: _Sensitivity = False,
    curve: _Curve = None,
    most: _Most = 24,
    seed: _Seed = 0,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Quantise a bundle's backbone to FP8 (E4M3), for TensorRT on Ada, Hopper and Blackwell GPUs.

    CPUs run such a bundle as a slow simulation; `tcmoa build` makes the engine.
    """
    options = (min_psnr, max_qabf_drop, smoothing, ranges, sensitivity, curve, most, seed, overwrite, as_json)
    _run("fp8", bundle, (pairs, x, y), out, *options)


def _run(
    number_format: str,
    bundle: Path,
    where: tuple[Path | None, Path | None, Path | None],
    out: Path,
    min_psnr: float | None,
    max_qabf_drop: float | None,
    smoothing: str,
    ranges: str,
    sensitivity: bool,
    curve: Path | None,
    most: int,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    quantise = need("tcmoa_calibration.quantise", f"calibrate {number_format}", "calibration")
    strength = _strength(smoothing)
    budget: Budget = quantise.DEFAULT_BUDGET
    if min_psnr is not None or max_qabf_drop is not None:
        budget = quantise.Budget(min_psnr, max_qabf_drop)
    if curve is not None:
        if curve.suffix.lower() != ".png":
            raise InputError(f"--curve is {curve}: expected the name of a .png file")
        check_writable(curve)
    found = sample_pairs(*where)
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
        title = f"{result.bundle.preset} {result.bundle.task}, {number_format}"
        write_image(curve, quantise.draw_curve(result.curve, budget, result.groups - len(result.kept), title))
    if as_json:
        print_json(_figures(result))
        return
    for label, value in _rows(result):
        print(f"{label:<10}  {value}")


def sample_pairs(pairs: Path | None, x: Path | None, y: Path | None) -> Any:
    """The pairs of `--pairs`, or of `--x` and `--y`; InputError unless it is one of the two."""
    if (pairs is None) == (x is None) or (x is None) != (y is None):
        raise InputError("which pairs? give --pairs DIR, or --x DIR and --y DIR")
    return find_pairs(pairs) if pairs is not None else find_pairs(x or "", y)


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
