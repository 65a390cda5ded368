"""Choices of `tcmoa gpu-check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias, get_args

from tcmoa_runtime.options.option import Option, check_choices, check_range
from tcmoa_runtime.typing import Flavor, Precision

GpuCheckStep: TypeAlias = Literal[
    "device",
    "build",
    "parity",
    "latency",
    "graph",
    "order",
    "threads",
    "streams",
    "arrays",
    "leaks",
]
"""A step of the check, see `tcmoa_runtime.gpu_check.steps`."""

GpuCheckPrecision: TypeAlias = Literal[Precision, "int8", "fp8"]
"""Precision of an engine; int8 and fp8 are those of its backbone, and the rest is fp16."""

GPU_CHECK_STEPS: Final[tuple[GpuCheckStep, ...]] = get_args(GpuCheckStep)
DEFAULT_PRECISIONS: Final[tuple[GpuCheckPrecision, ...]] = ("fp16", "bf16", "int8", "fp8")
"""Precisions that are checked where the GPU has them, the one of steps without a precision first."""

MIN_FRAMES: Final = 12
MAX_FRAMES: Final = 1_000_000
MAX_SECONDS: Final = 86_400

_WHAT, _LENGTH, _OUTPUT = "What to check", "How long", "Output"


@dataclass(frozen=True, kw_only=True)
class GpuCheckOptions:
    """Which parts of the GPU path to check, how long, and where the report goes."""

    flavor: Annotated[
        Literal["auto", Flavor],
        Option("Library to check: rtx, tensorrt, or auto for each one that is installed.", group=_WHAT),
    ] = "auto"
    precisions: Annotated[
        tuple[GpuCheckPrecision, ...],
        Option(
            f"Precisions of the engines, some of {', '.join(get_args(GpuCheckPrecision))}. If not given: "
            f"{', '.join(DEFAULT_PRECISIONS)}, as far as the GPU has them.",
            group=_WHAT,
            metavar="NAME,NAME,...",
        ),
    ] = ()
    steps: Annotated[
        tuple[GpuCheckStep, ...],
        Option(
            f"Steps to run, some of {', '.join(GPU_CHECK_STEPS)}; all if not given.",
            group=_WHAT,
            metavar="NAME,NAME,...",
        ),
    ] = ()
    simulate: Annotated[
        bool,
        Option(
            "Dry run: walk every step with a simulation on the CPU in place of a GPU, and measure nothing.",
            group=_WHAT,
        ),
    ] = False
    frames: Annotated[
        int,
        Option(
            "Frames of the step leaks. Latencies are measured on as many, at most 300. "
            f"A dry run walks {MIN_FRAMES}.",
            group=_LENGTH,
        ),
    ] = 1000
    step_seconds: Annotated[
        float, Option("Seconds after which a step is ended and counts as failed.", group=_LENGTH)
    ] = 900.0
    out: Annotated[
        Path, Option("File of the report, in Markdown; replaced if it exists.", group=_OUTPUT, metavar="FILE")
    ] = Path("gpu-report.md")

    def __post_init__(self) -> None:
        """Check every field by itself.

        Raises:
            InputError: A field is unknown or out of range; the subject is its name.
        """
        check_choices(self)
        check_range("frames", self.frames, MIN_FRAMES, MAX_FRAMES)
        check_range("step_seconds", self.step_seconds, 1, MAX_SECONDS, "s")

    @property
    def chosen_steps(self) -> tuple[GpuCheckStep, ...]:
        """The steps to run, in the order of the check."""
        return tuple(step for step in GPU_CHECK_STEPS if step in (self.steps or GPU_CHECK_STEPS))
