"""`tcmoa evaluate`: fusion methods side by side, by the metrics of the literature."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer
from rich.console import Console

from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.options import JsonOption, TextForm, parse_names, spell_for_command_line, takes_options
from tcmoa_runtime.cli.printing import print_json, print_line, print_message, print_report
from tcmoa_runtime.cli.progress import counted_bar
from tcmoa_runtime.contract import TASKS, Task
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.options.evaluate import BASELINE_NAMES, BaselineName, EvaluateOptions
from tcmoa_runtime.options.fuser import TRUST_ENGINES_HELP
from tcmoa_runtime.options.pairs import PairOptions
from tcmoa_runtime.pairs import find_source_pairs
from tcmoa_runtime.typing import BackendChoice

if TYPE_CHECKING:
    from tcmoa_calibration.evaluate import Evaluation, Method

FILE_WIDTH: Final = 200
"""Columns of tables that are not printed to a terminal."""

_METHODS: Final = "Methods"
_OUTPUT: Final = "Output"


def parse_baselines(text: str) -> tuple[BaselineName, ...]:
    """Parse names with commas, `all` or `none`; EvaluateOptions checks the names."""
    names = parse_names(text)
    if names == ("none",):
        return ()
    if names == ("all",):
        return BASELINE_NAMES
    if not names:
        raise InputError(f"no names; expected some of {', '.join(BASELINE_NAMES)}, or all, or none")
    return cast("tuple[BaselineName, ...]", names)


def split_label(text: str) -> tuple[str | None, str]:
    """Split LABEL=PATH; an existing path may contain `=` itself.

    Returns:
        The label, None for a PATH without one, and the path.

    Raises:
        InputError: The label or the path is empty.
    """
    label, separator, path = text.partition("=")
    if not separator or Path(text).exists():
        return None, text
    if not label.strip() or not path:
        raise InputError(f"{text!r}; expected PATH or LABEL=PATH")
    return label.strip(), path


_BASELINES_FORM: Final = TextForm(parse_baselines, ",".join, "NAMES|all|none")


@takes_options(PairOptions, name="source")
@takes_options(EvaluateOptions, forms={"baselines": _BASELINES_FORM})
def evaluate(
    options: EvaluateOptions,
    source: PairOptions,
    fused: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LABEL=]DIR",
            help="Folder of fused images NAME.EXT or NAME_fused.EXT. May be repeated.",
            rich_help_panel=_METHODS,
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LABEL=]DIR",
            help="Bundle that fuses each pair, padded or cut into tiles if necessary. May be repeated.",
            rich_help_panel=_METHODS,
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        BackendChoice, typer.Option(help="What runs the bundles.", rich_help_panel=_METHODS)
    ] = "onnxruntime",
    trust_engines: Annotated[
        bool,
        typer.Option(
            "--trust-engines",
            help=TRUST_ENGINES_HELP,
            rich_help_panel=_METHODS,
        ),
    ] = False,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LABEL=]FILE",
            help="PyTorch model that fuses each pair at its own size: a checkpoint, `tiny` or `nano`. May be repeated.",
            rich_help_panel=_METHODS,
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        Task | None,
        typer.Option(help="Task of the weights.", rich_help_panel=_METHODS, show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for a report with pictures, tables, and a cache: later runs measure only what has changed.",
            rich_help_panel=_OUTPUT,
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Evaluate fused images, bundles, weights and classical methods on pairs of sources.

    The first method, in the order `--fused`, `--bundle`, `--weights`, `--baselines`, is compared with the others, pair
    by pair. Several bundles, and methods on a board, are ranked by the mean of their ranks over the metrics; time,
    memory and operators of several bundles are measured too.

    Examples:

        tcmoa evaluate --pairs pairs/ --fused mine=fused/ --metrics Qabf,VIF,SSIM,MI -o evaluation/
        tcmoa evaluate --pairs pairs/ --bundle night-640x480 --weights tiny --task vif --baselines all
        tcmoa evaluate --pairs pairs/ --bundle night-640x480 --bundle my-network -o comparison/
    """
    module = require("tcmoa_calibration.evaluate", "evaluate", "calibration")
    methods = _methods(module.Method, fused or [], bundle or [], backend, trust_engines, weights or [], task)
    if options.board is not None and not source.has_pairs:
        board = require("tcmoa_calibration.evaluate.board", "evaluate", "calibration")
        found = board.board_pairs(options.board)
    else:
        found = find_source_pairs(source)
    with _kept_results(out), counted_bar("measuring") as (_, on_progress):
        evaluation: Evaluation = module.evaluate_pairs(
            found, methods, options, out=out, on_progress=on_progress
        )
    for failure in evaluation.failures:
        method = "" if failure.method is None else f", {failure.method}"
        print_report("error", f"{failure.name}{method}: {failure.error.render(spell_for_command_line)}")
    if as_json:
        print_json(evaluation.to_json())
    else:
        _print_tables(evaluation, out)
    if evaluation.failures:
        rest = "" if out is None else f"; the others are in {out}"
        count = len(evaluation.failures)
        missing = "1 result is missing" if count == 1 else f"{count} results are missing"
        message = f"{missing}, see above{rest}"
        is_internal = any(failure.is_internal for failure in evaluation.failures)
        raise TcmoaError(message) if is_internal else InputError(message)
    return 0


def _methods(
    method: type[Method],
    fused: list[str],
    bundles: list[str],
    backend: BackendChoice,
    trust_engines: bool,
    weights: list[str],
    task: Task | None,
) -> list[Method]:
    """Make the methods that the options name."""
    methods: list[Method] = []
    for text in fused:
        label, path = _split_label_of("--fused", text)
        methods.append(method.folder(path, label))
    for text in bundles:
        label, path = _split_label_of("--bundle", text)
        methods.append(method.bundle(path, label, backend, trust_engines=trust_engines))
    if task is not None and not weights:
        raise InputError(f"{task} without --weights; expected it with --weights only", subject="--task")
    for text in weights:
        label, path = _split_label_of("--weights", text)
        if task is None:
            raise InputError(
                f"no task; expected one of {', '.join(TASKS)}",
                subject=f"--weights {text}",
                remedy="Add --task",
            )
        methods.append(method.weights(path, task, label))
    return methods


def _split_label_of(flag: str, text: str) -> tuple[str | None, str]:
    try:
        return split_label(text)
    except InputError as error:
        raise error.with_subject(flag) from error


@contextmanager
def _kept_results(out: Path | None) -> Iterator[None]:
    """Say on Ctrl-C that finished measurements are kept."""
    try:
        yield
    except KeyboardInterrupt:
        if out is not None:
            print_message(f"tcmoa: finished measurements are kept in {out}; run the same command to continue")
        raise


def _print_tables(evaluation: Evaluation, out: Path | None) -> None:
    table = require("tcmoa_calibration.evaluate.table", "evaluate", "calibration")
    stdout = Console(file=sys.stdout, highlight=False, emoji=False)
    if not stdout.is_terminal:
        stdout.width = FILE_WIDTH
    table.print_tables(evaluation, stdout)
    if out is not None:
        counts = f"{evaluation.num_measured} results measured, {evaluation.num_reused} reused"
        print_line(f"{out / 'report.html'} ({counts})")
