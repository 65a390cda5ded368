"""How near a graph comes to its reference, and the bounds within which it may be used."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from tcmoa_export.precision import Precision, emulate_bf16
from tcmoa_runtime.backends.base import Backend, Outputs, Tensors
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import Contract
from tcmoa_runtime.errors import MissingError, TcmoaError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.pairs import find_pairs

Frame = NDArray[np.uint8]
Prompts = NDArray[np.float32]

MOST_DIFFERING = 0.005
"""Share of values that may differ by one grey level: rounding falls either way where the result is near .5."""
MOST_BEYOND_ONE = 1e-4
"""Share of values that may differ by more: a router's near tie can fall either way in a token."""
MOST_PROMPT_DIFFERENCE = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.15}
"""Of the quantile below of all prompts."""
PROMPT_QUANTILE = {"fp32": 0.9999, "fp16": 0.99, "bf16": 0.99}
"""A router's near tie can fall either way in a token, and does so in more of them the fewer bits tokens have."""
LEAST_PSNR = {"fp16": 50.0, "bf16": 45.0}
"""Of results in a precision below float32, in dB to the float32 model; there it replaces the shares above."""


@dataclass(frozen=True)
class Parity:
    """How near the graph is to the unfolded float32 model, over all tried frames.

    `max_difference` in grey levels of uint8 results; `differing` and `beyond_one` are shares of values;
    `psnr_db` is None where all values agree; `prompt_difference` is the `PROMPT_QUANTILE` of all prompts', None
    without that output.
    """

    frames: int
    pictures: list[str]
    backend: str
    max_difference: int
    differing: float
    beyond_one: float
    psnr_db: float | None
    prompt_difference: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)


class GateError(TcmoaError):
    """The exported graph does not give the model's images; no bundle was written."""


class GraphSession:
    """A graph that is no bundle's own in ONNX Runtime; bf16 as `emulate_bf16` makes it."""

    def __init__(self, model: onnx.ModelProto, contract: Contract, precision: Precision) -> None:
        emulated = precision == "bf16"
        self.name = f"onnxruntime (CPU){', bfloat16 emulated' if emulated else ''}"
        options = ort.SessionOptions()
        options.log_severity_level = 3
        data = (emulate_bf16(model) if emulated else model).SerializeToString()
        self._session = ort.InferenceSession(data, options)
        self._names = [spec.name for spec in contract.outputs]

    def infer(self, inputs: Tensors) -> Outputs:
        """Run once; see `Backend`."""
        results = self._session.run(self._names, dict(inputs))
        return cast("Outputs", dict(zip(self._names, results, strict=True)))

    def close(self) -> None:
        """Nothing outlives it."""


def measure(
    precision: Precision,
    pictures: Sequence[str],
    backend: str,
    fused: Sequence[Frame],
    expected: Sequence[Frame],
    prompts: Sequence[Prompts],
    expected_prompts: Sequence[Prompts],
) -> Parity:
    """Compare uint8 frames [H, W, 3], and prompts [K, 2, gh, gw] where there are any, frame by frame."""
    difference = np.stack([np.abs(f.astype(np.int16) - r) for f, r in zip(fused, expected, strict=True)])
    squares = float(np.mean(difference.astype(np.float64) ** 2))
    apart = None
    if prompts:
        gaps = [np.abs(p - r).reshape(-1) for p, r in zip(prompts, expected_prompts, strict=True)]
        apart = float(np.quantile(np.concatenate(gaps), PROMPT_QUANTILE[precision]))
    return Parity(
        frames=len(fused),
        pictures=list(dict.fromkeys(pictures)),
        backend=backend,
        max_difference=int(difference.max()),
        differing=float(np.mean(difference > 0)),
        beyond_one=float(np.mean(difference > 1)),
        psnr_db=round(10 * math.log10(255**2 / squares), 2) if squares else None,
        prompt_difference=apart,
    )


