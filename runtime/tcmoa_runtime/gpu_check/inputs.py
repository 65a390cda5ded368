"""Frames that the steps fuse, and comparing their results."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.backends.base import neutral_input
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import PROMPT_SHIFT
from tcmoa_runtime.gpu_check.target import CheckError

GraphInputs: TypeAlias = dict[str, NDArray[np.generic]]
"""Inputs of a graph by name."""


def make_inputs(bundle: Bundle, number: int) -> GraphInputs:
    """Make inputs of a bundle's graph: squares of 16 pixels, other ones for each number, and a map of prompts."""
    rng = np.random.default_rng(number)
    inputs: GraphInputs = {}
    for spec in bundle.contract.inputs:
        if spec.dtype == "uint8":
            batch, height, width, channels = spec.shape
            squares = rng.integers(0, 256, (batch, -(-height // 16), -(-width // 16), channels), np.uint8)
            large = squares.repeat(16, axis=1).repeat(16, axis=2)
            inputs[spec.name] = np.ascontiguousarray(large[:, :height, :width])
        elif spec.name == PROMPT_SHIFT:
            inputs[spec.name] = rng.uniform(-0.3, 0.3, spec.shape).astype(np.float32)
        else:
            inputs[spec.name] = neutral_input(spec)
    return inputs


def check_equal(frame: NDArray[np.generic], expected: NDArray[np.generic], what: str) -> None:
    """Raise CheckError unless two results are equal byte by byte."""
    if frame.shape != expected.shape or frame.dtype != expected.dtype:
        raise CheckError(
            f"{what}: {frame.dtype} {list(frame.shape)}; expected {expected.dtype} {list(expected.shape)}"
        )
    differing = int(np.count_nonzero(frame != expected))
    if differing:
        raise CheckError(f"{what}: {differing} of {frame.size} values differ; expected the same bytes")
