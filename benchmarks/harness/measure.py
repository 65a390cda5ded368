"""Measure one case: load its contenders, run them in turn, and summarize the results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.contender import delete_compiled, start
from harness.gate import is_quiet, usage
from harness.gemm import Limit
from harness.plan import ARITHMETIC_OF, EAGER, Case, Plan
from harness.rounds import RoundResults, run_rounds
from harness.statistic import Series, ratio, times
from harness.work import read_build_record
from tcmoa_runtime.bench.worker import Worker
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.typing import OnMessage


@dataclass
class Loaded:
    """Milliseconds of the load and of the first frame, and whether other programs were idle."""

    load_ms: float
    first_ms: float
    quiet: bool


@dataclass
class CaseMeasurements:
    """Measurements of a case by contender; `images` are fused frames, uint8 [H, W, 3]."""

    measured: RoundResults
    loaded: dict[str, Loaded] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)


def measure_case(case: Case, folder: Path, threads: int, plan: Plan, on_message: OnMessage) -> dict[str, Any]:
    """Measure a case of a plan; returns its results for JSON, without the shares of the limits."""
    made = read_build_record(folder)
    with ExitStack() as stack:
        workers, raw = _load(case, folder, threads, made["failed"], stack, on_message)

        def progress(done: int, of: int, measured: RoundResults) -> None:
            counted = sum(series.counted for series in measured.series.values())
            tried = sum(series.tried for series in measured.series.values())
            on_message(f"{case.name}: round {done} of {of}, {counted} of {tried} samples valid")

        rounds = run_rounds(
            workers, case.rounds, tries=plan.tries, sample_seconds=plan.sample_seconds, progress=progress
        )
        raw.measured.series = rounds.series
        raw.measured.failed.update(rounds.failed)
        raw.peak_mb = {name: workers[name].peak_mb() for name in rounds.series}
    return summarize_case(case, made, raw)


def _load(
    case: Case,
    folder: Path,
    threads: int,
    failed: Mapping[str, str],
    stack: ExitStack,
    on_message: OnMessage,
) -> tuple[dict[str, Worker], CaseMeasurements]:
    """Start the contenders and run their first frames; returns the workers and the first measurements."""
    raw = CaseMeasurements(
        RoundResults(failed={name: failed[name] for name in case.contenders if name in failed})
    )
    workers: dict[str, Worker] = {}
    delete_compiled(folder)
    for name in case.contenders:
        if name in failed:
            continue
        on_message(f"{case.name}: loading {name}")
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
            raw.measured.failed[name] = shorten(str(error))
    return workers, raw


def shorten(reason: str, max_characters: int = 300) -> str:
    """Return a reason as one line of limited length."""
    line = " ".join(reason.split())
    return line if len(line) <= max_characters else f"{line[:max_characters]}…"


def summarize_case(case: Case, made: Mapping[str, Any], raw: CaseMeasurements) -> dict[str, Any]:
    """Return the case and an entry for each contender, in the order of the case."""
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


def _entry(name: str, raw: CaseMeasurements, baseline: Series | None) -> dict[str, Any]:
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
    """Return the PSNR in dB and the share of differing values of two uint8 frames; PSNR is None for equal frames.

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
    """Add the share of the limit that each contender reaches to the results; None if it is unknown."""
    for name, entry in case["contenders"].items():
        kind = ARITHMETIC_OF[name]
        limit = limits.get(kind)
        entry["limit"] = kind
        entry["share"] = (
            case["flops"] / (entry["p50_ms"] * 1e6) / limit.gflops
            if limit is not None and entry["status"] == "measured"
            else None
        )


def is_inconclusive(case: Mapping[str, Any]) -> bool:
    """Return whether a case has a baseline that was not measured."""
    baseline = case["baseline"]
    return baseline is not None and case["contenders"][baseline]["status"] != "measured"


def scaling(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return time and peak memory per pixel at each frame size by contender, also relative to their minima."""
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
            minimum = min(point[key] for point in found)
            for point in found:
                point[f"{key}_relative"] = point[key] / minimum
    return kept
