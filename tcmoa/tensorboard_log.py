"""The TensorBoard log of a run: losses, learning rate, prompts, use of the adapters, sample images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
from torch import Tensor, nn

from tcmoa.model import TCMoA
from tcmoa_runtime.errors import MissingError
from tcmoa_runtime.install import install_hint

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"

_RouterHook = Callable[[nn.Module, object, tuple[Tensor, Tensor]], None]


def require_tensorboard() -> type[SummaryWriter]:
    """Return PyTorch's writer of event files.

    Raises:
        MissingError: The package `tensorboard` is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingError(
            "tensorboard is not installed; expected with tensorboard = true",
            remedy=install_hint("train"),
        ) from error
    return SummaryWriter


class TensorBoardLog:
    """Event files in `out`/tensorboard.

    Rounds count from 1, as in log.jsonl; a resumed run replaces the entries after its checkpoint. Tags:

    - `loss/TASK/NAME`: a weighted loss;
    - `lr`: the learning rate;
    - `prompts/TASK/{x,y}_{mean,std}`: over all TC-MoAs and tokens;
    - `adapters/TASK/K.N`: share of the tokens that TC-MoA K sends to adapter N, every `every` rounds;
    - `samples`: the contact sheet.
    """

    def __init__(self, out: Path, model: TCMoA, *, first_round: int, every: int) -> None:
        self._writer = require_tensorboard()(str(out / FOLDER), purge_step=first_round)
        self._every = every
        self._use: dict[int, Tensor] = {}
        for k, moa in enumerate([*model.encoder.moas, *model.decoder.moas]):
            moa.prompts.routers.register_forward_hook(self._record_use(k))

    def _record_use(self, k: int) -> _RouterHook:
        def hook(module: nn.Module, _: object, outputs: tuple[Tensor, Tensor]) -> None:
            if module.training:
                self._use[k] = (outputs[0].detach() > 0).float().flatten(0, -2).mean(0)

        return hook

    def write_step(self, task: str, prompts: Sequence[tuple[Tensor, Tensor]], round_: int) -> None:
        """Write the prompts (each [B, gh, gw]) of a step and, every `every` rounds, its use of the adapters."""
        for s, source in enumerate("xy"):
            values = [both[s].detach().flatten() for both in prompts]
            mean = sum(v.mean() for v in values) / len(values)
            spread = sum(v.std() for v in values) / len(values)
            self._writer.add_scalar(f"prompts/{task}/{source}_mean", mean, round_)
            self._writer.add_scalar(f"prompts/{task}/{source}_std", spread, round_)
        if round_ % self._every == 0:
            for k, use in self._use.items():
                for n, share in enumerate(use.tolist()):
                    self._writer.add_scalar(f"adapters/{task}/{k}.{n}", share, round_)

    def write_round(self, round_: int, losses: Mapping[str, Mapping[str, float]], lr: float) -> None:
        """Write the losses of a finished round, by task and name, and the learning rate."""
        for task, terms in losses.items():
            for name, value in terms.items():
                self._writer.add_scalar(f"loss/{task}/{name}", value, round_)
        self._writer.add_scalar("lr", lr, round_)

    def write_image(self, file: Path, round_: int) -> None:
        """Write the contact sheet `file`."""
        image = cv2.imread(str(file))
        if image is not None:
            self._writer.add_image("samples", image[..., ::-1].copy(), round_, dataformats="HWC")

    def close(self) -> None:
        """Write buffered entries and close the files."""
        self._writer.close()
