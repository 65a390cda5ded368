"""The options of a build, resolved against the bundle, the library and the GPU of this machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from types import ModuleType
from typing import Final, get_args

from tcmoa_runtime.backends.tensorrt.engine_loading import import_library
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine import PRECISIONS, engine_stem
from tcmoa_runtime.errors import InputError, MissingError
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.options.pairs import PairOptions
from tcmoa_runtime.typing import HardwareCompatibility, JsonObject, Precision

BUILDER_VERSION: Final = 2
"""Part of the cache key of an engine; raised when this package builds differently from the same inputs."""

RTX_TARGETS: Final = ("sm80", "sm86", "sm89", "sm120")
"""Compute capabilities that an RTX engine is built for by default: Ampere, Ada and Blackwell."""

_NOT_RECORDED: Final = frozenset({"rebuild", "gpu", *(field.name for field in fields(PairOptions))})
"""Options that do not shape the engine."""


@dataclass(frozen=True)
class BuildPlan:
    """What to build.

    Attributes:
        options: The caller's choices.
        precision: Precision of the engine.
        targets: Compute capabilities to build for; empty where the library builds for the GPU of this machine.
        library: The library's Python module.
        gpu: The GPU to build on; None where the builder needs none.
    """

    options: BuildOptions
    precision: Precision
    targets: tuple[str, ...]
    library: ModuleType
    gpu: CudaDevice | None

    @property
    def version(self) -> str:
        """Version of the library."""
        return str(self.library.__version__)

    @property
    def library_name(self) -> str:
        """Name and version of the library, for messages."""
        return f"{self.library.__name__} {self.version}"

    @property
    def stem(self) -> str:
        """File name of the engine without suffix."""
        return engine_stem(self.options.flavor, self.version, self.targets, self.precision)

    def recorded_options(self) -> JsonObject:
        """Return the options that shape the engine, for its JSON."""
        options = {name: value for name, value in asdict(self.options).items() if name not in _NOT_RECORDED}
        return {**options, "precision": self.precision, "targets": list(self.options.targets)}

    def cache_key(self, bundle: Bundle) -> str:
        """Return a hash of everything that the engine is built from."""
        options = self.recorded_options()
        options.pop("allow_unfused")  # decides whether the engine is written, not what it is
        parts = {
            "builder": BUILDER_VERSION,
            "graph": {name: entry.sha256 for name, entry in bundle.files.items()},
            "options": options,
            "targets": self.targets,
            "version": self.version,
            "gpu": None if self.gpu is None else [self.gpu.name, self.gpu.compute_capability],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def plan_build(options: BuildOptions, bundle_precision: str) -> BuildPlan:
    """Resolve options against the precision of a bundle, the installed library and the GPU.

    Raises:
        InputError: The bundle cannot be built in the precision, or the library does not build for a target.
        MissingError: The library, or the GPU that it needs, is missing.
    """
    precision = _resolve_precision(options, bundle_precision)
    library = import_library(options.flavor)
    targets = options.targets or (RTX_TARGETS if options.flavor == "rtx" else ())
    _check_targets(library, targets)
    _check_hardware_compatibility(library, options)
    gpu = _find_gpu(options, library) if options.flavor == "tensorrt" or options.strip else None
    return BuildPlan(options, precision, targets, library, gpu)


def _resolve_precision(options: BuildOptions, bundle_precision: str) -> Precision:
    """Take the bundle's own precision by default, and fp16 for one in float32 or 8 bits."""
    own: Precision = next((p for p in PRECISIONS if p == bundle_precision), "fp32")
    if options.precision is None:
        return "fp16" if own == "fp32" else own
    if own not in ("fp32", options.precision):
        raise InputError(
            f"{options.precision!r}; expected {own}, the precision of this bundle",
            subject="precision",
            remedy=f"Export a bundle in fp32, which can be built in any precision, or in {options.precision}",
        )
    return options.precision


def _check_targets(library: ModuleType, targets: tuple[str, ...]) -> None:
    members = getattr(getattr(library, "ComputeCapability", None), "__members__", ())
    known = [name.lower() for name in members if name.lower().startswith("sm") and name.lower() != "sm75"]
    for target in targets:
        if target == "sm75":
            raise InputError(
                "'sm75'; expected sm80 or later: the prompts need float32 products, which the library does not build "
                "for Turing",
                subject="targets",
            )
        if target not in known:
            raise InputError(
                f"{target!r}; expected targets of TensorRT-RTX {library.__version__}: {', '.join(known)}",
                subject="targets",
            )


def _check_hardware_compatibility(library: ModuleType, options: BuildOptions) -> None:
    """Check that a version of TensorRT has the level: same_compute_capability is newer than TensorRT 10.7."""
    if options.flavor == "tensorrt":
        levels = library.HardwareCompatibilityLevel
        known = [name for name in get_args(HardwareCompatibility) if hasattr(levels, name.upper())]
        if options.hardware_compatibility not in known:
            raise InputError(
                f"{options.hardware_compatibility!r}; expected one of those of TensorRT {library.__version__}: "
                f"{', '.join(known)}",
                subject="hardware_compatibility",
                remedy="Install a newer TensorRT, or choose one of these",
            )


def _find_gpu(options: BuildOptions, library: ModuleType) -> CudaDevice:
    try:
        return CudaDevice.current()
    except MissingError as error:
        what = "stripping weights" if options.strip else "TensorRT"
        instead = "build without {strip}" if options.flavor == "rtx" else "build with {flavor}"
        remedy = f"{(error.remedy or 'Build on a machine with an NVIDIA GPU').rstrip('.')}, or {instead}"
        raise MissingError(
            f"{what} needs a GPU to build on, but {error.render_problem()}",
            subject=f"{options.flavor} {library.__version__}",
            remedy=remedy,
            settings={**error.settings, "strip": ..., "flavor": "rtx"},
        ) from error
