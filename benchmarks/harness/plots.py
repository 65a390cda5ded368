"""Two plots of a run: latency by frame size, and shares of the limit of matrix products."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from tcmoa_runtime.errors import MissingError
from tcmoa_runtime.install import install_hint

_NO_DATA = "nothing was measured"


def new_figure(width: float, height: float) -> Any:
    """Return a figure of a size in inches; raises MissingError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingError("matplotlib is not installed", remedy=install_hint("bench")) from error
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_available() -> None:
    """Raise MissingError if matplotlib is missing, before anything is measured."""
    new_figure(1, 1)


def to_png(figure: Any) -> bytes:
    """Return a figure as a PNG file."""
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def latency(run: Mapping[str, Any]) -> bytes:
    """Plot p50 by pixels, both logarithmic, with a line of minimal time per pixel for each contender; returns PNG."""
    figure = new_figure(7, 5)
    axes = figure.add_subplot()
    for name, points in run["scaling"].items():
        pixels = [p["pixels"] / 1e6 for p in points]
        (line,) = axes.loglog(pixels, [p["p50_ms"] for p in points], "o", label=name)
        minimum = min(p["ns_per_pixel"] for p in points)
        ends = [min(pixels), max(pixels)]
        label = f"{minimum:.0f} ns per pixel"
        axes.loglog(ends, [minimum * end for end in ends], "-", color=line.get_color(), lw=1, label=label)
    if run["scaling"]:
        axes.legend()
        sizes = {
            p["pixels"] / 1e6: p["case"].rpartition("-")[2] for ps in run["scaling"].values() for p in ps
        }
        axes.set_xticks(list(sizes), list(sizes.values()), minor=False)
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize=7)
    else:
        axes.text(0.5, 0.5, _NO_DATA, ha="center", transform=axes.transAxes)
    axes.set_xlabel("frame")
    axes.set_ylabel("milliseconds per frame (p50)")
    axes.set_title(f"{run['machine']['cpu']}, {run['threads']} threads")
    axes.grid(visible=True, which="both", alpha=0.3)
    return to_png(figure)


def limit(run: Mapping[str, Any]) -> bytes:
    """Plot the share of the limit that each contender reaches, grouped by case; returns PNG."""
    bars = [
        (f"{name} ({case['name']})", entry["share"], entry["limit"])
        for case in run["cases"].values()
        if case["baseline"] is not None
        for name, entry in case["contenders"].items()
        if entry.get("share") is not None
    ]
    figure = new_figure(8, 1.5 + 0.28 * max(len(bars), 3))
    axes = figure.add_subplot()
    colors = {"fp32": "tab:blue", "bf16": "tab:orange", "int8": "tab:green"}
    for place, (_, share, kind) in enumerate(bars):
        axes.barh(place, 100 * share, color=colors[kind])
        axes.text(100 * share, place, f" {share:.0%}", va="center", fontsize=8)
    if not bars:
        axes.text(0.5, 0.5, _NO_DATA, ha="center", transform=axes.transAxes)
    for kind in dict.fromkeys(kind for _, _, kind in bars):
        found = run["limits"][kind]
        axes.bar(0, 0, color=colors[kind], label=f"of {kind}: {found['gflops']:.0f} GFLOP/s")
    if bars:
        axes.legend(loc="lower right", fontsize=8)
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max([100, *(115 * share for _, share, _ in bars)]))
    axes.set_xlabel("share of the fastest matrix product, %")
    return to_png(figure)
