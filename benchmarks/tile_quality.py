"""Frames in tiles against the model at the frames' own sizes, for the ready bundles. Prints a Markdown table.

    python benchmarks/tile_quality.py [--pairs ../shared/data/val]

Each pair of PAIRS/vif, PAIRS/mef and PAIRS/mff is fused by the ready bundle of its task, which pads smaller frames and
cuts larger ones into tiles, and by the unfolded model at the pair's own size. The columns:

- PSNR between the two, the worst pair and the median;
- Qabf of the tiles minus Qabf at the own size, the mean over pairs;
- the mean absolute step of luma across the lines where tiles begin and end, divided by the step across the same lines
  at the own size: 1 if the tiles add no seam. The worst pair of those that are cut.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import numpy as np
import torch

from tcmoa import TCMoA, load_weights
from tcmoa.reference import fuse_frames
from tcmoa_calibration import metrics
from tcmoa_runtime import Fuser
from tcmoa_runtime.contract import TASKS, Task
from tcmoa_runtime.fit import AxisPlan, TilePlan, plan_tiles
from tcmoa_runtime.images import LUMA
from tcmoa_runtime.pairs import find_pairs, read_frame_pair
from tcmoa_runtime.ready_bundles import READY_PRESET
from tcmoa_runtime.typing import Frame

MIN_STEP: Final = 0.01
"""Gray levels added to both parts of a ratio, so that 0 / 0 is 1."""


def psnr_db(image: Frame, reference: Frame) -> float:
    """Return the PSNR of two frames uint8 [H, W, 3] in dB; 99 if they are equal."""
    mean_square = float(np.mean((image.astype(np.float64) - reference) ** 2))
    return 10 * float(np.log10(255**2 / mean_square)) if mean_square else 99.0


def fuse_at_own_size(model: TCMoA, x: Frame, y: Frame, task: Task) -> Frame:
    """Fuse a pair with the unfolded model, rounded to uint8 [H, W, 3]."""
    fused = fuse_frames(model, torch.from_numpy(x[None]), torch.from_numpy(y[None]), task).fused[0]
    rounded: Frame = fused.round().to(torch.uint8).numpy()
    return rounded


def tile_lines(axis: AxisPlan) -> list[int]:
    """Return the first pixels after the lines where tiles begin or end inside a frame."""
    lines = {*axis.starts[1:], *(start + axis.tile for start in axis.starts[:-1])}
    return sorted(line for line in lines if 0 < line < axis.length)


def seam_ratio(tiled: Frame, own: Frame, plan: TilePlan) -> float:
    """Return the step across the lines of tiles, divided by the step across the same lines in `own`."""
    steps = []
    for image in (tiled, own):
        luma = image @ np.asarray(LUMA)
        rows = np.abs(np.diff(luma, axis=0))[[line - 1 for line in tile_lines(plan.rows)]]
        columns = np.abs(np.diff(luma, axis=1))[:, [line - 1 for line in tile_lines(plan.columns)]]
        steps.append(np.concatenate([rows.ravel(), columns.ravel()]).mean() + MIN_STEP)
    return float(steps[0] / steps[1])


def measure_task(model: TCMoA, task: Task, folder: Path) -> str:
    """Measure all pairs of a task, and return the row of the table."""
    psnrs, gains, seams = [], [], []
    with Fuser.load(f"{READY_PRESET}-{task}") as fuser:
        for paths in find_pairs(folder):
            x, y = read_frame_pair(paths)
            tiled, own = fuser(x, y), fuse_at_own_size(model, x, y, task)
            psnrs.append(psnr_db(tiled, own))
            gains.append(metrics.qabf(x, y, tiled) - metrics.qabf(x, y, own))
            bundle = fuser.bundle
            plan = plan_tiles(
                (x.shape[0], x.shape[1]), bundle.size, bundle.token_pixels, bundle.window_pixels
            )
            if plan.count > 1:
                seams.append(seam_ratio(tiled, own, plan))
    seam = f"{max(seams):.3f}" if seams else "-"
    return (
        f"| {task} | {len(psnrs)}, {len(seams)} in tiles | {min(psnrs):.1f} | {np.median(psnrs):.1f} | "
        f"{np.mean(gains):+.4f} | {seam} |"
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    model = load_weights(READY_PRESET).eval()
    print("| task | pairs | PSNR, worst | PSNR, median | Qabf, mean difference | seams, worst |")
    print("|---|---|---|---|---|---|")
    for task in TASKS:
        print(measure_task(model, task, options.pairs / task), flush=True)


if __name__ == "__main__":
    main()
