"""(b) Shared libraries that the GPU packages need, against the packages that the extras install.

Packages with large libraries are not downloaded: each has one library per major version, and NVIDIA numbers the package
as the library, so `libcublas.so.13` is in `nvidia-cublas` 13.
"""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from proof.elf import needed, search_path, soname
from proof.extras import allowed, requirements_of
from proof.report import Row, SkippedError
from proof.sources import ROOT

PIECE = "libraries"

DRIVER = {"libcuda.so.1", "libnvidia-ml.so.1"}
"""Libraries of the NVIDIA driver."""
_SYSTEM = re.compile(
    r"(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|libz|ld-linux-[\w-]+)\.so(\.\d+)?$"
)
_PACKAGES = {
    "libcudart": "nvidia-cuda-runtime",
    "libcublas": "nvidia-cublas",
    "libcublasLt": "nvidia-cublas",
    "libcurand": "nvidia-curand",
    "libcufft": "nvidia-cufft",
    "libnvrtc": "nvidia-cuda-nvrtc",
    "libcudnn": "nvidia-cudnn-cu13",
    "libnvinfer": "tensorrt-cu13-libs",
    "libnvinfer_plugin": "tensorrt-cu13-libs",
    "libnvonnxparser": "tensorrt-cu13-libs",
    "libtensorrt_rtx": "tensorrt-rtx-cu13-libs",
    "libtensorrt_onnxparser_rtx": "tensorrt-rtx-cu13-libs",
}
"""Package of a library, by its name without version."""


@dataclass(frozen=True)
class Consumer:
    """Shared objects of a package, and the extras that install what they need.

    Attributes:
        package: The package.
        pattern: Which of its files.
        extras: The extras.
        preloads: Libraries that the product loads first, so that no search has to find them; `load_check` shows it.
    """

    package: str
    pattern: str
    extras: tuple[str, ...]
    preloads: frozenset[str] = frozenset()


def consumers():
    """Return what is checked; the extras of ONNX Runtime's providers are those that the product names."""
    from tcmoa_runtime.backends.providers import PROVIDERS

    gpu = PROVIDERS["onnxruntime-cuda"].extras
    return (
        Consumer("onnxruntime-gpu", "onnxruntime/capi/libonnxruntime_providers_cuda.so", gpu),
        Consumer(
            "onnxruntime-gpu",
            "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
            PROVIDERS["onnxruntime-tensorrt"].extras,
        ),
        Consumer(
            "onnxruntime-ep-nv-tensorrt-rtx-cu13",
            "onnxruntime_ep_nv_tensorrt_rtx/*.so*",
            PROVIDERS["onnxruntime-rtx"].extras,
            frozenset({"libcudart.so.13", "libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"}),
        ),
        Consumer("tensorrt-rtx-cu13-bindings", "tensorrt_rtx_bindings/*.so", ("rtx",)),
        Consumer("tensorrt-rtx-cu13-libs", "tensorrt_rtx_libs/*.so*", ("rtx",)),
        Consumer("tensorrt-cu13-bindings", "tensorrt_bindings/*.so", ("tensorrt",)),
        Consumer("tensorrt-cu13-bindings", "tensorrt_bindings/*.so", ("tensorrt10",)),
    )


def check_consumer(context, consumer):
    """Check the newest version that the extras install."""
    installed = context.installed(consumer.extras)
    version = installed.get(consumer.package)
    subject = f"{consumer.package} {version or ''}, extras {', '.join(consumer.extras)}"
    if version is None:
        return [Row(PIECE, subject, "FAILED", f"the extras do not install {consumer.package}")]
    objects = read_objects(context, consumer, version)
    if not objects:
        return [Row(PIECE, subject, "FAILED", f"the package has no {consumer.pattern}")]
    found, missing = match_libraries(objects, installed, consumer.preloads)
    if missing:
        return [Row(PIECE, subject, "FAILED", "\n".join(missing))]
    name = Path(consumer.pattern).name
    return [Row(PIECE, subject, "ok", f"{name}: {', '.join(found) or 'needs only the C library'}")]


