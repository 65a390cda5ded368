"""`tcmoa export`, `train` and `demo`: the commands that need the training side, which is imported only here."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from tcmoa_runtime.cli.progress import console, status_line
from tcmoa_runtime.errors import InputError, MissingError

_OURS = ("tcmoa", "tcmoa_export", "tcmoa_runtime")


def need(module: str, command: str, extra: str) -> ModuleType:
    """Import a module of ours that needs an extra; MissingError says which."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] in _OURS:
            raise
        raise MissingError(
            f"`tcmoa {command}` needs {error.name}, which is not installed; run `pip install 'tcmoa[{extra}]'`"
        ) from error


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of WIDTHxHEIGHT, or InputError."""
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text.strip())
    if match is None:
        raise InputError(f"size is {text!r}: expected WIDTHxHEIGHT, as 640x480")
    return int(match[2]), int(match[1])


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def export(
    weights: Annotated[
        str,
        typer.Option(
            help="A checkpoint (.pth, .safetensors), or `tiny` or `nano` for weights in this package."
        ),
    ],
    task: Annotated[str, typer.Option(help="vif, mef or mff.")],
    size: Annotated[str, typer.Option(metavar="WxH", help="Frame size, as 640x480.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")],
    upsample: Annotated[
        bool, typer.Option("--upsample/--no-upsample", help="The model's own x2 upsampling, as trained.")
    ] = True,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    channel_order: Annotated[str, typer.Option(help="rgb or bgr frames.")] = "rgb",
    color: Annotated[
        str, typer.Option(help="rgb, or luma: fuse brightness and keep the chroma of x.")
    ] = "rgb",
    batch: Annotated[int, typer.Option(help="Frames fused at once.")] = 1,
    grey: Annotated[
        str | None, typer.Option(metavar="x,y", help="Sources that come as one channel [B,H,W,1].")
    ] = None,
    routers: Annotated[
        str | None,
        typer.Option(metavar="vif,mef,...", help="A task's router for each TC-MoA, encoder's first."),
    ] = None,
    with_prompt: Annotated[
        bool, typer.Option("--with-prompt", help="Add the output `prompt`: who dominates where.")
    ] = False,
    as_published: Annotated[
        bool, typer.Option("--as-published", help="The authors' positions and their fit of the frame.")
    ] = False,
    target: Annotated[
        str,
        typer.Option(
            help="gpu or cpu: where it is to be fast. Either runs on both; OpenVINO is 8 to 15 % faster with `cpu`, "
            "engines move 7 % fewer bytes with `gpu`."
        ),
    ] = "gpu",
    pairs: Annotated[
        Path | None, typer.Option(help="A folder of real pairs for the final check against the model.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Export a trained model for one task and frame size into a bundle.

    The bundle is compared with the unfolded model before it is put in place; one that differs is not written.
    """
    height_width = parse_size(size)
    tcmoa = need("tcmoa", "export", "export")
    tcmoa_export = need("tcmoa_export.bundle_export", "export", "export")
    with status_line("export") as say:
        say("reading weights")
        model = tcmoa.load_weights(weights, upsample=upsample)
        bundle = tcmoa_export.export_bundle(
            model,
            task=task,
            size=height_width,
            out=out,
            precision=precision,
            channel_order=channel_order,
            color=color,
            batch=batch,
            grey=_names(grey) if grey else (),
            routers=_names(routers) if routers else None,
            with_prompt=with_prompt,
            as_published=as_published,
            target=target,
            pairs=pairs,
            weights_source=Path(weights).name,
            overwrite=overwrite,
            say=say,
        )
    parity = bundle.manifest["parity"]
    psnr = "" if parity["psnr_db"] is None else f", {parity['psnr_db']} dB"
    print(
        f"{out}: {task}, {size}, {precision}; against the model: largest difference "
        f"{parity['max_difference']} grey levels, {parity['differing']:.4%} of values differ{psnr}"
    )


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file, see tcmoa/configs/tiny.toml.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run instead of the file's.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint, exactly.")
    ] = False,
    rounds: Annotated[
        int | None, typer.Option(help="Stop after so many rounds in total, to resume later.")
    ] = None,
) -> None:
    """Train a model; writes checkpoints, averaged weights, a log and sample pictures."""
    run = need("tcmoa.train", "train", "export").run
    console.print(
        f"weights: {run(config, resume=resume, out=out, rounds=rounds)}", markup=False, soft_wrap=True
    )


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for pictures and bundles.")] = Path(
        "tcmoa-demo"
    ),
) -> None:
    """Export the bundled tiny model for all three tasks and fuse pairs made from photographs."""
    run_demo = need("tcmoa_export.demo", "demo", "export").run_demo
    with status_line("demo") as say:
        written = run_demo(out, say)
    for path in written:
        print(path)
