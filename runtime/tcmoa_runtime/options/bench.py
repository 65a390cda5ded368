"""Choices of `tcmoa bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, get_args

from tcmoa_runtime.options.fuser import TRUST_ENGINES_HELP
from tcmoa_runtime.options.option import Option, check_choices, check_range
from tcmoa_runtime.typing import BackendName

MAX_FRAMES: Final = 1_000_000
MAX_THREADS: Final = 1024
MAX_PSNR_DB: Final = 100.0


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Which backends to measure, and how long."""

    backends: Annotated[
        tuple[BackendName, ...],
        Option(
            f"Backends to measure, some of {', '.join(get_args(BackendName))}. If not given: onnxruntime, openvino, "
            "openvino-bf16, and tensorrt if the bundle has engines.",
            metavar="NAME,NAME,...",
        ),
    ] = ()
    frames: Annotated[int, Option("Frames to measure with each backend, after the first one.")] = 20
    threads: Annotated[int | None, Option("CPU threads; all cores if not given.")] = None
    min_psnr: Annotated[
        float | None,
        Option(
            "Lowest PSNR to float32, on the shipped pairs, at which openvino-bf16 may be picked, too, e.g. 45. If not "
            "given it never is.",
            metavar="DB",
        ),
    ] = None
    trust_engines: Annotated[bool, Option(TRUST_ENGINES_HELP)] = False

    def __post_init__(self) -> None:
        """Check every field by itself.

        Raises:
            InputError: A field is out of range; the subject is its name.
        """
        check_choices(self)
        check_range("frames", self.frames, 1, MAX_FRAMES)
        if self.threads is not None:
            check_range("threads", self.threads, 1, MAX_THREADS)
        if self.min_psnr is not None:
            check_range("min_psnr", self.min_psnr, 0, MAX_PSNR_DB, "dB")
