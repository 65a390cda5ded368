"""The report: a page with every pair, its pictures and its metrics, to sort, filter and flip through.

One HTML file with its style and script inside and its pictures in a folder beside it, by relative names. Nothing comes
from the network, so it opens from a disk or an e-mail attachment. Without scripts everything works except sorting and
flipping. File names, labels and messages are escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from html import escape
from importlib import resources
from typing import Final

from tcmoa_calibration.evaluate.comparison import COMPARISON_COLUMNS, comparison_notes, comparison_rows
from tcmoa_calibration.evaluate.confidence import DESCRIPTION, Interval
from tcmoa_calibration.evaluate.pictures import MAX_DIFFERENCE, Picture
from tcmoa_calibration.evaluate.results import (
    FLICKER_COLUMNS,
    Evaluation,
    MethodResult,
    format_flicker,
    format_interval,
    num_decimals,
)
from tcmoa_calibration.metrics import METRICS
from tcmoa_runtime import __version__
from tcmoa_runtime.typing import JsonObject, JsonValue

DEFAULT_METRIC: Final = "Qabf"
"""The metric by which pairs are sorted at first."""

MAP_LEGENDS: Final = {
    "difference": (
        f"fused minus mean of x and y: orange brighter, blue darker, full color at {MAX_DIFFERENCE} gray levels"
    ),
    "prompt": "prompt: red for x, blue for y, green for both equally",
}

_VIEWER: Final = """<dialog id="viewer"><div id="stage"><img id="picture" alt=""></div><p id="caption"></p>
<p id="keys">← → next picture · ↑ ↓ next pair · space previous picture · z zoom · Esc close</p></dialog>"""


def format_report(evaluation: Evaluation, pictures: str) -> str:
    """Return the page; `pictures` is the folder of the pictures, relative to it."""
    return "\n".join(_page(evaluation, pictures))


def _page(evaluation: Evaluation, pictures: str) -> Iterator[str]:
    title = f"{len(evaluation.methods)} fusion methods on {len(evaluation.pairs)} pairs"
    files = resources.files("tcmoa_calibration.evaluate") / "page"
    style, script = ((files / name).read_text("utf-8") for name in ("report.css", "report.js"))
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>{title}</title>"
    num_columns = 2 + len(evaluation.methods)
    yield f"<style>\n{style}.strip {{ grid-template-columns: repeat({num_columns}, minmax(170px, 480px)); }}"
    yield "</style></head><body>"
    yield f"<header><h1>{title}</h1>"
    yield from _introduction(evaluation)
    yield "</header><main>"
    yield from _means(evaluation)
    yield from _comparison(evaluation)
    yield from _flicker(evaluation)
    yield from _failures(evaluation)
    yield from _controls(evaluation)
    yield from _pair_table(evaluation)
    yield from _legend(evaluation)
    yield '<section id="pairs">'
    for index, name in enumerate(evaluation.pairs):
        yield from _pair(evaluation, index, name, pictures)
    yield "</section></main>"
    yield _VIEWER
    yield f'<script type="application/json" id="data">{_for_script(_script_data(evaluation))}</script>'
    yield f"<script>\n{script}</script></body></html>"


def _default_metric(evaluation: Evaluation) -> str:
    return DEFAULT_METRIC if DEFAULT_METRIC in evaluation.metrics else evaluation.metrics[0]


def _arrow(metric: str) -> str:
    return "↑" if METRICS[metric].higher_is_better else "↓"


def _introduction(evaluation: Evaluation) -> Iterator[str]:
    yield (
        f"<p>Profile <b>{escape(evaluation.profile)}</b>. ± is the {escape(DESCRIPTION)}. "
        f"↑ higher is better, ↓ lower is better. Pictures are JPEG files; metrics are computed from the original "
        f"images. tcmoa {escape(__version__)}.</p>"
    )
    yield "<ul>"
    for method in evaluation.methods:
        resized = ""
        if method.resized:
            resized = (
                f" <b>{len(method.resized)} of {len(method.images)} pairs were resized to the bundle's frame and "
                f"back.</b>"
            )
        yield f"<li><b>{escape(method.label)}</b>: {escape(method.description)}.{resized}</li>"
    yield "</ul>"
    if evaluation.has_unequal_pairs:
        yield (
            "<p><b>Methods were measured on different pairs.</b> Compare them by the differences, which use the "
            "pairs of both methods.</p>"
        )
    if evaluation.stretched:
        count = f"{len(evaluation.stretched)} of {len(evaluation.pairs)}"
        yield f"<p>{count} pairs have 16-bit sources, which were stretched to 8 bits.</p>"


def _labels(evaluation: Evaluation) -> list[str]:
    return [method.label for method in evaluation.methods]


def _table_head(first: str, columns: Iterable[str]) -> str:
    """Return the head of a table and the start of its body."""
    return (
        "<thead><tr>"
        + "".join(f"<th>{escape(name)}</th>" for name in (first, *columns))
        + "</tr></thead><tbody>"
    )


def _flicker(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.flicker:
        return
    yield '<section id="flicker"><h2>Flicker</h2><div class="wide"><table class="sortable">'
    yield _table_head("method", FLICKER_COLUMNS)
    for label, flicker in evaluation.flicker.items():
        yield f'<tr><th scope="row">{escape(label)}</th>'
        for name, cell in zip(FLICKER_COLUMNS, format_flicker(flicker), strict=True):
            value = getattr(flicker, name)
            yield f"<td>{cell}</td>" if value is None else f'<td data-value="{value!r}">{cell}</td>'
        yield "</tr>"
    yield "</tbody></table></div><p>Changes from frame to frame, in gray levels, where nothing moves in either "
    yield "source; lower is better. Excess and pumping (of blocks) are changes beyond those of both sources. Share is "
    yield "the fraction of still pixels."
    yield from (escape(f" {f.missing}.") for f in evaluation.flicker.values() if f.missing)
    yield "</p></section>"


def _means(evaluation: Evaluation) -> Iterator[str]:
    first = escape(evaluation.methods[0].label)
    yield '<section id="means"><h2>Means</h2><div class="wide"><table class="sortable">'
    yield _table_head("metric", _labels(evaluation))
    for metric in evaluation.metrics:
        yield f'<tr><th scope="row">{escape(metric)} {_arrow(metric)}</th>'
        decimals = evaluation.decimals(metric)
        cells = zip(evaluation.means[metric], evaluation.is_best(metric), strict=True)
        for index, (mean, is_best) in enumerate(cells):
            difference = ""
            if index:
                difference = _difference(evaluation, metric, evaluation.differences[metric][index - 1])
            value = "" if mean.mean is None else f' data-value="{mean.mean!r}"'
            n = "" if mean.n == len(evaluation.pairs) else f' <span class="n">n {mean.n}</span>'
            best = " class=best" if is_best else ""
            yield f"<td{value}{best}>{escape(format_interval(mean, decimals))}{n}{difference}</td>"
        yield "</tr>"
    yield "</tbody></table></div>"
    yield f"<p>The best mean is bold. Second line: mean difference to <b>{first}</b> on the same pairs; "
    yield "▲ better, ▼ worse, ≈ not significant (the interval contains 0). One in twenty differences is significant by "
    yield "chance.</p></section>"


def _comparison(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.ranking is None:
        return
    yield '<section id="comparison"><h2>Side by side</h2><div class="wide"><table class="sortable">'
    yield _table_head("method", COMPARISON_COLUMNS)
    for label, cells in comparison_rows(evaluation):
        yield f'<tr><th scope="row">{escape(label)}</th>'
        for cell in cells:
            number = cell.split(" ")[0]
            value = f' data-value="{number}"' if number.replace(".", "").isdecimal() else ""
            yield f"<td{value}>{escape(cell)}</td>"
        yield "</tr>"
    notes = "; ".join(comparison_notes(evaluation))
    yield f"</tbody></table></div><p>{escape(notes[:1].upper() + notes[1:])}.</p></section>"


def _difference(evaluation: Evaluation, metric: str, difference: Interval) -> str:
    if difference.mean is None:
        return ""
    mark, css_class = "≈", "same"
    if difference.excludes_zero:
        is_better = (difference.mean > 0) == METRICS[metric].higher_is_better
        mark, css_class = ("▲", "better") if is_better else ("▼", "worse")
    text = escape(format_interval(difference, evaluation.decimals(metric), sign=True))
    return f'<br><span class="difference {css_class}">{mark} {text}</span>'


def _failures(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.failures:
        return
    yield f'<section id="failures"><h2>Missing results: {len(evaluation.failures)}</h2><ul>'
    for failure in evaluation.failures:
        method = "" if failure.method is None else f", {escape(failure.method)}"
        yield f"<li><b>{escape(failure.name)}{method}</b>: {escape(str(failure.error))}</li>"
    yield "</ul></section>"


def _controls(evaluation: Evaluation) -> Iterator[str]:
    chosen = _default_metric(evaluation)
    yield '<nav id="controls"><label>Metric <select id="metric">'
    for index, metric in enumerate(evaluation.metrics):
        selected = " selected" if metric == chosen else ""
        yield f'<option value="{index}"{selected}>{escape(metric)} {_arrow(metric)}</option>'
    yield '</select></label><label>Method <select id="method">'
    for index, method in enumerate(evaluation.methods):
        yield f'<option value="{index}">{escape(method.label)}</option>'
    yield (
        '</select></label><label>Order <select id="order"><option value="worst">worst first</option>'
        '<option value="best">best first</option><option value="name">by name</option></select></label>'
        '<label>Filter <input id="filter" type="search" placeholder="part of a name"></label>'
        '<span id="count"></span></nav>'
    )


def _pair_table(evaluation: Evaluation) -> Iterator[str]:
    chosen = _default_metric(evaluation)
    yield f'<details id="pair-table"><summary>All pairs by <b class="metric-name">{escape(chosen)}</b></summary>'
    yield '<div class="wide"><table class="sortable">'
    yield _table_head("pair", _labels(evaluation))
    for index, name in enumerate(evaluation.pairs):
        yield f'<tr data-pair="{index}"><th scope="row"><a href="#pair-{index}">{escape(name)}</a></th>'
        yield from (f"<td>{_value(method, name, chosen)}</td>" for method in evaluation.methods)
        yield "</tr>"
    yield "</tbody></table></div></details>"


def _legend(evaluation: Evaluation) -> Iterator[str]:
    kinds = {
        kind for method in evaluation.methods for pictures in method.pictures.values() for kind in pictures
    }
    legends = "; ".join(text for kind, text in MAP_LEGENDS.items() if kind in kinds)
    yield (
        f"<p>Click a picture, then use ← → to compare it with the others. Below a fused image: {escape(legends)}.</p>"
    )


def _value(method: MethodResult, name: str, metric: str) -> str:
    value = method.images.get(name, {}).get(metric)
    return "-" if value is None else f"{value:.{num_decimals([value])}f}"


def _pair(evaluation: Evaluation, index: int, name: str, folder: str) -> Iterator[str]:
    chosen = _default_metric(evaluation)
    yield f'<article class="pair" id="pair-{index}" data-pair="{index}"><h3>{escape(name)}</h3><div class="strip">'
    for source, picture in evaluation.sources.get(name, {}).items():
        yield f'<div class="column">{_picture(folder, picture, source, name, "image")}'
        yield f"<p>{source}</p></div>"
    for i, method in enumerate(evaluation.methods):
        yield '<div class="column">'
        pictures = method.pictures.get(name, {})
        if "fused" in pictures:
            yield _picture(folder, pictures["fused"], method.label, name, "image")
        resized = " <small>resized</small>" if name in method.resized else ""
        yield (
            f"<p>{escape(method.label)} "
            f'<b class="value" data-method="{i}">{_value(method, name, chosen)}</b>{resized}</p>'
        )
        for error in _errors(evaluation, name, method.label):
            yield f'<p class="error">{escape(error)}</p>'
        yield '<div class="maps">'
        for kind, legend in MAP_LEGENDS.items():
            if kind in pictures:
                yield _picture(folder, pictures[kind], f"{method.label}, {legend}", name, "map")
        yield "</div></div>"
    yield "</div>"
    yield from _all_metrics(evaluation, name)
    yield "</article>"


def _errors(evaluation: Evaluation, name: str, label: str) -> list[str]:
    return [str(f.error) for f in evaluation.failures if f.name == name and f.method in (None, label)]


def _picture(folder: str, picture: Picture, title: str, name: str, group: str) -> str:
    """Return a link to a picture that shows its thumbnail; the keys flip through the pictures of a group."""
    label, alt = escape(title), escape(f"{name}: {title}")
    return (
        f'<a class="picture" data-group="{group}" data-title="{label}" href="{folder}/{escape(picture.file)}">'
        f'<img loading="lazy" decoding="async" src="{folder}/{escape(picture.small)}" alt="{alt}" '
        f'title="{label}" width="{picture.width}" height="{picture.height}"></a>'
    )


def _all_metrics(evaluation: Evaluation, name: str) -> Iterator[str]:
    yield '<details><summary>All metrics</summary><div class="wide"><table>'
    yield _table_head("metric", _labels(evaluation))
    for metric in evaluation.metrics:
        yield f'<tr><th scope="row">{escape(metric)} {_arrow(metric)}</th>'
        for method in evaluation.methods:
            reason = method.skipped.get(name, {}).get(metric)
            note = "" if reason is None else f" <small>{escape(reason)}</small>"
            yield f"<td>{_value(method, name, metric)}{note}</td>"
        yield "</tr>"
    yield "</tbody></table></div></details>"


def _script_data(evaluation: Evaluation) -> JsonObject:
    """Return what the script needs: names, and values [pair][method][metric]."""

    def row(method: MethodResult, name: str) -> list[float | None]:
        values = method.images.get(name, {})
        return [values.get(metric) for metric in evaluation.metrics]

    return {
        "metrics": [[name, METRICS[name].higher_is_better] for name in evaluation.metrics],
        "pairs": list(evaluation.pairs),
        "values": [[row(method, name) for method in evaluation.methods] for name in evaluation.pairs],
    }


def _for_script(value: JsonValue) -> str:
    """Format JSON so that `</script>` or `<!--` in a name cannot end the element."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
