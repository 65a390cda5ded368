"""`tcmoa repository`: write a model repository for NVIDIA's Triton Inference Server."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tcmoa_runtime.cli.options import JsonOption, takes_options
from tcmoa_runtime.cli.printing import print_json, print_line
from tcmoa_runtime.model_repository import write_model_repository
from tcmoa_runtime.options.repository import RepositoryOptions


@takes_options(RepositoryOptions)
def repository(
    options: RepositoryOptions,
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE...",
            help="Folders of bundles, or names of ready ones, see `tcmoa models`.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the repository.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server.

    A bundle becomes a model of Triton's python backend, which fuses whatever `tcmoa fuse` fuses, and one that is the
    graph alone, which takes frames of the bundle's size. Bundles are checked before anything is copied, and the models
    in python check theirs again when they are loaded.

    Examples:

        tcmoa repository nano-vif nano-mef -o models
        tcmoa repository night-640x480 -o models --backend python,openvino --instances 2 --threads 4
        tcmoa repository night-640x480 -o models --backend tensorrt --overwrite
    """
    written = write_model_repository(bundles, out, options)
    if as_json:
        print_json(written.to_json())
        return
    for model in written.models:
        print_line(f"{model.path}: {model.backend}, version {model.version}; needs {model.needs}")
    print_line(f"start Triton with: tritonserver --model-repository {shlex.quote(str(out))}")
