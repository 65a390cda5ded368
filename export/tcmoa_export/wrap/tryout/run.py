"""Running the likely conventions on pairs, and sorting them by how plausible their pictures are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tcmoa_export.wrap.network import Arrays, Network
from tcmoa_export.wrap.plain import network_inputs, outputs_to_frame
from tcmoa_export.wrap.plan import InputPlan, Plan
from tcmoa_export.wrap.tryout.candidates import LikelyPlan, likely_input_plans, likely_plans
from tcmoa_export.wrap.tryout.score import Score, mean_score, score_picture
from tcmoa_export.wrap.wrapping import open_network, read_conventions
from tcmoa_runtime.contract import Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.wrap import Conventions, WrapOptions
from tcmoa_runtime.pairs import PairPaths, find_source_pairs, read_frame_pair
from tcmoa_runtime.shipped_pairs import shipped_pairs
from tcmoa_runtime.typing import Frame, FrameSize, OnSteps, SourceName, ignore_steps

if TYPE_CHECKING:
    from torch.nn import Module

MAX_PAIRS: Final = 2
"""Pairs on which conventions are tried at most."""

MAX_CACHED_BYTES: Final = 256 << 20
"""Outputs of the network that are kept, for conventions with equal inputs."""

MAX_DIFFERENCE: Final = 1
MAX_DIFFERING: Final = 0.001
"""Pictures are equal if no more than this share of values differ by more than MAX_DIFFERENCE gray levels."""

Outputs = Mapping[str, NDArray[Any]]
"""Outputs of the network by name."""


@dataclass(frozen=True)
class SampledPair:
    """A pair at the size at which the network is tried, uint8 [H, W, 3] RGB."""

    name: str
    x: Frame
    y: Frame


@dataclass(frozen=True)
class Candidate:
    """Conventions that give one picture.

    Attributes:
        conventions: The conventions, the most usual first; all give the same pictures.
        score: How plausible the pictures are.
        pictures: The fused picture of each pair, uint8 [H, W, 3] RGB.
    """

    conventions: tuple[Conventions, ...]
    score: Score
    pictures: tuple[Frame, ...]


@dataclass(frozen=True)
class TryReport:
    """Conventions of a network that were tried.

    Attributes:
        given: Conventions that were known.
        candidates: What was tried, the most plausible first.
        pairs: The pairs.
        read: What was read off the network, in words.
        size: (H, W) of the network's pictures if it takes one size only.
        refused: Why other conventions do not fit the network: distinct messages.
    """

    given: Conventions
    candidates: tuple[Candidate, ...]
    pairs: tuple[SampledPair, ...]
    read: tuple[str, ...]
    size: FrameSize | None
    refused: tuple[str, ...]


def try_conventions(
    network: str | os.PathLike[str] | Module, options: WrapOptions, *, on_progress: OnSteps = ignore_steps
) -> TryReport:
    """Run the likely ones of the conventions that are not given, on the pairs of the options or the shipped ones.

    Args:
        network: An ONNX file, or a PyTorch module.
        options: Task, pairs and the conventions that are known; also those of the TOML file beside the network.
        on_progress: Called with the number of finished steps and their total.

    Raises:
        InputError: The network cannot be wrapped, does not fit what is given, or does not run.
    """
    given = read_conventions(network, options)
    pairs = find_source_pairs(options) if options.has_pairs else shipped_pairs(options.task)
    return try_network(open_network(network), given, options.task, pairs, on_progress)


def try_network(
    network: Network,
    given: Conventions,
    task: Task,
    pairs: Sequence[PairPaths],
    on_progress: OnSteps = ignore_steps,
) -> TryReport:
    """Run the likely conventions of a network on pairs; see `try_conventions`.

    Args:
        network: The network.
        given: Conventions that are known; they are not varied.
        task: The task.
        pairs: Pairs to fuse; the first MAX_PAIRS are taken, scaled and cropped to one size.
        on_progress: Called with the number of finished steps and their total.

    Raises:
        InputError: The network cannot be wrapped, does not fit what is given, or does not run.
    """
    cached = _CachedNetwork(network)
    likely = likely_input_plans(network.inputs, given, task, cached.takes, network.subject)
    plans, size = likely.plans, likely.plans[0].plan.size
    sampled = tuple(_read_pair(pair, size) for pair in pairs[:MAX_PAIRS])
    refusals: list[InputError] = []
    candidates: list[Candidate] = []
    for index, plan in enumerate(plans):
        on_progress(index, len(plans))
        try:
            of_plan, refused = _try_plan(cached, plan, sampled)
        except InputError as error:
            of_plan, refused = [], [error]
        candidates += of_plan
        refusals += refused
    on_progress(len(plans), len(plans))
    if not candidates:
        raise refusals[0]
    return TryReport(
        given=given,
        candidates=tuple(_sort(_join_equal(candidates))),
        pairs=sampled,
        read=plans[0].plan.read,
        size=None if likely.takes_any_size else size,
        refused=tuple(dict.fromkeys(map(str, refusals))),
    )


class _CachedNetwork:
    """A network that runs once for equal inputs."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._outputs: dict[bytes, Outputs] = {}
        self._takes: dict[tuple[tuple[str, tuple[int, ...]], ...], bool] = {}
        self._bytes = 0

    @property
    def subject(self) -> str:
        return self._network.subject

    def takes(self, inputs: Arrays) -> bool:
        """Whether the network runs with inputs of these shapes."""
        key = tuple((name, value.shape) for name, value in sorted(inputs.items()))
        if key not in self._takes:
            self._takes[key] = self._network.takes(inputs)
        return self._takes[key]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        digest = hashlib.sha256()
        for name, value in sorted(inputs.items()):
            digest.update(f"{name} {value.shape} {value.dtype}".encode() + value.tobytes())
        key = digest.digest()
        if key in self._outputs:
            return self._outputs[key]
        outputs = self._network.run(inputs)
        self._bytes += sum(value.nbytes for value in outputs.values())
        if self._bytes <= MAX_CACHED_BYTES:
            self._outputs[key] = outputs
        return outputs


