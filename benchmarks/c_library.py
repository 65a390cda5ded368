"""Measure the overhead of libtcmoa over its backend, and compare its results with the Python runtime on all val pairs.

    python benchmarks/c_library.py [--frames N] [--pairs-of-each N]

The overhead is the time of a call minus the time of OpenVINO: the median of single calls, with tiny at 640x480, per
format of the sources. Needs libtcmoa (`make cpp`). The pairs are read from ../shared/data/val; without that folder they
are skipped.
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


def measure_overhead(bundle: Path, count: int) -> None:
    """Print the median overhead of a call in milliseconds."""
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (480, 640, 3), np.uint8)
    sources = {
        "RGB8 + RGB8": (color, color),
        "RGB8 + GRAY8": (color, np.ascontiguousarray(color[..., 0])),
        "RGB8 + GRAY16": (color, color[..., 0].astype(np.uint16) * 40),
    }
    fused = np.zeros_like(color)
    with CFuser(bundle) as fuser:
        for name, (x, y) in sources.items():
            extra = []
            for _ in range(count):
                before, start = fuser.stats.backend_ns, time.perf_counter_ns()
                fuser(x, y, out=fused)
                extra.append((time.perf_counter_ns() - start - (fuser.stats.backend_ns - before)) / 1e6)
            print(f"{name:14} {statistics.median(extra):.3f} ms over the backend (with ctypes)")


def compare_results(folder: Path, max_pairs: int) -> None:
    """Print how many pairs equal the bytes of the Python runtime, and the largest differences from ONNX Runtime."""
    size = (240, 320)
    for task in ("vif", "mef", "mff"):
        bundle = folder / task
        export_bundle(load_weights("tiny"), ExportOptions(task=task, size=size), bundle)
        pairs = find_pairs(VAL / task)[:max_pairs]
        num_equal, max_share, max_difference = 0, 0.0, 0
        with (
            CFuser(bundle) as c_fuser,
            Fuser.load(bundle, "openvino") as python,
            Fuser.load(bundle, "onnxruntime") as other,
        ):
            for pair in pairs:
                x, y = (resize_frame(read_frame(path), size) for path in (pair.x, pair.y))
                fused = c_fuser(x, y)
                num_equal += np.array_equal(fused, python(x, y))
                difference = np.abs(fused.astype(int) - other(x, y))
                max_share = max(max_share, float((difference > 1).mean()))
                max_difference = max(max_difference, int(difference.max()))
        print(
            f"{task}: {num_equal} of {len(pairs)} pairs equal the bytes of the Python runtime; from ONNX Runtime at "
            f"most {max_share:.2e} of the values of a pair differ by more than one level, at most by {max_difference}"
        )


def main() -> None:
    """Run both measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=15, help="number of calls per format")
    parser.add_argument("--pairs-of-each", type=int, default=10**6, help="maximum number of pairs per task")
    options = parser.parse_args()
    if not LIBRARY.exists():
        sys.exit(f"{LIBRARY}: not found. Build it with `make cpp`.")
    with tempfile.TemporaryDirectory() as name:
        bundle = Path(name) / "tiny-640x480"
        export_bundle(load_weights("tiny"), ExportOptions(task="vif", size=(480, 640)), bundle)
        measure_overhead(bundle, options.frames)
        if VAL.is_dir():
            compare_results(Path(name), options.pairs_of_each)
        else:
            print(f"{VAL}: not found; no pairs to compare.")


if __name__ == "__main__":
    main()
