"""The gate at the end of every export: the written bundle against the unfolded model, on pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from tcmoa import TCMoA
from tcmoa.frames import fuse_frames
from tcmoa_export.parity import GraphSession, Parity, judge, measure
from tcmoa_export.photographs import PHOTOGRAPHS, made_pair
from tcmoa_export.spec import ExportSpec
from tcmoa_runtime.backends.base import Backend
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import FUSED, PROMPT, PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.images import read_frame, to_frame
from tcmoa_runtime.pairs import PairPaths

Frame = NDArray[np.uint8]

CHEAP = 1e12
"""Below this many operations a frame, the gate tries a second pair with prompt maps that vary."""


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
    backend: Backend
    if spec.precision == "bf16":
        backend = GraphSession(onnx.load(bundle.graph_path), bundle.contract, spec.precision)
    else:
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
    expected = [fused for fused, _ in references]
    names = [c.name for c in cases]
    made = [prompt for _, prompt in references]
    parity = measure(spec.precision, names, backend.name, fused, expected, prompts, made)
    judge(parity, spec.precision)
    return parity
