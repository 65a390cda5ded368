"""What libtcmoa costs beside its backend, and whether it gives the bytes of the Python runtime on all val pairs.

    python benchmarks/c_library.py [--frames N] [--pairs-of-each N]

Overhead: the whole call less the time that OpenVINO ran, tiny at 640x480, per format of the sources; median of single
calls. Needs libtcmoa (`make cpp`); pairs are read from ../shared/data/val and left out where that is absent.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from c_library import LIBRARY, CFuser
from tcmoa import load_weights
from tcmoa_export import export_bundle
from tcmoa_runtime import Fuser
from tcmoa_runtime.images import read_frame, resize_frame
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.pairs import find_pairs

VAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "val"


def overhead(bundle: Path, count: int) -> None:
    """Median milliseconds of a call beside the backend's own."""
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (480, 640, 3), np.uint8)
    sources = {
        "RGB8 + RGB8": (colour, colour),
        "RGB8 + GRAY8": (colour, np.ascontiguousarray(colour[..., 0])),
        "RGB8 + GRAY16": (colour, colour[..., 0].astype(np.uint16) * 40),
    }
    fused = np.zeros_like(colour)
    with CFuser(bundle) as fuser:
        for name, (x, y) in sources.items():
            extra = []
            for _ in range(count):
                before, start = fuser.figures.backend_ns, time.perf_counter_ns()
                fuser(x, y, out=fused)
                extra.append((time.perf_counter_ns() - start - (fuser.figures.backend_ns - before)) / 1e6)
            print(f"{name:14} {statistics.median(extra):.3f} ms beside the backend (ctypes included)")


def identity(folder: Path, most: int) -> None:
    """Pairs whose bytes equal Python's on OpenVINO, and values off by more than one level from ONNX Runtime."""
    size = (240, 320)
    for task in ("vif", "mef", "mff"):
        bundle = folder / task
        export_bundle(load_weights("tiny"), ExportOptions(task=task, size=size), bundle)
        pairs = find_pairs(VAL / task)[:most]
        equal, beyond, worst = 0, 0.0, 0
        with (
            CFuser(bundle) as ours,
            Fuser.load(bundle, "openvino") as python,
            Fuser.load(bundle, "onnxruntime") as other,
        ):
            for pair in pairs:
                x, y = (resize_frame(read_frame(path), size) for path in (pair.x, pair.y))
                fused = ours(x, y)
                equal += np.array_equal(fused, python(x, y))
                off = np.abs(fused.astype(int) - other(x, y))
                beyond, worst = max(beyond, float((off > 1).mean())), max(worst, int(off.max()))
        print(
            f"{task}: {equal} of {len(pairs)} pairs equal Python's bytes; to ONNX Runtime at most {beyond:.2e} of the "
            f"values differ by more than one level, the farthest by {worst}"
        )


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=15, help="calls a format")
    parser.add_argument("--pairs-of-each", type=int, default=10**6, help="pairs a task")
    options = parser.parse_args()
    if not LIBRARY.exists():
        sys.exit(f"{LIBRARY} is not there; `make cpp` builds it")
    with tempfile.TemporaryDirectory() as name:
        bundle = Path(name) / "tiny-640x480"
        export_bundle(load_weights("tiny"), ExportOptions(task="vif", size=(480, 640)), bundle)
        overhead(bundle, options.frames)
        if VAL.is_dir():
            identity(Path(name), options.pairs_of_each)
        else:
            print(f"{VAL} is absent: no pairs to compare")


if __name__ == "__main__":
    main()
