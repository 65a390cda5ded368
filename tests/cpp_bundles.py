"""Make the bundles of the C++ tests, and the results of the Python runtime with OpenVINO for a pair of frames.

    python tests/cpp_bundles.py FOLDER

vif-small    112x112, RGB, three channels each, with the prompt output
vif-gray     112x112, BGR, y with one channel
vif-batch    112x112, batches of two, which the library refuses
wrapped      112x112, RGB, a network of two convolutions without a prompt, y with one channel

The folder NAME-reference of all but vif-batch has x.raw and y.raw; fused.raw for alpha 1 and beta 0; where the network
has a prompt, prompted.raw for alpha 1.5 and beta 0.25; and prompt.raw (float32) where the bundle has the prompt output.
The model has random weights, widths of 32 and four blocks, so that thousands of frames take a minute. A folder that is
complete is not made again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from micro_model import scrambled
from tcmoa.presets import Sizes
from tcmoa_export import export_bundle
from tcmoa_runtime import Fuser
from tcmoa_runtime.options.export import ExportOptions
from wrapped_pieces import write_two_layers

SIZES = Sizes(32, 2, 1, 32, 2, 1)
SIZE = (112, 112)
VARIANTS = {
    "vif-small": {"with_prompt": True},
    "vif-gray": {"channel_order": "bgr", "gray": ("y",)},
    "vif-batch": {"batch": 2},
}


def make_pair(channels_y: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two smooth images with an edge each: a wrong order of rows, columns or channels changes them."""
    rows, cols = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float64)
    x = np.stack([2 * rows, 2 * cols, 128 + 90 * np.sin(rows / 9)], axis=-1)
    x[30:60, 20:50] = (250, 40, 90)
    y = np.repeat((200 - rows - 0.5 * cols)[..., None], channels_y, axis=-1)
    y[50:90, 60:100] = 235
    return x.clip(0, 255).astype(np.uint8), y.clip(0, 255).astype(np.uint8)


def write_reference(folder: Path) -> None:
    """Write a pair of frames and the results of the Python runtime for it."""
    with Fuser.load(folder, backend="openvino") as fuser:
        contract = fuser.bundle.contract
        x, y = make_pair(contract.y_channels)
        reference = folder.parent / f"{folder.name}-reference"
        reference.mkdir(exist_ok=True)
        x.tofile(reference / "x.raw")
        y.tofile(reference / "y.raw")
        if not fuser.bundle.has_prompt:
            fuser(x, y).tofile(reference / "fused.raw")
            return
        fuser(x, y, scale=1.5, shift=0.25).tofile(reference / "prompted.raw")
        if contract.with_prompt:
            fused, prompt = fuser.with_prompt(x, y, scale=1.0, shift=0.0)
            prompt.tofile(reference / "prompt.raw")
        else:
            fused = fuser(x, y, scale=1.0, shift=0.0)
        fused.tofile(reference / "fused.raw")


def main() -> None:
    """Make the folder unless it is complete."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    done = out / "done"
    if done.exists() and done.read_text() == Path(__file__).read_text():
        return
    model = scrambled(SIZES, upsample=False)
    for name, options in VARIANTS.items():
        export_bundle(model, ExportOptions(task="vif", size=SIZE, overwrite=True, **options), out / name)
        if options.get("batch", 1) == 1:
            write_reference(out / name)
    write_two_layers(out / "wrapped", height=SIZE[0], width=SIZE[1], y_channels=1, overwrite=True)
    write_reference(out / "wrapped")
    done.write_text(Path(__file__).read_text())


if __name__ == "__main__":
    main()
