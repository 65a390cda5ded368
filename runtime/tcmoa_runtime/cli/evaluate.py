"""`tcmoa evaluate`: fusion methods side by side, by the metrics of the field."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.progress import console, print_json, progress_bar
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.pairs import PairPaths, find_pairs

if TYPE_CHECKING:
    from tcmoa_calibration.evaluate import Contestant, Evaluation

WIDE: Final = 200
"""Columns of tables that go to a file."""


def evaluate(
    pairs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Sources: NAME_x.EXT and NAME_y.EXT in one folder.")
    ] = None,
    x: Annotated[
        Path | None, typer.Option("--x", metavar="DIR", help="Or the first sources in a folder of their own,")
    ] = None,
    y: Annotated[
        Path | None, typer.Option("--y", metavar="DIR", help="and the second ones, of equal names.")
    ] = None,
    fused: Annotated[
        list[str] | None,
        typer.Option(metavar="[LABEL=]DIR", help="Fused images NAME.EXT or NAME_fused.EXT. May be repeated."),
    ] = None,
    bundle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LABEL=]DIR",
            help="A bundle that fuses each pair, resized to its frame and back where need be. May be repeated.",
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="What runs the bundles: onnxruntime, tensorrt, ...")
    ] = "onnxruntime",
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LABEL=]FILE",
            help="A checkpoint, or `tiny` or `nano`: the model itself at each pair's own size. May be repeated.",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="vif, mef or mff, for --weights.")] = None,
    baselines: Annotated[
        str, typer.Option(metavar="NAMES", help="Classical methods: names, `all` or `none`.")
    ] = "average,maximum,laplacian,mertens",
    metrics: Annotated[
        str | None, typer.Option(metavar="NAMES", help="As Qabf,VIF,SSIM,MI; all when not given.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="correct, or as fusion papers print: as-published, vifb, mefb, tang.")
    ] = "correct",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Write a report, tables, and what a further run need not repeat.",
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what --out holds of earlier runs.")] = False,
    video: Annotated[
        bool, typer.Option("--video", help="The pairs are frames of one clip: measure flicker too.")
    ] = False,
    jobs: Annotated[int | None, typer.Option(help="Processes; as many as cores when not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Measure fused images, bundles, weights and classical baselines on pairs of sources.

    The first contestant (of --fused, --bundle, --weights, --baselines in this order) is the one that the others are
    compared with, pair by pair. With --out, report.html shows every pair with its pictures.
    """
    module = require("tcmoa_calibration.evaluate", "evaluate", "calibration")
    contestants = _contestants(module.Contestant, module, fused, bundle, backend, weights, task, baselines)
    found = _pairs(pairs, x, y)
    with _interruptible(out), _progress("measuring") as progress:
        evaluation: Evaluation = module.evaluate_pairs(
            found,
            contestants=contestants,
            profile=profile,
            metrics=None
            if metrics is None
            else [name.strip() for name in metrics.split(",") if name.strip()],
            out=out,
            fresh=fresh,
            jobs=jobs,
            video=video,
            progress=progress,
        )
    _tell(evaluation, out, as_json)
    return 0


def _pairs(pairs: Path | None, x: Path | None, y: Path | None) -> list[PairPaths]:
    if pairs is not None and x is None and y is None:
        return find_pairs(pairs)
    if pairs is None and x is not None and y is not None:
        return find_pairs(x, y)
    raise InputError("the sources are not told: expected --pairs DIR, or --x DIR and --y DIR")


def _contestants(
    kinds: type[Contestant],
    module: Any,
    fused: list[str] | None,
    bundle: list[str] | None,
    backend: str,
    weights: list[str] | None,
    task: str | None,
    baselines: str,
) -> list[Contestant]:
    if task is not None and not weights:
        raise InputError(
            f"--task {task} is for --weights, which is not given; a bundle has a task of its own"
        )
    found: list[Contestant] = []
    for text in fused or []:
        label, path = module.split_label(text)
        found.append(kinds.folder(path, label))
    for text in bundle or []:
        label, path = module.split_label(text)
        found.append(kinds.bundle(path, label, backend))
    for text in weights or []:
        label, path = module.split_label(text)
        found.append(kinds.weights(path, task, label))
    return [*found, *module.parse_baselines(baselines)]


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that begins when the number of steps is known."""
    with ExitStack() as stack:
        bar: list[Callable[[int], None]] = []
        seen = 0

        def progress(done: int, total: int) -> None:
            nonlocal seen
            if not bar:
                bar.append(stack.enter_context(progress_bar(what, total)))
            bar[0](done - seen)
            seen = done

        yield progress


@contextmanager
def _interruptible(out: Path | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if out is not None:
            console.print(
                f"tcmoa: what was measured is kept in {out}; the same command goes on from there",
                markup=False,
                soft_wrap=True,
            )
        raise


def _tell(evaluation: Evaluation, out: Path | None, as_json: bool) -> None:
    """Results on stdout, failures on stderr and as the exit code."""
    for failure in evaluation.failures:
        who = "" if failure.contestant is None else f", {failure.contestant}"
        text = f"tcmoa: error: {failure.name}{who}: {failure.error}"
        console.print(" ".join(text.split()), markup=False, soft_wrap=True)
    if as_json:
        print_json(evaluation.to_json())
    else:
        from tcmoa_calibration.evaluate.table import print_tables

        screen = Console(file=sys.stdout, highlight=False, emoji=False)
        if not screen.is_terminal:
            screen.width = WIDE
        print_tables(evaluation, screen)
        if out is not None:
            told = f"{evaluation.measured} measured, {evaluation.reused} kept from before"
            print(f"{out / 'report.html'} ({told})")
    if evaluation.failures:
        where = "" if out is None else f"; the rest is in {out}"
        message = f"{len(evaluation.failures)} results are missing, see above{where}"
        raise TcmoaError(message) if any(f.fault for f in evaluation.failures) else InputError(message)
