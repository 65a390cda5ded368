"""Seams of windows and a checkerboard of tokens in fused images, per task. Prints Markdown.

    python benchmarks/seams.py [--weights tiny] [--pairs ../shared/data/val]

For each pair of PAIRS/vif, PAIRS/mef and PAIRS/mff, fused at its own size: mean absolute step between neighbouring
pixels of luma across the borders of a grid, over that across all other places, divided by the same ratio of the
sources (`tcmoa_calibration.seams.excess_steps`): 1 where nothing was added. Grids: tokens (8 pixels), windows (112, for
nano 80, among the borders of tokens), and shifted windows (half a window further, likewise). Mean over pairs, and the
worst pair.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from tcmoa import load_weights
from tcmoa.frames import fuse_frames
from tcmoa_calibration.seams import excess_steps
from tcmoa_runtime.contract import TASKS
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.pairs import find_pairs

TOKEN = 8


def grids_of(window: int) -> dict[str, tuple[int, int, int]]:
    """Period, offset, and the borders to compare with, as `excess_steps` takes them, for windows of `window` pixels."""
    return {
        "tokens": (TOKEN, 0, 1),
        "windows": (window, 0, TOKEN),
        "shifted windows": (window, window // 2, TOKEN),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--pairs", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "val")
    options = parser.parse_args()
    if not options.pairs.is_dir():
        sys.exit(f"{options.pairs}: no such folder; give --pairs with the folders vif, mef and mff in it")
    model = load_weights(options.weights)
    grids = grids_of(model.window_pixels)
    print("| task | pairs | " + " | ".join(f"{grid}: mean, worst" for grid in grids) + " |")
    print("|---|---|" + "---|" * len(grids))
    for task in TASKS:
        pairs = find_pairs(options.pairs / task)
        ratios = []
        for pair in pairs:
            x, y = read_frame(pair.x), read_frame(pair.y)
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
