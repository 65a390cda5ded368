"""`tcmoa demo`: fuse the shipped pairs with the ready bundles, and write images to look at."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.contact_sheet import join_images, label_above, scale_to_height, stack_images
from tcmoa_runtime.contract import SOURCE_ROLES, Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import write_image
from tcmoa_runtime.log import log_step
from tcmoa_runtime.pairs import read_frame_pair
from tcmoa_runtime.ready_bundles import READY_NAMES
from tcmoa_runtime.shipped_pairs import shipped_pairs
from tcmoa_runtime.typing import Frame, OnMessage

CONTACT_SHEET: Final = "contact_sheet.jpg"
PROMPT_STRIP: Final = "prompt_strip.jpg"
ALPHAS: Final = (0.0, 2.0)
BETAS: Final = (-0.4, 0.4)
"""Scales and shifts of the prompt strip, beside 1 and 0. Each takes another run of the graph, 0.2 s on two cores."""
SHEET_PX: Final = 300
"""Height of the images in the contact sheet."""
STRIP_PX: Final = 200
"""Height of the images in the prompt strip."""
LABEL_PX: Final = 36
"""Height of labels: sheets of 1830 pixels are read at half that width in the documentation."""


@dataclass
class DemoResult:
    """What a demo wrote.

    Attributes:
        folder: Folder of all images.
        pairs: The fused pairs, as the beginning of their file names, e.g. `vif_rocket`.
        backends: Names of the backends that ran.
        written: Paths of all images; the contact sheet and the prompt strip are the last.
    """

    folder: Path
    pairs: list[str] = field(default_factory=list)
    backends: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)


def run_demo(out: str | os.PathLike[str], on_message: OnMessage = log_step) -> DemoResult:
    """Fuse the shipped pairs of the three tasks.

    Args:
        out: Folder of the images.
        on_message: Called with each step.

    Raises:
        InputError: `out` cannot be created, or an image cannot be written.
    """
    result = DemoResult(Path(out))
    if result.folder.exists() and not result.folder.is_dir():
        raise InputError("a file; expected a folder", subject=result.folder, remedy="Choose another folder")
    try:
        result.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be created: {error.strerror}", subject=result.folder) from error
    rows: list[Frame] = []
    strips: list[Frame] = []
    for name, task in READY_NAMES.items():
        on_message(f"loading {name}")
        with Fuser.load(name) as fuser:
            if fuser.backend.name not in result.backends:
                result.backends.append(fuser.backend.name)
            for pair in shipped_pairs(task):
                on_message(f"{name}: fusing {pair.name}")
                x, y = read_frame_pair(pair)
                images = _fuse(fuser, x, y)
                result.written += _write_images(result.folder, f"{task}_{pair.name}", images)
                result.pairs.append(f"{task}_{pair.name}")
                rows.append(_label_row(task, images))
            on_message(f"{name}: varying the prompt")
            strips.append(_prompt_strip(task, fuser, x, y, images["fused"]))
    for file_name, parts in ((CONTACT_SHEET, rows), (PROMPT_STRIP, strips)):
        write_image(result.folder / file_name, stack_images(parts))
        result.written.append(result.folder / file_name)
    return result


def prompt_image(prompt: NDArray[np.float32], height: int, width: int) -> Frame:
    """Render a prompt map [gh, gw] in 0..1 as RGB [H, W, 3] with the color map "turbo": 0 is blue, 1 is red."""
    levels = np.clip(np.round(prompt * 255), 0, 255).astype(np.uint8)
    levels = np.asarray(cv2.resize(levels, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1], np.uint8)


def _fuse(fuser: Fuser, x: Frame, y: Frame) -> dict[str, Frame]:
    """Return x, y, the fused frame, and a picture of which source dominates where."""
    fused, prompt = fuser.with_prompt(x, y)
    share_of_x = (prompt[:, 0] - prompt[:, 1]).mean(0) + 0.5  # over all TC-MoAs; 0.5 where neither dominates
    return {"x": x, "y": y, "fused": fused, "prompt": prompt_image(share_of_x, *x.shape[:2])}


def _write_images(folder: Path, stem: str, images: dict[str, Frame]) -> list[Path]:
    paths = [folder / f"{stem}_{kind}.png" for kind in images]
    for path, image in zip(paths, images.values(), strict=True):
        write_image(path, image)
    return paths


def _label_row(task: Task, images: dict[str, Frame]) -> Frame:
    roles = SOURCE_ROLES[task]
    label_of_y = "y, SYNTHETIC infrared" if task == "vif" else f"y, {roles['y']}"
    labels = (f"{task}: x, {roles['x']}", label_of_y, "fused", "prompt: red x, blue y")
    return join_images(
        [
            label_above(scale_to_height(image, SHEET_PX), text, LABEL_PX)
            for image, text in zip(images.values(), labels, strict=True)
        ]
    )


def _prompt_strip(task: Task, fuser: Fuser, x: Frame, y: Frame, as_trained: Frame) -> Frame:
    """Return the result over alpha and beta of Eq. 8, as in Fig. 6 of the paper."""
    low, high = BETAS
    least, most = ALPHAS
    images = {
        f"beta {low:+g}": fuser(x, y, shift=low),
        "as trained": as_trained,
        f"beta {high:+g}": fuser(x, y, shift=high),
        f"alpha {least:g}": fuser(x, y, scale=least),
        f"alpha {most:g}": fuser(x, y, scale=most),
    }
    return join_images(
        [
            label_above(scale_to_height(image, STRIP_PX), f"{task}: {text}", LABEL_PX)
            for text, image in images.items()
        ]
    )
