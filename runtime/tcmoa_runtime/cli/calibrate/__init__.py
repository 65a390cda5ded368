"""`tcmoa calibrate`: new bundles from a bundle and sample pairs; one file for each command."""

from __future__ import annotations

import typer

from tcmoa_runtime.cli.calibrate.align import align
from tcmoa_runtime.cli.calibrate.prompt import prompt
from tcmoa_runtime.cli.calibrate.quantize import fp8, int8
from tcmoa_runtime.cli.options import help_of

app = typer.Typer(
    name="calibrate",
    help="Make a new bundle from a bundle and sample pairs: quantize it, search its prompt, or align two cameras.",
    no_args_is_help=True,
)
for name, command in {"int8": int8, "fp8": fp8, "prompt": prompt, "align": align}.items():
    app.command(name, help=help_of(command))(command)