def read_objects(context, consumer, version):
    """Return needed libraries and soname of the shared objects; they are kept, the largest packages are not."""
    record = context.wheels.folder / f"{consumer.package}-{version}.json"
    with context.lock(record):
        if not record.exists():
            folder = context.wheels.unpack(consumer.package, version)
            objects = {
                str(path.relative_to(folder)): {
                    "needed": needed(path),
                    "soname": soname(path),
                    "search_path": search_path(path),
                }
                for path in sorted(folder.glob("*/**/*.so*"))
                if not path.is_symlink() and "stubs" not in path.parts
            }
            record.write_text(json.dumps(objects), encoding="utf-8")
            if consumer.package == "onnxruntime-gpu":  # 700 MB
                shutil.rmtree(folder)
        objects = json.loads(record.read_text(encoding="utf-8"))
    return {Path(name).name: entry for name, entry in objects.items() if Path(name).match(consumer.pattern)}


def match_libraries(objects, installed, preloads=frozenset()):
    """Match needed libraries with what offers them.

    Args:
        objects: By file name: the shared objects of a package, with `needed`, `soname` and `search_path`.
        installed: Versions of the installed packages by name.
        preloads: Libraries that the product loads first.

    Returns:
        What was found where, and what is missing.
    """
    found, missing = {}, []
    for name, entry in objects.items():
        for library in entry["needed"]:
            if _SYSTEM.match(library) or library in found:
                continue
            source = _source_of(library, entry, objects, installed, preloads)
            if source is None:
                missing.append(f"{name} needs {library}: {_expected(library, installed)}")
            else:
                found[library] = source
    return [f"{library} from {source}" for library, source in found.items()], missing


def _source_of(library, entry, objects, installed, preloads):
    if library in DRIVER:
        return "the driver"
    carried = next((file for file, other in objects.items() if other["soname"] == library), None)
    if carried is not None and library in preloads:
        return f"{carried} of the package, loaded first"
    if carried == library and any("$ORIGIN" in folder for folder in entry["search_path"]):
        return "the package"
    package = _package_of(library)
    version = installed.get(package)
    if version is not None and version.split(".")[0] == _major(library, package):
        return f"{package} {version}"
    return None


def _package_of(library):
    return _PACKAGES.get(library.partition(".so")[0], "")


def _major(library, package):
    """Return the major version that a package must have for a library."""
    return library.partition(".so.")[2].split(".")[0]


def _expected(library, installed):
    package = _package_of(library)
    if not package:
        return "no known package has it"
    have = (
        f"{package} {installed[package]} is installed"
        if package in installed
        else f"{package} is not installed"
    )
    return f"{have}; expected {package} {_major(library, package)}"


class Resolver:
    """Which versions the extras install, without downloading packages.

    uv reads the metadata that the registry keeps beside wheels. TensorRT's packages in the registry have none, because
    they are made while they are installed: each requires its libraries and bindings in its own version.
    """

    def __init__(self, wheels):
        self._wheels = wheels
        self._resolved = {}

    def __call__(self, extras):
        """Return the versions of all packages that extras install."""
        if extras not in self._resolved:
            self._resolved[extras] = self._resolve(extras)
        return self._resolved[extras]

    def _resolve(self, extras):
        plain, installed = [], {}
        for required in requirements_of(*extras):
            name = canonicalize_name(required.name)
            if name in ("tensorrt", "tensorrt-cu13"):
                versions = allowed(self._wheels.versions("tensorrt-cu13-bindings"), required.specifier)
                if versions:
                    installed |= {f"tensorrt-cu13-{part}": versions[0] for part in ("libs", "bindings")}
            else:
                plain.append(str(required))
        return installed | self._compile(plain)

    def _compile(self, requirements):
        uv = shutil.which("uv", path=str(ROOT / "build" / "tools" / "bin")) or shutil.which("uv")
        if uv is None:
            raise SkippedError("uv is not installed", "`make gpu-proof`, which installs it")
        version = sysconfig.get_python_version()
        done = subprocess.run(
            [
                *(uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary", ":all:"),
                *("--python", sys.executable, "--python-version", version, "-"),
            ],
            input="\n".join(requirements),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = " ".join(done.stderr.split())[:120]
            if "No solution" not in reason:
                raise SkippedError(
                    f"uv cannot read the packages' metadata: {reason}", "a network with a package registry"
                )
            return {}
        pins = (row.split(" ;")[0].strip().split("==") for row in done.stdout.splitlines() if "==" in row)
        return {canonicalize_name(name.split("[")[0]): version for name, version in pins}
