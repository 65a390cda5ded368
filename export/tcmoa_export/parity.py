"""How close a graph's results are to those of a reference, and the bounds that they must meet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np

from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.typing import Frame, JsonObject, Precision, PromptMap

GraphKind: TypeAlias = Precision | Literal["fp32, weights fp16", "fp16, products in 8 bits"]
"""What a bound applies to: the precision of the arithmetic, and of the weights or products where that differs."""

MAX_DIFFERING: Final = 0.005
"""Share of values that may differ by one gray level: near .5 rounding may fall either way."""
MAX_BEYOND_ONE: Final = 1e-4
"""Share of values that may differ by more: in single tokens a near tie of a router may fall either way."""
PROMPT_QUANTILE: Final[Mapping[GraphKind, float]] = {
    "fp32": 0.9999,
    "fp32, weights fp16": 0.99,
    "fp16": 0.99,
    "fp16, products in 8 bits": 0.99,
    "bf16": 0.99,
}
"""Quantile of the differences of prompts that is compared: the fewer bits, the more near ties fall either way."""
MAX_PROMPT_DIFFERENCE: Final[Mapping[GraphKind, float]] = {
    "fp32": 1e-4,
    "fp32, weights fp16": 0.02,
    "fp16": 0.02,
    "fp16, products in 8 bits": 0.15,
    "bf16": 0.15,
}
"""Bound of that quantile.

Products in 8 bits round what differs in float16 to other steps. With `nano` in int8, 640x480, on 4 real pairs of each
task: 0.014 to 0.093 to the graph in int8, whose prompts differ from float32 by 0.020 to 0.120; images 61 to 72 dB.
"""
MIN_PSNR_DB: Final[dict[GraphKind, float]] = {
    "fp32, weights fp16": 55.0,
    "fp16": 50.0,
    "fp16, products in 8 bits": 50.0,
    "bf16": 45.0,
}
"""Lowest PSNR to the float32 model; in these precisions it replaces the shares above.

Weights in float16 with `nano`, 640x480, on 6 real pairs of each task: 62.7 to 63.9 dB.
"""


@dataclass(frozen=True)
class Results:
    """Results of one implementation on several frames.

    Attributes:
        fused: Frames uint8 [H, W, 3], RGB.
        prompts: Prompts float32 [K, 2, gh, gw]; empty where they are not an output.
    """

    fused: list[Frame] = field(default_factory=list)
    prompts: list[PromptMap] = field(default_factory=list)


@dataclass(frozen=True)
class Parity:
    """How close a graph is to the unfolded float32 model, over all frames of a check.

    Attributes:
        frames: Number of frames.
        pictures: Names of the image pairs.
        backend: What ran the graph.
        max_difference: Largest difference in gray levels.
        differing: Share of values that differ.
        beyond_one: Share of values that differ by more than one gray level.
        psnr_db: PSNR; None where all values agree.
        prompt_difference: `PROMPT_QUANTILE` of the differences of prompts; None without that output.
    """

    frames: int
    pictures: list[str]
    backend: str
    max_difference: int
    differing: float
    beyond_one: float
    psnr_db: float | None
    prompt_difference: float | None

    def to_dict(self) -> JsonObject:
        """Return plain values for bundle.json."""
        return asdict(self)


class ParityError(TcmoaError):
    """A graph's results differ from the model's by more than its precision may cause; nothing was written."""


def measure_parity(
    results: Results, expected: Results, *, kind: GraphKind, pictures: Sequence[str], backend: str
) -> Parity:
    """Compare results with expected ones, frame by frame."""
    pairs = zip(results.fused, expected.fused, strict=True)
    difference = np.stack([np.abs(a.astype(np.int16) - b) for a, b in pairs])
    mean_square = float(np.mean(difference.astype(np.float64) ** 2))
    prompt_difference = None
    if results.prompts:
        prompts = zip(results.prompts, expected.prompts, strict=True)
        gaps = np.concatenate([np.abs(a - b).reshape(-1) for a, b in prompts])
        prompt_difference = float(np.quantile(gaps, PROMPT_QUANTILE[kind]))
    return Parity(
        frames=len(results.fused),
        pictures=list(dict.fromkeys(pictures)),
        backend=backend,
        max_difference=int(difference.max()),
        differing=float(np.mean(difference > 0)),
        beyond_one=float(np.mean(difference > 1)),
        psnr_db=round(10 * math.log10(255**2 / mean_square), 2) if mean_square else None,
        prompt_difference=prompt_difference,
    )


def check_parity(parity: Parity, kind: GraphKind) -> None:
    """Raise ParityError when a number is NaN or beyond its bound for the kind of graph."""
    prompts = ("the difference of prompts", parity.prompt_difference or 0.0, MAX_PROMPT_DIFFERENCE[kind])
    if kind in MIN_PSNR_DB:
        _check_psnr(parity, kind)
        bounds = [prompts]
    else:
        bounds = [
            ("the share of values that differ", parity.differing, MAX_DIFFERING),
            (
                "the share of values that differ by more than one gray level",
                parity.beyond_one,
                MAX_BEYOND_ONE,
            ),
            prompts,
        ]
    for what, value, bound in bounds:
        if not value <= bound:
            raise ParityError(
                f"{what} is {value:.3g}; expected at most {bound:g} (the largest difference from the model is "
                f"{parity.max_difference} gray levels)",
                subject=f"the {_describe(kind)}",
                remedy="Nothing was written. Please report it, with the weights if you can",
            )


def _describe(kind: GraphKind) -> str:
    arithmetic, _, rest = kind.partition(", ")
    details = {
        "": "",
        "weights fp16": " with weights in fp16",
        "products in 8 bits": " with products in 8 bits",
    }
    return f"{arithmetic} graph{details[rest]}"


def _check_psnr(parity: Parity, kind: GraphKind) -> None:
    if parity.psnr_db is None or parity.psnr_db >= MIN_PSNR_DB[kind]:
        return
    option = "weight_storage" if kind == "fp32, weights fp16" else "precision"
    others = "fp16 or fp32" if kind == "bf16" else "fp32"
    raise ParityError(
        f"PSNR to the model is {parity.psnr_db} dB; expected at least {MIN_PSNR_DB[kind]:g} dB",
        subject=f"the {_describe(kind)}",
        remedy=f"Nothing was written. Use {{{option}}} {others}",
        settings={option: ...},
    )
