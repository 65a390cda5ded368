"""The gate at the end of every export: the written bundle against the unfolded model, on pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from tcmoa import TCMoA
from tcmoa.frames import fuse_frames
from tcmoa_export.emit import Precision
from tcmoa_export.photographs import PHOTOGRAPHS, made_pair
from tcmoa_export.spec import ExportSpec
from tcmoa_runtime.backends import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import FUSED, PROMPT, PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.images import read_frame, to_frame
from tcmoa_runtime.pairs import PairPaths

Frame = NDArray[np.uint8]

MOST_DIFFERING = 0.005
"""Share of values that may differ by one grey level: rounding falls either way where the result is near .5."""
MOST_BEYOND_ONE = 1e-4
"""Share of values that may differ by more: a router's near tie can fall either way in a token."""
MOST_PROMPT_DIFFERENCE = {"fp32": 1e-4, "fp16": 0.05}
"""Of the 99.99th percentile of prompts, for the same reason."""
LEAST_PSNR = {"fp16": 50.0}
"""Of results in a precision below float32, in dB to the float32 model; there it replaces the shares above."""
CHEAP = 1e12
"""Below this many operations a frame, the gate tries a second pair with prompt maps that vary."""


@dataclass(frozen=True)
class Parity:
    """How near the graph is to the unfolded float32 model, over all tried frames.

    `max_difference` in grey levels of uint8 results; `differing` and `beyond_one` are shares of values;
    `psnr_db` is None where all values agree; `prompt_difference` is None without that output.
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


@dataclass(frozen=True)
class _Case:
    name: str
    x: Frame
    y: Frame
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]


def _operations(model: TCMoA, spec: ExportSpec) -> float:
    """Multiplications and additions per frame, to within the attention's share: 2 * parameters * tokens."""
    tokens = 2 * len(spec.layout.starts) * spec.layout.tokens
    return 2.0 * tokens * sum(p.numel() for p in model.parameters())


def _source_pairs(spec: ExportSpec, pairs: Sequence[PairPaths]) -> list[tuple[str, Frame, Frame]]:
    size = (spec.layout.height, spec.layout.width)
    if not pairs:
        made = [made_pair(spec.task, name, size, seed) for seed, name in enumerate(PHOTOGRAPHS)]
        return [(f"photograph {m.name}", m.x, m.y) for m in made]
    result = []
    for pair in pairs[: max(2, spec.batch)]:
        frames = [np.asarray(cv2.resize(read_frame(p), size[::-1]), np.uint8) for p in (pair.x, pair.y)]
        result.append((pair.name, frames[0], frames[1]))
    return result


def _cases(model: TCMoA, spec: ExportSpec, pairs: Sequence[PairPaths]) -> list[_Case]:
    """At least one batch of frames; a second one with varying prompt maps where that is cheap."""
    sources = _source_pairs(spec, pairs)
    rounds = 2 if _operations(model, spec) * spec.batch < CHEAP else 1
    rng = np.random.default_rng(0)
    cases = []
    for i in range(rounds * spec.batch):
        name, x, y = sources[i % len(sources)]
        scale, shift = np.ones(spec.layout.grid, np.float32), np.zeros(spec.layout.grid, np.float32)
        if i >= spec.batch:
            scale = rng.uniform(0.5, 1.5, spec.layout.grid).astype(np.float32)
            shift = rng.uniform(-0.3, 0.3, spec.layout.grid).astype(np.float32)
        # Whatever the file's channel order, the reference sees RGB.
        cases.append(
            _Case(name, _as_source(x, spec.x_channels), _as_source(y, spec.y_channels), scale, shift)
        )
    return cases


def _as_source(frame: Frame, channels: int) -> Frame:
    """A frame as a source of that many channels shows it, still RGB."""
    return frame if channels == 3 else to_frame(to_frame(frame, "frame", 1), "frame", 3)


def _to_graph(frame: Frame, channels: int, spec: ExportSpec) -> Frame:
    return frame[..., :1] if channels == 1 else (frame[..., ::-1] if spec.channel_order == "bgr" else frame)


def _reference(model: TCMoA, spec: ExportSpec, case: _Case) -> tuple[Frame, NDArray[np.float32]]:
    tensors = [torch.from_numpy(np.ascontiguousarray(f))[None] for f in (case.x, case.y)]
    names = [model.sizes.tasks[r] for r in spec.routers]
    result = fuse_frames(
        model,
        tensors[0],
        tensors[1],
        spec.task,
        scale=torch.from_numpy(case.scale)[None],
        shift=torch.from_numpy(case.shift)[None],
        routers=names,
        fit=spec.layout.fit,
        color=spec.color,
    )
    return result.fused[0].round().byte().numpy(), result.prompt[0].numpy()


def run_gate(
    bundle: Bundle, model: TCMoA, spec: ExportSpec, pairs: Sequence[PairPaths], say: Callable[[str], None]
) -> Parity:
    """Run the bundle in ONNX Runtime beside the unfolded model; GateError when they differ too much."""
    cases = _cases(model, spec, pairs)
    references = []
    for i, case in enumerate(cases):
        say(f"checking against the model, frame {i + 1} of {len(cases)}")
        references.append(_reference(model, spec, case))
    say("checking in ONNX Runtime")
    backend = load_backend(bundle, "onnxruntime")
    fused: list[Frame] = []
    prompts: list[NDArray[np.float32]] = []
    for start in range(0, len(cases), spec.batch):
        batch = cases[start : start + spec.batch]
        result = backend.infer(
            {
                X: np.ascontiguousarray(np.stack([_to_graph(c.x, spec.x_channels, spec) for c in batch])),
                Y: np.ascontiguousarray(np.stack([_to_graph(c.y, spec.y_channels, spec) for c in batch])),
                PROMPT_SCALE: np.stack([c.scale for c in batch]),
                PROMPT_SHIFT: np.stack([c.shift for c in batch]),
            }
        )
        fused.extend(f[..., ::-1] if spec.channel_order == "bgr" else f for f in result[FUSED])
        prompts.extend(result.get(PROMPT, []))
    backend.close()
    difference = np.stack(
        [np.abs(f.astype(np.int16) - r) for f, (r, _) in zip(fused, references, strict=True)]
    )
    squares = float(np.mean(difference.astype(np.float64) ** 2))
    apart = None
    if prompts:
        gaps = [np.abs(p - r).reshape(-1) for p, (_, r) in zip(prompts, references, strict=True)]
        apart = float(np.quantile(np.concatenate(gaps), 0.9999))
    parity = Parity(
        frames=len(cases),
        pictures=list(dict.fromkeys(c.name for c in cases)),
        backend=backend.name,
        max_difference=int(difference.max()),
        differing=float(np.mean(difference > 0)),
        beyond_one=float(np.mean(difference > 1)),
        psnr_db=round(10 * math.log10(255**2 / squares), 2) if squares else None,
        prompt_difference=apart,
    )
    judge(parity, spec.precision)
    return parity


def judge(parity: Parity, precision: Precision = "fp32") -> None:
    """Raise GateError when a figure is beyond its bound for the precision."""
    apart, most_apart = parity.prompt_difference or 0.0, MOST_PROMPT_DIFFERENCE[precision]
    if precision in LEAST_PSNR:
        least = LEAST_PSNR[precision]
        if parity.psnr_db is not None and not parity.psnr_db >= least:
            raise GateError(
                f"the {precision} graph is too far from the model: {parity.psnr_db} dB, at least {least:g} expected; "
                f"no bundle was written: export it in fp32"
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
                f"(largest difference {parity.max_difference} grey levels); no bundle was written"
            )
