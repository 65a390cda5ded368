"""Methods that are loaded and fuse pairs, on one thread each: pairs are measured in several processes side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.baselines import BASELINES, Baseline
from tcmoa_calibration.evaluate.methods import FusedFolder, Method
from tcmoa_calibration.luma import ImageArray
from tcmoa_runtime.contract import TASKS, Task, token_pixels
from tcmoa_runtime.errors import InputError, MissingError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import format_size, in_order, read_image, to_frame
from tcmoa_runtime.install import install_hint
from tcmoa_runtime.typing import BackendChoice, Frame


@dataclass(frozen=True)
class FusedImage:
    """A fused image and how it was made.

    Attributes:
        image: uint8 or uint16, [H, W] or RGB [H, W, 3].
        resized: Whether the frames were resized to fuse them, and the result resized back.
        share_of_x: Weight of x for each token, [gh, gw], 0 to 1, 0.5 if both sources count equally; None if the method
            has no prompt.
        token_px: Side of a token in the image in pixels; None if the grid divides the image evenly.
    """

    image: ImageArray
    resized: bool = False
    share_of_x: NDArray[np.float32] | None = None
    token_px: int | None = None


class MethodRunner(Protocol):
    """A loaded method."""

    @property
    def aligns(self) -> bool:
        """Whether it aligns the sources itself, which then may have two sizes."""

    def fuse(self, name: str, x: Frame, y: Frame) -> FusedImage:
        """Fuse the pair `name`; x and y are uint8, [H, W] or RGB [H, W, 3], of one size unless it aligns them."""

    def close(self) -> None:
        """Free what the method holds."""


def load_runner(method: Method) -> MethodRunner:
    """Load a method.

    Raises:
        InputError: The bundle or the weights cannot be loaded.
        MissingError: A required package or device is missing.
    """
    if method.kind == "fused":
        return _FolderRunner(FusedFolder(Path(method.source)))
    if method.kind == "baseline":
        return _BaselineRunner(BASELINES[method.source])
    if method.kind == "bundle":
        return _BundleRunner(method.source, method.backend, trust_engines=method.trust_engines)
    if method.task is None:
        raise InputError(f"no task; expected one of {', '.join(TASKS)}", subject=f"weights {method.source}")
    return _WeightsRunner(method.source, method.task)


def share_of_x(prompt: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average the prompts [K, 2, gh, gw] of K TC-MoAs to one map [gh, gw]: 0.5 + mean(prompt_x - prompt_y), 0 to 1."""
    share: NDArray[np.float32] = np.clip(0.5 + (prompt[:, 0] - prompt[:, 1]).mean(axis=0), 0, 1)
    return share


@dataclass
class _FolderRunner:
    folder: FusedFolder
    aligns: bool = False

    def fuse(self, name: str, x: Frame, y: Frame) -> FusedImage:
        path = self.folder.find(name)
        image = read_image(path)
        if image.shape[:2] != x.shape[:2]:
            raise InputError(
                f"{format_size(image.shape)}; expected {format_size(x.shape)}, as its sources",
                subject=path,
                remedy="Fuse at the size of the sources: resizing would change every metric",
            )
        return FusedImage(image)

    def close(self) -> None:
        pass


@dataclass
class _BaselineRunner:
    baseline: Baseline
    aligns: bool = False

    def fuse(self, name: str, x: Frame, y: Frame) -> FusedImage:
        return FusedImage(self.baseline.fuse(x, y))

    def close(self) -> None:
        pass


class _BundleRunner:
    def __init__(self, path: str, backend: BackendChoice, *, trust_engines: bool) -> None:
        self._fuser = Fuser.load(path, backend, threads=1, trust_engines=trust_engines)
        self.aligns = self._fuser.bundle.alignment is not None

    def fuse(self, name: str, x: Frame, y: Frame) -> FusedImage:
        fuser, bundle = self._fuser, self._fuser.bundle
        x, y = (in_order(image, bundle.channel_order) for image in (x, y))
        share = None
        if bundle.contract.with_prompt:
            fused, prompt = fuser.with_prompt(x, y)
            share = share_of_x(prompt)
        else:
            fused = fuser(x, y)
        resized = not bundle.can_tile and x.shape[:2] != fuser.size
        return FusedImage(in_order(fused, bundle.channel_order), resized, share, bundle.map_token)

    def close(self) -> None:
        self._fuser.close()


class _WeightsRunner:
    aligns = False

    def __init__(self, source: str, task: Task) -> None:
        try:
            import torch

            from tcmoa import load_weights
        except ImportError as error:
            raise MissingError(
                f"the package {error.name} is not installed",
                subject=f"weights {source}",
                remedy=install_hint("export"),
            ) from error
        self._task, self._threads = task, torch.get_num_threads()
        torch.set_num_threads(1)
        self._model = load_weights(source, task=task)

    def fuse(self, name: str, x: Frame, y: Frame) -> FusedImage:
        import torch

        from tcmoa.reference import fuse_frames

        tensors = [torch.from_numpy(to_frame(image, name))[None] for image in (x, y)]
        result = fuse_frames(self._model, tensors[0], tensors[1], self._task)
        fused = result.fused[0].round().byte().numpy()
        share = share_of_x(result.prompt[0].numpy())
        return FusedImage(fused, False, share, token_pixels(self._model.upsample))

    def close(self) -> None:
        import torch

        torch.set_num_threads(self._threads)
