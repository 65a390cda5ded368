"""One case: its contenders loaded, measured in turn, and put into figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.contender import forget_compiled, start
from harness.gate import is_quiet, usage
from harness.gemm import Limit
from harness.plan import EAGER, LIMIT_OF, Case
from harness.rounds import Measured, run_rounds
from harness.statistic import Series, ratio, times
from harness.work import read_made
from tcmoa_runtime.bench.worker import Worker
from tcmoa_runtime.errors import TcmoaError


@dataclass
class Loaded:
    """Milliseconds of loading and of the first frame, and whether the machine was quiet meanwhile."""

    load_ms: float
    first_ms: float
    quiet: bool


@dataclass
class Raw:
    """What was measured of a case, by contender; `images`: fused frames, uint8 [H, W, 3]."""

    measured: Measured
    loaded: dict[str, Loaded] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)


def measure_case(
    case: Case, folder: Path, threads: int, tries: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """The case's figures but for shares of the limit, ready for JSON."""
    made = read_made(folder)
    with ExitStack() as stack:
        workers, raw = _load(case, folder, threads, made["failed"], stack, say)

        def progress(done: int, of: int, measured: Measured) -> None:
            counted = sum(series.counted for series in measured.series.values())
            tried = sum(series.tried for series in measured.series.values())
            say(f"{case.name}: round {done} of {of}, {counted} of {tried} samples count")

        rounds = run_rounds(workers, case.rounds, tries=tries, progress=progress)
        raw.measured.series = rounds.series
        raw.measured.failed.update(rounds.failed)
        raw.peak_mb = {name: workers[name].peak_mb() for name in rounds.series}
    return figures(case, made, raw)


def _load(
    case: Case,
    folder: Path,
    threads: int,
    failed: Mapping[str, str],
    stack: ExitStack,
    say: Callable[[str], None],
) -> tuple[dict[str, Worker], Raw]:
    """The workers that run, their first frame behind them, and what is known by then."""
    raw = Raw(Measured(failed={name: failed[name] for name in case.contenders if name in failed}))
    workers: dict[str, Worker] = {}
    forget_compiled(folder)
    for name in case.contenders:
        if name in failed:
            continue
        say(f"{case.name}: loading {name}")
        worker = stack.enter_context(start(name, folder, threads))
        try:
            before = usage(worker.pid)
            load_ms, first_ms = worker.load()
            raw.loaded[name] = Loaded(load_ms, first_ms, is_quiet(before, usage(worker.pid)))
            path = folder / f"fused-{name.replace(' ', '-')}.npy"
            worker.request(f"save {path}")
            raw.images[name] = np.load(path)
            workers[name] = worker
        except TcmoaError as error:
            raw.measured.failed[name] = shortened(str(error))
    return workers, raw


def shortened(reason: str, most: int = 300) -> str:
    """A reason in one line of bearable length."""
    line = " ".join(reason.split())
    return line if len(line) <= most else f"{line[:most]}…"


def figures(case: Case, made: Mapping[str, Any], raw: Raw) -> dict[str, Any]:
    """Plain values: the case, and an entry for each contender in the case's order."""
    baseline = raw.measured.series.get(EAGER)
    entries = {
        name: _entry(name, raw, baseline)
        if name in raw.measured.series
        else {"status": "not run", "reason": raw.measured.failed.get(name, "unknown")}
        for name in case.contenders
    }
    return {
        **case.to_json(),
        "pixels": case.pixels,
        "flops": made["flops"],
        "weights_are": made.get("weights", ""),
        "pair": made["pair"],
        "notes": made.get("notes", {}),
        "export": made.get("export"),
        "baseline": EAGER if EAGER in case.contenders else None,
        "contenders": entries,
    }


def _entry(name: str, raw: Raw, baseline: Series | None) -> dict[str, Any]:
    series, loaded = raw.measured.series[name], raw.loaded[name]
    found = times(series)
    against = ratio(baseline, series) if baseline is not None else None
    return {
        "status": "too noisy" if found is None else "measured",
        "load_ms": loaded.load_ms,
        "first_ms": loaded.first_ms,
        "load_quiet": loaded.quiet,
        **{f"{key}_ms": value for key, value in (asdict(found) if found else {}).items()},
        "counted": series.counted,
        "tried": series.tried,
        "round_medians_ms": series.medians,
        "peak_mb": raw.peak_mb[name],
        "ratio": None if against is None else asdict(against),
        **compare(raw.images.get(EAGER), raw.images[name]),
    }


def compare(reference: Any, image: Any) -> dict[str, Any]:
    """PSNR in dB and share of values that differ between two uint8 frames; PSNR None where they are equal.

    Both are None without a reference.
    """
    if reference is None:
        return {"psnr_db": None, "differing": None}
    difference = reference.astype(np.float64) - image
    squares = float(np.mean(difference**2))
    return {
        "psnr_db": 10 * math.log10(255**2 / squares) if squares else None,
        "differing": float(np.mean(difference != 0)),
    }


def add_shares(case: dict[str, Any], limits: Mapping[str, Limit]) -> None:
    """Put each contender's share of its arithmetic's limit into a case's figures; None where either is unknown."""
    for name, entry in case["contenders"].items():
        kind = LIMIT_OF[name]
        limit = limits.get(kind)
        entry["limit"] = kind
        entry["share"] = (
            case["flops"] / (entry["p50_ms"] * 1e6) / limit.gflops
            if limit is not None and entry["status"] == "measured"
            else None
        )


def is_refused(case: Mapping[str, Any]) -> bool:
    """Whether nothing can be concluded from a case: it has a baseline, and that was not measured."""
    baseline = case["baseline"]
    return baseline is not None and case["contenders"][baseline]["status"] != "measured"


def scaling(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """By contender: nanoseconds and bytes of peak memory a pixel at each size, and against the smallest of them."""
    points: dict[str, list[dict[str, Any]]] = {}
    for case in cases.values():
        if not case["scale"]:
            continue
        for name, entry in case["contenders"].items():
            if entry["status"] == "measured":
                points.setdefault(name, []).append(
                    {
                        "case": case["name"],
                        "pixels": case["pixels"],
                        "p50_ms": entry["p50_ms"],
                        "ns_per_pixel": entry["p50_ms"] * 1e6 / case["pixels"],
                        "bytes_per_pixel": entry["peak_mb"] * 1e6 / case["pixels"],
                    }
                )
    kept = {name: sorted(p, key=lambda q: q["pixels"]) for name, p in points.items() if len(p) > 1}
    for found in kept.values():
        for key in ("ns_per_pixel", "bytes_per_pixel"):
            least = min(point[key] for point in found)
            for point in found:
                point[f"{key}_relative"] = point[key] / least
    return kept
