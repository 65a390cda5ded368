"""What a run shows in TensorBoard: losses, learning rate, prompts, use of the adapters, sample pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
from torch import Tensor

from tcmoa.model import TCMoA
from tcmoa_runtime.errors import MissingError

FOLDER = "tensorboard"


def require_tensorboard() -> type[Any]:
    """PyTorch's writer of event files; MissingError where the package `tensorboard` is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingError(
            "tensorboard = true needs tensorboard, which is not installed; run `pip install 'tcmoa[train]'`"
        ) from error
    return SummaryWriter


class Board:
    """Event files in `out`/tensorboard. Rounds count from 1, as in the log; a resumed run replaces what came after.

    Tags: `loss/TASK/NAME` (as weighted), `lr`, `prompts/TASK/{x,y}_{mean,std}` over all TC-MoAs and tokens,
    `adapters/TASK/K.N` (share of tokens that TC-MoA K sends to adapter N; with the pictures only), `samples`.
    """

    def __init__(self, out: Path, model: TCMoA, *, first_round: int, every: int) -> None:
        self._writer = require_tensorboard()(str(out / FOLDER), purge_step=first_round)
        self._every = every
        self._use: dict[int, Tensor] = {}
        for k, moa in enumerate([*model.encoder.moas, *model.decoder.moas]):
            moa.prompts.routers.register_forward_hook(self._keep_use(k))

    def _keep_use(self, k: int) -> Any:
        def hook(module: Any, _: Any, outputs: tuple[Tensor, Tensor]) -> None:
            if module.training:
                self._use[k] = (outputs[0].detach() > 0).float().flatten(0, -2).mean(0)

        return hook

    def step(self, task: str, prompts: Sequence[tuple[Tensor, Tensor]], round_: int) -> None:
        """Prompts (each [B, gh, gw]) of a step of `task` and, where they are due, its adapters' use."""
        for s, source in enumerate("xy"):
            values = [both[s].detach().flatten() for both in prompts]
            merged = sum(v.mean() for v in values) / len(values)
            spread = sum(v.std() for v in values) / len(values)
            self._writer.add_scalar(f"prompts/{task}/{source}_mean", merged, round_)
            self._writer.add_scalar(f"prompts/{task}/{source}_std", spread, round_)
        if round_ % self._every == 0:
            for k, use in self._use.items():
                for n, share in enumerate(use.tolist()):
                    self._writer.add_scalar(f"adapters/{task}/{k}.{n}", share, round_)

    def round(self, round_: int, losses: Mapping[str, Mapping[str, float]], lr: float) -> None:
        """Losses by task and name, and the learning rate, of a finished round."""
        for task, terms in losses.items():
            for name, value in terms.items():
                self._writer.add_scalar(f"loss/{task}/{name}", value, round_)
        self._writer.add_scalar("lr", lr, round_)

    def picture(self, file: Path, round_: int) -> None:
        """The contact sheet that was just written."""
        image = cv2.imread(str(file))
        if image is not None:
            self._writer.add_image("samples", image[..., ::-1].copy(), round_, dataformats="HWC")

    def close(self) -> None:
        """Write what is still held back."""
        self._writer.close()
