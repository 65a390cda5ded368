"""`tcmoa bench`: how fast the backends are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tcmoa_runtime.bench.measure import ROUNDS, write_pick
from tcmoa_runtime.bench.measure import bench as measure
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.progress import console, print_json, progress_bar


def bench(
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Backends, as onnxruntime,openvino; those that are installed if not given."
        ),
    ] = "",
    frames: Annotated[int, typer.Option(help="Frames of each backend, after the first.")] = 20,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores when not given.")] = None,
    pick: Annotated[
        bool,
        typer.Option("--pick", help="Let --backend auto take the fastest for this bundle on this machine."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a bundle in every backend: one process each, all loaded, a few frames in turn.

    openvino-bf16 is measured and never picked: it is less exact.
    """
    opened = Bundle.open(bundle)
    names = [name.strip() for name in backend.split(",") if name.strip()]
    with progress_bar("measuring", ROUNDS) as advance:
        found = measure(opened, names, frames=frames, threads=threads, progress=lambda _done, _of: advance(1))
    path = write_pick(opened, found) if pick else None
    for name, speed in found.speeds.items():
        if not speed.is_steady:
            line = (
                f"bench: {name}: rounds differ {speed.spread:.2f} times, the machine was busy: measure again"
            )
            console.print(line, markup=False, soft_wrap=True)
    if as_json:
        print_json({**found.to_json(), "picked": None if path is None else found.fastest})
        return
    print(f"{'backend':<22} {'load':>9} {'first':>9} {'p50':>9} {'p99':>9} {'memory':>9}")
    for name, speed in found.speeds.items():
        times = " ".join(f"{v:7.1f}ms" for v in (speed.load_ms, speed.first_ms, speed.p50_ms, speed.p99_ms))
        print(f"{name:<22} {times} {speed.peak_mb:7.0f}MB")
    for reason in found.failed.values():
        print(f"not run: {reason}")
    if path is not None:
        print(f"picked: {found.fastest}, for --backend auto on this machine ({path})")
