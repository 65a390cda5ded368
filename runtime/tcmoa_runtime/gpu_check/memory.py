"""Memory that this process holds, on the host and on the GPU."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Final

from tcmoa_runtime.typing import JsonObject

_NOT_AVAILABLE: Final = 1 << 63
"""NVML's value of an unknown size is all ones; no GPU has half of that."""


def host_memory() -> int | None:
    """Return the resident bytes of this process; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def gpu_memory_of_process() -> int | None:
    """Return the bytes of GPU memory of this process by NVML, on all devices together.

    Returns:
        None without NVML, and where it does not list this process: in most containers, and in WSL.
    """
    nvml = _open_nvml()
    if nvml is None:
        return None
    found = None
    try:
        for index in range(int(nvml.device_get_count_v2())):
            handle = nvml.device_get_handle_by_index_v2(index)
            for process in nvml.device_get_compute_running_processes_v3(handle):
                used = int(process.used_gpu_memory)
                if int(process.pid) == os.getpid() and used < _NOT_AVAILABLE:
                    found = (found or 0) + used
    except Exception:  # NvmlError, and others where the driver is older than the package
        return None
    return found


def describe_driver() -> JsonObject:
    """Return the driver's version, and the power limit and clocks of each GPU, as far as NVML tells them."""
    nvml = _open_nvml()
    if nvml is None:
        return {"version": None, "gpus": []}
    gpus: list[JsonObject] = []
    version: str | None = None
    try:
        version = str(nvml.system_get_driver_version())
        for index in range(int(nvml.device_get_count_v2())):
            handle = nvml.device_get_handle_by_index_v2(index)
            gpus.append(
                {
                    "name": str(nvml.device_get_name(handle)),
                    "power_limit_w": nvml.device_get_enforced_power_limit(handle) / 1e3,
                    "max_sm_mhz": int(nvml.device_get_max_clock_info(handle, nvml.ClockType.SM)),
                    "max_memory_mhz": int(nvml.device_get_max_clock_info(handle, nvml.ClockType.MEM)),
                }
            )
    except Exception:  # as above; e.g. Jetson has no power limit in NVML
        pass
    return {"version": version, "gpus": gpus}


def _open_nvml() -> Any:
    try:
        nvml = importlib.import_module("cuda.bindings.nvml")
        nvml.init_v2()
    except Exception:  # not in cuda-bindings before 13.1; no driver
        return None
    return nvml
