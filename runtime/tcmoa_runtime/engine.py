"""TensorRT engines in a bundle: their descriptions, which are checked before an engine is loaded.

    engines/<flavor>-<version>-<targets>-<precision>.engine   as the builder serialized it
    engines/<same name>.json                                  its description; carries the engine's hash and its own

Engines of a bundle that was installed with the package are in the user's data folder, as the package is not written to.

Loading an engine runs native code. So an engine is only loaded from inside its bundle, with a matching hash, on the
library version and the kind of GPU that it was built for, and if its maker is trusted, see `engine_trust`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar, get_args

from tcmoa_runtime.bundle import Bundle, FileEntry
from tcmoa_runtime.engine_folders import ENGINE_SUFFIX, check_inside, engines_folder, make_engines_folder
from tcmoa_runtime.errors import BundleError, in_remedy
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.manifest import (
    SELF_HASH,
    ManifestFormat,
    ManifestReader,
    contract_to_json,
    manifest_sha256,
    read_manifest,
)
from tcmoa_runtime.regular_file import open_regular_file
from tcmoa_runtime.typing import Flavor, HardwareCompatibility, JsonObject, Precision

FLAVORS: Final[tuple[Flavor, ...]] = get_args(Flavor)
"""Flavors, the preferred one first."""
PRECISIONS: Final[tuple[Precision, ...]] = ("fp16", "bf16", "fp32")
"""Precisions, the preferred one first."""
COMPATIBILITIES: Final[tuple[HardwareCompatibility, ...]] = get_args(HardwareCompatibility)
LOCAL_TARGET: Final = "local"
"""In a file name, the target of an engine that was built for the GPU of the builder's machine."""

_FORMAT: Final = "tcmoa-engine"
_FORMAT_VERSION: Final = 1
_VERSION: Final = re.compile(r"[0-9A-Za-z._]+")
_TARGET: Final = re.compile(r"sm([0-9]{1,2})([0-9])")
_CAPABILITY: Final = re.compile(r"([0-9]{1,2})\.([0-9])")
_AMPERE: Final = (8, 0)

ChoiceT = TypeVar("ChoiceT", bound=str)


def engine_stem(flavor: str, version: str, targets: Sequence[str], precision: str) -> str:
    """Return the file name of an engine without suffix, e.g. `rtx-1.7.1.116-sm86+sm89-fp16`."""
    return f"{flavor}-{version}-{'+'.join(targets) or LOCAL_TARGET}-{precision}"


@dataclass(frozen=True)
class BuilderGpu:
    """The GPU that an engine was built on: its name, and its compute capability, e.g. `8.9`."""

    name: str
    compute_capability: str


@dataclass(frozen=True, kw_only=True)
class EngineDescription:
    """What an engine was built for, and how.

    Attributes:
        flavor: Library that built it.
        version: Version of that library; only the same version runs the engine.
        precision: Precision of the graph.
        targets: GPUs that it was built for ahead of time, e.g. `sm86`; empty: the GPU of the builder's machine.
        hardware_compatibility: On which other GPUs it runs.
        gpu: GPU of the builder's machine, None where the builder needed none.
        stripped: Whether the engine has no weights and is refitted when it is loaded.
        weights: Name in `engines/` of the ONNX file that a stripped engine is refitted from; None: the bundle's graph.
        options: Options of the builder.
    """

    flavor: Flavor
    version: str
    precision: Precision
    targets: tuple[str, ...] = ()
    hardware_compatibility: HardwareCompatibility = "none"
    gpu: BuilderGpu | None = None
    stripped: bool = False
    weights: str | None = None
    options: JsonObject = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """File name without suffix."""
        return engine_stem(self.flavor, self.version, self.targets, self.precision)

    def mismatch(self, flavor: str, version: str, compute_capability: str) -> str | None:
        """Say why the engine does not run on a machine.

        Args:
            flavor: Flavor of the library that is to run it.
            version: Version of that library.
            compute_capability: Compute capability of the GPU, e.g. `8.9`.

        Returns:
            The reason, or None when the engine runs.
        """
        if flavor != self.flavor:
            return f"an engine of flavor {self.flavor}; expected {flavor}"
        if version != self.version:
            return f"built by {self.flavor} {self.version}; expected {version}, the installed version"
        if _parse_pair(_CAPABILITY, compute_capability) in self._capabilities(compute_capability):
            return None
        return f"built for {self._describe_gpus()}; expected compute capability {compute_capability}, that of this GPU"

    def _capabilities(self, candidate: str) -> set[tuple[int, int]]:
        """Return compute capabilities that the engine runs on; whether `candidate` is among them is right."""
        found = {_parse_pair(_TARGET, target) for target in self.targets}
        if self.gpu is not None:
            found.add(_parse_pair(_CAPABILITY, self.gpu.compute_capability))
        if self.hardware_compatibility == "ampere_plus":
            found.add(_parse_pair(_CAPABILITY, candidate))
            return {pair for pair in found if pair >= _AMPERE}
        return found

    def _describe_gpus(self) -> str:
        names = [target.upper() for target in self.targets]
        if self.gpu is not None:
            names.append(f"{self.gpu.name} ({self.gpu.compute_capability})")
        if self.hardware_compatibility == "ampere_plus":
            names.append("compute capability 8.0 and above")
        return ", ".join(names) or "an unknown GPU"


