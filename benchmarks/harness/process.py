"""The time of a whole process, `tcmoa fuse` from start to exit, and its parts."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.contender import environment
from harness.gate import Usage, foreign_seconds, is_quiet
from harness.gate import usage as read_usage
from harness.statistic import Sample, Series, Times, times
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.typing import OnMessage

PROCESS_SCRIPT: Final = """
import time
began = time.monotonic()
import json, sys
import tcmoa_runtime
package = time.monotonic()
import cv2, numpy, onnxruntime
from tcmoa_runtime import Fuser
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.typing import OnMessage
imported = time.monotonic()
fuser = Fuser.load(sys.argv[2], "onnxruntime", threads=int(sys.argv[5]))
loaded = time.monotonic()
x, y = read_frame(sys.argv[3]), read_frame(sys.argv[4])
read = time.monotonic()
fuser(x, y)
first = time.monotonic()
print(json.dumps({
    "interpreter": began - float(sys.argv[1]),
    "import": imported - began,
    "load": loaded - imported,
    "read the pair": read - loaded,
    "first frame": first - read,
}))
"""
"""A script that does what the command does, without parsing options and writing the image; prints seconds."""

IMPORT_SCRIPT: Final = (
    "import time; t = time.perf_counter(); import tcmoa_runtime; print((time.perf_counter() - t) * 1e3)"
)


@dataclass(frozen=True)
class ProcessTimes:
    """Times of whole processes.

    Attributes:
        times: Times of the command; None if it is too noisy.
        counted: Number of valid runs.
        tried: Number of runs.
        parts_ms: Median of each part.
        import_ms: Median of `import tcmoa_runtime`.
        quiet: Whether `parts_ms` and `import_ms` are from valid runs; else they are from all runs.
    """

    times: Times | None
    counted: int
    tried: int
    parts_ms: dict[str, float]
    import_ms: float
    quiet: bool


def command_line(folder: Path, threads: int, out: Path) -> list[str]:
    """Return the command line of `tcmoa fuse` for the files of a case."""
    program = Path(sys.executable).parent / "tcmoa"
    start = (
        [str(program)]
        if program.is_file()
        else [sys.executable, "-P", "-c", "from tcmoa_runtime.cli import main; main()"]
    )
    files = [str(folder / "fp32"), str(folder / "x.png"), str(folder / "y.png"), "-o", str(out)]
    return [*start, "fuse", *files, "--backend", "onnxruntime", "--threads", str(threads)]


def run_gated(
    command: Sequence[str], env: dict[str, str], meter: Callable[[None], Usage] = read_usage
) -> tuple[Sample, str]:
    """Run a command; returns a sample in milliseconds and its output. Raises TcmoaError if the command fails."""
    before = meter(None)
    done = subprocess.run(list(command), env=env, capture_output=True, text=True, check=False)
    after = meter(None)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TcmoaError(f"exit status {done.returncode}: {reason}", subject=Path(command[0]).name)
    wall = (after.wall - before.wall) * 1e3
    return Sample([wall], foreign_seconds(before, after), is_quiet(before, after)), done.stdout


def repeat(command: Sequence[str], env: dict[str, str], runs: int, tries: int) -> Series:
    """Run a command once to warm the disk cache, then `runs` times, each up to `tries` times until it counts."""
    run_gated(command, env)
    series = Series()
    for _ in range(runs):
        samples: list[Sample] = []
        while len(samples) < tries and not any(sample.counts for sample in samples):
            samples.append(run_gated(command, env)[0])
        series.rounds.append(samples)
    return series


def measure_process(folder: Path, threads: int, runs: int, tries: int, on_message: OnMessage) -> ProcessTimes:
    """Measure the command and its parts `runs` times, each up to `tries` times until it counts."""
    env = environment(threads)
    on_message(f"whole processes, {runs} runs of `tcmoa fuse`")
    out = folder / "fused.png"
    series = repeat(command_line(folder, threads, out), env, runs, tries)
    on_message("parts of the time")
    files = [str(folder / name) for name in ("fp32", "x.png", "y.png")]

    def split() -> list[str]:
        # CLOCK_MONOTONIC is one clock for all processes on Linux.
        return [sys.executable, "-P", "-c", PROCESS_SCRIPT, repr(time.monotonic()), *files, str(threads)]

    splits, quiet = _collect_output(split, env, runs, tries)
    imports, also_quiet = _collect_output(
        lambda: [sys.executable, "-P", "-c", IMPORT_SCRIPT], env, runs, tries
    )
    parts: list[dict[str, float]] = [json.loads(text.splitlines()[-1]) for text in splits]
    return ProcessTimes(
        times(series),
        series.counted,
        series.tried,
        {name: statistics.median(part[name] for part in parts) * 1e3 for name in parts[0]},
        statistics.median(float(text) for text in imports),
        quiet and also_quiet,
    )


def _collect_output(
    command: Callable[[], Sequence[str]], env: dict[str, str], runs: int, tries: int
) -> tuple[list[str], bool]:
    """Return the output of the valid runs and True; if fewer than half are valid, of all runs and False."""
    counted, every = [], []
    for _ in range(runs):
        for _ in range(tries):
            sample, text = run_gated(command(), env)
            every.append(text)
            if sample.counts:
                counted.append(text)
                break
    return (counted, True) if counted and 2 * len(counted) >= runs else (every, False)
