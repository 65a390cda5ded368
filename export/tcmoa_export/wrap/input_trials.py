"""Trying out how a network takes two pictures, where its shapes leave that open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_export.wrap.input_context import InputContext
from tcmoa_export.wrap.input_shapes import InputShapes
from tcmoa_runtime.options.wrap import Join, TensorLayout


@dataclass(frozen=True)
class Trial:
    """A way in which a network may take two pictures: channels of each input that takes one or both."""

    join: Join
    layout: TensorLayout
    channels: tuple[int, ...]


_TRIAL_SIZE: Final = (64, 128)
_SMALL_TRIAL_SIZE: Final = (32, 64)


class InputTrials:
    """Runs a network with small pictures, once for each way in which it may take them."""

    def __init__(self, context: InputContext) -> None:
        self._context, self._infos, self._given = context, context.infos, context.given
        self._results: list[Trial] | None = None

    def results(self, pictures: Sequence[str]) -> list[Trial]:
        """Return the ways in which the network takes two small pictures without an error."""
        if self._results is None:
            self._results = [trial for trial in self._candidates(pictures) if self._runs(pictures, trial)]
        return self._results

    def _candidates(self, pictures: Sequence[str]) -> list[Trial]:
        """Return the ways in which networks take two pictures, as far as the conventions leave them open."""
        layouts: tuple[TensorLayout, ...] = ("nchw", "nhwc")
        deep: tuple[TensorLayout, ...] = ("ncdhw", "ndchw", "ndhwc")
        if len(pictures) == 2:
            found = [Trial("separate", layout, (a, b)) for layout in layouts for a in (1, 3) for b in (1, 3)]
        else:
            found = [Trial("channels", layout, (count,)) for layout in layouts for count in (2, 4, 6)]
            found += [Trial("batch", layout, (count,)) for layout in layouts for count in (1, 3)]
            found += [Trial("depth", layout, (count,)) for layout in deep for count in (1, 3)]
        ranks = {len(self._infos[name].dims) for name in pictures} - {0}
        return [
            trial
            for trial in found
            if self._given.join in (None, trial.join)
            and self._given.layout in (None, trial.layout)
            and ranks <= {len(trial.layout)}
        ]

    def _runs(self, pictures: Sequence[str], trial: Trial) -> bool:
        """Try one way out, with pictures of zeros."""
        if self._context.takes is None:
            return False
        inputs: dict[str, NDArray[Any]] = {}
        for names, (height, width) in (
            (pictures, _TRIAL_SIZE),
            (self._given.small_inputs, _SMALL_TRIAL_SIZE),
        ):
            for index, name in enumerate(names):
                info = self._infos[name]
                counts = trial.channels if len(trial.channels) == len(names) else trial.channels * len(names)
                axes = {"n": 1, "d": 1, "c": counts[index], "h": height, "w": width}
                axes |= {"batch": {"n": 2}, "depth": {"d": 2}}.get(trial.join, {})
                fixed = info.dims or (None,) * len(trial.layout)
                shape = [
                    axes[axis] if dim is None else dim for axis, dim in zip(trial.layout, fixed, strict=True)
                ]
                sides = [dim for axis, dim in zip(trial.layout, fixed, strict=True) if axis in "hw"]
                if len({dim is None for dim in sides}) > 1:  # one side only is fixed: that is no side
                    return False
                small = {"n", "d", "c"}
                if any(axes[a] != s for a, s in zip(trial.layout, shape, strict=True) if a in small):
                    return False
                inputs[name] = np.zeros(shape, info.dtype)
        return self._context.takes(inputs | InputShapes(self._context).constants(trial.layout, _TRIAL_SIZE))
