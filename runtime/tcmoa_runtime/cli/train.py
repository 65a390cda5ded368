"""`tcmoa train`: a training run from a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.printing import print_message


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file, e.g. tcmoa/configs/tiny.toml.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run, instead of the file's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    rounds: Annotated[
        int | None, typer.Option(help="Stop after this many rounds in total; resume later.")
    ] = None,
) -> None:
    """Train a model and write checkpoints, averaged weights, a log and sample images.

    Examples:

        tcmoa train tcmoa/configs/tiny.toml --out runs/tiny
        tcmoa train tcmoa/configs/tiny.toml --out runs/tiny --resume
    """
    run = require("tcmoa.train", "train", "export").run
    teachers = require("tcmoa_calibration.baselines", "train", "export").TEACHERS

    def print_line(text: str) -> None:
        print_message(text)

    weights = run(config, resume=resume, out=out, rounds=rounds, teachers=teachers, on_message=print_line)
    print_line(f"weights: {weights}")
