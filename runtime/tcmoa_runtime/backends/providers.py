"""Execution providers of ONNX Runtime on NVIDIA GPUs: what each needs, and how a session is asked for it.

The options are those that ONNX Runtime and NVIDIA document. Tests check the options and what follows when a provider is
missing or does not start. **No provider has been run on a GPU by this project.**
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import onnxruntime as ort

from tcmoa_runtime.backends.compile_cache import CompileCache
from tcmoa_runtime.backends.provider_errors import (
    DRIVER_LIBRARIES,
    describe_error,
    missing_driver_function_in,
    missing_library_in,
)
from tcmoa_runtime.backends.provider_libraries import (
    missing_library,
    preload_bundled_cudart,
    preload_cuda,
    preload_tensorrt,
)
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import MissingError
from tcmoa_runtime.install import install_command
from tcmoa_runtime.machine import nvidia_gpu_names, package_version, package_versions
from tcmoa_runtime.typing import BackendName

ProviderArgument: TypeAlias = str | tuple[str, dict[str, str]]
"""A provider for a session: its name, or its name and options."""

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
CUDA_OPTIONS: Final[dict[str, str]] = {"use_tf32": "0"}
"""The routers' products must be float32, not TF32 with its 10 bits (ONNX Runtime's default): near ties between experts
decide which adapters count."""
NO_CPU_FALLBACK: Final = ("session.disable_cpu_ep_fallback", "1")
"""Session option: creating a session fails when a node would run on the CPU, where it would be slow without notice."""

_PLUGIN_MODULE: Final = "onnxruntime_ep_nv_tensorrt_rtx"
_PLUGIN_PACKAGE: Final = "onnxruntime-ep-nv-tensorrt-rtx"
_PLUGIN_PACKAGES: Final = (_PLUGIN_PACKAGE, f"{_PLUGIN_PACKAGE}-cu13", f"{_PLUGIN_PACKAGE}-cu12")
_registration: Final = threading.Lock()


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        backend: Name of the backend that takes it.
        name: Its name in ONNX Runtime.
        label: Its name for users.
        extras: Extras with the packages that it needs, see `install_command`.
        library: Its part of the name of ONNX Runtime's shared library, empty for a plugin.
    """

    backend: BackendName
    name: str
    label: str
    extras: tuple[str, ...]
    library: str = ""


PROVIDERS: Final[Mapping[BackendName, Provider]] = {
    provider.backend: provider
    for provider in (
        Provider("onnxruntime-cuda", CUDA, "CUDA", ("gpu",), "cuda"),
        Provider(
            "onnxruntime-tensorrt", "TensorrtExecutionProvider", "TensorRT", ("gpu", "tensorrt10"), "tensorrt"
        ),
        Provider("onnxruntime-rtx", "NvTensorRTRTXExecutionProvider", "TensorRT-RTX", ("onnxruntime-rtx",)),
    )
}
"""Providers by the name of the backend."""


@dataclass(frozen=True)
class ProviderRequest:
    """How to ask a session for a provider.

    Attributes:
        provider: The provider.
        devices: Devices of a plugin; empty: the provider is built into ONNX Runtime and asked for by name.
    """

    provider: Provider
    devices: tuple[ort.OrtEpDevice, ...] = ()

    @property
    def names(self) -> set[str]:
        """Names that a session may report: a plugin's is the one that it was registered under."""
        return {self.provider.name, *(str(device.ep_name) for device in self.devices)}

    def apply(
        self, options: ort.SessionOptions, settings: Mapping[str, str]
    ) -> list[ProviderArgument] | None:
        """Add the request to session options.

        CUDA graphs of ONNX Runtime stay off: they need the same addresses in each run, but frames are wherever the
        caller has them.

        Args:
            options: Session options, changed here.
            settings: Options of the provider.

        Returns:
            The session's argument `providers`.
        """
        options.add_session_config_entry(*NO_CPU_FALLBACK)
        if not self.devices:
            return [(self.provider.name, dict(settings))]
        options.add_provider_for_devices(list(self.devices[:1]), dict(settings))
        return None


def find_provider(provider: Provider) -> ProviderRequest:
    """Find a provider in the installed ONNX Runtime.

    Raises:
        MissingError: It is not there; the error says what is installed and what to install.
    """
    if provider.name in ort.get_available_providers():
        preload_libraries(provider)
        return ProviderRequest(provider)
    if provider.backend != "onnxruntime-rtx":
        raise _missing(provider)
    return ProviderRequest(provider, _plugin_devices(provider))


def preload_libraries(provider: Provider | None) -> None:
    """Load CUDA's and TensorRT's libraries from Python packages, where the providers do not search for them.

    A library that is not found is no error here: the provider then does not start, see `start_error`.
    """
    if provider is not None and provider.backend == "onnxruntime-tensorrt":
        preload_tensorrt()
    preload_cuda()


def start_error(provider: Provider, problem: str, subject: object) -> MissingError:
    """Make the error for a provider that is installed and does not start: it names a library that is missing.

    Args:
        provider: The provider.
        problem: What happened.
        subject: What the error is about.
    """
    library = missing_library(provider.library) if provider.library else None
    if library is None:
        return MissingError(
            f"{problem}; the GPU, its driver or a library may be missing",
            subject=subject,
            remedy="Run `tcmoa doctor`, or use {backend}",
            settings={"backend": "onnxruntime"},
        )
    return MissingError(
        f"{problem}; the library {library} is missing{_what_is_there(library)}",
        subject=subject,
        remedy=f"{_remedy_for(library, provider)}, or use {{backend}}",
        settings={"backend": "onnxruntime"},
    )


