"""`tcmoa bench`: how fast the backends run bundles on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from tcmoa_runtime.backends.pick import write_pick
from tcmoa_runtime.bench.compare import BundleBench, measure_bundles, open_bundles
from tcmoa_runtime.bench.measure import BackendSpeed, BenchResult, measure_backends
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.options import JsonOption, spell_for_command_line, takes_options
from tcmoa_runtime.cli.printing import print_json, print_line, print_message
from tcmoa_runtime.cli.progress import counted_bar
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.options.bench import BenchOptions
from tcmoa_runtime.typing import BackendName


@takes_options(BenchOptions, flags={"backends": ("--backend",)})
def bench(
    options: BenchOptions,
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE",
            help="Folder of the bundle, or the name of a ready one, see `tcmoa models`; several are compared.",
            show_default=False,
        ),
    ],
    pick: Annotated[
        bool,
        typer.Option("--pick", help="Let --backend auto take the fastest for each bundle on this machine."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast each backend runs a bundle, or several bundles side by side, on this machine.

    Each backend runs in a process of its own. All of them stay loaded and run a few frames in turn. openvino-bf16 is
    less exact: it is picked only with --min-psnr, and if the frames that it fuses here are that close to float32.
    Several bundles run in turn with one backend after the other; `tcmoa evaluate` compares their pictures and metrics
    too.

    Examples:

        tcmoa bench night-640x480
        tcmoa bench night-640x480 --backend onnxruntime,openvino --frames 50 --pick
        tcmoa bench night-640x480 --pick --min-psnr 45
        tcmoa bench night-640x480 my-network nano-vif
    """
    if len(bundles) == 1:
        _bench_one(Bundle.open(bundles[0]), options, pick, as_json)
    else:
        _bench_several([str(path) for path in bundles], options, pick, as_json)


def _bench_one(bundle: Bundle, options: BenchOptions, pick: bool, as_json: bool) -> None:
    with counted_bar("measuring") as (_, on_progress):
        result = measure_backends(bundle, options, on_progress)
    path = write_pick(bundle, result.p50_ms, result.close_enough) if pick else None
    for name, speed in result.speeds.items():
        _warn_if_unsteady(name, speed)
    if as_json:
        print_json({**result.to_json(), "picked": None if path is None else result.fastest})
        return
    _print_table(result)
    if path is not None:
        psnr = result.close_enough.get(result.fastest) if result.fastest else None
        exactness = "" if psnr is None else f", {psnr:g} dB to float32"
        print_line(f"picked: {result.fastest}{exactness}, for --backend auto on this machine ({path})")


def _bench_several(names: list[str], options: BenchOptions, pick: bool, as_json: bool) -> None:
    opened = open_bundles(names)
    with counted_bar("measuring") as (_, on_progress):
        found = measure_bundles(opened, options, on_progress)
    picked = {name: _pick(bench) if pick else None for name, bench in found.items()}
    for name, bench in found.items():
        for backend, speed in bench.result.speeds.items():
            _warn_if_unsteady(f"{name}, {backend}", speed)
    if as_json:
        print_json(
            {"bundles": {name: {**bench.to_json(), "picked": picked[name]} for name, bench in found.items()}}
        )
        return
    for line in _comparison(found):
        print_line(line)
    for name, fastest in picked.items():
        if fastest is not None:
            print_line(f"picked: {fastest} for {name}, for --backend auto on this machine")
        elif pick:
            print_line(f"not picked: no backend that --backend auto may take ran {name}")


def _pick(bench: BundleBench) -> BackendName | None:
    """Record the fastest backend of a bundle; return it, None if none of those that ran may be recorded."""
    if bench.result.fastest is not None:
        write_pick(bench.bundle, bench.result.p50_ms, bench.result.close_enough)
    return bench.result.fastest


def _warn_if_unsteady(subject: str, speed: BackendSpeed) -> None:
    if not speed.is_steady:
        print_message(
            f"bench: {subject}: times of the rounds differ by a factor of {speed.spread:.2f}, the machine was busy. "
            "Measure again."
        )


def _print_table(result: BenchResult) -> None:
    print_line(f"{'backend':<22} {_HEAD}")
    for name, speed in result.speeds.items():
        print_line(f"{name:<22} {_cells(speed)}")
    for error in result.failed.values():
        print_line(_not_run(error))


_HEAD = f"{'load':>9} {'first':>9} {'p50':>9} {'p99':>9} {'memory':>9}"


def _cells(speed: BackendSpeed) -> str:
    columns = (speed.load_ms, speed.first_ms, speed.p50_ms, speed.p99_ms)
    times = " ".join(f"{value:7.1f}ms" for value in columns)
    return f"{times} {speed.peak_mb:7.0f}MB"


def _not_run(error: TcmoaError) -> str:
    return f"not run: {error.render(spell_for_command_line)}"


def _comparison(found: Mapping[str, BundleBench]) -> Iterator[str]:
    """Format a table with a row for each backend and bundle: the bundles of a backend together, fastest first."""
    width = max(len("bundle"), *map(len, found))
    yield f"{'backend':<22} {'bundle':<{width}} {'frame':>11} {_HEAD}  graph"
    backends = dict.fromkeys(backend for bench in found.values() for backend in bench.result.speeds)
    for backend in backends:
        rows = [(name, bench) for name, bench in found.items() if backend in bench.result.speeds]
        for name, bench in sorted(rows, key=lambda row: row[1].result.p50_ms[backend]):
            facts, speed = bench.facts, bench.result.speeds[backend]
            work = facts.describe_work(backend)
            yield f"{backend:<22} {name:<{width}} {facts.size:>11} {_cells(speed)}  {work}"
    for name, bench in found.items():
        for error in bench.result.failed.values():
            yield f"{name}: {_not_run(error)}"
    if len({bench.facts.size for bench in found.values()}) > 1:
        yield "The bundles have frames of different sizes: a time is that of a frame of the bundle's own size."
