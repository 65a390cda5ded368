"""ONNX Runtime's GPU providers: what each needs, what it is asked for, and where it keeps what it compiled.

The options are those that ONNX Runtime and NVIDIA document. Their names, and what follows when a provider is
missing or does not start, are tested; **none of the providers ever ran on a GPU here**.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import io
import json
import re
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort

from tcmoa_runtime.bundle import GRAPH, Bundle
from tcmoa_runtime.engine import FOLDER
from tcmoa_runtime.errors import InputError, MissingError
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.manifest import file_sha256

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
CUDA_OPTIONS: Final = {"use_tf32": "0"}
"""The routers' products must be float32, not the 10 bits of TF32 (ONNX Runtime's default): near ties decide which
adapters count."""
NO_CPU: Final = ("session.disable_cpu_ep_fallback", "1")
"""Session option: creation fails where a node would be left to the CPU, instead of being slow in silence."""

_PLUGIN: Final = "onnxruntime_ep_nv_tensorrt_rtx"
_PLUGIN_PACKAGES: Final = tuple(
    f"onnxruntime-ep-nv-tensorrt-rtx{suffix}" for suffix in ("", "-cu13", "-cu12")
)
_SEAL: Final = "cache.json"
_registering = threading.Lock()


@dataclass(frozen=True)
class Provider:
    """A provider: `name` is ONNX Runtime's, `label` ours; `backend` is what a caller asks for.

    `remove` and `install`: packages that make it available. `remove` is the other `onnxruntime`: both are one
    Python module, and which of them is imported depends on what was installed last.
    """

    backend: str
    name: str
    label: str
    remove: str
    install: str


PROVIDERS: Final = {
    provider.backend: provider
    for provider in (
        Provider("onnxruntime-cuda", CUDA, "CUDA", "onnxruntime", "'onnxruntime-gpu[cuda,cudnn]'"),
        Provider(
            "onnxruntime-tensorrt",
            "TensorrtExecutionProvider",
            "TensorRT",
            "onnxruntime",
            "'onnxruntime-gpu[cuda,cudnn]' tensorrt",
        ),
        Provider(
            "onnxruntime-rtx",
            "NvTensorRTRTXExecutionProvider",
            "TensorRT-RTX",
            "onnxruntime-gpu",
            "'onnxruntime>=1.24' onnxruntime-ep-nv-tensorrt-rtx",
        ),
    )
}
"""By the backend's name."""


@dataclass(frozen=True)
class Request:
    """How to ask a session for a provider: by name, or as `devices` of a plugin, which go into its options."""

    provider: Provider
    devices: tuple[Any, ...] = ()

    @property
    def names(self) -> set[str]:
        """What the session may call it: a plugin is called what it was registered as."""
        return {self.provider.name, *(str(device.ep_name) for device in self.devices)}

    def apply(self, options: Any, settings: dict[str, str]) -> list[Any] | None:
        """Fill the session's `options`; what has to be its `providers`.

        No node may go to the CPU. CUDA graphs of ONNX Runtime stay off: they want the same addresses in each
        run, and frames come from wherever the caller has them.
        """
        options.add_session_config_entry(*NO_CPU)
        if not self.devices:
            return [(self.provider.name, settings)]
        options.add_provider_for_devices(list(self.devices[:1]), settings)
        return None


def request(backend: str) -> Request:
    """Find the provider of a backend; MissingError with what is installed and what to install."""
    provider = PROVIDERS[backend]
    if provider.name in ort.get_available_providers():
        preload(provider)
        return Request(provider)
    if backend != "onnxruntime-rtx":
        raise _missing(provider)
    return Request(provider, _plugin_devices(provider))