def judge(parity: Parity, precision: Precision = "fp32") -> None:
    """Raise GateError when a figure is beyond its bound for the precision."""
    apart, most_apart = parity.prompt_difference or 0.0, MOST_PROMPT_DIFFERENCE[precision]
    if precision in LEAST_PSNR:
        least = LEAST_PSNR[precision]
        if parity.psnr_db is not None and not parity.psnr_db >= least:
            raise GateError(
                f"the {precision} graph is too far from the model: {parity.psnr_db} dB, at least {least:g} expected; "
                f"nothing was written: use {'fp16 or fp32' if precision == 'bf16' else 'fp32'}"
            )
        bounds = [("difference of prompts", apart, most_apart)]
    else:
        bounds = [
            ("share of values that differ", parity.differing, MOST_DIFFERING),
            ("share of values that differ by more than one grey level", parity.beyond_one, MOST_BEYOND_ONE),
            ("difference of prompts", apart, most_apart),
        ]
    for what, value, bound in bounds:
        if not value <= bound:
            raise GateError(
                f"the exported graph does not match the model: {what} is {value:.3g}, at most {bound:g} allowed "
                f"(largest difference {parity.max_difference} grey levels); nothing was written"
            )


def judge_lowered(
    bundle: Bundle,
    model: onnx.ModelProto,
    precision: Precision,
    pairs: str | os.PathLike[str] | None,
    say: Callable[[str], None],
) -> Parity:
    """Compare a float32 bundle's graph with itself in `precision` on one batch of frames; GateError when too far.

    `pairs`: a folder of real pairs, else pairs made from photographs, which need the training side; MissingError
    without it. Neither PyTorch nor the weights file is needed with `pairs`.
    """
    say(f"checking {precision} against {'float32' if bundle.precision == 'fp32' else bundle.precision}")
    frames = _frames(bundle, pairs)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # emulation changes what it is given
    session: Backend = GraphSession(copy, bundle.contract, precision)
    results: list[tuple[list[Frame], list[Prompts]]] = []
    for backend in (load_backend(bundle, "onnxruntime"), session):
        with Fuser(bundle, backend, resize=True) as fuser:
            x, y = (np.stack([frame[side] for frame in frames]) for side in (1, 2))
            if bundle.contract.with_prompt:
                fused, prompts = fuser.with_prompt(x, y)
                results.append((list(fused), list(prompts)))
            else:
                results.append((list(fuser(x, y)), []))
    (expected, expected_prompts), (fused, prompts) = results
    names = [frame[0] for frame in frames]
    parity = measure(precision, names, session.name, fused, expected, prompts, expected_prompts)
    judge(parity, precision)
    return parity


def _frames(bundle: Bundle, pairs: str | os.PathLike[str] | None) -> list[tuple[str, Frame, Frame]]:
    """Name, x and y of a batch of frames in the bundle's size."""
    contract = bundle.contract
    count = contract.batch
    if pairs is not None:
        found = find_pairs(pairs)
        chosen = [found[i % len(found)] for i in range(count)]
        return [
            (p.name, _sized(read_frame(p.x), contract), _sized(read_frame(p.y), contract)) for p in chosen
        ]
    try:
        from tcmoa_export.photographs import PHOTOGRAPHS, made_pair
    except ImportError as error:
        raise MissingError(
            f"checking a lowered graph needs pictures: give --pairs DIR, or install tcmoa[export] for photographs "
            f"({error})"
        ) from error
    size = (contract.height, contract.width)
    made = [made_pair(bundle.task, PHOTOGRAPHS[i % len(PHOTOGRAPHS)], size, i) for i in range(count)]
    return [(f"photograph {m.name}", m.x, m.y) for m in made]


def _sized(frame: Frame, contract: Contract) -> Frame:
    import cv2

    return np.asarray(cv2.resize(frame, (contract.width, contract.height)), np.uint8)
