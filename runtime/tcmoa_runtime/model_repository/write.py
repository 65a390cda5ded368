"""Writing model repositories: every bundle is checked first, and the folder is renamed when it is complete.

models/
  repository.json              what is in the repository; Triton reads folders only
  night/                       a model of the python backend
    config.pbtxt
    1/model.py                 the same in every repository
    1/bundle/                  the bundle, which is checked again when the model is loaded
  night-onnxruntime/           a model that is the graph alone
    config.pbtxt
    warmup/                    values of the request that Triton runs before the model is ready
    1/model.onnx, fusion.data
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcmoa_runtime._version import __version__
from tcmoa_runtime.bundle import GRAPH, GRAPH_DATA, MANIFEST, Bundle
from tcmoa_runtime.engine import Engine
from tcmoa_runtime.engine_folders import ENGINES_FOLDER, find_engines
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.model_repository.config_text import format_config
from tcmoa_runtime.model_repository.plans import (
    GRAPH_FILE,
    MODEL_FILES,
    PYTHON_FILE,
    WARMUP_FOLDER,
    ModelPlan,
    describe,
    plan_models,
)
from tcmoa_runtime.model_repository.python_model import CONFIG
from tcmoa_runtime.new_folder import FolderKind, check_target, new_folder
from tcmoa_runtime.options.repository import RepositoryOptions, TritonBackend
from tcmoa_runtime.typing import JsonObject

RECORD: Final = "repository.json"
KIND: Final = FolderKind("model repository", RECORD)
BUNDLE_FOLDER: Final = "bundle"

_FORMAT: Final = "tcmoa-model-repository"
_FORMAT_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class RepositoryModel:
    """A model in a repository.

    Attributes:
        name: Its name, by which requests address it.
        backend: Backend of Triton.
        version: Its version.
        path: Its folder.
        needs: What Triton must have to load it.
        description: Tensors and labels, as in `repository.json`.
    """

    name: str
    backend: TritonBackend
    version: int
    path: Path
    needs: str
    description: JsonObject


@dataclass(frozen=True)
class ModelRepository:
    """A repository that was written: its folder and models."""

    path: Path
    models: tuple[RepositoryModel, ...]

    def to_json(self) -> JsonObject:
        """Describe the repository: the content of `repository.json`, with the path."""
        return {"path": str(self.path), **_record([model.description for model in self.models])}


def write_model_repository(
    bundles: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: RepositoryOptions | None = None,
) -> ModelRepository:
    """Write a model repository for NVIDIA's Triton Inference Server.

    Args:
        bundles: Folders of bundles, or names of ready ones; one or several.
        out: Folder of the repository.
        options: Which models it holds; `RepositoryOptions()` if None.

    Returns:
        What was written. After an exception nothing was.

    Raises:
        BundleError: A bundle or an engine must not be loaded.
        UntrustedEngineError: An engine was not built by this user, and `trust_engines` is not set.
        InputError: `out` must not or cannot be written, or an option does not fit the bundles.
    """
    options = RepositoryOptions() if options is None else options
    target = Path(out)
    paths = [bundles] if isinstance(bundles, str | os.PathLike) else bundles
    if not paths:
        raise InputError("no bundles; expected one or more", subject="bundles")
    plans = plan_models([Bundle.open(path) for path in paths], options)
    check_target(target, KIND, overwrite=options.overwrite)
    _check_apart(target, [plan.bundle for plan in plans])
    for bundle in {id(plan.bundle): plan.bundle for plan in plans}.values():
        bundle.check()
    descriptions = [_describe(plan, options) for plan in plans]
    with new_folder(target, KIND, overwrite=options.overwrite) as partial:
        for plan in plans:
            _write_model(plan, partial / plan.name, options)
        record = json.dumps(_record(descriptions), indent=2, allow_nan=False)
        (partial / RECORD).write_text(f"{record}\n", encoding="utf-8")
    return ModelRepository(
        target,
        tuple(
            RepositoryModel(
                name=plan.name,
                backend=plan.backend,
                version=options.model_version,
                path=target / plan.name,
                needs=plan.needs,
                description=description,
            )
            for plan, description in zip(plans, descriptions, strict=True)
        ),
    )


def _check_apart(target: Path, bundles: Sequence[Bundle]) -> None:
    """Raise InputError when a bundle lies in the folder that is replaced, or that folder in a bundle."""
    out = target.resolve()
    for bundle in bundles:
        folder = bundle.path.resolve()
        if folder.is_relative_to(out) or out.is_relative_to(folder):
            raise InputError(
                f"within {bundle.path}, or the bundle in it; expected a folder apart from the bundles",
                subject=target,
                remedy="Choose another folder",
            )


def _record(models: Sequence[JsonObject]) -> JsonObject:
    return {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "tools": {"tcmoa": __version__},
        "models": list(models),
    }


def _describe(plan: ModelPlan, options: RepositoryOptions) -> JsonObject:
    return {
        "name": plan.name,
        "backend": plan.backend,
        "version": options.model_version,
        "device": plan.device,
        "instances": options.instances,
        "inputs": [tensor.to_json() for tensor in plan.inputs],
        "outputs": [tensor.to_json() for tensor in plan.outputs],
        "needs": plan.needs,
        "labels": dict(describe(plan.bundle)),
    }


def _write_model(plan: ModelPlan, folder: Path, options: RepositoryOptions) -> None:
    version = folder / str(options.model_version)
    version.mkdir(parents=True)
    (folder / CONFIG).write_text(format_config(plan.config(options)), encoding="ascii")
    _write_warmup(plan, folder / WARMUP_FOLDER)
    if plan.engine is not None:
        (version / MODEL_FILES[plan.backend]).write_bytes(plan.engine.read())
    elif plan.backend == "python":
        shutil.copyfile(Path(__file__).with_name(PYTHON_FILE), version / PYTHON_FILE)
        _copy_bundle(plan.bundle, version / BUNDLE_FOLDER, with_engines=options.trust_engines)
    else:
        _write_graph(plan.bundle, version)


def _write_warmup(plan: ModelPlan, folder: Path) -> None:
    """Write the values of the warm-up request that are no random numbers."""
    for name, values in plan.warmup_values().items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(values.astype("<f4").tobytes())


def _write_graph(bundle: Bundle, folder: Path) -> None:
    """Write the graph and its weights; what is written is what is hashed."""
    (folder / GRAPH_FILE).write_bytes(bundle.read_graph())
    _copy_weights(bundle, folder)


def _copy_bundle(bundle: Bundle, folder: Path, *, with_engines: bool) -> None:
    """Copy a bundle; its engines only where the model may load them."""
    folder.mkdir()
    (folder / GRAPH).write_bytes(bundle.read_graph())
    _copy_weights(bundle, folder)
    manifest = json.dumps(bundle.manifest, indent=2, allow_nan=False)
    (folder / MANIFEST).write_text(f"{manifest}\n", encoding="utf-8")
    if with_engines:
        for path in find_engines(bundle):
            _copy_engine(Engine.open(bundle, path), folder / ENGINES_FOLDER)
    Bundle.open(folder)


def _copy_engine(engine: Engine, folder: Path) -> None:
    """Copy an engine and what describes it."""
    folder.mkdir(exist_ok=True)
    (folder / engine.path.name).write_bytes(engine.read())
    description = json.dumps(engine.manifest, indent=2, allow_nan=False)
    (folder / engine.path.with_suffix(".json").name).write_text(f"{description}\n", encoding="utf-8")
    if engine.weights is not None:
        (folder / engine.weights).write_bytes(engine.read_weights())


def _copy_weights(bundle: Bundle, folder: Path) -> None:
    """Copy the weights of a bundle that has them in a file of their own, readable for the user of Triton."""
    if not bundle.has_external_data:
        return
    bundle.copy_weights(folder / GRAPH_DATA)
    (folder / GRAPH_DATA).chmod((folder / GRAPH_DATA).parent.stat().st_mode & 0o666)
