"""What is measured: contenders, cases, and how long that takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

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
"""Contenders that run a bundle: which one, and in which backend."""
ALL: Final = (EAGER, COMPILED, NAIVE, *BUNDLES)
SCALED: Final = ("onnxruntime", "openvino")
"""Those whose figures are followed over frame sizes."""

LIMIT_OF: Final = {
    **dict.fromkeys((EAGER, COMPILED, NAIVE, "onnxruntime", "openvino"), "fp32"),
    "openvino-bf16": "bf16",
    **{name: "int8" for name in BUNDLES if name.startswith("int8")},
}
"""Which arithmetic's limit a contender is held against."""

MICRO: Final[dict[str, Any]] = {
    "embed_dim": 64,
    "depth": 2,
    "num_heads": 2,
    "decoder_embed_dim": 64,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
    "tau": 2,
}
"""Sizes of a model whose frames take milliseconds, for --quick."""


@dataclass(frozen=True)
class Case:
    """A model at a frame size and what runs it; `seconds` is about what building and one round take on two cores.

    preset: a name of `tcmoa.PRESETS`, or `micro`. weights: a bundled name, or nothing for random ones (seed 0).
    wanted: whether bundled weights must be there; random ones take their place where they need not.
    compiler: backend of torch.compile. scale: whether the case is a point of the scaling plot.
    """

    name: str
    preset: str
    height: int
    width: int
    contenders: tuple[str, ...]
    rounds: int
    weights: str = ""
    wanted: bool = True
    upsample: bool = True
    task: str = "vif"
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
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Case:
        """What `to_json` gave."""
        return Case(**{**values, "contenders": tuple(values["contenders"])})


@dataclass(frozen=True)
class Plan:
    """A whole run. gemm_sides: sides of the square products; processes: runs of the command line; tries: samples
    taken in a round until one counts.
    """

    cases: tuple[Case, ...]
    gemm_sides: tuple[int, ...]
    gemm_rounds: int
    processes: int
    process_case: str
    tries: int = 3
    quick: bool = False

    @property
    def seconds(self) -> float:
        """About how long it takes on two quiet cores."""
        gemm = len(self.gemm_sides) * (10 + 4 * self.gemm_rounds)
        built = sum(case.build_seconds for case in self.cases)
        return gemm + built + self._rounds_seconds + self.processes * (2 if self.quick else 8)

    @property
    def most_seconds(self) -> float:
        """The same where no sample ever counts: each is tried again until, about half way, all are too noisy."""
        return self.seconds + (self.tries - 1) * 0.6 * self._rounds_seconds

    @property
    def _rounds_seconds(self) -> float:
        return sum(case.rounds * case.round_seconds for case in self.cases)


_FEW: Final = tuple(name for name in ALL if name not in (COMPILED, NAIVE))

FULL: Final = Plan(
    cases=(
        Case("base-448", "base", 448, 448, ALL, 7, upsample=False, calibration_pairs=9, build_seconds=220,
             round_seconds=16),
        Case("tiny-640x480", "tiny", 480, 640, ALL, 9, "tiny", scale=True, build_seconds=230, round_seconds=13),
        Case("nano-320x240", "nano", 240, 320, _FEW, 5, "nano", wanted=False, build_seconds=40, round_seconds=4),
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
        Case("micro-112", "micro", 112, 112, ALL, 2, compiler="aot_eager", calibration_pairs=4, scale=True,
             build_seconds=20, round_seconds=5),
        Case("micro-224x112", "micro", 112, 224, ("onnxruntime",), 2, scale=True, build_seconds=8, round_seconds=1),
    ),
    gemm_sides=(256,),
    gemm_rounds=1,
    processes=1,
    process_case="micro-112",
    tries=1,
    quick=True,
)  # fmt: skip
"""Proves that all stages work, and says nothing about speed."""


def choose(plan: Plan, only: Sequence[str]) -> Plan:
    """The plan with the named cases only (all where none is named); InputError on an unknown one."""
    known = [case.name for case in plan.cases]
    for name in only:
        if name not in known:
            raise InputError(f"case is {name!r}: expected some of {', '.join(known)}")
    kept = tuple(case for case in plan.cases if not only or case.name in only)
    return replace(plan, cases=kept)


def minutes(seconds: float) -> str:
    """For a person: `12 min`, or `40 s` below two minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{math.ceil(seconds / 60)} min"
