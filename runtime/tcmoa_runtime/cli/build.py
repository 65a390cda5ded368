"""`tcmoa build`: a TensorRT engine for a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tcmoa_runtime.cli.engine_rows import engine_rows
from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.progress import phase_bar, print_json
from tcmoa_runtime.engine import Engine


def build(
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    flavor: Annotated[
        str,
        typer.Option(
            "--flavor",
            "--flavour",
            help="rtx (GeForce and RTX, built on any machine) or tensorrt (built on the GPU).",
        ),
    ] = "rtx",
    precision: Annotated[
        str | None,
        typer.Option(help="fp16, bf16 or fp32; the bundle's own, or fp16 for one in float32 or 8 bits."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="sm86,sm89", help="GPUs by compute capability, rtx only; Ampere to Blackwell."),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(metavar="MB", help="Most scratch memory that kernels may use.")
    ] = None,
    hardware_compatibility: Annotated[
        str, typer.Option(help="tensorrt only: none, ampere_plus or same_compute_capability.")
    ] = "none",
    strip: Annotated[
        bool, typer.Option("--strip", help="Leave the weights out; they come from the bundle's graph.")
    ] = False,
    timing_cache: Annotated[
        bool, typer.Option("--timing-cache/--no-timing-cache", help="tensorrt only: keep measured timings.")
    ] = True,
    allow_unfused: Annotated[
        bool, typer.Option("--allow-unfused", help="Write an engine that does not pass the audit.")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build even if the engine is up to date.")
    ] = False,
    pairs: Annotated[
        Path | None, typer.Option(help="Real pairs for the check of a precision that the bundle is not in.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Build a TensorRT engine into a bundle and audit its kernels.

    The build fails when an attention is not one kernel, or a product is not in the precision that was asked.
    """
    tcmoa_export = require("tcmoa_export.engine_build", "build", flavor if flavor == "tensorrt" else "rtx")
    with phase_bar("build") as (say, progress):
        engine: Engine = tcmoa_export.build_engine(
            bundle,
            flavor=flavor,
            precision=precision,
            targets=[name.strip().lower() for name in target.split(",")] if target else (),
            workspace_mb=workspace,
            hardware_compatibility=hardware_compatibility,
            strip=strip,
            timing_cache=timing_cache,
            allow_unfused=allow_unfused,
            rebuild=rebuild,
            pairs=pairs,
            say=say,
            progress=progress,
        )
    if as_json:
        # The whole kernel list is what `inspect --json` gives.
        print_json({"path": str(engine.path), **{k: v for k, v in engine.manifest.items() if k != "list"}})
        return
    for label, value in engine_rows(engine):
        print(f"{label:<10}  {value}")
