"""The plan of a run: contenders, cases, and their expected duration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from harness.rounds import SAMPLE_SECONDS
from tcmoa_runtime.contract import Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import BackendName

EAGER: Final = "eager"
"""The baseline: the unfolded PyTorch model, run operator by operator."""
COMPILED: Final = "torch.compile"
NAIVE: Final = "naive ONNX"
BUNDLES: Final[dict[str, tuple[str, BackendName]]] = {
    "onnxruntime": ("fp32", "onnxruntime"),
    "openvino": ("fp32", "openvino"),
    "openvino-bf16": ("fp32", "openvino-bf16"),
    "int8 onnxruntime": ("int8", "onnxruntime"),
    "int8 openvino": ("int8", "openvino"),
    "int8 openvino-bf16": ("int8", "openvino-bf16"),
}
"""Precision and backend of the contenders that run a bundle."""
ALL: Final = (EAGER, COMPILED, NAIVE, *BUNDLES)
SCALED: Final = ("onnxruntime", "openvino")
"""Contenders that are measured at several frame sizes."""

ARITHMETIC_OF: Final = {
    **dict.fromkeys((EAGER, COMPILED, NAIVE, "onnxruntime", "openvino"), "fp32"),
    "openvino-bf16": "bf16",
    **{name: "int8" for name in BUNDLES if name.startswith("int8")},
}
"""Arithmetic of each contender, whose limit it is compared with."""

MICRO: Final[dict[str, Any]] = {
    "embed_dim": 64,
    "depth": 2,
    "num_heads": 2,
    "decoder_embed_dim": 64,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
    "tau": 2,
    "experts": 2,
}
"""Sizes of a very small model for --quick, which takes milliseconds per frame."""


@dataclass(frozen=True)
class Case:
    """A model at a frame size, and its contenders.

    Attributes:
        preset: A name of `tcmoa.PRESETS`, or `micro`.
        rounds: Number of rounds.
        weights: Name of bundled weights; empty for random ones (seed 0).
        needs_weights: Whether the bundled weights are required; else random ones replace them if they are missing.
        compiler: Backend of torch.compile.
        scale: Whether the case is a point of the plot over frame sizes.
        build_seconds: Approximate duration of the build on two cores.
        round_seconds: Approximate duration of a round on two cores.
    """

    name: str
    preset: str
    height: int
    width: int
    contenders: tuple[str, ...]
    rounds: int
    weights: str = ""
    needs_weights: bool = True
    upsample: bool = True
    task: Task = "vif"
    calibration_pairs: int = 24
    compiler: str = "inductor"
    scale: bool = False
    build_seconds: float = 0.0
    round_seconds: float = 0.0

    @property
    def pixels(self) -> int:
        """Pixels of a frame."""
        return self.height * self.width

    def to_json(self) -> dict[str, Any]:
        """Return the values by field name, for JSON."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Case:
        """Restore the result of `to_json`."""
        return Case(**{**values, "contenders": tuple(values["contenders"])})


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        cases: The cases.
        gemm_sides: Sides of the square matrix products.
        gemm_rounds: Rounds of matrix products.
        processes: Runs of the command line.
        process_case: The case that the command line runs.
        tries: Maximum number of samples in a round until one counts.
        sample_seconds: Duration of a sample; much longer than the kernel's ticks of 10 ms, if the figures matter.
        quick: Whether the run only tests the harness.
    """

    cases: tuple[Case, ...]
    gemm_sides: tuple[int, ...]
    gemm_rounds: int
    processes: int
    process_case: str
    tries: int = 3
    sample_seconds: float = SAMPLE_SECONDS
    quick: bool = False

    @property
    def seconds(self) -> float:
        """Approximate duration on two idle cores."""
        gemm = len(self.gemm_sides) * (10 + 4 * self.gemm_rounds)
        built = sum(case.build_seconds for case in self.cases)
        return gemm + built + self._rounds_seconds + self.processes * (2 if self.quick else 8)

    @property
    def max_seconds(self) -> float:
        """Approximate duration if no sample counts: each is repeated until, half way, all contenders are too noisy."""
        return self.seconds + (self.tries - 1) * 0.6 * self._rounds_seconds

    @property
    def _rounds_seconds(self) -> float:
        return sum(case.rounds * case.round_seconds for case in self.cases)


_FAST: Final = tuple(name for name in ALL if name not in (COMPILED, NAIVE))

FULL: Final = Plan(
    cases=(
        Case("base-448", "base", 448, 448, ALL, 7, upsample=False, calibration_pairs=9, build_seconds=220,
             round_seconds=16),
        Case("tiny-640x480", "tiny", 480, 640, ALL, 9, "tiny", scale=True, build_seconds=230, round_seconds=13),
        Case("nano-320x240", "nano", 240, 320, _FAST, 5, "nano", needs_weights=False, build_seconds=40,
             round_seconds=4),
        Case("tiny-320x240", "tiny", 240, 320, SCALED, 5, "tiny", scale=True, build_seconds=15, round_seconds=1.5),
        Case("tiny-1280x720", "tiny", 720, 1280, SCALED, 3, "tiny", scale=True, build_seconds=45, round_seconds=8),
        Case("tiny-1920x1080", "tiny", 1080, 1920, SCALED, 3, "tiny", scale=True, build_seconds=90, round_seconds=18),
    ),
    gemm_sides=(1024, 2048),
    gemm_rounds=3,
    processes=5,
    process_case="tiny-640x480",
)  # fmt: skip
QUICK: Final = Plan(
    cases=(
        Case("micro-112", "micro", 112, 112, ALL, 2, compiler="eager", calibration_pairs=4, scale=True,
             build_seconds=20, round_seconds=5),
        Case("micro-224x112", "micro", 112, 224, ("onnxruntime",), 2, scale=True, build_seconds=8, round_seconds=1),
    ),
    gemm_sides=(256,),
    gemm_rounds=1,
    processes=1,
    process_case="micro-112",
    tries=1,
    sample_seconds=0.05,
    quick=True,
)  # fmt: skip
"""Tests all stages; the results say nothing about speed."""


def choose(plan: Plan, only: Sequence[str]) -> Plan:
    """Return the plan with the named cases, or with all; raises InputError for an unknown name."""
    known = [case.name for case in plan.cases]
    for name in only:
        if name not in known:
            raise InputError(f"case is {name!r}; expected some of {', '.join(known)}")
    kept = tuple(case for case in plan.cases if not only or case.name in only)
    return replace(plan, cases=kept)


def minutes(seconds: float) -> str:
    """Format a duration: `12 min`, or `40 s` below two minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{math.ceil(seconds / 60)} min"
