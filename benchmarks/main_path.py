"""What the main path costs on this machine: import, export, first frame, time per pixel. Prints Markdown.

    python benchmarks/main_path.py [--presets tiny,base,large] [--frames 5]

Every figure comes from a process of its own, one at a time. `base` and `large` have random weights: their cost
does not depend on them. Close other programs first; nothing here asserts a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

EXPORT = """
import json, resource, sys, time, warnings
import torch
from tcmoa import PRESETS, TCMoA, load_weights
from tcmoa_export import export_bundle
preset, width, height, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.manual_seed(0)
began = time.perf_counter()
model = load_weights("tiny") if preset == "tiny" else TCMoA(PRESETS[preset])
bundle = export_bundle(model, task="vif", size=(height, width), out=out)
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"seconds": seconds, "peak_gb": peak, "parity": bundle.manifest["parity"]}))
"""

FUSE = """
import json, resource, sys, time
began = time.perf_counter()
import numpy as np
from tcmoa_runtime import Fuser
fuser = Fuser.load(sys.argv[1])
height, width = fuser.size
rng = np.random.default_rng(0)
x, y = (rng.integers(0, 256, (height, width, 3), np.uint8) for _ in "xy")
fuser(x, y)
first = time.perf_counter() - began
times = []
for _ in range(int(sys.argv[2])):
    t = time.perf_counter()
    fuser(x, y)
    times.append(time.perf_counter() - t)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"first": first, "times": times, "pixels": height * width, "peak_gb": peak}))
"""


def in_process(code: str, *arguments: str) -> dict[str, object]:
    """Run `code` in a fresh interpreter and return the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def import_seconds(runs: int = 7) -> list[float]:
    """Wall time of `import tcmoa_runtime`, interpreter start taken off, over fresh processes."""
    code = "import time; t = time.perf_counter(); import tcmoa_runtime; print(time.perf_counter() - t)"
    return [
        float(subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout)
        for _ in range(runs)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", default="tiny,base,large")
    parser.add_argument("--frames", type=int, default=5)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores\n")
    times = import_seconds()
    print(
        f"import tcmoa_runtime: {statistics.median(times):.3f} s (median of {len(times)}, worst {max(times):.3f})\n"
    )
    print("| export | s | peak GB | largest difference | values that differ |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        plans = [(preset, 640, 480) for preset in options.presets.split(",")]
        plans += [("tiny", 320, 240), ("tiny", 1280, 720), ("tiny", 1920, 1080)]
        for preset, width, height in plans:
            out = str(Path(folder) / f"{preset}-{width}x{height}")
            r = in_process(EXPORT, preset, str(width), str(height), out)
            parity = r["parity"]
            assert isinstance(parity, dict)
            print(
                f"| {preset} {width}x{height} | {r['seconds']:.1f} | {r['peak_gb']:.2f} | "
                f"{parity['max_difference']} | {parity['differing']:.4%} |",
                flush=True,
            )
        print("\n| fuse (ONNX Runtime) | process to first frame s | ms a frame | ms a megapixel | peak GB |")
        print("|---|---|---|---|---|")
        for width, height in ((320, 240), (640, 480), (1280, 720), (1920, 1080)):
            r = in_process(FUSE, str(Path(folder) / f"tiny-{width}x{height}"), str(options.frames))
            assert isinstance(r["times"], list)
            assert isinstance(r["pixels"], int)
            ms = 1000 * statistics.median(r["times"])
            print(
                f"| tiny {width}x{height} | {r['first']:.2f} | {ms:.0f} | {ms / r['pixels'] * 1e6:.0f} | "
                f"{r['peak_gb']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
