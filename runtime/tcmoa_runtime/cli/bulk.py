"""`tcmoa bulk`: fuse many pairs on Ray, on this machine or a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.fuse_prompt import SHIFT_FORM
from tcmoa_runtime.cli.fuse_report import FuseReport
from tcmoa_runtime.cli.options import BundleArgument, JsonOption, spell_for_command_line, takes_options
from tcmoa_runtime.cli.printing import print_json, print_line, print_report
from tcmoa_runtime.cli.progress import counted_bar
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.bulk import BulkOptions

if TYPE_CHECKING:
    from tcmoa_runtime.bulk.summary import BulkSummary


@takes_options(BulkOptions, forms={"prompt_shift": SHIFT_FORM})
def bulk(
    options: BulkOptions,
    bundle: BundleArgument,
    x: Annotated[
        str,
        typer.Argument(
            help="Folder of the first images, or of both; a CSV file of pairs; a Parquet or tar file, or a folder of "
            "them. A path that every node sees, or a URI.",
            metavar="X",
        ),
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the results, a path or a URI.")],
    y: Annotated[
        str | None, typer.Argument(help="Folder of the second images, if x does not hold both.", metavar="Y")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Fuse many pairs on Ray Data, on this machine or on a cluster.

    A second run does only what is missing; with --update, also what is older than a source. A pair that cannot be fused
    is a row of OUT/_errors.csv and does not end the run.

    Examples:

        tcmoa bulk nano-vif visible/ infrared/ -o fused/
        tcmoa bulk nano-vif s3://archive/visible s3://archive/infrared -o s3://archive/fused --address auto
        tcmoa bulk nano-vif pairs.parquet -o fused/ --columns visible,infrared,id
    """
    for package in ("ray", "ray.data"):
        require(package, "bulk", "ray")
    module = require("tcmoa_runtime.bulk.run", "bulk", "ray")
    done = 0
    with counted_bar("bulk", unit="pairs") as (on_message, show):

        def on_progress(finished: int, total: int) -> None:
            nonlocal done
            done = finished
            show(finished, total)

        try:
            summary: BulkSummary = module.fuse_in_bulk(
                bundle,
                x,
                y,
                out,
                options,
                on_progress=on_progress,
                on_message=on_message,
                spell_option=spell_for_command_line,
            )
        except KeyboardInterrupt:
            if done:
                on_message(f"{done} more pairs are done; run the same command to continue")
            raise
    report = FuseReport()
    for failure in summary.failures:
        subject = failure.error.subject
        name = failure.name if subject is None else f"{failure.name} ({subject})"
        report.add_failure(name, failure.error)
    for line in report.describe_failures():
        print_report("error", line)
    if summary.num_outdated:
        print_report("warning", _describe_outdated(summary.num_outdated))
    if as_json:
        print_json(summary.to_json())
    else:
        print_line(_describe(summary))
    if summary.failures and not summary.num_fused and not summary.num_skipped:
        raise InputError(
            f"none of {summary.num_pairs} pairs was fused; expected pairs that can be fused",
            subject=summary.errors_path,
        )
    return 0


def _describe_outdated(count: int) -> str:
    if count == 1:
        return "1 result is older than a source of its pair; --update fuses it again"
    return f"{count} results are older than a source of their pairs; --update fuses them again"


def _describe(summary: BulkSummary) -> str:
    there = f", {summary.num_skipped} more were there" if summary.num_skipped else ""
    failed = f", {len(summary.failures)} not fused, see {summary.errors_path}" if summary.failures else ""
    if not summary.num_fused and not failed:
        is_current = not summary.num_outdated  # else the warning says what fuses them again
        remedy = "; nothing to fuse (--overwrite fuses them again)" if is_current else ""
        return f"{summary.num_skipped} results are in {summary.out} already{remedy}"
    done = (
        f"{summary.num_fused} {'pair' if summary.num_fused == 1 else 'pairs'} in {summary.out}{there}{failed}"
    )
    if not summary.num_fused:
        return done
    fusers = "1 Fuser" if summary.num_actors == 1 else f"{summary.num_actors} Fusers"
    rate = f"{summary.pairs_per_second:.1f} pairs/s with {fusers}"
    backend = f"{summary.backend}, " if summary.backend else ""
    return f"{done} ({backend}{rate})"
