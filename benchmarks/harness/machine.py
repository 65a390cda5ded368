"""On what a run was measured: processor, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from typing import Any, Final

from harness.contender import ROOT
from tcmoa_runtime.machine import processor_name

PACKAGES: Final = ("tcmoa", "torch", "onnxruntime", "openvino", "onnx", "numpy", "opencv-python-headless")


def describe() -> dict[str, Any]:
    """Processor, cores, memory in GB, system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "flags": cpu_flags(),
    }


def cpu_flags() -> list[str]:
    """What decides on low precision: those of AVX-512, VNNI, BF16 and AMX that the processor has."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            line = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return []
    wanted = {
        "avx2",
        "avx512f",
        "avx512_vnni",
        "avx_vnni",
        "avx512_bf16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
        "i8mm",
    }
    return sorted(wanted & set(line.split()))


def versions() -> dict[str, str]:
    """Installed versions of what is measured."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Short hash of the checkout, with `-dirty` where files differ from it; nothing outside of one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def slug(cpu: str) -> str:
    """The processor's name for a file's: `amd-epyc-9b14`."""
    plain = re.sub(r"\((r|tm|c)\)", "", cpu.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "unknown"
