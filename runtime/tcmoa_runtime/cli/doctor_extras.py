"""Which of the extras for NVIDIA GPUs fit this machine, what excludes them, and how to install them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcmoa_runtime.gpu.driver_probe import Driver
from tcmoa_runtime.install import install_command
from tcmoa_runtime.machine import package_version
from tcmoa_runtime.typing import JsonObject

MIN_CUDA: Final = (13, 0)
"""CUDA version of the packages that the extras require; drivers from R580 on support it."""
MIN_CAPABILITY: Final = (7, 5)
"""Compute capability of Turing, the oldest generation that CUDA 13 supports."""
RTX_CAPABILITIES: Final = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities of TensorRT-RTX 1.7 without Turing, where it has no float32 products."""
_JETSON: Final = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class GpuExtra:
    """An extra for NVIDIA GPUs.

    Attributes:
        name: Its name.
        purpose: What it is for.
        extras: What to install with it.
        packages: Packages that show that it is installed, with the first and the last major version; 0: any.
        only_rtx: Whether it is for the GPUs of `RTX_CAPABILITIES` alone.
        excluded_by: Packages that must not be installed with it, with the first and the last major version.
    """

    name: str
    purpose: str
    extras: tuple[str, ...]
    packages: tuple[tuple[str, int, int], ...]
    only_rtx: bool = False
    excluded_by: tuple[tuple[str, int, int], ...] = ()


_TENSORRT_10: Final = ("tensorrt-cu13", 10, 10)
_TENSORRT_11: Final = ("tensorrt-cu13", 11, 0)
GPU_EXTRAS: Final = (
    GpuExtra(
        "rtx",
        "engines for GeForce and RTX",
        ("rtx",),
        (("tensorrt-rtx-cu13-bindings", 0, 0), ("cuda-bindings", 0, 0)),
        only_rtx=True,
    ),
    GpuExtra(
        "tensorrt",
        "engines for data centers and workstations",
        ("tensorrt",),
        (_TENSORRT_11, ("cuda-bindings", 0, 0)),
        excluded_by=(_TENSORRT_10,),
    ),
    GpuExtra("gpu", "the backend onnxruntime-cuda", ("gpu",), (("onnxruntime-gpu", 0, 0),)),
    GpuExtra(
        "tensorrt10",
        "the backend onnxruntime-tensorrt",
        ("gpu", "tensorrt10"),
        (("onnxruntime-gpu", 0, 0), _TENSORRT_10),
        excluded_by=(_TENSORRT_11,),
    ),
    GpuExtra(
        "onnxruntime-rtx",
        "the backend onnxruntime-rtx",
        ("onnxruntime-rtx",),
        (("onnxruntime-ep-nv-tensorrt-rtx", 0, 0),),
        only_rtx=True,
        excluded_by=(("onnxruntime-gpu", 0, 0),),
    ),
)
"""The extras, in the order of preference for a GPU."""


@dataclass(frozen=True)
class ExtraReport:
    """What is known about an extra on this machine.

    Attributes:
        extra: The extra.
        is_installed: Whether its packages are installed.
        why_not: Why it does not fit this machine; empty if it does.
        conflicts: Installed packages that exclude it, with their versions.
    """

    extra: GpuExtra
    is_installed: bool
    why_not: str
    conflicts: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command that installs it."""
        return install_command(*self.extra.extras)

    def to_json(self) -> JsonObject:
        """Return what `--json` prints."""
        return {
            "purpose": self.extra.purpose,
            "fits": not self.why_not,
            "why_not": self.why_not or None,
            "installed": self.is_installed,
            "conflicts": list(self.conflicts),
            "command": self.command,
        }

    def describe(self) -> str:
        """Describe it in one line."""
        head = f"extra {self.extra.name} ({self.extra.purpose}): "
        if self.why_not:
            return f"{head}does not fit: {self.why_not}"
        if self.conflicts:
            where = "installed" if self.is_installed else "fits"
            return (
                f"{head}{where}, but not together with {' and '.join(self.conflicts)}. In another environment, run "
                f"`{self.command}`"
            )
        return f"{head}installed" if self.is_installed else f"{head}fits. Run `{self.command}`"


def examine_extras(driver: Driver | None) -> list[ExtraReport]:
    """Examine the extras on this machine.

    Args:
        driver: The NVIDIA driver; None: there is none.
    """
    return [
        ExtraReport(
            extra,
            all(_version_in(package) for package in extra.packages),
            _why_not(extra, driver),
            tuple(
                f"{package[0]} {version}"
                for package in extra.excluded_by
                if (version := _version_in(package))
            ),
        )
        for extra in GPU_EXTRAS
    ]


def describe_extras(driver: Driver | None, reports: Sequence[ExtraReport]) -> list[str]:
    """Describe the extras, one line each; a single line where there is no driver."""
    if driver is None:
        names = ", ".join(report.extra.name for report in reports)
        return [
            f"extras for NVIDIA GPUs ({names}): no NVIDIA driver. Engines for other machines need rtx alone"
        ]
    return [report.describe() for report in reports]


def _why_not(extra: GpuExtra, driver: Driver | None) -> str:
    """Return why an extra does not fit this machine, empty if it does."""
    if driver is None:
        return "no NVIDIA driver"
    if _JETSON.exists():
        return "TensorRT and CUDA of a Jetson come with JetPack"
    if driver.cuda_version < MIN_CUDA:
        found, needed = (".".join(map(str, version)) for version in (driver.cuda_version, MIN_CUDA))
        return f"the driver supports CUDA {found}; expected {needed}. Install driver R580 or newer"
    if not driver.gpus:
        return "no GPU"
    if any(_runs_on(extra, capability) for _, capability in driver.gpus):
        return ""
    expected = (
        ", ".join(RTX_CAPABILITIES) if extra.only_rtx else f"{'.'.join(map(str, MIN_CAPABILITY))} or higher"
    )
    found = " and ".join(f"{name} has compute capability {capability}" for name, capability in driver.gpus)
    return f"{found}; expected {expected}"


def _runs_on(extra: GpuExtra, capability: str) -> bool:
    if extra.only_rtx:
        return capability in RTX_CAPABILITIES
    return tuple(map(int, capability.split("."))) >= MIN_CAPABILITY


def _version_in(package: tuple[str, int, int]) -> str | None:
    """Return the version of an installed package if its major version is in the range."""
    name, first, last = package
    version = package_version(name)
    if version is None:
        return None
    major = int(version.split(".")[0])
    return version if major >= first and (last == 0 or major <= last) else None
