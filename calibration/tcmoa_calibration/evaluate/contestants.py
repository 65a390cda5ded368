"""Who takes part in an evaluation: folders of fused images, bundles, weights and the classical baselines."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from tcmoa_calibration.baselines import BASELINES
from tcmoa_runtime.backends.pick import BACKENDS
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import TASKS
from tcmoa_runtime.engine import find_engines
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES
from tcmoa_runtime.manifest import SELF_HASH, file_sha256

Kind = Literal["fused", "bundle", "weights", "baseline"]

DEFAULT_BASELINES: Final = ("average", "maximum", "laplacian", "mertens")
DEFAULT_BACKEND: Final = "onnxruntime"


@dataclass(frozen=True)
class Contestant:
    """One column of an evaluation; made by `folder`, `bundle`, `weights` or `baseline`."""

    label: str
    kind: Kind
    source: str
    """The folder, the bundle, the weights file (or `tiny` or `nano`), or the baseline's name."""
    option: str = ""
    """Of a bundle its backend, of weights their task."""

    @staticmethod
    def folder(path: str | Path, label: str | None = None) -> Contestant:
        """Fused images NAME.EXT or NAME_fused.EXT that some method wrote."""
        return Contestant(label or _name_of(path), "fused", str(path))

    @staticmethod
    def bundle(path: str | Path, label: str | None = None, backend: str = DEFAULT_BACKEND) -> Contestant:
        """A bundle, which fuses every pair; pairs of another size than its frames are resized to it and back."""
        known = ("auto", *BACKENDS)
        if backend not in known:
            raise InputError(f"backend {backend!r} is not known: expected one of {', '.join(known)}")
        return Contestant(label or _name_of(path), "bundle", str(path), backend)

    @staticmethod
    def weights(path: str | Path, task: str | None, label: str | None = None) -> Contestant:
        """The unfolded model with these weights (`tiny`, `nano`: those of the package), at each pair's own size."""
        if task not in TASKS:
            told = "no task" if task is None else f"task {task!r}"
            raise InputError(f"weights {path}: {told} was given, expected --task {', '.join(TASKS)}")
        return Contestant(label or Path(path).stem, "weights", str(path), task)

    @staticmethod
    def baseline(name: str) -> Contestant:
        """One of `tcmoa_calibration.baselines.BASELINES`."""
        if name not in BASELINES:
            raise InputError(f"baseline {name!r} is not known: expected some of {', '.join(BASELINES)}")
        return Contestant(name, "baseline", name)

    def description(self) -> str:
        """One line: what it is."""
        if self.kind == "fused":
            return f"images in {self.source}"
        if self.kind == "baseline":
            return BASELINES[self.source].what
        if self.kind == "weights":
            return f"weights {self.source}, task {self.option}, at each pair's own size"
        bundle = Bundle.open(self.source)
        size = f"{bundle.contract.width}x{bundle.contract.height}"
        return f"bundle {self.source}, {bundle.task}, {size}, {bundle.precision}, by {self.option}"

    def fingerprint(self) -> dict[str, Any]:
        """All but the pair that decides its fused images, to know whether a result is still valid.

        Folders have none of their own: there the fused file counts. Raises InputError where the bundle or the
        weights are not there.
        """
        if self.kind == "fused":
            return {"kind": self.kind}
        made: dict[str, Any] = {"kind": self.kind, "option": self.option}
        if self.kind == "baseline":
            return {**made, "name": self.source, "cv2": _version("opencv-python-headless")}
        if self.kind == "weights":
            return {**made, "sha256": file_sha256(_weights_file(self.source)), "torch": _version("torch")}
        bundle = Bundle.open(self.source)
        made["manifest"] = bundle.manifest[SELF_HASH]
        if self.option == DEFAULT_BACKEND:
            return {**made, "onnxruntime": _version("onnxruntime")}
        return {**made, "engines": [file_sha256(path) for path in find_engines(bundle)]}


@dataclass(frozen=True)
class FusedFolder:
    """The fused images of a folder, found by the names of pairs."""

    path: Path

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder of fused images")
        found: dict[str, list[Path]] = {}
        for path in sorted(self.path.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
                found.setdefault(path.stem, []).append(path)
        return found

    def check(self, names: Iterable[str]) -> None:
        """InputError where no fused image at all belongs to one of these pairs."""
        if not any(stem in self._by_stem for name in names for stem in (name, f"{name}_fused")):
            have = ", ".join(next(iter(files)).name for files in list(self._by_stem.values())[:3])
            raise InputError(
                f"{self.path}: no image has the name of a pair; expected NAME.EXT or NAME_fused.EXT, it holds "
                f"{have or 'no images'}"
            )

    def find(self, name: str) -> Path:
        """The fused image of the pair `name`; InputError where there is none or more than one."""
        files = [path for stem in (name, f"{name}_fused") for path in self._by_stem.get(stem, [])]
        if len(files) > 1:
            told = " and ".join(path.name for path in files)
            raise InputError(f"{self.path}: {told} are both fused images of {name}; keep one of them")
        if not files:
            raise InputError(
                f"{self.path}: no fused image of {name}; expected {name}.EXT or {name}_fused.EXT"
            )
        return files[0]


def parse_baselines(text: str) -> list[Contestant]:
    """`average,mertens`, `all` or `none`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == ["none"]:
        return []
    names = list(BASELINES) if words == ["all"] else list(dict.fromkeys(words))
    if not names:
        raise InputError(f"baselines are {text!r}: expected some of {', '.join(BASELINES)}, or all, or none")
    return [Contestant.baseline(name) for name in names]


def split_label(text: str) -> tuple[str | None, str]:
    """`LABEL=PATH` or `PATH`, which may hold a `=` itself where it is there."""
    label, found, path = text.partition("=")
    if not found or Path(text).exists():
        return None, text
    if not label.strip() or not path:
        raise InputError(f"{text!r}: expected PATH or LABEL=PATH")
    return label.strip(), path


def check_labels(contestants: Sequence[Contestant]) -> None:
    """InputError where there is no contestant, or two have one label."""
    if not contestants:
        raise InputError("nobody to evaluate: give --fused, --bundle, --weights, or some --baselines")
    seen: dict[str, Contestant] = {}
    for entry in contestants:
        other = seen.setdefault(entry.label, entry)
        if other is not entry:
            raise InputError(
                f"two contestants are called {entry.label!r} ({other.source} and {entry.source}): "
                f"tell them apart by LABEL=PATH"
            )


def _name_of(path: str | Path) -> str:
    return Path(path).name or Path(path).resolve().name or "fused"


def _weights_file(source: str) -> Path:
    """The weights file; that of `tiny` without importing PyTorch."""
    file = Path(source)
    if not file.is_file() and source == file.name and not file.suffix:
        found = importlib.util.find_spec("tcmoa")
        for folder in (found.submodule_search_locations or []) if found else []:
            shipped = Path(folder) / "weights_data" / f"{source}.safetensors"
            if shipped.is_file():
                return shipped
    if not file.is_file():
        raise InputError(f"{source}: no such weights; give a checkpoint file, or `tiny` or `nano`")
    return file


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