@dataclass(frozen=True, kw_only=True)
class Engine(EngineDescription):
    """A checked description of an engine on disk; use `Engine.open`.

    Attributes:
        path: The engine.
        bundle: The bundle that it belongs to.
        manifest: The parsed JSON beside it: the description, and the kernels that the builder's audit found.
        engine_entry: Hash and size of the engine.
        weights_entry: Hash and size of the file `weights`.
    """

    path: Path
    bundle: Bundle
    manifest: JsonObject
    engine_entry: FileEntry
    weights_entry: FileEntry | None

    @staticmethod
    def open(bundle: Bundle, path: str | os.PathLike[str]) -> Engine:
        """Read and check the JSON beside an engine; the engine itself is not read.

        Args:
            bundle: The bundle that the engine belongs to.
            path: The engine.

        Raises:
            BundleError: The engine lies outside the bundle, its JSON is missing, damaged, foreign, of a newer format
                or edited, or it describes an engine of another graph.
        """
        file = Path(path)
        remedy = rebuild_remedy(bundle, file.name)
        check_inside(bundle, file, remedy)
        manifest_path = file.with_suffix(".json")
        if not manifest_path.is_file():
            raise BundleError(
                f"has no {manifest_path.name} beside it; expected one that describes the engine",
                subject=file,
                remedy=remedy,
            )
        form = ManifestFormat(_FORMAT, _FORMAT_VERSION, "the description of an engine", remedy)
        reader = ManifestReader(manifest_path, read_manifest(manifest_path, form), remedy)
        engine = _read_engine(bundle, file, reader)
        _check_graph(bundle, reader)
        if engine.stem != file.stem:
            raise BundleError(
                f"was renamed; expected {engine.stem}{ENGINE_SUFFIX}, which its JSON describes",
                subject=file,
                remedy=remedy,
            )
        return engine

    @property
    def remedy(self) -> str:
        """What to do when the engine must not be used."""
        return rebuild_remedy(self.bundle, self.stem)

    def read(self) -> bytes:
        """Return the engine's bytes, hashed as read, so that what is loaded is what was checked.

        Raises:
            BundleError: Size or hash differ from the JSON, or the file cannot be read.
        """
        return self._read(self.path, self.engine_entry)

    def read_weights(self) -> bytes:
        """Return the bytes of the file `weights`, hashed as read; raises BundleError like `read`."""
        if self.weights is None or self.weights_entry is None:
            raise ValueError("this engine has no weights file")
        return self._read(self.path.with_name(self.weights), self.weights_entry)

    def _read(self, path: Path, expected: FileEntry) -> bytes:
        check_inside(self.bundle, path, self.remedy)
        try:
            with open_regular_file(path, follow_links=True) as file:  # a link within the folder
                size = os.fstat(file.fileno()).st_size
                data = file.read(expected.bytes + 1) if size == expected.bytes else b""
        except OSError as error:
            raise BundleError(
                f"cannot be read: {error.strerror}", subject=path, remedy=self.remedy
            ) from error
        if len(data) != expected.bytes:
            raise BundleError(
                f"{size} bytes, truncated or another file; expected {expected.bytes} as in its JSON",
                subject=path,
                remedy=self.remedy,
            )
        arrived = hashlib.sha256(data).hexdigest()
        if arrived != expected.sha256:
            raise BundleError(
                f"SHA-256 is {arrived[:12]}…, so the file was changed since it was built; "
                f"expected {expected.sha256[:12]}… as in its JSON",
                subject=path,
                remedy=self.remedy,
            )
        return data


def write_engine(
    bundle: Bundle, data: bytes, description: EngineDescription, audit: JsonObject | None = None
) -> Engine:
    """Write an engine and its JSON into a bundle's `engines_folder`, in place of one of the same name.

    Args:
        bundle: The bundle.
        data: The serialized engine.
        description: What the engine was built for. Its `weights` are in `engines/` already.
        audit: Kernels and further facts for `tcmoa inspect`; keys of the description take precedence.

    Returns:
        The engine, opened. An interruption leaves no engine with the JSON of another one.

    Raises:
        BundleError: `Engine.open` would refuse the description.
        InputError: A file cannot be written.
    """
    folder = engines_folder(bundle)
    path = folder / f"{description.stem}{ENGINE_SUFFIX}"
    manifest_path = path.with_suffix(".json")
    weights = description.weights
    gpu = description.gpu
    manifest: JsonObject = {
        **(audit or {}),
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "flavor": description.flavor,
        "version": description.version,
        "precision": description.precision,
        "targets": list(description.targets),
        "hardware_compatibility": description.hardware_compatibility,
        "gpu": None if gpu is None else {"name": gpu.name, "compute_capability": gpu.compute_capability},
        "graph": _graph_to_json(bundle),
        "engine": _entry_to_json(data),
        "stripped": description.stripped,
        "weights": None
        if weights is None
        else {"file": weights, **_entry_to_json(folder.joinpath(weights).read_bytes())},
        "contract": contract_to_json(bundle.contract),
        "options": dict(description.options),
    }
    manifest[SELF_HASH] = manifest_sha256(manifest)
    _read_engine(bundle, path, ManifestReader(manifest_path, manifest, rebuild_remedy(bundle, path.name)))
    make_engines_folder(bundle)
    manifest_path.unlink(missing_ok=True)
    write_bytes(path, data)
    write_bytes(manifest_path, (json.dumps(manifest, indent=2) + "\n").encode())
    return Engine.open(bundle, path)


