"""Measure the speed of the model in all forms in which it runs on a CPU.

    python benchmarks/speed.py [--quick] [--out DIR] [--threads 2] [--only CASES] [--work DIR]

Each contender runs in its own process, one at a time, in rounds; a sample counts only if other programs were idle.
docs/speed.md explains the results. Linux only; needs `pip install 'tcmoa[export,calibration,bench]'`.
Exit codes: 0 success, 2 wrong input, 3 the machine is too noisy for a conclusion (the measurements are written), or a
package is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from harness import machine, markdown, plots
from harness.gate import usage
from harness.gemm import measure_limits
from harness.history import FORMAT, changes, file_name, latest
from harness.measure import add_shares, is_inconclusive, measure_case, scaling
from harness.plan import EAGER, FULL, QUICK, Plan, choose, minutes
from harness.process import measure_process
from harness.work import prepare
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.install import install_hint

EXIT_NOISY: Final = 3
"""Exit code if a baseline was too noisy."""
RESULTS: Final = Path(__file__).resolve().parent / "results"

_began = time.monotonic()


def _log(line: str) -> None:
    print(f"[{time.monotonic() - _began:5.0f} s] {line}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="test the harness in a minute; the results say nothing about speed",
    )
    parser.add_argument("--out", type=Path, help="folder of the results of this run and earlier ones")
    parser.add_argument("--threads", type=int, default=2, help="threads of each contender")
    parser.add_argument("--only", default="", help="cases, e.g. base-448,tiny-640x480")
    parser.add_argument(
        "--work", type=Path, help="folder of the bundles and frames of the cases, built once and reused"
    )
    return parser


def measure(plan: Plan, threads: int, work: Path) -> dict[str, Any]:
    """Measure all cases of a plan; returns values for JSON."""
    started = datetime.now(UTC)
    folders = {case.name: prepare(case, work, threads, _log) for case in plan.cases}
    limits, failed = measure_limits(plan, threads, _log)
    cases = {case.name: measure_case(case, folders[case.name], threads, plan, _log) for case in plan.cases}
    for case in cases.values():
        add_shares(case, limits)
    process = None
    if plan.process_case in folders:
        whole = measure_process(folders[plan.process_case], threads, plan.processes, plan.tries, _log)
        process = {"case": plan.process_case, **asdict(whole)}
    entries = [entry for case in cases.values() for entry in case["contenders"].values()]
    return {
        "format": FORMAT,
        "utc": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "quick": plan.quick,
        "threads": threads,
        "machine": machine.describe(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "seconds": round(time.monotonic() - _began, 1),
        "samples": {key: sum(entry.get(key, 0) for entry in entries) for key in ("counted", "tried")},
        "limits": {kind: asdict(limit) for kind, limit in sorted(limits.items())},
        "limits_failed": failed,
        "cases": cases,
        "scaling": scaling(cases),
        "process": process,
    }


def write_results(run: dict[str, Any], out: Path) -> None:
    """Write the results, the JSON file first; raises InputError if `out` is not writable."""
    found = latest(out, run)
    before, change = (None, {}) if found is None else (found[0], changes(run, found[1]))
    write_bytes(out / file_name(run), (json.dumps(run, indent=1, allow_nan=False) + "\n").encode())
    write_bytes(out / "speed.md", markdown.render(run, before, change).encode())
    write_bytes(out / "latency.png", plots.latency(run))
    write_bytes(out / "limit.png", plots.limit(run))


def exit_code_of(run: dict[str, Any]) -> int:
    """Return the exit code; prints a line if the results are inconclusive."""
    refused = [name for name, case in run["cases"].items() if is_inconclusive(case)]
    if refused:
        print(
            f"speed: too noisy: {EAGER} has too few valid samples in {', '.join(refused)}, so there are no ratios. "
            "Stop other programs, and repeat the measurement",
            file=sys.stderr,
        )
        return EXIT_NOISY
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if not 1 <= options.threads <= (os.cpu_count() or 1):
            raise InputError(
                f"threads is {options.threads}; expected 1 to {os.cpu_count()}, the number of cores"
            )
        only = [name.strip() for name in options.only.split(",") if name.strip()]
        plan = choose(QUICK if options.quick else FULL, only)
        usage(os.getpid())  # fails now, not after the build, on a system without /proc
        plots.check_available()
        # Results of --quick must not replace those of a full run.
        options.out = options.out or (RESULTS / "quick" if options.quick else RESULTS)
        _make_folder(options.out)
        names = ", ".join(case.name for case in plan.cases)
        quiet, busy = minutes(plan.seconds), minutes(plan.max_seconds)
        _log(f"planned: {names}; about {quiet} on two idle cores, up to {busy} on busy ones")
        with tempfile.TemporaryDirectory(prefix="tcmoa-speed-") as temporary:
            if options.work is not None:
                _make_folder(options.work)
            run = measure(plan, options.threads, (options.work or Path(temporary)).resolve())
        write_results(run, options.out)
        _log(f"written: {options.out / 'speed.md'}, {options.out / file_name(run)}")
        return exit_code_of(run)
    except TcmoaError as error:
        print(f"speed: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("speed: interrupted; nothing was written", file=sys.stderr)
        return 130
    except ImportError as error:
        print(f"speed: {error}. {install_hint('export', 'calibration', 'bench')}", file=sys.stderr)
        return EXIT_NOISY


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be created: {error.strerror}", subject=folder) from error


if __name__ == "__main__":
    sys.exit(main())
