"""TensorRT engines of a bundle: what is known of one before anything of it is loaded.

    engines/<flavor>-<version>-<targets>-<precision>.engine   as the builder serialised it
    engines/<same name>.json                                   what it is; carries the engine's hash and its own

Loading an engine equals running native code: only from inside the bundle, only with a matching hash, only on
the library version and the kind of GPU that it was built for.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import BundleError
from tcmoa_runtime.manifest import SELF_HASH, ManifestReader, contract_to_json, manifest_sha256, read_manifest

FORMAT: Final = "tcmoa-engine"
FORMAT_VERSION: Final = 1
FOLDER: Final = "engines"
SUFFIX: Final = ".engine"
FLAVORS: Final = ("tensorrt", "rtx")
"""`tensorrt` for data centres and workstations, `rtx` for GeForce and RTX; the one preferred comes first."""
PRECISIONS: Final = ("fp16", "bf16", "fp32")
"""Of the graph's arithmetic; the one preferred comes first."""
COMPATIBILITIES: Final = ("none", "ampere_plus", "same_compute_capability")
"""On which other GPUs an engine runs, as the builder was asked."""
LOCAL: Final = "local"
"""Stands in a name for the targets of an engine that was built for the GPU beside it."""

_VERSION: Final = re.compile(r"[0-9A-Za-z._]+")
_TARGET: Final = re.compile(r"sm([0-9]{1,2})([0-9])")
_CAPABILITY: Final = re.compile(r"([0-9]{1,2})\.([0-9])")
_AMPERE: Final = (8, 0)


def engine_stem(flavor: str, version: str, targets: Sequence[str], precision: str) -> str:
    """Name of an engine without suffix, e.g. `rtx-1.7.1.116-sm86+sm89-fp16` or `tensorrt-11.0.0.12-local-fp32`."""
    return f"{flavor}-{version}-{'+'.join(targets) or LOCAL}-{precision}"


def find_engines(bundle: Bundle) -> list[Path]:
    """Paths of the engines in a bundle, by name; none of them is opened. Raises BundleError when unreadable."""
    folder = bundle.path / FOLDER
    try:
        return sorted(p for p in folder.iterdir() if p.suffix == SUFFIX) if folder.is_dir() else []
    except OSError as error:
        raise BundleError(
            f"{folder}: cannot be read: {error.strerror}; make it readable, or {_again(bundle)}"
        ) from error


