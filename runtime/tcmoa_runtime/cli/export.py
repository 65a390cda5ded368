"""`tcmoa export`: export a trained model to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.options import takes_options
from tcmoa_runtime.cli.printing import print_line
from tcmoa_runtime.cli.progress import status_line
from tcmoa_runtime.images import format_size
from tcmoa_runtime.options.export import ExportOptions

if TYPE_CHECKING:
    from tcmoa_runtime.bundle import Bundle


@takes_options(ExportOptions)
def export(
    options: ExportOptions,
    weights: Annotated[
        str,
        typer.Option(
            help="A checkpoint (.pth, .safetensors), or `tiny` or `nano` for the weights in this package."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle.")],
    upsample: Annotated[
        bool, typer.Option(help="Whether the model enlarges frames by 2, like the published models.")
    ] = True,
) -> None:
    """Export a trained model for one task and frame size into a bundle.

    The graph is compared with the PyTorch model before the bundle is written; a graph that differs is refused.

    Examples:

        tcmoa export --weights tiny --task vif --size 640x480 --out night-640x480
        tcmoa export --weights tiny --task mef --size 1280x720 --precision fp16 --with-prompt --out day-1280x720
    """
    tcmoa = require("tcmoa", "export", "export")
    tcmoa_export = require("tcmoa_export.bundle_export", "export", "export")
    with status_line("export") as on_message:
        on_message("reading weights")
        model = tcmoa.load_weights(weights, upsample=upsample, task=options.task)
        bundle: Bundle = tcmoa_export.export_bundle(
            model, options, out, weights_source=Path(weights).name, on_message=on_message
        )
    print_line(f"{out}: {_describe(bundle)}")


def _describe(bundle: Bundle) -> str:
    """Describe a new bundle and how it compares with the model, in one line."""
    parity: Mapping[str, Any] = bundle.section("parity").values
    psnr = "" if parity["psnr_db"] is None else f", {parity['psnr_db']} dB"
    return (
        f"{bundle.task}, {format_size(bundle.size)}, {bundle.precision}; against the model: largest difference "
        f"{parity['max_difference']} gray levels, {parity['differing']:.4%} of values differ{psnr}"
    )
