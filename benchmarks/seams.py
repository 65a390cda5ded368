"""Seams of windows, and a checkerboard of tokens, in fused images of each task. Prints a Markdown table.

    python benchmarks/seams.py [--weights tiny] [--pairs ../shared/data/val]

Each pair of PAIRS/vif, PAIRS/mef and PAIRS/mff is fused at its own size. The ratio of the mean absolute step between
neighboring pixels of luma across the borders of a grid to that across all other places is divided by the same ratio of
the sources (`tcmoa_calibration.seams.excess_steps`): 1 if no seam was added. The grids are those of the model: tokens
(16 px for tiny and nano, 8 px for the published models), windows (160 px, or 112 px, compared with the other borders of
tokens) and shifted windows (offset by half a window, compared likewise). The columns are the mean over pairs and the
worst pair.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from tcmoa import load_weights
from tcmoa.reference import fuse_frames
from tcmoa_calibration.seams import excess_steps
from tcmoa_runtime.contract import TASKS
from tcmoa_runtime.pairs import find_pairs, read_frame_pair


def grids_of(window: int, shift: int, token: int) -> dict[str, tuple[int, int, int]]:
    """Return period, offset and `among` of `excess_steps` in pixels, by the grid's name.

    Args:
        window: Side of a window.
        shift: Offset of the shifted windows.
        token: Side of a token.
    """
    return {
        "tokens": (token, 0, 1),
        "windows": (window, 0, token),
        "shifted windows": (window, shift, token),
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="tiny", help="a checkpoint, tiny or nano")
    parser.add_argument(
        "--pairs",
        type=Path,
        default=Path(__file__).parents[2] / "shared" / "data" / "val",
        help="a folder that holds the folders vif, mef and mff of pairs",
    )
    options = parser.parse_args()
    if not options.pairs.is_dir():
        sys.exit(
            f"{options.pairs}: no such folder; expected one with the folders vif, mef and mff. Use --pairs"
        )
    model = load_weights(options.weights)
    token = model.window_pixels // model.sizes.window
    grids = grids_of(model.window_pixels, model.shift_pixels, token)
    print("| task | pairs | " + " | ".join(f"{grid}: mean, worst" for grid in grids) + " |")
    print("|---|---|" + "---|" * len(grids))
    for task in TASKS:
        pairs = find_pairs(options.pairs / task)
        ratios = []
        for pair in pairs:
            x, y = read_frame_pair(pair)
            tensors = [torch.from_numpy(frame)[None] for frame in (x, y)]
            fused = fuse_frames(model, tensors[0], tensors[1], task).fused[0].round().byte().numpy()
            ratios.append(
                [
                    excess_steps(x, y, fused, period, offset, among=among)
                    for period, offset, among in grids.values()
                ]
            )
        cells = [
            f"{column.mean():.3f}, {column[np.abs(column - 1).argmax()]:.3f}" for column in np.array(ratios).T
        ]
        print(f"| {task} | {len(pairs)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