def rebuild_remedy(bundle: Bundle, name: str) -> str:
    """Return the remedy for an engine of this file name that must not be used."""
    flavor = next((flavor for flavor in FLAVORS if name.startswith(f"{flavor}-")), None)
    which = "" if flavor is None else f", flavor {flavor}"
    return f"Build the engine again with `tcmoa build {in_remedy(bundle.spelling)}`{which}"


def _entry_to_json(data: bytes) -> JsonObject:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _graph_to_json(bundle: Bundle) -> JsonObject:
    """Identify the graph that an engine was built from."""
    return {
        "name": bundle.graph_name,
        "files": {name: entry.sha256 for name, entry in bundle.files.items()},
    }


def _parse_pair(pattern: re.Pattern[str], text: str) -> tuple[int, int]:
    """Parse a compute capability, `sm89` or `8.9`, into (major, minor)."""
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a compute capability")
    return int(match[1]), int(match[2])


def _read_engine(bundle: Bundle, path: Path, reader: ManifestReader) -> Engine:
    """Check all that the runtime relies on."""
    reader.part("contract")
    graph = reader.part("graph")
    graph.get("name", str)
    graph.get("files", dict)
    weights, weights_entry = _read_weights(reader)
    return Engine(
        flavor=_read_choice(reader, "flavor", FLAVORS),
        version=_read_text(reader, "version", _VERSION, "a version number"),
        precision=_read_choice(reader, "precision", PRECISIONS),
        targets=_read_targets(reader),
        hardware_compatibility=_read_choice(reader, "hardware_compatibility", COMPATIBILITIES),
        gpu=_read_gpu(reader),
        stripped=reader.get("stripped", bool),
        weights=weights,
        options=reader.get("options", dict),
        path=path,
        bundle=bundle,
        manifest=dict(reader.values),
        engine_entry=_read_entry(reader.part("engine")),
        weights_entry=weights_entry,
    )


def _read_choice(reader: ManifestReader, key: str, choices: tuple[ChoiceT, ...]) -> ChoiceT:
    value = reader.get(key, str, among=choices)
    return next(choice for choice in choices if choice == value)


def _read_text(reader: ManifestReader, key: str, pattern: re.Pattern[str], expected: str) -> str:
    text = reader.get(key, str)
    if not pattern.fullmatch(text):
        reader.refuse(key, expected)
    return text


def _read_targets(reader: ManifestReader) -> tuple[str, ...]:
    targets = reader.get("targets", list)
    if not all(isinstance(target, str) and _TARGET.fullmatch(target) for target in targets):
        reader.refuse("targets", "compute capabilities, e.g. ['sm89']")
    return tuple(targets)


def _read_gpu(reader: ManifestReader) -> BuilderGpu | None:
    if reader.values.get("gpu") is None:
        return None
    gpu = reader.part("gpu")
    return BuilderGpu(
        gpu.get("name", str),
        _read_text(gpu, "compute_capability", _CAPABILITY, "a compute capability, e.g. '8.9'"),
    )


def _read_weights(reader: ManifestReader) -> tuple[str | None, FileEntry | None]:
    if reader.values.get("weights", ...) is None:
        return None, None
    weights = reader.part("weights")
    name = weights.get("file", str)
    if Path(name).name != name or name.startswith("."):
        weights.refuse("file", "a file name")
    return name, _read_entry(weights)


def _read_entry(reader: ManifestReader) -> FileEntry:
    return FileEntry(reader.get("sha256", str), reader.get("bytes", int))


def _check_graph(bundle: Bundle, reader: ManifestReader) -> None:
    """Check that the engine was built from the bundle's graph."""
    if reader.values["graph"] != _graph_to_json(bundle):
        raise BundleError(
            f"the engine was built from the graph '{reader.part('graph').get('name', str)}'; "
            f"expected '{bundle.graph_name}', with the same bytes",
            subject=reader.path,
            remedy=reader.remedy,
        )
    if reader.values["contract"] != contract_to_json(bundle.contract):
        raise BundleError(
            "'contract' differs; expected that of bundle.json", subject=reader.path, remedy=reader.remedy
        )
