"""`tcmoa calibrate int8` and `fp8`: a bundle in 8 bits from a float32 one and real pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcmoa_runtime.cli.calibrate.shared import OutOption, check_picture, print_rows
from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.options import (
    NUMBER,
    BundleArgument,
    JsonOption,
    TextForm,
    parse_number,
    takes_options,
)
from tcmoa_runtime.cli.printing import print_json
from tcmoa_runtime.cli.progress import counted_bar
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import write_image
from tcmoa_runtime.options.pairs import PairOptions
from tcmoa_runtime.options.quantize import LowPrecision, QuantizeOptions
from tcmoa_runtime.pairs import find_source_pairs

if TYPE_CHECKING:
    from tcmoa_calibration.quantize import QuantizationResult


def _parse_smoothing(text: str) -> float | None:
    """Parse a number, or `auto`."""
    if text == "auto":
        return None
    try:
        return parse_number(text)
    except InputError:
        raise InputError(f"{text!r}; expected a number from 0 to below 1, or auto") from None


CurveOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE.png", help="Draw the whole trade-off.", rich_help_panel="Output"),
]
_SMOOTHING = TextForm(_parse_smoothing, NUMBER.format, "STRENGTH")


def _command(number_format: LowPrecision, description: str) -> Callable[..., None]:
    """Return the command of a number format; both commands have the same options."""

    def command(
        options: QuantizeOptions,
        source: PairOptions,
        bundle: BundleArgument,
        out: OutOption,
        curve: CurveOption = None,
        as_json: JsonOption = False,
    ) -> None:
        module = require("tcmoa_calibration.quantize", f"calibrate {number_format}", "calibration")
        found = find_source_pairs(source)
        if curve is not None:
            check_picture(curve, "--curve", found)
        chosen = replace(
            options, number_format=number_format, sensitivity=options.sensitivity or curve is not None
        )
        with counted_bar(number_format) as (on_message, on_progress):
            result: QuantizationResult = module.quantize_bundle(
                bundle, found, out, chosen, on_message=on_message, on_progress=on_progress
            )
        if curve is not None:
            title = f"{result.bundle.preset} {result.bundle.task}, {number_format}"
            budget = module.ErrorBudget.from_options(chosen)
            write_image(curve, module.draw_curve(result.curve, budget, result.num_quantized, title))
        if as_json:
            print_json(result.to_json())
            return
        print_rows(_rows(result))

    command.__doc__ = description
    with_pairs = takes_options(PairOptions, name="source")
    return with_pairs(takes_options(QuantizeOptions, forms={"smoothing": _SMOOTHING})(command))


int8 = _command(
    "int8",
    """Quantize the backbone of a float32 bundle to int8, as far as the image allows.

    The half blocks with the largest error stay in float32 until the limits hold on held-out pairs. An interrupted
    calibration continues where it stopped.

    Examples:

        tcmoa calibrate int8 night --pairs pairs -o night-int8 --min-psnr 50
    """,
)
fp8 = _command(
    "fp8",
    """Quantize the backbone of a float32 bundle to fp8 (E4M3), for TensorRT on Ada, Hopper and Blackwell GPUs.

    CPUs run the result as a slow simulation; `tcmoa build` makes the engine. The half blocks with the largest error
    stay in float32 until the limits hold on held-out pairs.

    Examples:

        tcmoa calibrate fp8 night --pairs pairs -o night-fp8
    """,
)


def _rows(result: QuantizationResult) -> list[tuple[str, str]]:
    """Return label and value of each line of the report."""
    kept = f"; float32: {', '.join(result.kept_float32)}" if result.kept_float32 else ""
    fit, held_out = len(result.pairs.fit), len(result.pairs.held_out)
    skipped = f", {len(result.pairs.skipped)} skipped" if result.pairs.skipped else ""
    unit = "tiles of pairs" if result.pairs.are_tiles else "pairs"
    is_wrapped = result.bundle.network is not None
    layers, groups = (
        ("convolutions and products", "groups") if is_wrapped else ("linear layers", "half blocks")
    )
    ratio = result.bytes_after / result.bytes_before
    return [
        ("bundle", f"{result.bundle.path}, {ratio:.2f} times the size of the float32 bundle"),
        (
            "quantized",
            f"{result.num_linears} {layers}, {result.num_quantized} of {result.num_groups} {groups}{kept}",
        ),
        ("scheme", str(result.scheme)),
        ("error", f"{result.error.describe()}, against float32 on {held_out} held-out {unit}"),
        (unit, f"{fit} for the ranges, {held_out} held out{skipped}"),
    ]
