"""Bundles: a folder with one fixed graph and everything needed to know what it is.

    bundle.json   what the bundle is; carries the hashes of all other files and its own
    fusion.onnx   the graph (fusion.data beside it where the weights exceed what one ONNX file can hold)

A bundle is checked before anything of it is loaded, and what does not match is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tcmoa_runtime.contract import SOURCE_ROLES, Contract, token_grid
from tcmoa_runtime.errors import BundleError
from tcmoa_runtime.manifest import (
    LARGEST_NUMBER,
    ManifestReader,
    contract_to_json,
    file_sha256,
    read_manifest,
)

if TYPE_CHECKING:
    from tcmoa_runtime.alignment import Alignment

FORMAT: Final = "tcmoa-bundle"
FORMAT_VERSION: Final = 1
MANIFEST: Final = "bundle.json"
GRAPH: Final = "fusion.onnx"
GRAPH_DATA: Final = "fusion.data"

_AGAIN = "export it again with `tcmoa export`"


@dataclass(frozen=True)
class Bundle:
    """A checked description of a bundle on disk; `Bundle.open` is the way to get one.

    `manifest` is the parsed bundle.json. Graph bytes are only handed out after their hash was compared.
    """

    path: Path
    manifest: dict[str, Any]
    contract: Contract

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Bundle:
        """Read and check bundle.json; cheap, the graph is not touched yet.

        Raises BundleError when the folder or file is missing, unreadable, foreign, of a newer format, edited
        by hand, or does not describe a graph that follows the contract.
        """
        folder = Path(path)
        manifest = _read_manifest(folder)
        bundle = Bundle(folder, manifest, _read_contract(folder / MANIFEST, manifest))
        _ = bundle.alignment  # checked now, so that it can be relied on
        for name in bundle.files:
            if not (folder / name).is_file():
                raise BundleError(
                    f"{folder}: '{name}' is missing, bundle.json lists it; copy it whole, or {_AGAIN}"
                )
        return bundle

    @property
    def task(self) -> str:
        """`vif`, `mef` or `mff`."""
        return str(self.manifest["task"])

    @property
    def preset(self) -> str:
        """Name of the model's sizes: `nano`, `tiny`, `base`, `large` or `custom`."""
        return str(self.manifest["preset"])

    @property
    def precision(self) -> str:
        """Precision of the graph's arithmetic: `fp32`, `fp16` or `bf16`."""
        return str(self.manifest["precision"])

    @property
    def channel_order(self) -> str:
        """`rgb` or `bgr`: the order of the frames' three channels."""
        return str(self.manifest["channel_order"])

    @property
    def fit(self) -> str:
        """How the frame meets the windows: `pad`, `crops` or `resize`."""
        return str(self.manifest["fit"])

    @property
    def token_pixels(self) -> int:
        """Side in frame pixels of a token, the unit of the prompt maps (with fit `resize`: of the resized frame)."""
        return int(self.manifest["token_pixels"])

    @property
    def graph_name(self) -> str:
        """The graph's own name, unique to weights and options."""
        return str(self.manifest["graph"]["name"])

    @property
    def roles(self) -> dict[str, str]:
        """What x and y show, e.g. `visible` and `infrared`."""
        return SOURCE_ROLES[self.task]

    @property
    def default_prompt(self) -> tuple[float, float]:
        """(alpha, beta) of Eq. 8 that apply where a caller names none."""
        prompt = self.manifest["prompt_default"]
        return float(prompt["scale"]), float(prompt["shift"])

    @property
    def alignment(self) -> Alignment | None:
        """How one source is moved before it is fused, None where both are taken as they come."""
        if "alignment" not in self.manifest:
            return None
        from tcmoa_runtime.alignment import read_alignment  # with numpy, which bundles do without

        size = self.contract.height, self.contract.width
        return read_alignment(ManifestReader(self.path / MANIFEST, self.manifest), size)

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """`sha256` and `bytes` of every file of the bundle but bundle.json, by name."""
        return dict(self.manifest["files"])

    @property
    def graph_path(self) -> Path:
        """Path of the ONNX graph."""
        return self.path / GRAPH

    @property
    def has_external_data(self) -> bool:
        """Whether the weights lie in a file of their own beside the graph."""
        return GRAPH_DATA in self.files

    def check_file(self, name: str) -> None:
        """Compare a file's size and hash with bundle.json; BundleError when they differ."""
        wanted, path = self.files[name], self.path / name
        try:
            _compare_size(path, path.stat().st_size, wanted)
            arrived = file_sha256(path)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
        _compare_hash(path, arrived, wanted)

    def check(self) -> None:
        """Compare every file with bundle.json; BundleError on the first that differs."""
        for name in self.files:
            self.check_file(name)

    def read_graph(self) -> bytes:
        """The graph's bytes, hashed as read, so that what is loaded is what was checked; else BundleError."""
        try:
            data = self.graph_path.read_bytes()
        except OSError as error:
            raise BundleError(f"{self.graph_path}: cannot be read: {error.strerror}") from error
        wanted = self.files[GRAPH]
        _compare_size(self.graph_path, len(data), wanted)
        _compare_hash(self.graph_path, hashlib.sha256(data).hexdigest(), wanted)
        return data