def preload(provider: Provider | None) -> None:
    """Load CUDA's libraries from Python packages, where the providers themselves do not look for them.

    What is not found is told by the provider, which then does not start.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # ONNX Runtime prints what it does not find
        if provider is not None and provider.backend == "onnxruntime-tensorrt":
            with contextlib.suppress(Exception):
                importlib.import_module("tensorrt")  # its wheel loads TensorRT's libraries
        if hasattr(ort, "preload_dlls"):  # since 1.21
            with contextlib.suppress(Exception):
                ort.preload_dlls()


def settings_of(provider: Provider, cache: Cache | None) -> dict[str, str]:
    """The provider's options. Precision is the graph's: TensorRT is strongly typed unless asked otherwise.

    The TensorRT providers have no option against TF32 in float32 products, but for the environment variable
    NVIDIA_TF32_OVERRIDE=0.
    """
    if provider.name == CUDA:
        return dict(CUDA_OPTIONS)
    if provider.backend == "onnxruntime-rtx":
        return {} if cache is None else {"nv_runtime_cache_path": str(cache.folder)}
    # Said, not left out: where no option is given, environment variables of the same meaning count. This provider
    # takes no 0 and 1 from Python. There is a third, trt_bf16_enable, which older versions refuse to hear of.
    settings = {"trt_fp16_enable": "False", "trt_int8_enable": "False"}
    if cache is not None:
        settings |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(cache.folder),
            # Its cache tells graphs of one name and different weights apart by nothing else.
            "trt_engine_cache_prefix": cache.prefix,
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(cache.folder),
        }
    return settings


def _missing(provider: Provider) -> MissingError:
    found = {name: _version(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    installed = " and ".join(f"{name} {version}" for name, version in found.items() if version)
    if all(found.values()):
        what, remove = f"{installed}, which overwrite each other", "onnxruntime onnxruntime-gpu"
    else:
        what = f"{installed or 'onnxruntime'} with {', '.join(ort.get_available_providers())}"
        remove = provider.remove if found[provider.remove] else ""
    run = f"`pip uninstall {remove}`, then " if remove else ""
    return MissingError(
        f"{provider.backend} needs ONNX Runtime's {provider.name}, installed is {what}; run {run}`pip install "
        f"{provider.install}` (onnxruntime and onnxruntime-gpu must not both be installed)"
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _plugin_devices(provider: Provider) -> tuple[Any, ...]:
    """GPUs of the plugin package, which is registered once; MissingError when it or a GPU is not there."""
    version = next(filter(None, map(_version, _PLUGIN_PACKAGES)), None)
    if version is None or not hasattr(ort, "register_execution_provider_library"):
        raise _missing(provider)
    try:
        with _registering:
            plugin = importlib.import_module(_PLUGIN)
            name = str(plugin.get_ep_name())
            devices = _devices_of(name, provider)
            if not devices:
                ort.register_execution_provider_library(name, plugin.get_library_path())
                devices = _devices_of(name, provider)
    except Exception as error:  # its import loads native libraries
        raise MissingError(
            f"{_PLUGIN_PACKAGES[0]} {version} cannot be registered with ONNX Runtime {ort.__version__} "
            f"({first_line(error)}); run `pip install -U onnxruntime {_PLUGIN_PACKAGES[0]}`, or use --backend "
            f"onnxruntime"
        ) from error
    if not devices:
        raise MissingError(
            f"{_PLUGIN_PACKAGES[0]} {version} finds no GPU, it needs an Ampere one or a later one and its driver; "
            f"see `tcmoa doctor`, or use --backend onnxruntime"
        )
    return devices


def _devices_of(name: str, provider: Provider) -> tuple[Any, ...]:
    return tuple(d for d in ort.get_ep_devices() if d.ep_name in (name, provider.name))


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, at most 200 characters."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


class Cache:
    """A folder in a bundle's `engines/` where a provider keeps what it compiled for this graph.

    What a provider reads from there runs as native code, unchecked by ONNX Runtime. So the files are hashed
    when a session was made and when it was closed (`seal`), and what is not as it was left is deleted before
    the next session. That finds damage, and runs that ended half-way; as with engines, nothing keeps a bundle's
    maker from putting in what they like.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix

    @staticmethod
    def open(bundle: Bundle, backend: str) -> Cache | None:
        """The cache of a bundle and backend; None, with a warning, where the bundle cannot be written to."""
        prefix = cache_prefix(bundle)
        cache = Cache(bundle.path / FOLDER / f"{backend}-{prefix}", prefix)
        try:
            cache.folder.mkdir(parents=True, exist_ok=True)
            cache._check_inside(bundle)
            cache._drop_unsealed()
            cache.seal()
        except (OSError, RuntimeError, InputError) as error:  # RuntimeError: links in a circle
            reason = f"{cache.folder}: {error.strerror}" if isinstance(error, OSError) else str(error)
            warnings.warn(f"{reason}; {backend} compiles anew at each start", RuntimeWarning, stacklevel=4)
            return None
        return cache

    def seal(self) -> None:
        """Note the hash of each file; raises InputError or OSError when that cannot be written."""
        files = {path.name: file_sha256(path) for path in self._files()}
        write_bytes(self.folder / _SEAL, (json.dumps({"files": files}, indent=2) + "\n").encode())

    def close(self) -> None:
        """Seal what was written while the session was open; a failure only warns."""
        try:
            self.seal()
        except (OSError, InputError) as error:
            warnings.warn(f"{error}; kernels will be compiled again", RuntimeWarning, stacklevel=4)

    def _check_inside(self, bundle: Bundle) -> None:
        if self.folder.resolve() != bundle.path.resolve() / FOLDER / self.folder.name:
            raise InputError(
                f"{self.folder}: leads out of the bundle by a link, and what is there runs as code"
            )

    def _files(self) -> list[Path]:
        return sorted(p for p in self.folder.iterdir() if p.name != _SEAL)

    def _drop_unsealed(self) -> None:
        known = self._read_seal()
        dropped = 0
        for path in self._files():
            if path.is_symlink() or known.get(path.name) != file_sha256(path):
                path.unlink()
                dropped += 1
        if dropped:
            warnings.warn(
                f"{self.folder}: {dropped} files are damaged, or of a run that did not end properly, and were deleted: "
                f"they are compiled again",
                RuntimeWarning,
                stacklevel=5,
            )

    def _read_seal(self) -> dict[str, Any]:
        try:
            files = json.loads((self.folder / _SEAL).read_bytes())["files"]
        except (OSError, ValueError, RecursionError, LookupError, TypeError):
            return {}
        return files if isinstance(files, dict) else {}


def cache_prefix(bundle: Bundle) -> str:
    """A name of the bundle's graph that no other graph has: its own, and the start of its files' SHA-256."""
    hashes = [bundle.files[GRAPH]["sha256"], *(f["sha256"] for n, f in bundle.files.items() if n != GRAPH)]
    digest = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return f"{re.sub(r'[^0-9A-Za-z_-]', '_', bundle.graph_name)[:80]}-{re.sub('[^0-9a-f]', '_', digest[:12])}"
