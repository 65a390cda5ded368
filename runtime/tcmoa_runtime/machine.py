"""Description of this machine: what a measured speed depends on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tcmoa_runtime.typing import JsonObject

_CPU_KEYS: Final = ("model name", "flags", "CPU implementer", "CPU part", "Features")
"""Entries of /proc/cpuinfo that tell which instructions a CPU has."""
_GPU_FOLDER: Final = Path("/proc/driver/nvidia/gpus")

_INFERENCE_PACKAGES: Final = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx_bindings")


def processor_name() -> str:
    """Return the name of the CPU, e.g. `AMD EPYC 9B14`."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def cpu_identity() -> str:
    """Return text that is the same only on CPUs with the same instructions, for what was compiled for one.

    The C library composes the same text.
    """
    lines = []
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n"):
            key, separator, value = line.partition(":")
            if not separator:  # the end of the first core
                break
            if key.strip() in _CPU_KEYS:
                lines.append(f"{key.strip()}:{value.strip()}")
    except OSError:  # not Linux
        lines.append(processor_name())
    return "\n".join(lines)


def nvidia_gpu_names() -> list[str]:
    """Return the names of NVIDIA's GPUs as the driver lists them on Linux, without loading CUDA; empty elsewhere."""
    names = []
    for path in sorted(_GPU_FOLDER.glob("*/information")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        names += [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("Model:")]
    return names


def package_version(package: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    from importlib import metadata  # a tenth of the time of importing this package

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed, by name."""
    versions = {package: package_version(package) for package in packages}
    return {package: version for package, version in versions.items() if version is not None}


def machine_id() -> JsonObject:
    """Identify the machine that a timing holds for: its CPU and the versions of the inference libraries."""
    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "versions": dict(package_versions(_INFERENCE_PACKAGES)),
    }
