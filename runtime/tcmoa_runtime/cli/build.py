"""`tcmoa build`: a TensorRT engine for a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcmoa_runtime.cli.engine_rows import engine_rows
from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.options import NAMES, BundleArgument, JsonOption, TextForm, takes_options
from tcmoa_runtime.cli.printing import print_json, print_line
from tcmoa_runtime.cli.progress import phase_bar
from tcmoa_runtime.options.build import BuildOptions

if TYPE_CHECKING:
    from tcmoa_runtime.engine import Engine


def _parse_targets(text: str) -> tuple[str, ...]:
    """Parse compute capabilities with commas, in upper or lower case; an empty name is kept, and refused later."""
    return tuple(name.strip().lower() for name in text.split(",")) if text else ()


@takes_options(
    BuildOptions,
    flags={"flavor": ("--flavor", "--flavour"), "targets": ("--target", "--targets")},
    forms={
        "targets": TextForm(_parse_targets, ",".join, "TARGETS"),
        "gpu": NAMES,
    },
)
def build(options: BuildOptions, bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Build a TensorRT engine into a bundle and audit its kernels.

    The build fails when an attention is not one kernel, or a product is in another precision than the graph states.

    Examples:

        tcmoa build night-640x480 --target sm86,sm89
        tcmoa build night-640x480 --gpu 'RTX 4090'
        tcmoa build night-640x480 --flavor tensorrt --precision bf16
    """
    build_engine = require("tcmoa_export.engines.build", "build", options.flavor).build_engine
    with phase_bar("build") as (on_message, on_progress):
        engine: Engine = build_engine(bundle, options, on_message=on_message, on_progress=on_progress)
    if as_json:
        # The list of all kernels is long; `tcmoa inspect --json` prints it.
        report = {key: value for key, value in engine.manifest.items() if key != "list"}
        print_json({"path": str(engine.path), **report})
        return
    for label, value in engine_rows(engine):
        print_line(f"{label:<10}  {value}")
