"""Which models a bundle becomes: their names, tensors, files and configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime._version import __version__
from tcmoa_runtime.bundle import GRAPH, Bundle
from tcmoa_runtime.contract import HELD_EXTREMES, OWN_EXTREMES, PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.engine import Engine
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.model_repository.config_text import Config, ConfigValue, Symbol, map_entries
from tcmoa_runtime.model_repository.engine_choice import choose_plan
from tcmoa_runtime.model_repository.python_model import PythonSettings
from tcmoa_runtime.model_repository.tensors import (
    ModelTensor,
    graph_inputs,
    graph_outputs,
    python_inputs,
    python_outputs,
)
from tcmoa_runtime.options.repository import (
    TRITON_BACKENDS,
    RepositoryOptions,
    TritonBackend,
    TritonDevice,
    check_model_name,
)

GRAPH_FILE: Final = "model.onnx"
PLAN_FILE: Final = "model.plan"
PYTHON_FILE: Final = "model.py"
MODEL_FILES: Final[Mapping[TritonBackend, str]] = {
    "python": PYTHON_FILE,
    "onnxruntime": GRAPH_FILE,
    "openvino": GRAPH_FILE,
    "tensorrt": PLAN_FILE,
}
"""The file that a backend of Triton loads."""

WARMUP_FOLDER: Final = "warmup"
"""Where Triton looks for the values of a warm-up request, beside config.pbtxt."""

_MAX_LABEL_CHARACTERS: Final = 200
_DEVICES: Final[Mapping[TritonBackend, TritonDevice]] = {
    "python": "cpu",
    "onnxruntime": "cpu",
    "openvino": "cpu",
    "tensorrt": "gpu",
}
_THREAD_PARAMETERS: Final[Mapping[TritonBackend, str]] = {
    "onnxruntime": "intra_op_thread_count",
    "openvino": "INFERENCE_NUM_THREADS",
}

_logger = get_logger("repository")


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """A model that is to be written.

    Attributes:
        name: Its name, that of its folder.
        backend: Backend of Triton.
        bundle: The bundle.
        device: Where it runs.
        inputs: Inputs.
        outputs: Outputs.
        engine: The engine, for the TensorRT backend.
    """

    name: str
    backend: TritonBackend
    bundle: Bundle
    device: TritonDevice
    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]
    engine: Engine | None = None

    @property
    def needs(self) -> str:
        """What Triton must have to load the model."""
        if self.engine is not None:
            return f"TensorRT {self.engine.version}{_describe_gpu(self.engine)}"
        if self.backend == "python":
            return f"tcmoa {__version__} in its Python, 3.11 or newer"
        return f"the backend {self.backend}"

    def config(self, options: RepositoryOptions) -> Config:
        """Return the configuration of the model."""
        group: dict[str, ConfigValue] = {
            "kind": Symbol(f"KIND_{self.device.upper()}"),
            "count": options.instances,
        }
        if self.backend == "python" and self.device == "gpu":
            group["gpus"] = [0]  # the runtime takes the first GPU that it sees
        return {
            "name": self.name,
            "backend": self.backend,
            "default_model_filename": MODEL_FILES[self.backend],
            "max_batch_size": 0,
            "input": [_tensor_config(tensor) for tensor in self.inputs],
            "output": [_tensor_config(tensor) for tensor in self.outputs],
            "version_policy": {"latest": {"num_versions": 1}},
            "instance_group": [group],
            "model_warmup": [
                {
                    "name": "first",
                    "batch_size": 1,
                    "inputs": map_entries({name: self._warmup_config(name) for name in self._warmup_names}),
                }
            ],
            "parameters": map_entries(
                {key: {"string_value": value} for key, value in self._parameters(options).items()}
            ),
        }

    def warmup_values(self) -> dict[str, NDArray[np.float32]]:
        """Return the inputs of the warm-up request that are no random numbers."""
        values: dict[str, tuple[float, ...]] = {}
        if self.backend != "python":
            if self.bundle.has_prompt:
                scale, shift = self.bundle.default_prompt
                values |= {PROMPT_SCALE: (scale,), PROMPT_SHIFT: (shift,)}
            if self.bundle.contract.stretches:
                values[HELD_EXTREMES] = OWN_EXTREMES
        shapes = {spec.name: spec.shape for spec in self.bundle.contract.inputs}
        return {
            name: np.broadcast_to(np.array(numbers, np.float32), shapes[name])
            for name, numbers in values.items()
        }

    @property
    def _warmup_names(self) -> tuple[str, ...]:
        return (X, Y, *self.warmup_values())

    def _warmup_config(self, name: str) -> Config:
        spec = next(spec for spec in self.bundle.contract.inputs if spec.name == name)
        tensor = ModelTensor(spec.name, spec.dtype, spec.shape)
        values: Config = {"input_data_file": name} if name in self.warmup_values() else {"random_data": True}
        return {"data_type": Symbol(tensor.config_type), "dims": list(spec.shape), **values}

    def _parameters(self, options: RepositoryOptions) -> dict[str, str]:
        """Return settings, and labels that say what the model is."""
        settings: dict[str, str] = {}
        if self.backend == "python":
            settings = PythonSettings(
                fuser_backend=options.fuser_backend,
                fit=options.fit,
                stretch=options.stretch,
                threads=options.threads,
                max_pixels=options.max_pixels,
                trust_engines=options.trust_engines,
            ).to_parameters()
        elif options.threads is not None and self.backend in _THREAD_PARAMETERS:
            settings = {_THREAD_PARAMETERS[self.backend]: str(options.threads)}
        labels = {
            f"tcmoa.{key}": value[:_MAX_LABEL_CHARACTERS] for key, value in describe(self.bundle).items()
        }
        return {**settings, **labels, "tcmoa.needs": self.needs}


def _describe_gpu(engine: Engine) -> str:
    """Say on which GPUs an engine runs; nothing if its builder did not."""
    if engine.hardware_compatibility == "ampere_plus":
        return " on GPUs of compute capability 8.0 and above"
    if engine.gpu is None:
        return ""
    if engine.hardware_compatibility == "same_compute_capability":
        return f" on GPUs of compute capability {engine.gpu.compute_capability}"
    return f" on {engine.gpu.name} (compute capability {engine.gpu.compute_capability})"


def plan_models(bundles: Sequence[Bundle], options: RepositoryOptions) -> list[ModelPlan]:
    """Plan the models of several bundles.

    Raises:
        InputError: Two models would have one name, a name is not one that Triton takes, or a backend cannot run a
            bundle as its own.
        BundleError: An engine is missing, damaged or not trusted.
    """
    if options.name and len(options.name) != len(bundles):
        raise InputError(
            f"{','.join(options.name)}; expected {len(bundles)}, a name for each bundle", subject="name"
        )
    names = options.name or [_name_of(bundle) for bundle in bundles]
    plans = [
        plan
        for bundle, name in zip(bundles, names, strict=True)
        for plan in _plan_bundle(bundle, name, options)
    ]
    seen: dict[str, Bundle] = {}
    for plan in plans:
        if plan.name in seen:
            raise InputError(
                f"a second model named {plan.name!r}, after that of {seen[plan.name].path}; expected different names",
                subject=plan.bundle.path,
                remedy="Set {name}",
                settings={"name": ...},
            )
        seen[plan.name] = plan.bundle
    return plans


def _name_of(bundle: Bundle) -> str:
    return check_model_name(bundle.path.resolve().name, bundle.path, "Rename the folder, or set {name}")


def _plan_bundle(bundle: Bundle, name: str, options: RepositoryOptions) -> list[ModelPlan]:
    """Plan the models of one bundle, those of the graph alone last."""
    if options.backend:
        chosen = [backend for backend in TRITON_BACKENDS if backend in options.backend]
        for backend in chosen:
            problem = _graph_problem(bundle, backend, options)
            if problem is not None:
                raise problem
    else:
        chosen = ["python", "onnxruntime"]
        problem = _graph_problem(bundle, "onnxruntime", options)
        if problem is not None:
            _logger.warning(
                "no model of the graph alone is written: %s",
                problem,
                extra={"event": "graph-left-out", "model": name},
            )
            chosen = ["python"]
    return [_plan(bundle, name, backend, options) for backend in chosen]


def _plan(bundle: Bundle, name: str, backend: TritonBackend, options: RepositoryOptions) -> ModelPlan:
    is_python = backend == "python"
    return ModelPlan(
        name=name if is_python else f"{name}-{backend}",
        backend=backend,
        bundle=bundle,
        device=options.device or _DEVICES[backend],
        inputs=python_inputs(bundle) if is_python else graph_inputs(bundle),
        outputs=python_outputs(bundle) if is_python else graph_outputs(bundle),
        engine=choose_plan(bundle, options) if backend == "tensorrt" else None,
    )


def _graph_problem(bundle: Bundle, backend: TritonBackend, options: RepositoryOptions) -> InputError | None:
    """Return why the graph alone, in a backend, does not fuse as the bundle does; None if it does."""
    if backend == "python":
        return None
    if bundle.alignment is not None:
        return InputError(
            f"aligns its sources, which the graph alone, in the backend {backend}, does not; expected the backend "
            "python",
            subject=bundle.path,
            remedy="Set {backend}",
            settings={"backend": "python"},
        )
    if bundle.precision == "bf16" and backend == "onnxruntime" and options.device != "gpu":
        return InputError(
            "a bf16 graph, which ONNX Runtime cannot run on the CPU; expected another precision",
            subject=bundle.path,
            remedy="Set {device}, or export the bundle with {precision}",
            settings={"device": "gpu", "precision": "fp32"},
        )
    return None


def describe(bundle: Bundle) -> dict[str, str]:
    """Describe a bundle in labels: what it fuses, and how it is known."""
    contract, license_text = bundle.contract, bundle.manifest.get("license")
    labels = {
        "version": __version__,
        "task": bundle.task,
        "x": f"{bundle.roles[X]}, {contract.x_channels} channels",
        "y": f"{bundle.roles[Y]}, {contract.y_channels} channels",
        "frame": f"{contract.width}x{contract.height}, batch {contract.batch}",
        "channel_order": bundle.channel_order,
        "model": bundle.preset,
        "precision": bundle.precision,
        "graph": bundle.graph_name,
        "graph_sha256": bundle.files[GRAPH].sha256,
    }
    if bundle.has_prompt:
        scale, shift = bundle.default_prompt
        labels["prompt_default"] = f"{PROMPT_SCALE} {scale:g}, {PROMPT_SHIFT} {shift:g}"
    if bundle.alignment is not None:
        labels["aligned"] = bundle.alignment.source
    if isinstance(license_text, str):
        labels["license"] = license_text
    return labels


def _tensor_config(tensor: ModelTensor) -> Config:
    config: dict[str, ConfigValue] = {
        "name": tensor.name,
        "data_type": Symbol(tensor.config_type),
        "dims": list(tensor.dims),
    }
    return {**config, "optional": True} if tensor.optional else config
