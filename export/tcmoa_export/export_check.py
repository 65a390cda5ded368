"""The check at the end of every export: the written bundle against the unfolded model, on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch

from tcmoa import TCMoA
from tcmoa.reference import fuse_frames
from tcmoa_export.graph_loading import load_graph
from tcmoa_export.graph_session import GraphSession
from tcmoa_export.parity import GraphKind, Parity, Results, check_parity, measure_parity
from tcmoa_export.photographs import PHOTOGRAPHS, make_pair
from tcmoa_export.spec import ExportSpec
from tcmoa_runtime.backends.base import Backend
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.images import in_order, read_frame, to_frame
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import Frame, OnMessage, PromptMap

MAX_FLOPS_FOR_TWO_ROUNDS: Final = 1e12
"""Below this many operations per frame a second batch is checked, with prompt maps that vary."""


@dataclass(frozen=True)
class _Case:
    """A pair of RGB frames [H, W, 3], and its prompt maps [gh, gw]."""

    name: str
    x: Frame
    y: Frame
    scale: PromptMap
    shift: PromptMap


def check_export(
    bundle: Bundle, model: TCMoA, spec: ExportSpec, pairs: Sequence[PairPaths], on_message: OnMessage
) -> Parity:
    """Compare a bundle in ONNX Runtime with the unfolded model.

    Args:
        bundle: The bundle.
        model: The model, in evaluation mode.
        spec: What was exported.
        pairs: Image pairs to fuse; pairs from photographs if empty.
        on_message: Called with each step.

    Raises:
        ParityError: They differ too much.
    """
    cases = _make_cases(model, spec, pairs)
    expected = Results()
    for i, case in enumerate(cases):
        on_message(f"checking against the model, frame {i + 1} of {len(cases)}")
        fused, prompt = _fuse_with_model(model, spec, case)
        expected.fused.append(fused)
        if spec.options.with_prompt:
            expected.prompts.append(prompt)
    on_message("checking in ONNX Runtime")
    precision = spec.options.precision
    kind: GraphKind = "fp32, weights fp16" if spec.options.weight_storage == "fp16" else precision
    backend: Backend
    if precision == "bf16":
        backend = GraphSession(load_graph(bundle), bundle.contract, precision)
    else:
        backend = load_backend(bundle, "onnxruntime")
    results = _fuse_with_graph(backend, spec, cases)
    backend.close()
    names = [case.name for case in cases]
    parity = measure_parity(results, expected, kind=kind, pictures=names, backend=backend.name)
    check_parity(parity, kind)
    return parity


def _make_cases(model: TCMoA, spec: ExportSpec, pairs: Sequence[PairPaths]) -> list[_Case]:
    """Make one batch of cases; a second one with varying prompt maps where that is cheap."""
    sources, batch, grid = _read_sources(spec, pairs), spec.options.batch, spec.layout.grid
    rounds = 2 if _estimate_flops(model, spec) * batch < MAX_FLOPS_FOR_TWO_ROUNDS else 1
    rng = np.random.default_rng(0)
    cases = []
    for i in range(rounds * batch):
        name, x, y = sources[i % len(sources)]
        scale, shift = np.ones(grid, np.float32), np.zeros(grid, np.float32)
        if i >= batch:
            scale = rng.uniform(0.5, 1.5, grid).astype(np.float32)
            shift = rng.uniform(-0.3, 0.3, grid).astype(np.float32)
        contract = spec.contract
        x, y = _as_source(x, contract.x_channels), _as_source(y, contract.y_channels)
        cases.append(_Case(name, x, y, scale, shift))
    return cases


def _read_sources(spec: ExportSpec, pairs: Sequence[PairPaths]) -> list[tuple[str, Frame, Frame]]:
    size = spec.options.size
    if not pairs:
        made = [make_pair(spec.options.task, name, size, seed) for seed, name in enumerate(PHOTOGRAPHS)]
        return [(f"photograph {pair.name}", pair.x, pair.y) for pair in made]
    result = []
    for pair in pairs[: max(2, spec.options.batch)]:
        x, y = (np.asarray(cv2.resize(read_frame(path), size[::-1]), np.uint8) for path in (pair.x, pair.y))
        result.append((pair.name, x, y))
    return result


def _as_source(frame: Frame, channels: int) -> Frame:
    """Convert a frame to what a source with that many channels shows, still RGB."""
    return frame if channels == 3 else to_frame(to_frame(frame, "frame", 1), "frame", 3)


def _estimate_flops(model: TCMoA, spec: ExportSpec) -> float:
    """Estimate multiplications and additions per frame, without attention: 2 * parameters * tokens."""
    tokens = 2 * len(spec.layout.origins) * spec.layout.tokens_per_image
    return 2.0 * tokens * sum(p.numel() for p in model.parameters())


def _fuse_with_model(model: TCMoA, spec: ExportSpec, case: _Case) -> tuple[Frame, PromptMap]:
    """Return the frame [H, W, 3] and the prompts [K, 2, gh, gw] of the unfolded model."""
    x, y = (torch.from_numpy(np.ascontiguousarray(frame))[None] for frame in (case.x, case.y))
    result = fuse_frames(
        model,
        x,
        y,
        spec.options.task,
        scale=torch.from_numpy(case.scale)[None],
        shift=torch.from_numpy(case.shift)[None],
        routers=[model.sizes.tasks[router] for router in spec.routers],
        fit=spec.layout.fit,
        color=spec.options.color,
    )
    return result.fused[0].round().byte().numpy(), result.prompt[0].numpy()


def _fuse_with_graph(backend: Backend, spec: ExportSpec, cases: Sequence[_Case]) -> Results:
    """Fuse the cases batch by batch; frames are converted from and to RGB."""
    order, batch, contract = spec.options.channel_order, spec.options.batch, spec.contract
    results = Results()

    def stack(frames: Sequence[Frame], channels: int) -> Frame:
        return np.stack([frame[..., :1] if channels == 1 else in_order(frame, order) for frame in frames])

    for start in range(0, len(cases), batch):
        part = cases[start : start + batch]
        outputs = backend.infer(
            {
                X: stack([case.x for case in part], contract.x_channels),
                Y: stack([case.y for case in part], contract.y_channels),
                PROMPT_SCALE: np.stack([case.scale for case in part]),
                PROMPT_SHIFT: np.stack([case.shift for case in part]),
            }
        )
        results.fused.extend(in_order(frame, order) for frame in outputs["fused"])
        results.prompts.extend(outputs.get("prompt", ()))
    return results
