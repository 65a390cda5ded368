"""Plot the score among published methods over the time of a frame: `docs/score_over_time.png`.

    python benchmarks/score_over_time.py [--data FILE.json] [--out FILE.png]

The score of a method is its mean rank over the metrics of a board, 1 is best (docs/quality.md). The data has three
kinds of methods in each task:

- `ours`: score and milliseconds, measured here;
- `published`: score and milliseconds of a published network;
- `untimed`: scores of published methods whose time was not measured; they are marks at the right edge.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from harness.plots import check_available, new_figure, to_png
from tcmoa_runtime.contract import TASKS
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.images import write_bytes

ROOT: Final = Path(__file__).resolve().parents[1]
TITLES: Final = {"vif": "visible and infrared", "mef": "exposures", "mff": "focus"}
EDGE: Final = 1.03
"""Place of the marks of untimed methods, in widths of the plot."""


def plot(data: dict[str, Any]) -> bytes:
    """Draw one plot for each task, with logarithmic time and the best score on top; returns PNG."""
    figure = new_figure(12, 4.2)
    first = None
    for axes, task in zip(figure.subplots(1, len(TASKS), sharex=True), TASKS, strict=True):
        first = first or axes
        board = data["tasks"][task]
        for kind, color, marker, label_at in (
            ("published", "tab:gray", "o", (6, 4)),
            ("ours", "tab:red", "*", (-8, -18)),
        ):
            for name, (score, ms) in board[kind].items():
                axes.semilogx(ms, score, marker, color=color, markersize=13 if kind == "ours" else 6)
                axes.annotate(name, (ms, score), xytext=label_at, textcoords="offset points", fontsize=8)
        scores = list(board["untimed"].values())
        axes.plot(
            [EDGE] * len(scores),
            scores,
            "_",
            color="tab:gray",
            transform=axes.get_yaxis_transform(),
            clip_on=False,
        )
        axes.invert_yaxis()
        axes.set_title(f"{TITLES[task]}, {board['methods']} published methods", fontsize=10)
        axes.set_xlabel("ms per frame of 640x480")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    if first is not None:
        first.set_ylabel("score (mean rank, 1 is best)")
        first.set_xlim(10, 12000)
    return to_png(figure)


def main() -> int:
    """Draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results = ROOT / "benchmarks" / "results" / "score_over_time.json"
    parser.add_argument("--data", type=Path, default=results, help="scores and times")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "score_over_time.png", help="the picture")
    options = parser.parse_args()
    try:
        check_available()
        write_bytes(options.out, plot(json.loads(options.data.read_bytes())))
    except TcmoaError as error:
        print(f"score_over_time: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