def _read_pair(pair: PairPaths, size: FrameSize) -> SampledPair:
    x, y = (_cover(frame, size) for frame in read_frame_pair(pair))
    return SampledPair(pair.name, x, y)


def _cover(frame: Frame, size: FrameSize) -> Frame:
    """Scale a frame to cover a size, and crop it at the center."""
    height, width = size
    scale = max(height / frame.shape[0], width / frame.shape[1])
    scaled = max(height, round(frame.shape[0] * scale)), max(width, round(frame.shape[1] * scale))
    resized = cv2.resize(frame, scaled[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
    return np.ascontiguousarray(resized[top : top + height, left : left + width], np.uint8)


@dataclass(frozen=True)
class _Run:
    """A pair that went through the network, or its x as both sources."""

    frames: Mapping[SourceName, Frame]
    outputs: Outputs


def _try_plan(
    network: _CachedNetwork, likely: LikelyPlan[InputPlan], pairs: Sequence[SampledPair]
) -> tuple[list[Candidate], list[InputError]]:
    """Run one convention of the inputs with every likely one of the output."""
    plan = likely.plan
    runs = [(_run(network, plan, pair.x, pair.y), _run(network, plan, pair.x, pair.x)) for pair in pairs]
    shapes = {name: value.shape for name, value in runs[0][0].outputs.items()}
    complete, refusals = likely_plans(likely, shapes, network.subject)
    candidates: list[Candidate] = []
    for full in complete:
        wrong = [name for name in full.plan.conventions.output if not _is_finite(runs, name)]
        if wrong:
            text = f"its output '{wrong[0]}' has values that are not finite with range_in {plan.conventions.range_in}"
            refusals.append(InputError(f"{text}; expected numbers", subject=network.subject))
        else:
            candidates.append(_score(full, pairs, runs))
    return candidates, refusals


def _run(network: _CachedNetwork, plan: InputPlan, x: Frame, y: Frame) -> _Run:
    frames: dict[SourceName, Frame] = {
        "x": _to_channels(x, plan.frame_channels("x")),
        "y": _to_channels(y, plan.frame_channels("y")),
    }
    return _Run(frames, network.run(network_inputs(plan, frames)))


def _to_channels(frame: Frame, channels: int) -> Frame:
    return (
        frame if channels == 3 else np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None], np.uint8)
    )


def _is_finite(runs: Sequence[tuple[_Run, _Run]], name: str) -> bool:
    return all(np.isfinite(run.outputs[name]).all() for both in runs for run in both)


def _score(
    likely: LikelyPlan[Plan], pairs: Sequence[SampledPair], runs: Sequence[tuple[_Run, _Run]]
) -> Candidate:
    plan = likely.plan
    pictures: list[Frame] = []
    scores: list[Score] = []
    for pair, both in zip(pairs, runs, strict=True):
        fused, repeated = (outputs_to_frame(plan, run.outputs, run.frames) for run in both)
        x = pair.x
        if plan.conventions.color_out == "gray":  # then color is not expected of it
            x = np.ascontiguousarray(np.broadcast_to(_to_channels(x, 1), x.shape))
        pictures.append(fused)
        scores.append(score_picture(plan.task, x, pair.y, fused, repeated))
    return Candidate((likely.stated,), mean_score(scores), tuple(pictures))


def _join_equal(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Join candidates whose pictures are equal; the first of them stays, and its score."""
    joined: list[Candidate] = []
    for candidate in candidates:
        for index, other in enumerate(joined):
            if all(map(_are_equal, candidate.pictures, other.pictures)):
                joined[index] = replace(other, conventions=(*other.conventions, *candidate.conventions))
                break
        else:
            joined.append(candidate)
    return joined


def _are_equal(picture: Frame, other: Frame) -> bool:
    differing = cv2.absdiff(picture, other) > MAX_DIFFERENCE
    return bool(differing.mean() <= MAX_DIFFERING)


def _sort(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Sort by score; of equal scores the more usual conventions, which were tried first, come first."""
    return sorted(candidates, key=lambda candidate: -round(candidate.score.value, 3))
