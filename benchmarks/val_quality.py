"""How much of both sources the fused images keep, per task, beside average fusion. Prints Markdown.

    python benchmarks/val_quality.py [--weights tiny] [--pairs ../shared/data/val] [--sheets FOLDER]

For each pair of PAIRS/vif, PAIRS/mef, PAIRS/mff, fused at its own size by the unfolded model (the export is
checked against it), on luma: SSIM to x and to y (Wang 2004, Gaussian window 11, sigma 1.5), and the share of the
stronger source gradient kept: per pixel the source gradient g of larger magnitude (Sobel), the projection of
the result's gradient onto it cut to 0..|g|, summed, over the sum of |g|.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from tcmoa import load_weights
from tcmoa.frames import fuse_frames
from tcmoa_runtime.contract import TASKS
from tcmoa_runtime.images import LUMA, read_frame, write_image
from tcmoa_runtime.pairs import find_pairs

Grey = NDArray[np.float64]
Frame = NDArray[np.uint8]


def luma(frame: Frame) -> Grey:
    """[H, W], 0..255."""
    grey: Grey = frame.astype(np.float64) @ np.array(LUMA)
    return grey


def gradient(grey: Grey) -> Grey:
    """Sobel [2, H, W]."""
    return np.stack([cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1)])


def kept_gradient(x: Grey, y: Grey, fused: Grey) -> float:
    """Share of the stronger source gradient that the result keeps, 0 to 1."""
    gx, gy, gf = gradient(x), gradient(y), gradient(fused)
    size_x, size_y = np.hypot(*gx), np.hypot(*gy)
    stronger = np.where(size_x >= size_y, gx, gy)
    size = np.maximum(size_x, size_y)
    along = (gf * stronger).sum(0) / np.maximum(size, 1e-9)
    return float(np.clip(along, 0, size).sum() / size.sum())


def ssim(a: Grey, b: Grey) -> float:
    """Wang 2004 with the Gaussian window."""
    return float(
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
    )


def figures(x: Frame, y: Frame, fused: Frame) -> list[float]:
    """SSIM to x, SSIM to y, share of the stronger gradient."""
    a, b, f = luma(x), luma(y), luma(fused)
    return [ssim(a, f), ssim(b, f), kept_gradient(a, b, f)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--pairs", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "val")
    parser.add_argument("--sheets", type=Path, help="also write x | y | fused of every pair here")
    options = parser.parse_args()
    if not options.pairs.is_dir():
        sys.exit(f"{options.pairs}: no such folder; give --pairs with the folders vif, mef and mff in it")
    model = load_weights(options.weights)
    print("| task | pairs | | SSIM x | SSIM y | stronger gradient kept |\n|---|---|---|---|---|---|")
    for task in TASKS:
        ours, average = [], []
        pairs = find_pairs(options.pairs / task)
        for pair in pairs:
            x, y = read_frame(pair.x), read_frame(pair.y)
            tensors = [torch.from_numpy(frame)[None] for frame in (x, y)]
            fused = fuse_frames(model, tensors[0], tensors[1], task).fused[0].round().byte().numpy()
            mean = ((x.astype(np.uint16) + y + 1) // 2).astype(np.uint8)
            ours.append(figures(x, y, fused))
            average.append(figures(x, y, mean))
            if options.sheets:
                options.sheets.mkdir(parents=True, exist_ok=True)
                write_image(options.sheets / f"{task}_{pair.name}.png", np.concatenate((x, y, fused), axis=1))
        for label, rows in ((options.weights, ours), ("average", average)):
            columns = " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0))
            print(f"| {task} | {len(pairs)} | {label} | {columns} |", flush=True)


if __name__ == "__main__":
    main()
