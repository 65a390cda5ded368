"""What a whole process costs: `tcmoa fuse` from its start to its end, and where that time goes."""

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
from harness.gate import usage as usage_of
from harness.statistic import Sample, Series, Times, times
from tcmoa_runtime.errors import TcmoaError

SPLIT: Final = """
import time
began = time.monotonic()
import json, sys
import tcmoa_runtime
package = time.monotonic()
import cv2, numpy, onnxruntime
from tcmoa_runtime import Fuser
from tcmoa_runtime.images import read_frame
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
"""A fresh Python process that does by itself what the command does, but for parsing and writing; prints seconds."""

IMPORT: Final = (
    "import time; t = time.perf_counter(); import tcmoa_runtime; print((time.perf_counter() - t) * 1e3)"
)


@dataclass(frozen=True)
class Whole:
    """`times`: of the command, None where too noisy. `parts_ms`: medians by part; `import_ms`: of `tcmoa_runtime`
    alone; both from all runs where not `quiet`, else from those that count.
    """

    times: Times | None
    counted: int
    tried: int
    parts_ms: dict[str, float]
    import_ms: float
    quiet: bool


def command_line(folder: Path, threads: int, out: Path) -> list[str]:
    """`tcmoa fuse` on what was built of a case."""
    program = Path(sys.executable).parent / "tcmoa"
    start = (
        [str(program)]
        if program.is_file()
        else [sys.executable, "-c", "from tcmoa_runtime.cli import main; main()"]
    )
    files = [str(folder / "fp32"), str(folder / "x.png"), str(folder / "y.png"), "-o", str(out)]
    return [*start, "fuse", *files, "--backend", "onnxruntime", "--threads", str(threads)]


def run_gated(
    command: Sequence[str], env: dict[str, str], meter: Callable[[None], Usage] = usage_of
) -> tuple[Sample, str]:
    """Run a command to its end: one sample in milliseconds, and what it printed; TcmoaError where it fails."""
    before = meter(None)
    done = subprocess.run(list(command), env=env, capture_output=True, text=True, check=False)
    after = meter(None)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise TcmoaError(f"{Path(command[0]).name}: exit status {done.returncode}: {reason}")
    wall = (after.wall - before.wall) * 1e3
    return Sample([wall], foreign_seconds(before, after), is_quiet(before, after)), done.stdout


def repeat(command: Sequence[str], env: dict[str, str], runs: int, tries: int) -> Series:
    """`runs` runs, each tried up to `tries` times until it counts, after one that warms the disk's cache."""
    run_gated(command, env)
    series = Series()
    for _ in range(runs):
        samples: list[Sample] = []
        while len(samples) < tries and not any(sample.counts for sample in samples):
            samples.append(run_gated(command, env)[0])
        series.rounds.append(samples)
    return series


def measure_process(folder: Path, threads: int, runs: int, tries: int, say: Callable[[str], None]) -> Whole:
    """`runs` of each, every one tried up to `tries` times until it counts."""
    env = environment(threads)
    say(f"whole processes, {runs} runs of `tcmoa fuse`")
    out = folder / "fused.png"
    series = repeat(command_line(folder, threads, out), env, runs, tries)
    say("where their time goes")
    files = [str(folder / name) for name in ("fp32", "x.png", "y.png")]

    def split() -> list[str]:
        # CLOCK_MONOTONIC is one clock for all processes on Linux.
        return [sys.executable, "-c", SPLIT, repr(time.monotonic()), *files, str(threads)]

    splits, quiet = _printed(split, env, runs, tries)
    imports, also_quiet = _printed(lambda: [sys.executable, "-c", IMPORT], env, runs, tries)
    parts: list[dict[str, float]] = [json.loads(text.splitlines()[-1]) for text in splits]
    return Whole(
        times(series),
        series.counted,
        series.tried,
        {name: statistics.median(part[name] for part in parts) * 1e3 for name in parts[0]},
        statistics.median(float(text) for text in imports),
        quiet and also_quiet,
    )


def _printed(
    command: Callable[[], Sequence[str]], env: dict[str, str], runs: int, tries: int
) -> tuple[list[str], bool]:
    """What the runs that count printed, and True; or all of them, and False, where fewer than half do."""
    counted, every = [], []
    for _ in range(runs):
        for _ in range(tries):
            sample, text = run_gated(command(), env)
            every.append(text)
            if sample.counts:
                counted.append(text)
                break
    return (counted, True) if counted and 2 * len(counted) >= runs else (every, False)
