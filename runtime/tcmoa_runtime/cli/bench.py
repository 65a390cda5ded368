"""`tcmoa bench`: how fast the backends run a bundle on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from tcmoa_runtime.backends.pick import write_pick
from tcmoa_runtime.bench.measure import NUM_ROUNDS, BenchResult, measure_backends
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.options import BundleArgument, JsonOption, spell_for_command_line, takes_options
from tcmoa_runtime.cli.printing import print_json, print_line, print_message
from tcmoa_runtime.cli.progress import progress_bar
from tcmoa_runtime.options.bench import BenchOptions


@takes_options(BenchOptions, flags={"backends": ("--backend",)})
def bench(
    options: BenchOptions,
    bundle: BundleArgument,
    pick: Annotated[
        bool,
        typer.Option("--pick", help="Let --backend auto take the fastest for this bundle on this machine."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast each backend runs a bundle on this machine.

    Each backend runs in a process of its own. All of them stay loaded and run a few frames in turn. openvino-bf16 is
    measured but never picked, because it is less exact.

    Examples:

        tcmoa bench night-640x480
        tcmoa bench night-640x480 --backend onnxruntime,openvino --frames 50 --pick
    """
    opened = Bundle.open(bundle)
    with progress_bar("measuring", NUM_ROUNDS) as advance:
        result = measure_backends(opened, options, on_progress=lambda _done, _total: advance(1))
    path = write_pick(opened, result.p50_ms) if pick else None
    for name, speed in result.speeds.items():
        if not speed.is_steady:
            line = (
                f"bench: {name}: times of the rounds differ by a factor of {speed.spread:.2f}, the machine was busy. "
                "Measure again."
            )
            print_message(line)
    if as_json:
        print_json({**result.to_json(), "picked": None if path is None else result.fastest})
        return
    _print_table(result)
    if path is not None:
        print_line(f"picked: {result.fastest}, for --backend auto on this machine ({path})")


def _print_table(result: BenchResult) -> None:
    print_line(f"{'backend':<22} {'load':>9} {'first':>9} {'p50':>9} {'p99':>9} {'memory':>9}")
    for name, speed in result.speeds.items():
        columns = (speed.load_ms, speed.first_ms, speed.p50_ms, speed.p99_ms)
        times = " ".join(f"{value:7.1f}ms" for value in columns)
        print_line(f"{name:<22} {times} {speed.peak_mb:7.0f}MB")
    for error in result.failed.values():
        print_line(f"not run: {error.render(spell_for_command_line)}")
