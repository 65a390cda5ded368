"""The page: every pair with its pictures and figures, to sort, filter and flip through.

One HTML file with its style and script inside, its pictures in a folder beside it by relative names, nothing from the
network: it opens from a disk or a mail attachment, and works on without scripts but for sorting and flipping.
Whatever comes from outside (file names, labels, messages) is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, Final

from tcmoa_calibration.evaluate.confidence import METHOD, Interval
from tcmoa_calibration.evaluate.pictures import FULL_DIFFERENCE, Picture
from tcmoa_calibration.evaluate.results import (
    FLICKER_FIGURES,
    ContestantResult,
    Evaluation,
    decimals,
    flicker_cells,
    shown,
)
from tcmoa_calibration.metrics import METRICS
from tcmoa_runtime import __version__
from tcmoa_runtime.images import write_bytes

REPORT: Final = "report.html"
CHOSEN: Final = "Qabf"
"""The metric by which pairs are sorted at first."""

KINDS: Final = {
    "difference": f"fused minus mean of x and y: orange brighter, blue darker, full at {FULL_DIFFERENCE} levels",
    "prompt": "prompt: red x dominates, blue y, green neither",
}


def write_report(evaluation: Evaluation, target: Path, pictures: str) -> None:
    """Write the page beside its place and rename it; `pictures` is the folder of pictures, relative to it."""
    text = "\n".join(_page(evaluation, pictures))
    write_bytes(target, text.encode("utf-8", "replace"))


def _page(evaluation: Evaluation, pictures: str) -> Iterator[str]:
    title = f"{len(evaluation.contestants)} fusion methods on {len(evaluation.pairs)} pairs"
    files = resources.files("tcmoa_calibration.evaluate") / "page"
    style, script = ((files / name).read_text("utf-8") for name in ("report.css", "report.js"))
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>{title}</title>"
    yield f"<style>\n{style}</style></head><body>"
    yield f"<header><h1>{title}</h1>"
    yield from _facts(evaluation)
    yield "</header><main>"
    yield from _summary(evaluation)
    yield from _flicker(evaluation)
    yield from _failures(evaluation)
    yield from _controls(evaluation)
    yield from _by_image(evaluation)
    yield from _legend(evaluation)
    yield f'<section id="pairs" style="--columns: {2 + len(evaluation.contestants)}">'
    for place, name in enumerate(evaluation.pairs):
        yield from _pair(evaluation, place, name, pictures)
    yield "</section></main>"
    yield _VIEWER
    yield f'<script type="application/json" id="figures">{_for_script(_figures(evaluation))}</script>'
    yield f"<script>\n{script}</script></body></html>"


def _chosen(evaluation: Evaluation) -> str:
    return CHOSEN if CHOSEN in evaluation.metrics else evaluation.metrics[0]


def _arrow(metric: str) -> str:
    return "↑" if METRICS[metric].higher_is_better else "↓"


def _facts(evaluation: Evaluation) -> Iterator[str]:
    yield (
        f"<p>Profile <b>{escape(evaluation.profile)}</b>; ± is {METHOD}; tcmoa {escape(__version__)}. "
        f"↑ higher is better, ↓ lower is. Pictures are JPEG, figures are of the images themselves.</p>"
    )
    yield "<ul>"
    for entry in evaluation.contestants:
        resized = ""
        if entry.resized:
            resized = (
                f" <b>{len(entry.resized)} of {len(entry.images)} pairs were resized to the bundle's frame "
                f"and back.</b>"
            )
        yield f"<li><b>{escape(entry.label)}</b>: {escape(entry.what)}.{resized}</li>"
    yield "</ul>"
    if evaluation.uneven:
        yield (
            "<p><b>Not all methods have figures for the same pairs</b>: compare them by the differences, which are "
            "over the pairs of both.</p>"
        )
    if evaluation.stretched:
        told = f"{len(evaluation.stretched)} of {len(evaluation.pairs)}"
        yield f"<p>{told} pairs have 16-bit sources; they were stretched to 8 bits first.</p>"


def _labels(evaluation: Evaluation) -> list[str]:
    return [entry.label for entry in evaluation.contestants]


def _head(first: str, columns: Iterable[str]) -> str:
    """The head of a table, and the start of its body."""
    return (
        "<thead><tr>"
        + "".join(f"<th>{escape(name)}</th>" for name in (first, *columns))
        + "</tr></thead><tbody>"
    )


def _flicker(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.flicker:
        return
    yield '<section id="flicker"><h2>Flicker</h2><div class="wide"><table class="sortable">'
    yield _head("method", FLICKER_FIGURES)
    for label, found in evaluation.flicker.items():
        yield f'<tr><th scope="row">{escape(label)}</th>'
        for name, cell in zip(FLICKER_FIGURES, flicker_cells(found), strict=True):
            value = getattr(found, name)
            yield f"<td>{cell}</td>" if value is None else f'<td data-value="{value!r}">{cell}</td>'
        yield "</tr>"
    yield "</tbody></table></div><p>Grey levels from frame to frame where nothing moves in either source, lower is "
    yield "better: excess and pumping (of blocks) are beyond both sources. Share: of the pixels, counted as still."
    yield from (escape(f" {found.missing}") for found in evaluation.flicker.values() if found.missing)
    yield "</p></section>"


def _summary(evaluation: Evaluation) -> Iterator[str]:
    first = escape(evaluation.contestants[0].label)
    yield '<section id="summary"><h2>Means</h2><div class="wide"><table class="sortable">'
    yield _head("metric", _labels(evaluation))
    for metric in evaluation.metrics:
        yield f'<tr><th scope="row">{escape(metric)} {_arrow(metric)}</th>'
        places = evaluation.places(metric)
        cells = zip(evaluation.means[metric], evaluation.best(metric), strict=True)
        for i, (mean, best) in enumerate(cells):
            apart = "" if i == 0 else _difference(evaluation, metric, evaluation.differences[metric][i - 1])
            value = "" if mean.mean is None else f' data-value="{mean.mean!r}"'
            of = "" if mean.n == len(evaluation.pairs) else f' <span class="n">n {mean.n}</span>'
            yield f"<td{value}{' class=best' if best else ''}>{escape(shown(mean, places))}{of}{apart}</td>"
        yield "</tr>"
    yield "</tbody></table></div>"
    yield f"<p>Best mean in bold on colour. Second line: mean difference to <b>{first}</b> on the same pairs;"
    yield "▲ better, ▼ worse, ≈ not told apart (the interval holds 0). One in twenty seems real by chance.</p>"
    yield "</section>"


def _difference(evaluation: Evaluation, metric: str, difference: Interval) -> str:
    if difference.mean is None:
        return ""
    verdict, word = "≈", "same"
    if difference.excludes_zero:
        better = (difference.mean > 0) == METRICS[metric].higher_is_better
        verdict, word = ("▲", "better") if better else ("▼", "worse")
    told = escape(shown(difference, evaluation.places(metric), sign=True))
    return f'<br><span class="apart {word}">{verdict} {told}</span>'


def _failures(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.failures:
        return
    yield f'<section id="failures"><h2>{len(evaluation.failures)} without figures</h2><ul>'
    for failure in evaluation.failures:
        who = "" if failure.contestant is None else f", {escape(failure.contestant)}"
        yield f"<li><b>{escape(failure.name)}{who}</b>: {escape(failure.error)}</li>"
    yield "</ul></section>"


def _controls(evaluation: Evaluation) -> Iterator[str]:
    chosen = _chosen(evaluation)
    yield '<nav id="controls"><label>Metric <select id="metric">'
    for i, metric in enumerate(evaluation.metrics):
        picked = " selected" if metric == chosen else ""
        yield f'<option value="{i}"{picked}>{escape(metric)} {_arrow(metric)}</option>'
    yield '</select></label><label>of <select id="contestant">'
    for i, entry in enumerate(evaluation.contestants):
        yield f'<option value="{i}">{escape(entry.label)}</option>'
    yield (
        '</select></label><label>Order <select id="order"><option value="worst">worst first</option>'
        '<option value="best">best first</option><option value="name">by name</option></select></label>'
        '<label>Filter <input id="filter" type="search" placeholder="part of a name"></label>'
        '<span id="count"></span></nav>'
    )


def _by_image(evaluation: Evaluation) -> Iterator[str]:
    chosen = _chosen(evaluation)
    yield f'<details id="by-image"><summary>All pairs by <b class="metric-name">{escape(chosen)}</b></summary>'
    yield '<div class="wide"><table class="sortable">'
    yield _head("pair", _labels(evaluation))
    for place, name in enumerate(evaluation.pairs):
        yield f'<tr data-pair="{place}"><th scope="row"><a href="#pair-{place}">{escape(name)}</a></th>'
        yield from (f"<td>{_value(entry, name, chosen)}</td>" for entry in evaluation.contestants)
        yield "</tr>"
    yield "</tbody></table></div></details>"


def _legend(evaluation: Evaluation) -> Iterator[str]:
    seen = {kind for entry in evaluation.contestants for kinds in entry.pictures.values() for kind in kinds}
    told = "; ".join(text for kind, text in KINDS.items() if kind in seen)
    yield f"<p>Click a picture, then flip with ← →. Below a fused image: {escape(told)}.</p>"


def _value(entry: ContestantResult, name: str, metric: str) -> str:
    value = entry.images.get(name, {}).get(metric)
    return "-" if value is None else f"{value:.{decimals([value])}f}"


def _pair(evaluation: Evaluation, place: int, name: str, pictures: str) -> Iterator[str]:
    chosen = _chosen(evaluation)
    yield f'<article class="pair" id="pair-{place}" data-pair="{place}"><h3>{escape(name)}</h3><div class="strip">'
    for which, picture in evaluation.sources.get(name, {}).items():
        yield f'<div class="column">{_figure(pictures, picture, which, name, "image")}'
        yield f"<p>{which}</p></div>"
    for i, entry in enumerate(evaluation.contestants):
        yield '<div class="column">'
        shown_here = entry.pictures.get(name, {})
        if "fused" in shown_here:
            yield _figure(pictures, shown_here["fused"], entry.label, name, "image")
        resized = " <small>resized</small>" if name in entry.resized else ""
        yield (
            f"<p>{escape(entry.label)} "
            f'<b class="value" data-contestant="{i}">{_value(entry, name, chosen)}</b>{resized}</p>'
        )
        for error in _errors(evaluation, name, entry.label):
            yield f'<p class="error">{escape(error)}</p>'
        yield '<div class="maps">'
        for kind in ("difference", "prompt"):
            if kind in shown_here:
                yield _figure(pictures, shown_here[kind], f"{entry.label}, {KINDS[kind]}", name, "map")
        yield "</div></div>"
    yield "</div>"
    yield from _details(evaluation, name)
    yield "</article>"


def _errors(evaluation: Evaluation, name: str, label: str) -> list[str]:
    return [f.error for f in evaluation.failures if f.name == name and f.contestant in (None, label)]


def _figure(folder: str, picture: Picture, what: str, name: str, group: str) -> str:
    label, alt = escape(what), escape(f"{name}: {what}")
    return (
        f'<a class="picture" data-group="{group}" data-what="{label}" href="{folder}/{escape(picture["file"])}">'
        f'<img loading="lazy" decoding="async" src="{folder}/{escape(picture["small"])}" alt="{alt}" '
        f'title="{label}" width="{picture["width"]}" height="{picture["height"]}"></a>'
    )


def _details(evaluation: Evaluation, name: str) -> Iterator[str]:
    yield '<details><summary>All figures</summary><div class="wide"><table>'
    yield _head("metric", _labels(evaluation))
    for metric in evaluation.metrics:
        yield f'<tr><th scope="row">{escape(metric)} {_arrow(metric)}</th>'
        for entry in evaluation.contestants:
            reason = entry.skipped.get(name, {}).get(metric)
            told = "" if reason is None else f" <small>{escape(reason)}</small>"
            yield f"<td>{_value(entry, name, metric)}{told}</td>"
        yield "</tr>"
    yield "</tbody></table></div></details>"


def _figures(evaluation: Evaluation) -> Mapping[str, Any]:
    """What the script needs: names, and values [pair][contestant][metric]."""

    def row(entry: ContestantResult, name: str) -> list[float | None]:
        values = entry.images.get(name, {})
        return [values.get(metric) for metric in evaluation.metrics]

    return {
        "metrics": [[name, METRICS[name].higher_is_better] for name in evaluation.metrics],
        "pairs": evaluation.pairs,
        "values": [[row(entry, name) for entry in evaluation.contestants] for name in evaluation.pairs],
    }


def _for_script(value: Any) -> str:
    """JSON that no `</script>` or `<!--` in a name can end."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


_VIEWER: Final = """<dialog id="viewer"><div id="stage"><img id="shown" alt=""></div><p id="told"></p>
<p id="keys">← → flip · ↑ ↓ other pair · space back to the one before · z zoom · Esc close</p></dialog>"""
