"""`tcmoa demo`: the whole path on the bundled weights, with pictures to look at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tcmoa import TCMoA, load_weights
from tcmoa.samples import prompt_picture
from tcmoa_export.bundle_export import export_bundle
from tcmoa_export.photographs import MadePair, made_pair
from tcmoa_runtime import Fuser
from tcmoa_runtime.contract import SOURCE_ROLES, TASKS
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import write_image
from tcmoa_runtime.options.export import ExportOptions

Frame = NDArray[np.uint8]

SIZE = (336, 448)
"""Height and width: three by four windows of the upsampling model."""

PICTURES = {"vif": ("coffee", "astronaut"), "mef": ("chelsea", "coffee"), "mff": ("astronaut", "coffee")}
ALPHAS = (0.0, 0.5, 1.0, 1.5, 2.0)
BETAS = (-0.4, -0.2, 0.0, 0.2, 0.4)
MARGIN, TEXT = 6, 22


def run_demo(out: str | os.PathLike[str], say: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Export `tiny` for the three tasks into `out`, fuse made pairs, and return the pictures' paths.

    Raises InputError when `out` cannot be made, MissingError without scikit-image.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created: {error.strerror}") from error
    model = load_weights("tiny")
    written: list[Path] = []
    rows: list[Frame] = []
    strips: list[Frame] = []
    for task in TASKS:
        bundle = _bundle(model, task, folder, say)
        with Fuser.load(bundle) as fuser:
            for i, name in enumerate(PICTURES[task]):
                say(f"{task}: fusing {name}")
                pair = made_pair(task, name, SIZE, seed=i)
                rows.append(_row(task, pair, fuser, folder, written))
            say(f"{task}: steering the prompt")
            strips += _strips(task, made_pair(task, PICTURES[task][0], SIZE), fuser)
    for name, parts in (("contact_sheet.jpg", rows), ("prompt_strip.jpg", strips)):
        width = max(part.shape[1] for part in parts)
        padded = [_pad(part, part.shape[0], width) for part in parts]
        write_image(folder / name, np.concatenate(padded))
        written.append(folder / name)
    return written


def _bundle(model: TCMoA, task: str, folder: Path, say: Callable[[str], None]) -> Path:
    target = folder / f"{task}-{SIZE[1]}x{SIZE[0]}"
    export_bundle(
        model,
        ExportOptions(task=task, size=SIZE, with_prompt=True, overwrite=True),
        target,
        weights_source="tiny",
        on_message=lambda text: say(f"{task}: {text}"),
    )
    return target


def _row(task: str, pair: MadePair, fuser: Fuser, folder: Path, written: list[Path]) -> Frame:
    """x, y, fused and the picture of who dominates where, side by side; each is written on its own too."""
    fused, prompt = fuser.with_prompt(pair.x, pair.y)
    share = (prompt[:, 0] - prompt[:, 1]).mean(0) + 0.5  # over all TC-MoAs; 0.5 where neither dominates
    pictures = {"x": pair.x, "y": pair.y, "fused": fused, "prompt": prompt_picture(share, *SIZE)}
    for kind, picture in pictures.items():
        path = folder / f"{task}_{pair.name}_{kind}.png"
        write_image(path, picture)
        written.append(path)
    roles = SOURCE_ROLES[task]
    labels = [f"{task}: x, {roles['x']}", f"y, {roles['y']}", "fused", "prompt: red x dominates, blue y"]
    if task == "vif":
        labels[1] = "y, SYNTHETIC, not a thermal camera"
    return _line([_labelled(p, text) for p, text in zip(pictures.values(), labels, strict=True)])


def _strips(task: str, pair: MadePair, fuser: Fuser) -> list[Frame]:
    """Two strips over beta and alpha of Eq. 8, as in Fig. 6 of the paper."""
    by_shift = [
        _labelled(_half(fuser(pair.x, pair.y, shift=beta)), f"{task}: beta {beta:+.1f}") for beta in BETAS
    ]
    by_scale = [
        _labelled(_half(fuser(pair.x, pair.y, scale=alpha)), f"{task}: alpha {alpha:.1f}") for alpha in ALPHAS
    ]
    return [_line(by_shift), _line(by_scale)]


def _half(frame: Frame) -> Frame:
    size = (frame.shape[1] // 2, frame.shape[0] // 2)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _labelled(picture: Frame, text: str) -> Frame:
    bar = np.full((TEXT, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, text, (2, TEXT - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate((bar, picture))


def _line(parts: list[Frame]) -> Frame:
    padded = [np.pad(part, ((0, MARGIN), (0, MARGIN), (0, 0)), constant_values=255) for part in parts]
    return np.concatenate(padded, axis=1)


def _pad(part: Frame, height: int, width: int) -> Frame:
    missing = ((0, height - part.shape[0]), (0, width - part.shape[1]), (0, 0))
    return np.pad(part, missing, constant_values=255)
