"""`tcmoa demo`: export the bundled weights, fuse pairs made from photographs, and write images to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from tcmoa import TCMoA, load_weights
from tcmoa.sample_images import prompt_image
from tcmoa_export.bundle_export import export_bundle
from tcmoa_export.photographs import PhotographPair, make_pair
from tcmoa_runtime.contract import SOURCE_ROLES, TASKS, Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import format_size, write_image
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.typing import Frame, FrameSize, OnMessage, ignore_message

SIZE: Final[FrameSize] = (336, 448)
"""Three by four windows of the model with upsampling."""

PICTURES: Final[dict[Task, tuple[str, ...]]] = {
    "vif": ("coffee", "astronaut"),
    "mef": ("chelsea", "coffee"),
    "mff": ("astronaut", "coffee"),
}
"""Photographs of each task."""
ALPHAS: Final = (0.0, 0.5, 1.0, 1.5, 2.0)
BETAS: Final = (-0.4, -0.2, 0.0, 0.2, 0.4)
MARGIN_PX: Final = 6
LABEL_PX: Final = 22
"""Height of a label."""


def run_demo(out: str | os.PathLike[str], on_message: OnMessage = ignore_message) -> list[Path]:
    """Export `tiny` for the three tasks and fuse pairs made from photographs.

    Args:
        out: Folder of the bundles and images.
        on_message: Called with each step.

    Returns:
        Paths of the images.

    Raises:
        InputError: `out` cannot be created.
        MissingError: scikit-image is not installed.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be created: {error.strerror}", subject=folder) from error
    model = load_weights("tiny")
    written: list[Path] = []
    rows: list[Frame] = []
    strips: list[Frame] = []
    for task in TASKS:
        bundle = _export(model, task, folder, on_message)
        with Fuser.load(bundle) as fuser:
            for i, name in enumerate(PICTURES[task]):
                on_message(f"{task}: fusing {name}")
                images = _fuse(fuser, task, make_pair(task, name, SIZE, seed=i))
                written += _write_images(folder, f"{task}_{name}", images)
                rows.append(_label_row(task, images))
            on_message(f"{task}: varying the prompt")
            strips += _prompt_strips(task, make_pair(task, PICTURES[task][0], SIZE), fuser)
    for name, parts in (("contact_sheet.jpg", rows), ("prompt_strip.jpg", strips)):
        write_image(folder / name, _stack(parts))
        written.append(folder / name)
    return written


def _export(model: TCMoA, task: Task, folder: Path, on_message: OnMessage) -> Path:
    target = folder / f"{task}-{format_size(SIZE)}"
    export_bundle(
        model,
        ExportOptions(task=task, size=SIZE, with_prompt=True, overwrite=True),
        target,
        weights_source="tiny",
        on_message=lambda text: on_message(f"{task}: {text}"),
    )
    return target


def _fuse(fuser: Fuser, task: Task, pair: PhotographPair) -> dict[str, Frame]:
    """Return x, y, the fused frame, and a picture of which source dominates where."""
    fused, prompt = fuser.with_prompt(pair.x, pair.y)
    share_of_x = (prompt[:, 0] - prompt[:, 1]).mean(0) + 0.5  # over all TC-MoAs; 0.5 where neither dominates
    return {"x": pair.x, "y": pair.y, "fused": fused, "prompt": prompt_image(share_of_x, *SIZE)}


def _write_images(folder: Path, stem: str, images: dict[str, Frame]) -> list[Path]:
    paths = [folder / f"{stem}_{kind}.png" for kind in images]
    for path, image in zip(paths, images.values(), strict=True):
        write_image(path, image)
    return paths


def _label_row(task: Task, images: dict[str, Frame]) -> Frame:
    roles = SOURCE_ROLES[task]
    label_of_y = "y, SYNTHETIC, not a thermal camera" if task == "vif" else f"y, {roles['y']}"
    labels = (f"{task}: x, {roles['x']}", label_of_y, "fused", "prompt: red x dominates, blue y")
    return _join([_label(image, text) for image, text in zip(images.values(), labels, strict=True)])


def _prompt_strips(task: Task, pair: PhotographPair, fuser: Fuser) -> list[Frame]:
    """Return a strip over beta and one over alpha of Eq. 8, as in Fig. 6 of the paper."""
    by_shift = [
        _label(_half_size(fuser(pair.x, pair.y, shift=beta)), f"{task}: beta {beta:+.1f}") for beta in BETAS
    ]
    by_scale = [
        _label(_half_size(fuser(pair.x, pair.y, scale=alpha)), f"{task}: alpha {alpha:.1f}")
        for alpha in ALPHAS
    ]
    return [_join(by_shift), _join(by_scale)]


def _half_size(frame: Frame) -> Frame:
    size = (frame.shape[1] // 2, frame.shape[0] // 2)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _label(image: Frame, text: str) -> Frame:
    bar = np.full((LABEL_PX, image.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, text, (2, LABEL_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate((bar, image))


def _join(images: Sequence[Frame]) -> Frame:
    """Put images of one height side by side."""
    return np.concatenate([_pad(image, MARGIN_PX, MARGIN_PX) for image in images], axis=1)


def _stack(rows: Sequence[Frame]) -> Frame:
    """Put images below each other."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate([_pad(row, 0, width - row.shape[1]) for row in rows])


def _pad(image: Frame, below: int, right: int) -> Frame:
    """Pad with white."""
    return np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=255)