def _what_is_there(library: str) -> str:
    """Say which TensorRT is installed where another one is missing."""
    found = package_version("tensorrt") or package_version("tensorrt-cu13")
    return f" (installed is tensorrt {found})" if library.startswith("libnv") and found else ""


def _remedy_for(library: str, provider: Provider) -> str:
    """Say what to install for a library."""
    if library.startswith(DRIVER_LIBRARIES):
        return "Install the NVIDIA driver"
    command = f"Run `{install_command(*provider.extras)}`"
    if library.startswith("libnv"):  # TensorRT: libnvinfer.so.10, libnvonnxparser.so.10
        return f"{command} in an environment without the extra tensorrt, which is another version"
    return command


def open_provider_cache(bundle: Bundle, provider: Provider) -> CompileCache | None:
    """Open the cache for what a provider compiles; None for CUDA, which compiles nothing, and after a warning."""
    if provider.name == CUDA:
        return None
    versions = package_versions(("onnxruntime", "onnxruntime-gpu", "tensorrt", *_PLUGIN_PACKAGES))
    library = ", ".join(f"{name} {version}" for name, version in versions.items())
    return CompileCache.open(bundle, provider.backend, library, ", ".join(nvidia_gpu_names()))


def provider_options(provider: Provider, cache: CompileCache | None) -> dict[str, str]:
    """Return the options of a provider.

    The graph determines the precision. The TensorRT providers have no option against TF32 in float32 products; the
    environment variable NVIDIA_TF32_OVERRIDE=0 is the only way.
    """
    if provider.name == CUDA:
        return dict(CUDA_OPTIONS)
    if provider.backend == "onnxruntime-rtx":
        return {} if cache is None else {"nv_runtime_cache_path": str(cache.folder)}
    # Explicit, because environment variables count where an option is missing. This provider does not take 0 and 1 from
    # Python. trt_bf16_enable is left out, because older versions refuse to know it.
    options = {"trt_fp16_enable": "False", "trt_int8_enable": "False"}
    if cache is not None:
        options |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(cache.folder),
            # Nothing else in this cache tells apart graphs of the same name and different weights.
            "trt_engine_cache_prefix": cache.prefix,
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(cache.folder),
        }
    return options


def _missing(provider: Provider) -> MissingError:
    """Make the error for a provider that the installed ONNX Runtime lacks."""
    found = package_versions(("onnxruntime", "onnxruntime-gpu"))
    installed = " and ".join(f"{name} {version}" for name, version in found.items())
    if len(found) == 2:
        installed += ", which overwrite each other"
    else:
        installed = f"{installed or 'onnxruntime'} with {', '.join(ort.get_available_providers())}"
    return MissingError(
        f"installed is {installed}; expected ONNX Runtime with {provider.name}",
        subject=f"backend {provider.backend}",
        remedy=f"Run `{install_command(*provider.extras)}` "
        f"(onnxruntime and onnxruntime-gpu must not both be installed)",
    )


def _plugin_devices(provider: Provider) -> tuple[ort.OrtEpDevice, ...]:
    """Register the plugin package once and return its GPUs; raises MissingError without either."""
    version = next(filter(None, map(package_version, _PLUGIN_PACKAGES)), None)
    if version is None or not hasattr(ort, "register_execution_provider_library"):
        raise _missing(provider)
    try:
        with _registration:
            preload_bundled_cudart(_PLUGIN_MODULE)
            plugin = importlib.import_module(_PLUGIN_MODULE)
            name = str(plugin.get_ep_name())
            devices = _devices_of(name, provider)
            if not devices:
                ort.register_execution_provider_library(name, plugin.get_library_path())
                devices = _devices_of(name, provider)
    except Exception as error:  # the import loads native libraries
        command = install_command(*provider.extras).replace("pip install", "pip install -U", 1)
        reason, remedy = describe_error(error), f"Run `{command}`"
        if function := missing_driver_function_in(str(error)):
            reason, remedy = f"the NVIDIA driver has no function {function}", "Install a newer NVIDIA driver"
        elif missing_library_in(str(error)).startswith(DRIVER_LIBRARIES):
            remedy = "Install the NVIDIA driver"
        raise MissingError(
            f"{_PLUGIN_PACKAGE} {version} cannot be registered with ONNX Runtime {ort.__version__} ({reason})",
            remedy=f"{remedy}, or use {{backend}}",
            settings={"backend": "onnxruntime"},
        ) from error
    if not devices:
        raise MissingError(
            f"{_PLUGIN_PACKAGE} {version} finds no GPU; expected one of the Ampere generation or later, and its driver",
            remedy="Run `tcmoa doctor`, or use {backend}",
            settings={"backend": "onnxruntime"},
        )
    return devices


def _devices_of(name: str, provider: Provider) -> tuple[ort.OrtEpDevice, ...]:
    return tuple(device for device in ort.get_ep_devices() if device.ep_name in (name, provider.name))
