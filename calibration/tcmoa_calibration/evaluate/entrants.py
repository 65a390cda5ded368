"""Contestants at work: each gives the fused image of a pair, one thread each, for processes run side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.baselines import BASELINES
from tcmoa_calibration.evaluate.contestants import Contestant, FusedFolder
from tcmoa_runtime.contract import token_pixels
from tcmoa_runtime.errors import InputError, MissingError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import read_image, to_frame
from tcmoa_runtime.typing import Frame

Image = NDArray[Any]
"""uint8 or uint16, [H, W] or RGB [H, W, 3]."""


@dataclass(frozen=True)
class Fusion:
    """A fused image, and what is to be known of how it came about."""

    image: Image
    resized: bool = False
    """Whether the frames were resized to fuse them, and the result resized back."""
    share: NDArray[np.float32] | None = None
    """[gh, gw], 0..1: how much x dominates y, 0.5 where neither does; where the contestant tells it."""
    token: int | None = None
    """Side in pixels of a cell of `share`; None where it divides the image evenly."""


class Entrant(Protocol):
    """A contestant that is ready."""

    def fuse(self, name: str, x: Frame, y: Frame) -> Fusion:
        """The fused image of the pair `name`; x and y are uint8, [H, W] or RGB [H, W, 3], of one size."""

    def close(self) -> None:
        """Free what is held."""


def enter(contestant: Contestant) -> Entrant:
    """Load what a contestant needs; raises InputError or MissingError where that fails."""
    if contestant.kind == "fused":
        return _Reader(FusedFolder(Path(contestant.source)))
    if contestant.kind == "baseline":
        return _Baseline(contestant.source)
    if contestant.kind == "bundle":
        return _Bundle(contestant.source, contestant.option)
    return _Weights(contestant.source, contestant.option)


def share_of_x(prompt: NDArray[np.float32]) -> NDArray[np.float32]:
    """Prompts [K, 2, gh, gw] of the K TC-MoAs as one map [gh, gw]: 0.5 + the mean of prompt_x - prompt_y, 0..1."""
    share: NDArray[np.float32] = np.clip(0.5 + (prompt[:, 0] - prompt[:, 1]).mean(axis=0), 0, 1)
    return share


@dataclass
class _Reader:
    folder: FusedFolder

    def fuse(self, name: str, x: Frame, y: Frame) -> Fusion:
        path = self.folder.find(name)
        image = read_image(path)
        if image.shape[:2] != x.shape[:2]:
            (h, w), (wanted_h, wanted_w) = image.shape[:2], x.shape[:2]
            raise InputError(
                f"{path} is {w}x{h} and its sources {wanted_w}x{wanted_h}: expected one size; resizing would "
                f"change every figure, so fuse at that size"
            )
        return Fusion(image)

    def close(self) -> None:
        pass


@dataclass
class _Baseline:
    name: str

    def fuse(self, name: str, x: Frame, y: Frame) -> Fusion:
        return Fusion(BASELINES[self.name].fuse(x, y))

    def close(self) -> None:
        pass


class _Bundle:
    def __init__(self, path: str, backend: str) -> None:
        self.fuser = Fuser.load(path, backend, threads=1, resize=True)

    def fuse(self, name: str, x: Frame, y: Frame) -> Fusion:
        fuser, bundle = self.fuser, self.fuser.bundle
        x, y = (_flipped(image) if bundle.channel_order == "bgr" else image for image in (x, y))
        share = None
        if bundle.contract.with_prompt:
            fused, prompt = fuser.with_prompt(x, y)
            share = share_of_x(prompt)
        else:
            fused = fuser(x, y)
        resized = x.shape[:2] != fuser.size
        token = None if resized or bundle.fit == "resize" else bundle.token_pixels
        return Fusion(_flipped(fused) if bundle.channel_order == "bgr" else fused, resized, share, token)

    def close(self) -> None:
        self.fuser.close()


class _Weights:
    def __init__(self, source: str, task: str) -> None:
        try:
            import torch

            from tcmoa import load_weights
        except ImportError as error:
            raise MissingError(
                f"evaluating weights needs {error.name}, which is not installed; run `pip install 'tcmoa[export]'`"
            ) from error
        self.task, self.threads = task, torch.get_num_threads()
        torch.set_num_threads(1)  # as many processes as cores do the rest
        self.model = load_weights(source)

    def fuse(self, name: str, x: Frame, y: Frame) -> Fusion:
        import torch

        from tcmoa.frames import fuse_frames

        tensors = [torch.from_numpy(to_frame(image, name))[None] for image in (x, y)]
        result = fuse_frames(self.model, tensors[0], tensors[1], self.task)
        fused = result.fused[0].round().byte().numpy()
        return Fusion(fused, False, share_of_x(result.prompt[0].numpy()), token_pixels(self.model.upsample))

    def close(self) -> None:
        import torch

        torch.set_num_threads(self.threads)


def _flipped(image: Image) -> Image:
    return np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
