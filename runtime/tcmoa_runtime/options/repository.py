"""Options of `tcmoa repository`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias, get_args

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import DEFAULT_PERCENTILES, check_percentiles
from tcmoa_runtime.options.option import Option, check_choices, check_minimum, check_range
from tcmoa_runtime.request_images import DEFAULT_MAX_PIXELS
from tcmoa_runtime.typing import BackendChoice, FitMode, Percentiles, Precision

TritonBackend: TypeAlias = Literal["python", "onnxruntime", "openvino", "tensorrt"]
"""Backend of Triton: `python` runs this runtime, the others run the bundle's graph alone."""

TritonDevice: TypeAlias = Literal["cpu", "gpu"]
"""Where Triton runs a model."""

TRITON_BACKENDS: Final[tuple[TritonBackend, ...]] = get_args(TritonBackend)
"""Backends of Triton, in the order in which models are listed."""

MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a model may be called: its name is a folder in Triton, and part of URLs."""

MODEL_NAME_RULE: Final = (
    "at most 100 letters, digits, dots, dashes and underscores, first a letter or a digit"
)

MAX_INSTANCES: Final = 256
MAX_VERSION: Final = 2**31 - 1

MODELS_GROUP: Final = "Models"
INSTANCES_GROUP: Final = "Instances"
PYTHON_GROUP: Final = "Python backend"
TENSORRT_GROUP: Final = "TensorRT backend"

_OPTIONS_OF_BACKEND: Final[dict[TritonBackend, tuple[str, ...]]] = {
    "python": ("fit", "stretch", "fuser_backend", "max_pixels"),
    "tensorrt": ("tensorrt_version", "precision"),
}

_VERSION: Final = re.compile(r"[0-9]+(\.[0-9A-Za-z]+)*")


@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """Which models a repository for Triton holds, and how Triton runs them."""

    backend: Annotated[
        tuple[TritonBackend, ...],
        Option(
            "Backends of Triton, one model for each: python (this runtime: frames of any size, alignment, encoded "
            "images, 16 bits), onnxruntime, openvino and tensorrt (the graph alone); if not given, python, and "
            "onnxruntime where the graph alone gives the same result.",
            group=MODELS_GROUP,
            metavar="python,onnxruntime,openvino,tensorrt",
        ),
    ] = ()
    name: Annotated[
        tuple[str, ...],
        Option(
            "Names of the models, one for each bundle; those of the bundles' folders if not given. The names of models "
            "of the graph alone end in their backend, e.g. night-onnxruntime.",
            group=MODELS_GROUP,
            metavar="NAME,...",
        ),
    ] = ()
    model_version: Annotated[
        int, Option("Version of the models, the name of a folder.", group=MODELS_GROUP)
    ] = 1
    overwrite: Annotated[bool, Option("Replace an existing repository.", group=MODELS_GROUP)] = False
    device: Annotated[
        TritonDevice | None,
        Option(
            "Where models run; if not given, those of TensorRT on every GPU and the others on the CPU.",
            group=INSTANCES_GROUP,
        ),
    ] = None
    instances: Annotated[
        int,
        Option(
            "Instances of each model, which run at the same time; on GPUs, on each.", group=INSTANCES_GROUP
        ),
    ] = 1
    threads: Annotated[
        int | None,
        Option(
            "CPU threads of an instance; if not given, all cores, which several instances in python share.",
            group=INSTANCES_GROUP,
        ),
    ] = None
    fit: Annotated[
        FitMode,
        Option(
            "How frames of another size than the bundle's are fused, see `tcmoa fuse`.", group=PYTHON_GROUP
        ),
    ] = "auto"
    stretch: Annotated[
        Percentiles,
        Option("Percentiles of frames with 16 bits that become black and white.", group=PYTHON_GROUP),
    ] = DEFAULT_PERCENTILES
    fuser_backend: Annotated[
        BackendChoice, Option("Backend of this runtime that runs the graph.", group=PYTHON_GROUP)
    ] = "auto"
    max_pixels: Annotated[
        int, Option("Most pixels of all images of a source of one request.", group=PYTHON_GROUP)
    ] = DEFAULT_MAX_PIXELS
    tensorrt_version: Annotated[
        str | None,
        Option(
            "Version of the engine, which is that of TensorRT in Triton; that of the bundle's engines if not given.",
            group=TENSORRT_GROUP,
            metavar="VERSION",
        ),
    ] = None
    precision: Annotated[
        Precision | None,
        Option("Precision of the engine; fp16 before bf16 before fp32 if not given.", group=TENSORRT_GROUP),
    ] = None
    trust_engines: Annotated[
        bool,
        Option(
            "Copy engines that were not built by this user, too, and let the python backend load engines. An engine is "
            "native code: trust whoever built it.",
            group=TENSORRT_GROUP,
        ),
    ] = False

    def __post_init__(self) -> None:
        """Check every field; raises InputError whose subject is the field's name."""
        check_choices(self)
        if len(set(self.backend)) < len(self.backend):
            raise InputError(f"{','.join(self.backend)}; expected each once", subject="backend")
        for name in self.name:
            check_model_name(name, "name")
        if len(set(self.name)) < len(self.name):
            raise InputError(f"{','.join(self.name)}; expected different names", subject="name")
        check_range("model_version", self.model_version, 1, MAX_VERSION)
        check_range("instances", self.instances, 1, MAX_INSTANCES)
        if self.threads is not None:
            check_minimum("threads", self.threads, 1)
        check_minimum("max_pixels", self.max_pixels, 1)
        check_percentiles(self.stretch)
        if self.tensorrt_version is not None and not _VERSION.fullmatch(self.tensorrt_version):
            raise InputError(
                f"{self.tensorrt_version!r}; expected a version, e.g. 10.13.3.9", subject="tensorrt_version"
            )
        self._check_devices()
        self._check_effects()
        if self.fuser_backend == "tensorrt" and not self.trust_engines:
            raise InputError(
                "tensorrt, but engines are not copied; expected that they are trusted",
                subject="fuser_backend",
                remedy="Set {trust_engines} if you trust whoever built them",
                settings={"trust_engines": True},
            )

    def _check_effects(self) -> None:
        """Refuse options of a backend of which no model is written."""
        for backend, names in _OPTIONS_OF_BACKEND.items():
            if backend in (self.backend or ("python",)):
                continue
            for name in names:
                if getattr(self, name) != getattr(type(self), name):
                    raise InputError(
                        f"an option of {backend}, of which no model is written; expected {backend} among the backends",
                        subject=name,
                        remedy=f"Leave it out, or add {backend} to {{backend}}",
                        settings={"backend": ...},
                    )

    def _check_devices(self) -> None:
        wrong = {"cpu": "tensorrt", "gpu": "openvino"}.get(self.device or "")
        if wrong in self.backend:
            expected = "gpu" if self.device == "cpu" else "cpu"
            raise InputError(
                f"{self.device}, but models of {wrong} run on the {expected.upper()}; expected {expected}",
                subject="device",
            )


def check_model_name(name: str, subject: object, remedy: str | None = None) -> str:
    """Return the name of a model; raises InputError unless Triton and addresses take it as it is."""
    if not MODEL_NAME.fullmatch(name):
        raise InputError(
            f"{name!r} as the name of a model; expected {MODEL_NAME_RULE}",
            subject=subject,
            remedy=remedy,
            settings={"name": ...} if remedy else None,
        )
    return name
