"""Make the bundles that the package ships from its weights: `make ready-bundles`.

The same weights give the same graphs. Run it after replacing the weights or their card.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import tcmoa
from tcmoa import TCMoA, load_weights
from tcmoa_export import export_bundle
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.bundle_write import write_manifest
from tcmoa_runtime.contract import Task
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.ready_bundles import READY_FOLDER, READY_NAMES, READY_PRESET
from tcmoa_runtime.shipped_pairs import PAIRS_FOLDER
from tcmoa_runtime.typing import FrameSize

SIZE: Final[FrameSize] = (480, 640)
"""Whole windows of `nano`; larger frames are cut into tiles of this size."""
LICENSE: Final = "CC-BY-NC-4.0"
"""License of the weights, see LICENSE-WEIGHTS."""
CARD: Final = Path(tcmoa.__file__).parent / "weights_data" / f"{READY_PRESET}.md"
"""Card of the weights; its first table has the figures."""


def options_for(task: Task) -> ExportOptions:
    """Return the options of a ready bundle; the gate compares it with the model on the shipped pairs."""
    return ExportOptions(
        task=task,
        size=SIZE,
        target="cpu",
        weight_storage="fp16",
        with_prompt=True,
        pairs=PAIRS_FOLDER / task,
        weights_license=LICENSE,
    )


def read_figures(card: str, task: Task) -> dict[str, float]:
    """Return the figures of a task in the card's first table, by metric: the mean over held-out pairs.

    Raises:
        ValueError: The table has no such row.
    """
    header: list[str] = []
    in_task = False
    for line in card.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[:2] == ["task", ""]:
            header = cells[2:]
        if not header or not line.startswith("|"):
            continue
        in_task = cells[0] == task if cells[0] else in_task
        if in_task and cells[1] == f"**{READY_PRESET}**":
            return {
                name: float(value)
                for name, value in zip(header, cells[2:], strict=False)
                if re.fullmatch(r"[0-9.]+", value)
            }
    raise ValueError(f"{CARD}: no figures of {READY_PRESET} for {task}")


def make_bundle(model: TCMoA, name: str, folder: Path) -> Bundle:
    """Export one ready bundle into `folder`, with the license and the figures of the weights."""
    task = READY_NAMES[name]
    figures: Mapping[str, float] = read_figures(CARD.read_text(encoding="utf-8"), task)
    with tempfile.TemporaryDirectory() as temporary:
        made = export_bundle(model, options_for(task), Path(temporary) / name, weights_source=READY_PRESET)
        write_manifest(made.path, {**made.manifest, "quality": dict(figures)})
        # Not by `derive_bundle`, which refuses to write into the package.
        shutil.copytree(made.path, folder / name, dirs_exist_ok=True)
    return Bundle.open(folder / name)


def main() -> None:
    """Make all ready bundles."""
    model = load_weights(READY_PRESET)
    for name in READY_NAMES:
        bundle = make_bundle(model, name, READY_FOLDER)
        parity = bundle.section("parity").values
        size = sum(entry.bytes for entry in bundle.files.values())
        print(f"{name}: {size:,} bytes, {parity['psnr_db']} dB to the model, {bundle.manifest['quality']}")


if __name__ == "__main__":
    main()