def _compare_size(path: Path, arrived: int, wanted: Mapping[str, Any]) -> None:
    if arrived != wanted["bytes"]:
        raise BundleError(
            f"{path}: {arrived} bytes, bundle.json says {wanted['bytes']}; it is truncated or another file: "
            f"copy the bundle whole, or {_AGAIN}"
        )


def _compare_hash(path: Path, arrived: str, wanted: Mapping[str, Any]) -> None:
    if arrived != wanted["sha256"]:
        raise BundleError(
            f"{path}: SHA-256 is {arrived[:12]}…, bundle.json says {wanted['sha256'][:12]}…; it was changed since "
            f"its export: copy the bundle anew, or {_AGAIN}"
        )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        exists = folder.exists()
    except OSError as error:
        raise BundleError(
            f"{folder}: cannot be read: {error.strerror}; make one with `tcmoa export`"
        ) from error
    if not exists:
        raise BundleError(f"{folder}: no such bundle; make one with `tcmoa export --out {folder}`")
    if not folder.is_dir():
        raise BundleError(f"{folder}: is a file, expected a bundle folder as `tcmoa export` writes it")
    if not path.is_file():
        raise BundleError(f"{folder}: holds no {MANIFEST}, so it is no bundle; make one with `tcmoa export`")
    return read_manifest(path, FORMAT, FORMAT_VERSION, "a TC-MoA bundle", _AGAIN)


def _read_contract(path: Path, manifest: dict[str, Any]) -> Contract:
    """Check all that the runtime relies on and rebuild the contract from its few numbers."""
    reader = ManifestReader(path, manifest)
    reader.get("task", str, among=tuple(SOURCE_ROLES))
    reader.get("channel_order", str, among=("rgb", "bgr"))
    reader.get("precision", str)
    reader.get("preset", str)
    fit = reader.get("fit", str, among=("pad", "crops", "resize"))
    side = reader.get("token_pixels", int, among=(8, 16))
    reader.part("graph").get("name", str)
    default = reader.part("prompt_default")
    default.get("scale", float)
    default.get("shift", float)
    files = reader.part("files")
    for name in (GRAPH, *files.values):
        entry = files.part(name)
        entry.get("sha256", str)
        entry.get("bytes", int)
        if name not in (GRAPH, GRAPH_DATA):
            raise BundleError(
                f"{path}: lists an unknown file {name!r}; it was made by other software: {_AGAIN}"
            )
    frame = reader.part("frame")
    numbers = {key: frame.get(key, int) for key in ("height", "width", "batch", "x_channels", "y_channels")}
    grid = frame.get("grid", list)
    sizes = (*numbers.values(), *grid)
    if len(grid) != 2 or not all(isinstance(n, int) and 0 < n <= LARGEST_NUMBER for n in sizes):
        raise BundleError(f"{path}: 'frame' is {frame.values!r}, expected positive sizes; {_AGAIN}")
    if fit != "resize" and tuple(grid) != token_grid(numbers["height"], numbers["width"], side == 8):
        raise BundleError(
            f"{path}: grid {grid} does not cover the frame in tokens of {side} pixels; {_AGAIN}"
        )
    contract = Contract(
        grid=(grid[0], grid[1]),
        prompts=frame.get("prompts", int),
        with_prompt=frame.get("with_prompt", bool),
        **numbers,
    )
    if manifest.get("contract") != contract_to_json(contract):
        raise BundleError(f"{path}: its 'contract' is not the graph contract for this frame; {_AGAIN}")
    return contract