@dataclass(frozen=True)
class Engine:
    """A checked description of an engine on disk; `Engine.open` is the way to get one.

    `manifest` is the parsed JSON beside it. The engine's bytes are only handed out after their hash was
    compared.
    """

    path: Path
    bundle: Bundle
    manifest: dict[str, Any]

    @staticmethod
    def open(bundle: Bundle, path: str | os.PathLike[str]) -> Engine:
        """Read and check the JSON beside the engine at `path`; cheap, the engine is not touched yet.

        Raises BundleError when the engine lies outside the bundle, when its JSON is missing, damaged, foreign,
        of a newer format or edited by hand, and when it describes an engine of another graph.
        """
        file = Path(path)
        again = _again(bundle, file.name)
        _check_inside(bundle, file, again)
        manifest_path = file.with_suffix(".json")
        if not manifest_path.is_file():
            raise BundleError(f"{file}: has no {manifest_path.name} beside it that tells what it is; {again}")
        manifest = read_manifest(manifest_path, FORMAT, FORMAT_VERSION, "the description of an engine", again)
        _check_manifest(ManifestReader(manifest_path, manifest, again))
        _check_belongs(bundle, manifest_path, manifest, again)
        engine = Engine(file, bundle, manifest)
        if engine.stem != file.stem:
            raise BundleError(f"{file}: its JSON describes {engine.stem}{SUFFIX}; it was renamed: {again}")
        return engine

    @property
    def flavor(self) -> str:
        """`tensorrt` or `rtx`."""
        return str(self.manifest["flavor"])

    @property
    def version(self) -> str:
        """Exact version of the library that built it, the only one that runs it."""
        return str(self.manifest["version"])

    @property
    def precision(self) -> str:
        """`fp32`, `fp16` or `bf16`."""
        return str(self.manifest["precision"])

    @property
    def targets(self) -> tuple[str, ...]:
        """GPUs it was built for ahead of time, as `sm86`; none when it was built for the GPU beside it."""
        return tuple(self.manifest["targets"])

    @property
    def stripped(self) -> bool:
        """Whether it holds no weights, so that they have to be refitted."""
        return bool(self.manifest["stripped"])

    @property
    def weights(self) -> str | None:
        """Name in `engines/` of the ONNX file that a stripped engine is refitted from; None: the bundle's graph."""
        return None if self.manifest["weights"] is None else str(self.manifest["weights"]["file"])

    @property
    def stem(self) -> str:
        """The name that its description asks for, without suffix."""
        return engine_stem(self.flavor, self.version, self.targets, self.precision)

    @property
    def again(self) -> str:
        """What to do when it must not be used."""
        return _again(self.bundle, self.stem)

    def read(self) -> bytes:
        """The engine's bytes, hashed as read, so that what is loaded is what was checked; else BundleError."""
        return self._read(self.path, self.manifest["engine"])

    def read_weights(self) -> bytes:
        """The bytes of the file `weights`, hashed as read; else BundleError."""
        return self._read(self.path.with_name(self.manifest["weights"]["file"]), self.manifest["weights"])

    def _read(self, path: Path, wanted: Mapping[str, Any]) -> bytes:
        _check_inside(self.bundle, path, self.again)
        try:
            size = path.stat().st_size
            data = path.read_bytes() if size == wanted["bytes"] else b""
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}; {self.again}") from error
        if len(data) != wanted["bytes"]:
            raise BundleError(
                f"{path}: {size} bytes, its JSON says {wanted['bytes']}; it is truncated or another file: {self.again}"
            )
        arrived = hashlib.sha256(data).hexdigest()
        if arrived != wanted["sha256"]:
            raise BundleError(
                f"{path}: SHA-256 is {arrived[:12]}…, its JSON says {wanted['sha256'][:12]}…; it was changed since it "
                f"was built: {self.again}"
            )
        return data

    def fits(self, flavor: str, version: str, compute_capability: str) -> str | None:
        """Why it does not run on this library and GPU (`compute_capability` as `8.9`), or None when it does."""
        if flavor != self.flavor:
            return f"it is an engine of flavor {self.flavor}, expected {flavor}"
        if version != self.version:
            return f"it was built by {self.flavor} {self.version}, installed is {version}"
        if _pair(_CAPABILITY, compute_capability) in self._capabilities(compute_capability):
            return None
        return f"it was built for {self._built_for()}, this GPU has compute capability {compute_capability}"

    def _capabilities(self, asked: str) -> set[tuple[int, int]]:
        """Compute capabilities that it runs on, as far as `asked` is one of them."""
        found = {_pair(_TARGET, target) for target in self.targets}
        if self.manifest["gpu"] is not None:
            found.add(_pair(_CAPABILITY, self.manifest["gpu"]["compute_capability"]))
        if self.manifest["hardware_compatibility"] == "ampere_plus":
            found = {_pair(_CAPABILITY, asked)} | found
            return {pair for pair in found if pair >= _AMPERE}
        return found

    def _built_for(self) -> str:
        names = [t.upper() for t in self.targets]
        if self.manifest["gpu"] is not None:
            names.append("{name} ({compute_capability})".format(**self.manifest["gpu"]))
        if self.manifest["hardware_compatibility"] == "ampere_plus":
            names.append("compute capability 8.0 and above")
        return ", ".join(names) or "no GPU that its JSON names"


def write_engine(
    bundle: Bundle,
    data: bytes,
    *,
    flavor: str,
    version: str,
    precision: str,
    targets: Sequence[str] = (),
    hardware_compatibility: str = "none",
    gpu: Mapping[str, str] | None = None,
    stripped: bool = False,
    weights: str | None = None,
    options: Mapping[str, Any] | None = None,
    audit: Mapping[str, Any] | None = None,
) -> Engine:
    """Write an engine and its JSON into the bundle, in place of one of the same name, and open it.

    `data`: the serialised engine. `gpu`: `name` and `compute_capability` ("8.9") of the machine it was built
    on. `weights`: name of a file that already lies in `engines/`. `audit`: the figures that `inspect` shows.
    An interruption leaves no engine with the wrong JSON. Raises BundleError on values that `Engine.open` would
    refuse, InputError when it cannot be written.
    """
    from tcmoa_runtime.images import write_bytes  # which needs numpy

    folder = bundle.path / FOLDER
    path = folder / f"{engine_stem(flavor, version, targets, precision)}{SUFFIX}"
    manifest_path = path.with_suffix(".json")
    manifest: dict[str, Any] = {
        **(audit or {}),
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "flavor": flavor,
        "version": version,
        "precision": precision,
        "targets": list(targets),
        "hardware_compatibility": hardware_compatibility,
        "gpu": None if gpu is None else dict(gpu),
        "graph": _graph_of(bundle),
        "engine": _entry(data),
        "stripped": stripped,
        "weights": None
        if weights is None
        else {"file": weights, **_entry(folder.joinpath(weights).read_bytes())},
        "contract": contract_to_json(bundle.contract),
        "options": dict(options or {}),
    }
    manifest[SELF_HASH] = manifest_sha256(manifest)
    _check_manifest(ManifestReader(manifest_path, manifest, _again(bundle, path.name)))
    folder.mkdir(exist_ok=True)
    manifest_path.unlink(missing_ok=True)
    write_bytes(path, data)
    write_bytes(manifest_path, (json.dumps(manifest, indent=2) + "\n").encode())
    return Engine.open(bundle, path)


