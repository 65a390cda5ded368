"""A run as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.measure import is_inconclusive
from harness.plan import EAGER

_NO_VALUE = "-"


def render(run: Mapping[str, Any], before: str | None, change: Mapping[str, Mapping[str, float]]) -> str:
    """Render the file; `before` is the name of the run that `change` (see `history.changes`) compares with."""
    blocks = [
        _head(run),
        *(_case(case, change.get(name), before) for name, case in run["cases"].items()),
        _limits(run),
        _scaling(run),
        _process(run),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a table; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def ms(value: float | None) -> str:
    """Format milliseconds with three digits, or as a whole number from 100 on."""
    if value is None:
        return _NO_VALUE
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _head(run: Mapping[str, Any]) -> str:
    machine = run["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    lines = [
        "# Speed",
        "",
        f"{run['utc']}, {machine['cpu']}, {machine['cores']} cores ({', '.join(machine['flags']) or '-'}), "
        f"{run['threads']} threads each, Python {machine['python']}, commit {run['commit'] or 'unknown'}.",
        f"{versions}.",
        "",
        f"Milliseconds per frame, from the {run['samples']['counted']} of {run['samples']['tried']} samples "
        "during which other programs were idle. The method: docs/speed.md.",
    ]
    if run["quick"]:
        lines += ["", "**A --quick run: it tests the harness and says nothing about speed.**"]
    refused = [name for name, case in run["cases"].items() if is_inconclusive(case)]
    if refused:
        lines += [
            "",
            f"**Too noisy: {EAGER} was not measured in {', '.join(refused)}, so there are no ratios.**",
        ]
    return "\n".join(lines)


def _case(case: Mapping[str, Any], change: Mapping[str, float] | None, before: str | None) -> str:
    header = ["", "p50", "quartiles", "rounds", "p99", f"x {EAGER}", "lowest to highest", "of limit", "PSNR, dB",
              "load", "first", "memory, MB", "counted"]  # fmt: skip
    if change:
        header.append("p50 since")
    rows = []
    for name, entry in case["contenders"].items():
        if entry["status"] == "not run":
            continue
        row = [name, *_times(entry), *_ratio(entry, case), _share(entry), _psnr(entry)]
        doubt = "" if entry["load_quiet"] else "~"
        row += [
            f"{doubt}{ms(entry['load_ms'])}",
            f"{doubt}{ms(entry['first_ms'])}",
            f"{entry['peak_mb']:.0f}",
        ]
        row.append(f"{entry['counted']} of {entry['tried']}")
        if change:
            row.append(f"{change[name]:+.1%}" if name in change else _NO_VALUE)
        rows.append(row)
    size = f"{case['width']}x{case['height']}"
    up = "" if case["upsample"] else ", without upsampling"
    lines = [
        f"## {case['name']}",
        "",
        f"{case['preset']} {size}{up}, {case['task']}, weights: {case['weights_are']}; "
        f"{case['flops'] / 1e9:.1f} GFLOP per frame (folded graph); {case['pair']}.",
        "",
        table(header, rows),
        "",
    ]
    if change:
        lines.append(f"- Since: {before}.")
    lines.append(f"- {_export(case['export'])}")
    lines += [f"- {name}: {note}." for name, note in case["notes"].items()]
    lines += [
        f"- {name} was not run: {entry['reason']}."
        for name, entry in case["contenders"].items()
        if entry["status"] == "not run"
    ]
    return "\n".join(lines).rstrip()


def _export(made: Mapping[str, Any]) -> str:
    parity = made["parity"]
    return (
        f"Exported and checked in {made['seconds']:.1f} s (one run, other load not checked), "
        f"{made['peak_mb']:.0f} MB at most; differs from the model by at most {parity['max_difference']} "
        f"gray levels, in {parity['differing']:.4%} of values."
    )


def _times(entry: Mapping[str, Any]) -> list[str]:
    if entry["status"] != "measured":
        return ["too noisy", *[_NO_VALUE] * 3]
    quartiles = f"{ms(entry['q1_ms'])} to {ms(entry['q3_ms'])}"
    return [
        ms(entry["p50_ms"]),
        quartiles,
        f"{ms(entry['low_ms'])} to {ms(entry['high_ms'])}",
        ms(entry["p99_ms"]),
    ]


def _ratio(entry: Mapping[str, Any], case: Mapping[str, Any]) -> list[str]:
    ratio = entry["ratio"]
    if ratio is None or case["baseline"] is None:
        return [_NO_VALUE, _NO_VALUE]
    return [f"{ratio['median']:.2f}", f"{ratio['lowest']:.2f} to {ratio['highest']:.2f}"]


def _share(entry: Mapping[str, Any]) -> str:
    share = entry["share"]
    return _NO_VALUE if share is None else f"{share:.0%} {entry['limit']}"


def _psnr(entry: Mapping[str, Any]) -> str:
    if entry["differing"] is None:
        return _NO_VALUE
    return "identical" if entry["psnr_db"] is None else f"{entry['psnr_db']:.1f}"


def _limits(run: Mapping[str, Any]) -> str:
    rows = [
        [kind, f"{limit['gflops']:.0f}", limit["kind"], str(limit["side"])]
        for kind, limit in run["limits"].items()
    ]
    lines = ["## Limits of matrix products", ""]
    lines.append(table(["", "GFLOP/s", "by", "side"], rows) if rows else "Too noisy: none was measured.")
    if run["limits_failed"]:
        lines += ["", *(f"- {name} was not run: {why}." for name, why in run["limits_failed"].items())]
    return "\n".join(lines)


def _scaling(run: Mapping[str, Any]) -> str:
    def rows() -> Iterator[list[str]]:
        for name, points in run["scaling"].items():
            for p in points:
                yield [
                    f"{name}, {p['case']}",
                    f"{p['pixels']}",
                    ms(p["p50_ms"]),
                    f"{p['ns_per_pixel']:.0f}",
                    f"{p['ns_per_pixel_relative']:.2f}",
                    f"{p['bytes_per_pixel']:.0f}",
                    f"{p['bytes_per_pixel_relative']:.2f}",
                ]

    found = list(rows())
    if not found:
        return ""
    header = ["", "pixels", "p50", "ns per pixel", "x minimum", "peak bytes per pixel", "x minimum"]
    return f"## By frame size\n\n{table(header, found)}"


def _process(run: Mapping[str, Any]) -> str:
    whole = run["process"]
    if whole is None:
        return ""
    found = whole["times"]
    total = "too noisy"
    if found is not None:
        total = f"{ms(found['p50'])} ms ({ms(found['low'])} to {ms(found['high'])})"
    doubt = "" if whole["quiet"] else "~"
    rows = [[name, f"{doubt}{ms(value)}"] for name, value in whole["parts_ms"].items()]
    return "\n".join(
        [
            f"## A whole process: {whole['case']}",
            "",
            f"`tcmoa fuse` with onnxruntime from start to exit: {total}, median and range of "
            f"{whole['counted']} valid runs of {whole['tried']}. "
            f"`import tcmoa_runtime` alone: {doubt}{ms(whole['import_ms'])} ms.",
            "",
            table(["a new Python process", "ms"], rows),
        ]
    )
