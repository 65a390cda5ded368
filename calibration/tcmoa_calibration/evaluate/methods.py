"""Methods to evaluate: folders of fused images, bundles, weights and classical baselines."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from tcmoa_calibration.baselines import BASELINES
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import TASKS, Task
from tcmoa_runtime.engine_folders import find_engines
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES, format_size
from tcmoa_runtime.manifest import SELF_HASH, file_sha256
from tcmoa_runtime.options.evaluate import BASELINE_NAMES, BaselineName
from tcmoa_runtime.options.option import check_choice
from tcmoa_runtime.typing import BackendChoice, BackendName, JsonObject

MethodKind: TypeAlias = Literal["fused", "bundle", "weights", "baseline"]

_MAX_SHOWN_FILES: Final = 3


@dataclass(frozen=True)
class Method:
    """A fusion method; made by `folder`, `bundle`, `weights` or `baseline`.

    Attributes:
        label: Name in results, unique in an evaluation.
        kind: What `source` is.
        source: The folder of fused images, the bundle, the weights file (or `tiny` or `nano`), or the baseline's name.
        backend: What runs a bundle.
        task: Task that weights fuse for.
        trust_engines: Whether a bundle may load engines that this user did not build.
    """

    label: str
    kind: MethodKind
    source: str
    backend: BackendChoice = "onnxruntime"
    task: Task | None = None
    trust_engines: bool = False

    @staticmethod
    def folder(path: str | Path, label: str | None = None) -> Method:
        """Return a folder of fused images, NAME.EXT or NAME_fused.EXT for each pair NAME."""
        return Method(label or _name_of(path), "fused", str(path))

    @staticmethod
    def bundle(
        path: str | Path,
        label: str | None = None,
        backend: BackendChoice = "onnxruntime",
        *,
        trust_engines: bool = False,
    ) -> Method:
        """Return a bundle, which fuses every pair; pairs of another size are padded or cut into tiles.

        Args:
            path: The folder of the bundle.
            label: Name in results; the folder's name if None.
            backend: What runs the bundle.
            trust_engines: Load engines that this user did not build, too.

        Raises:
            InputError: The backend is unknown.
        """
        check_choice("backend", backend, ("auto", *get_args(BackendName)))
        return Method(
            label or _name_of(path), "bundle", str(path), backend=backend, trust_engines=trust_engines
        )

    @staticmethod
    def weights(path: str | Path, task: Task, label: str | None = None) -> Method:
        """Return a PyTorch model, which fuses each pair at its own size.

        Args:
            path: A checkpoint, or `tiny` or `nano` for the weights in this package.
            task: The task whose routers fuse.
            label: Name in results; the file's name if None.

        Raises:
            InputError: The task is unknown.
        """
        check_choice("task", task, TASKS)
        return Method(label or Path(path).stem, "weights", str(path), task=task)

    @staticmethod
    def baseline(name: BaselineName) -> Method:
        """Return a classical method of `tcmoa_calibration.baselines.BASELINES`.

        Raises:
            InputError: The name is unknown.
        """
        check_choice("baseline", name, BASELINE_NAMES)
        return Method(name, "baseline", name)

    def describe(self) -> str:
        """Describe the method in one line.

        Raises:
            InputError: The bundle cannot be read.
        """
        if self.kind == "fused":
            return f"images in {self.source}"
        if self.kind == "baseline":
            return BASELINES[self.source].description
        if self.kind == "weights":
            return f"weights {self.source}, task {self.task}, at each pair's own size"
        bundle = Bundle.open(self.source)
        size = format_size((bundle.contract.height, bundle.contract.width))
        return f"bundle {self.source}, {bundle.task}, {size}, {bundle.precision}, with {self.backend}"

    def fingerprint(self) -> JsonObject:
        """Return what decides the fused images besides the pair, to check whether a cached result is still valid.

        Nothing decides the images of a folder: its files are hashed for each pair.

        Raises:
            InputError: The bundle or the weights cannot be read.
        """
        if self.kind == "fused":
            return {"kind": self.kind}
        if self.kind == "baseline":
            return {"kind": self.kind, "name": self.source, "cv2": _version("opencv-python-headless")}
        if self.kind == "weights":
            weights = file_sha256(_weights_path(self.source))
            return {"kind": self.kind, "task": self.task, "sha256": weights, "torch": _version("torch")}
        bundle = Bundle.open(self.source)
        of_bundle: JsonObject = {
            "kind": self.kind,
            "backend": self.backend,
            "manifest": str(bundle.manifest[SELF_HASH]),
        }
        if self.backend == "onnxruntime":
            return {**of_bundle, "onnxruntime": _version("onnxruntime")}
        return {**of_bundle, "engines": [file_sha256(path) for path in find_engines(bundle)]}


@dataclass(frozen=True)
class FusedFolder:
    """A folder of fused images, found by the names of pairs."""

    path: Path

    @cached_property
    def _paths_by_stem(self) -> dict[str, list[Path]]:
        if not self.path.is_dir():
            raise InputError("no such folder of fused images", subject=self.path)
        found: dict[str, list[Path]] = {}
        for path in sorted(self.path.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
                found.setdefault(path.stem, []).append(path)
        return found

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError if the folder has no fused image of any of these pairs."""
        if not any(stem in self._paths_by_stem for name in names for stem in (name, f"{name}_fused")):
            examples = [paths[0].name for paths in list(self._paths_by_stem.values())[:_MAX_SHOWN_FILES]]
            raise InputError(
                f"no image has the name of a pair: it holds {', '.join(examples) or 'no images'}; "
                f"expected NAME.EXT or NAME_fused.EXT",
                subject=self.path,
            )

    def find(self, name: str) -> Path:
        """Return the fused image of a pair.

        Raises:
            InputError: There is none, or more than one.
        """
        paths = [path for stem in (name, f"{name}_fused") for path in self._paths_by_stem.get(stem, [])]
        if len(paths) > 1:
            listed = " and ".join(path.name for path in paths)
            raise InputError(
                f"{listed} are fused images of the pair {name}; expected one",
                subject=self.path,
                remedy="Remove the others",
            )
        if not paths:
            raise InputError(
                f"no fused image of the pair {name}; expected {name}.EXT or {name}_fused.EXT",
                subject=self.path,
            )
        return paths[0]


def check_methods(methods: Sequence[Method]) -> None:
    """Raise InputError if there are no methods, or two have the same label."""
    if not methods:
        raise InputError(
            "no methods to evaluate; expected fused images, bundles, weights or baselines",
            remedy="Add one, e.g. {baselines}",
            settings={"baselines": ("average",)},
        )
    by_label: dict[str, Method] = {}
    for method in methods:
        other = by_label.setdefault(method.label, method)
        if other is not method:
            raise InputError(
                f"the label of both {other.source} and {method.source}; expected different labels",
                subject=method.label,
                remedy="Give one of them another label",
            )


def _name_of(path: str | Path) -> str:
    return Path(path).name or Path(path).resolve().name or "fused"


def _weights_path(source: str) -> Path:
    """Return the path of a checkpoint or of the weights in this package, without importing PyTorch."""
    path = Path(source)
    if not path.is_file() and source == path.name and not path.suffix:
        package = importlib.util.find_spec("tcmoa")
        for folder in (package.submodule_search_locations or []) if package else []:
            included = Path(folder) / "weights_data" / f"{source}.safetensors"
            if included.is_file():
                return included
    if not path.is_file():
        raise InputError("no such weights; expected a checkpoint file, `tiny` or `nano`", subject=source)
    return path


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