def _entry(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _graph_of(bundle: Bundle) -> dict[str, Any]:
    """Which graph an engine was built from."""
    return {"name": bundle.graph_name, "files": {n: f["sha256"] for n, f in bundle.files.items()}}


def _again(bundle: Bundle, name: str = "") -> str:
    flavor = next((f for f in FLAVORS if name.startswith(f"{f}-")), "|".join(FLAVORS))
    return f"build it again with `tcmoa build {bundle.path} --flavor {flavor}`"


def _pair(pattern: re.Pattern[str], text: str) -> tuple[int, int]:
    """Compute capability (major, minor) of `sm89` or `8.9`."""
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no compute capability")
    return int(match[1]), int(match[2])


def _check_inside(bundle: Bundle, path: Path, again: str) -> None:
    """An engine's file must lie in `engines/`, also after symbolic links were followed."""
    if path.suffix == SUFFIX and not path.is_file():
        raise BundleError(f"{path}: no such engine; {again}")
    try:
        folder, target = path.parent.resolve(), path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise BundleError(f"{path}: cannot be read ({error}); {again}") from error
    root = bundle.path.resolve()
    if folder != root / FOLDER or target.parent != folder:
        raise BundleError(
            f"{path}: lies outside of {bundle.path / FOLDER}, and an engine runs as native code: engines are only "
            f"loaded from their bundle; {again}"
        )


def _check_manifest(reader: ManifestReader) -> None:
    """Check all that the runtime relies on."""
    reader.get("flavor", str, among=FLAVORS)
    reader.get("precision", str, among=PRECISIONS)
    reader.get("hardware_compatibility", str, among=COMPATIBILITIES)
    _check_text(reader, "version", _VERSION)
    for target in reader.get("targets", list):
        if not isinstance(target, str) or not _TARGET.fullmatch(target):
            raise BundleError(
                f"{reader.path}: 'targets' holds {target!r}, expected e.g. 'sm89'; {reader.again}"
            )
    if reader.values.get("gpu") is not None:
        gpu = reader.part("gpu")
        gpu.get("name", str)
        _check_text(gpu, "compute_capability", _CAPABILITY)
    graph = reader.part("graph")
    graph.get("name", str)
    graph.get("files", dict)
    _check_entry(reader.part("engine"))
    reader.get("stripped", bool)
    reader.get("options", dict)
    if reader.values.get("weights", ...) is not None:
        weights = reader.part("weights")
        name = weights.get("file", str)
        if Path(name).name != name or name.startswith("."):
            raise BundleError(
                f"{reader.path}: 'weights.file' is {name!r}, expected a file name; {reader.again}"
            )
        _check_entry(weights)


def _check_text(reader: ManifestReader, key: str, pattern: re.Pattern[str]) -> None:
    text = reader.get(key, str)
    if not pattern.fullmatch(text):
        raise BundleError(
            f"{reader.path}: '{reader.prefix}{key}' is {text!r}, expected a version number; {reader.again}"
        )


def _check_entry(reader: ManifestReader) -> None:
    reader.get("sha256", str)
    reader.get("bytes", int)


def _check_belongs(bundle: Bundle, path: Path, manifest: dict[str, Any], again: str) -> None:
    """The engine must have been built from this bundle's graph."""
    if manifest["graph"] != _graph_of(bundle):
        raise BundleError(
            f"{path}: the engine was built from the graph '{manifest['graph']['name']}' with other bytes, this "
            f"bundle's is '{bundle.graph_name}'; {again}"
        )
    if manifest.get("contract") != contract_to_json(bundle.contract):
        raise BundleError(f"{path}: its 'contract' is not the one in bundle.json; {again}")
