"""Choices of `tcmoa build`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.gpu.compute_capabilities import target_of
from tcmoa_runtime.options.option import Option, check_choices, check_minimum
from tcmoa_runtime.options.pairs import PAIRS_GROUP, PAIRS_METAVAR, PairOptions
from tcmoa_runtime.typing import Flavor, HardwareCompatibility, Precision

ENGINE_GROUP: Final = "Engine"
BUILDER_GROUP: Final = "Builder"
CHECK_GROUP: Final = "Check"

_TARGET: Final = re.compile(r"sm[0-9]{2,3}")


@dataclass(frozen=True, kw_only=True)
class BuildOptions(PairOptions):
    """What engine to build into a bundle, and how."""

    flavor: Annotated[
        Flavor,
        Option(
            "rtx: for GeForce and RTX GPUs, built on any machine. tensorrt: for the GPU of this machine.",
            group=ENGINE_GROUP,
        ),
    ] = "rtx"
    precision: Annotated[
        Precision | None,
        Option(
            "Precision of the engine; if not given, the bundle's own, and fp16 for bundles in fp32, int8 and fp8.",
            group=ENGINE_GROUP,
        ),
    ] = None
    targets: Annotated[
        tuple[str, ...],
        Option(
            "GPUs by compute capability, rtx only; if not given, sm80, sm86, sm89 and sm120 (Ampere to Blackwell).",
            group=ENGINE_GROUP,
            metavar="sm86,sm89",
        ),
    ] = ()
    gpu: Annotated[
        tuple[str, ...],
        Option(
            "GPUs by name, in place of their compute capabilities, rtx only.",
            group=ENGINE_GROUP,
            metavar="'RTX 4090'",
        ),
    ] = ()
    hardware_compatibility: Annotated[
        HardwareCompatibility,
        Option("Other GPUs that the engine runs on, tensorrt only.", group=ENGINE_GROUP),
    ] = "none"
    strip: Annotated[
        bool,
        Option(
            "Leave the weights out of the engine; they are read from the bundle's graph when it is loaded.",
            group=ENGINE_GROUP,
        ),
    ] = False
    workspace_mb: Annotated[
        int | None,
        Option(
            "Maximum scratch memory of the kernels; no limit if not given.", group=BUILDER_GROUP, metavar="MB"
        ),
    ] = None
    timing_cache: Annotated[
        bool, Option("Keep the measured timings for the next build, tensorrt only.", group=BUILDER_GROUP)
    ] = True
    rebuild: Annotated[bool, Option("Build even if the engine is up to date.", group=BUILDER_GROUP)] = False
    allow_unfused: Annotated[
        bool,
        Option(
            "Write the engine even if an attention is not one kernel, a product is in another precision than the graph "
            "states, or the kernels cannot be listed.",
            group=CHECK_GROUP,
        ),
    ] = False
    pairs: Annotated[
        Path | None,
        Option(
            "Pairs for comparing a lowered graph with the bundle's own: a folder of NAME_x.EXT and NAME_y.EXT, or a "
            "CSV file with the columns x,y; pairs that the package ships if not given.",
            group=PAIRS_GROUP,
            metavar=PAIRS_METAVAR,
            is_subject=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Check the fields, add the targets of `gpu`, and sort the targets.

        Raises:
            InputError: A field is wrong, or does not fit the flavor; the subject is its name.
        """
        check_choices(self)
        if self.has_pairs:
            self.check_pairs()
        if self.workspace_mb is not None:
            check_minimum("workspace_mb", self.workspace_mb, 1)
        for target in self.targets:
            if not _TARGET.fullmatch(target):
                raise InputError(f"{target!r}; expected a compute capability, e.g. sm89", subject="targets")
        if self.flavor == "tensorrt" and self.targets:
            raise InputError(
                f"{', '.join(self.targets)}; expected none with flavor tensorrt, which builds for the GPU of this "
                f"machine",
                subject="targets",
                remedy="Build with {flavor}, or set {hardware_compatibility}",
                settings={"flavor": "rtx", "hardware_compatibility": ...},
            )
        if self.flavor == "tensorrt" and self.gpu:
            raise InputError(
                f"{', '.join(self.gpu)}; expected none with flavor tensorrt, which builds for the GPU of this machine",
                subject="gpu",
                remedy="Build with {flavor}",
                settings={"flavor": "rtx"},
            )
        if self.flavor == "rtx" and self.hardware_compatibility != "none":
            raise InputError(
                f"{self.hardware_compatibility!r}; expected none with flavor rtx, which builds for targets",
                subject="hardware_compatibility",
                remedy="Build with {flavor}, or for more targets",
                settings={"flavor": "tensorrt"},
            )
        named = {name: target_of(name) for name in self.gpu}
        for name, target in named.items():
            if self.targets and target not in self.targets:
                raise InputError(
                    f"{name!r} is {target}, but the targets are {', '.join(self.targets)}; expected the same GPUs",
                    subject="gpu",
                    remedy="Give either {gpu} or {targets}",
                    settings={"gpu": ..., "targets": ...},
                )
        in_order = sorted({*self.targets, *named.values()}, key=lambda target: (len(target), target))
        object.__setattr__(self, "targets", tuple(in_order))
