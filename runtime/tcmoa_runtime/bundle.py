"""Bundles: folders with one graph of fixed shapes and its description.

    bundle.json   the description, with its own hash and those of the graph and its weights
    fusion.onnx   the graph
    fusion.data   the weights, if they are too large for one ONNX file

A bundle is checked before it is loaded; a file that does not match its hash is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from tcmoa_runtime.alignment import Alignment, read_alignment
from tcmoa_runtime.contract import (
    MAX_GRAPH_BYTES,
    MAX_PROMPT,
    MAX_STRETCHES,
    SOURCE_ROLES,
    TASKS,
    Contract,
    Task,
    token_grid,
)
from tcmoa_runtime.errors import BundleError, NoPromptError
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.manifest import (
    MAX_NUMBER,
    ManifestFormat,
    ManifestReader,
    contract_to_json,
    read_manifest,
    shown,
)
from tcmoa_runtime.ready_bundles import MAKE_REMEDY, READY_NAMES, ready_name, resolve_bundle
from tcmoa_runtime.regular_file import open_regular_file
from tcmoa_runtime.typing import ChannelOrder, FrameSize, JsonObject, JsonValue
from tcmoa_runtime.wrapped_network import WrappedNetwork, read_network

_log = get_logger("bundle")

MANIFEST: Final = "bundle.json"
GRAPH: Final = "fusion.onnx"
GRAPH_DATA: Final = "fusion.data"
MAX_INLINE_BYTES: Final = 1_900_000_000
"""Larger weights are written to `GRAPH_DATA`: protocol buffers, and so ONNX files, are limited to 2 GiB."""

MAX_WINDOW: Final = 64
"""Largest side of an attention window in tokens that tiles are aligned to."""

MAX_TILE_STEP: Final = 64
"""Largest multiple of pixels that a wrapped network's tiles are aligned to."""

GraphFit = Literal["pad", "crops", "resize"]
"""How a graph fits the frame to whole windows of the model. A wrapped network has `pad`, or `resize` if each pixel
depends on the whole frame: then frames of other sizes can only be resized."""

EXPORT_REMEDY: Final = "Export the bundle again with `tcmoa export`"
COPY_REMEDY: Final = "Copy the whole bundle, or export it again with `tcmoa export`"
FORMAT: Final = ManifestFormat("tcmoa-bundle", 2, "a TC-MoA bundle", EXPORT_REMEDY)
MODEL_VERSION: Final = 1
"""`format_version` of the bundle of a TC-MoA model."""
WRAPPED_VERSION: Final = 2
"""`format_version` of the bundle of a wrapped network, which older runtimes refuse."""

_CHUNK_BYTES: Final = 4 << 20


@dataclass(frozen=True)
class FileEntry:
    """Entry of a file in bundle.json: its SHA-256, hexadecimal, and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Bundle:
    """A checked description of a bundle on disk; use `Bundle.open`.

    Attributes:
        path: The folder.
        manifest: The parsed bundle.json.
        contract: Names, types and shapes of the graph's inputs and outputs.
        alignment: Motion that is applied to one source before fusing; None without alignment.
        network: The network of others that was wrapped (`tcmoa wrap`); None for a TC-MoA model.
    """

    path: Path
    manifest: JsonObject
    contract: Contract
    alignment: Alignment | None
    network: WrappedNetwork | None = None

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Bundle:
        """Read and check bundle.json; the graph is not read.

        Args:
            path: The folder of the bundle, or the name of a ready bundle, e.g. `nano-vif`. A path that exists wins.

        Raises:
            BundleError: The folder or a file is missing or unreadable, or bundle.json is of another or newer format,
                edited by hand, or does not describe a graph that follows the contract.
        """
        folder = resolve_bundle(path)
        manifest = _read_manifest(folder)
        reader = ManifestReader(folder / MANIFEST, manifest, EXPORT_REMEDY)
        network = read_network(reader)
        contract = _read_contract(reader, network)
        alignment = read_alignment(reader, (contract.height, contract.width))
        bundle = Bundle(folder, manifest, contract, alignment, network)
        for name in bundle.files:
            try:
                open_regular_file(folder / name).close()
            except FileNotFoundError as error:
                raise BundleError(
                    f"the file {name!r} is missing; expected it because bundle.json lists it",
                    subject=folder,
                    remedy=COPY_REMEDY,
                ) from error
            except OSError as error:
                raise _unreadable(folder / name, error) from error
        _log.debug("%s: opened", folder, extra={"event": "bundle-opened", "bundle": str(folder)})
        return bundle

    def section(self, key: str) -> ManifestReader:
        """Return a reader of the object at `key` of bundle.json; raises BundleError if it is missing."""
        return ManifestReader(self.path / MANIFEST, self.manifest, EXPORT_REMEDY).part(key)

    @property
    def spelling(self) -> str:
        """What commands call the bundle: its path, or the name of a ready bundle."""
        name = ready_name(self.path)
        return str(self.path) if name is None or Path(name).exists() else name

    @property
    def task(self) -> Task:
        """Task of the bundle: `vif`, `mef` or `mff`."""
        return next(task for task in TASKS if task == self.manifest["task"])

    @property
    def preset(self) -> str:
        """Name of the model's sizes: `nano`, `tiny`, `base`, `large` or `custom`; the name of a wrapped network."""
        return str(self.manifest["preset"]) if self.network is None else self.network.name

    @property
    def has_prompt(self) -> bool:
        """Whether the network has a prompt that can be controlled; a wrapped one has none."""
        return self.contract.with_control

    @property
    def precision(self) -> str:
        """Precision of the graph's arithmetic: `fp32`, `fp16`, `bf16`, `int8` or `fp8`."""
        return str(self.manifest["precision"])

    @property
    def weight_storage(self) -> str:
        """Type in which the graph stores its large weights; `precision` where bundle.json does not say."""
        return str(self.manifest.get("weight_storage", self.precision))

    @property
    def channel_order(self) -> ChannelOrder:
        """Order of the three channels of sources and result."""
        return "bgr" if self.manifest["channel_order"] == "bgr" else "rgb"

    @property
    def fit(self) -> GraphFit:
        """How the graph fits the frame to whole windows."""
        fits: tuple[GraphFit, ...] = ("pad", "crops", "resize")
        return next(fit for fit in fits if fit == self.manifest["fit"])

    @property
    def size(self) -> FrameSize:
        """(height, width) of the frames."""
        return self.contract.height, self.contract.width

    @property
    def token_pixels(self) -> int:
        """Side of a token, the unit of prompt maps, in pixels of the frame (fit `resize`: of the resized frame)."""
        return self._root.get("token_pixels", int)

    @property
    def tile_step(self) -> int:
        """Multiple of pixels at which the tiles of a frame may start: `token_pixels`, or a wrapped network's own."""
        return self.token_pixels if self.network is None else self._root.get("tile_step", int)

    @property
    def map_token(self) -> int | None:
        """`token_pixels`; None if tokens have no fixed side, but divide the frame evenly (fit `resize`)."""
        return None if self.fit == "resize" or not self.has_prompt else self.token_pixels

    @property
    def window_pixels(self) -> int:
        """Side of an attention window in pixels of the frame; `tile_step` if bundle.json states no window.

        The tiles of a frame start at windows, so that windows lie as they do at the frame's own size.
        """
        model = self.manifest.get("model")
        window = model.get("window") if isinstance(model, dict) else None
        if self.network is not None or not isinstance(window, int) or not 1 <= window <= MAX_WINDOW:
            return self.tile_step
        return window * self.token_pixels

    @property
    def can_tile(self) -> bool:
        """Whether tiles of the graph's size can cover larger frames: they start at `tile_step` and must overlap."""
        return self.fit != "resize" and min(self.size) >= self.tile_step

    @property
    def graph_name(self) -> str:
        """Name of the graph, unique to its weights and options."""
        return self.section("graph").get("name", str)

    @property
    def roles(self) -> dict[str, str]:
        """What x and y show, e.g. `visible` and `infrared`."""
        return SOURCE_ROLES[self.task]

    @property
    def default_prompt(self) -> tuple[float, float]:
        """(alpha, beta) of Eq. 8 that are used if the caller gives none.

        Raises:
            NoPromptError: The network has no prompt.
        """
        if not self.has_prompt:
            raise NoPromptError(self.path, remedy="Use the bundle of a TC-MoA model")
        prompt = self.section("prompt_default")
        return float(prompt.get("scale", float)), float(prompt.get("shift", float))

    @property
    def files(self) -> dict[str, FileEntry]:
        """Entries of all other files in bundle.json, by name."""
        files = self.section("files")
        return {name: _read_entry(files.part(name)) for name in files.values}

    @property
    def graph_path(self) -> Path:
        """Path of the ONNX graph."""
        return self.path / GRAPH

    @property
    def has_external_data(self) -> bool:
        """Whether the weights are in `GRAPH_DATA` beside the graph."""
        return GRAPH_DATA in self.files

    def check_file(self, name: str) -> None:
        """Compare size and hash of a file with bundle.json.

        Raises:
            BundleError: They differ, or the file cannot be read.
        """
        self._read_file(name, lambda chunk: None)

    def check(self) -> None:
        """Compare size and hash of every file with bundle.json, and check the graph.

        Raises:
            BundleError: A file differs or cannot be read, or the graph holds what a bundle may not hold.
        """
        for name in self.files:
            if name != GRAPH:
                self.check_file(name)
        self.read_graph()

    def read_graph(self) -> bytes:
        """Return the bytes of the graph after checking them, so that no other bytes can be loaded.

        Raises:
            BundleError: Size or hash differ from bundle.json, the file cannot be read, or the graph holds what a bundle
                may not hold, see `tcmoa_runtime.graph.check`.
        """
        # Imported here, because a program that only lists bundles does not need them.
        from tcmoa_runtime.graph.check import check_graph
        from tcmoa_runtime.graph.wire import GraphError

        chunks: list[bytes] = []
        self._read_file(GRAPH, chunks.append)
        data = b"".join(chunks)
        weights = self.files.get(GRAPH_DATA)
        try:
            check_graph(
                data,
                self.contract,
                graph_name=self.graph_name,
                data_name=GRAPH_DATA,
                data_bytes=None if weights is None else weights.bytes,
            )
        except GraphError as error:
            raise BundleError(str(error), subject=self.graph_path, remedy=EXPORT_REMEDY) from error
        return data

    def copy_weights(self, target: Path) -> None:
        """Copy `GRAPH_DATA` to a new file that only this user can read; what is copied is what is hashed.

        Raises:
            BundleError: Size or hash differ from bundle.json, or the file cannot be read.
            OSError: The copy cannot be written.
        """
        failed: list[OSError] = []
        descriptor = os.open(
            target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with open(descriptor, "wb", buffering=0) as copy:  # noqa: PTH123  # a descriptor

            def write(chunk: bytes) -> None:
                view = memoryview(chunk)
                try:
                    while view and not failed:
                        view = view[copy.write(view) :]
                except OSError as error:
                    failed.append(error)

            self._read_file(GRAPH_DATA, write)
        if failed:
            raise failed[0]

    def _read_file(self, name: str, receive: Callable[[bytes], None]) -> None:
        """Read a file once, in chunks, while hashing it; the size is compared before anything is read."""
        expected, path = self.files[name], self.path / name
        digest = hashlib.sha256()
        left = expected.bytes
        try:
            with open_regular_file(path) as file:
                _compare_size(path, os.fstat(file.fileno()).st_size, expected)
                while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
                    left -= len(chunk)
                    digest.update(chunk)
                    receive(chunk)
        except OSError as error:
            raise _unreadable(path, error) from error
        _compare_size(path, expected.bytes - left, expected)
        _compare_hash(path, digest.hexdigest(), expected)

    @property
    def _root(self) -> ManifestReader:
        return ManifestReader(self.path / MANIFEST, self.manifest, EXPORT_REMEDY)


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"cannot be read: {error.strerror}", subject=path, remedy=COPY_REMEDY)


def _compare_size(path: Path, arrived: int, expected: FileEntry) -> None:
    if arrived != expected.bytes:
        raise BundleError(
            f"{arrived} bytes, truncated or another file; expected {expected.bytes} as in bundle.json",
            subject=path,
            remedy=COPY_REMEDY,
        )


def _compare_hash(path: Path, arrived: str, expected: FileEntry) -> None:
    if arrived != expected.sha256:
        raise BundleError(
            f"SHA-256 is {arrived[:12]}…, so the file was changed since its export; "
            f"expected {_shown_digits(expected.sha256)}… as in bundle.json",
            subject=path,
            remedy=COPY_REMEDY,
        )


def _shown_digits(text: str) -> str:
    return "".join(c if c in string.hexdigits else "?" for c in text[:12])


def _read_manifest(folder: Path) -> JsonObject:
    """Read bundle.json, with a specific message for each frequent mistake."""
    remedy = MAKE_REMEDY
    if str(folder) in READY_NAMES:
        remedy = f"Rename it, as a path that exists hides the ready bundle {folder}"
    if not folder.is_dir():
        raise BundleError("a file; expected the folder of a bundle", subject=folder, remedy=remedy)
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"not a bundle; expected a {MANIFEST} in it", subject=folder, remedy=remedy)
    return read_manifest(folder / MANIFEST, FORMAT)


def _read_entry(reader: ManifestReader) -> FileEntry:
    size = reader.get("bytes", int)
    if not 0 <= size < 1 << 63:
        reader.refuse("bytes", "a size")
    return FileEntry(reader.get("sha256", str), size)


def _read_contract(reader: ManifestReader, network: WrappedNetwork | None) -> Contract:
    """Check all entries that the runtime relies on, and compute the contract from the entry `frame`."""

    def refusal(problem: str) -> BundleError:
        return BundleError(problem, subject=reader.path, remedy=reader.remedy)

    reader.get("task", str, among=TASKS)
    reader.get("channel_order", str, among=("rgb", "bgr"))
    reader.get("precision", str)
    reader.part("graph").get("name", str)
    if network is None:
        _check_model(reader)
    else:
        reader.get("fit", str, among=("pad", "resize"))
        reader.get("tile_step", int, among=range(1, MAX_TILE_STEP + 1))
    files = reader.part("files")
    for name in (GRAPH, *files.values):
        entry = _read_entry(files.part(name))
        if name == GRAPH and entry.bytes > MAX_GRAPH_BYTES:
            raise refusal(f"lists {GRAPH!r} with {entry.bytes} bytes; expected at most {MAX_GRAPH_BYTES}")
        if name not in (GRAPH, GRAPH_DATA):
            raise refusal(f"lists an unknown file {shown(name)}; expected {GRAPH} and {GRAPH_DATA} only")
    contract = _contract_of(reader.part("frame"), network)
    size, side = (contract.height, contract.width), reader.values.get("token_pixels")
    has_fixed_tokens = network is None and reader.values["fit"] != "resize"
    if has_fixed_tokens and contract.grid != token_grid(*size, side == 8):
        raise refusal(
            f"grid {list(contract.grid)}; expected it to cover the frame in tokens of {side} pixels"
        )
    if _canonical(reader.values.get("contract")) != _canonical(contract_to_json(contract)):
        raise refusal("'contract' does not match 'frame'; expected the graph contract of this frame")
    return contract


def _check_model(reader: ManifestReader) -> None:
    """Check the entries that only the bundle of a TC-MoA model has."""
    reader.get("preset", str)
    reader.get("fit", str, among=("pad", "crops", "resize"))
    reader.get("token_pixels", int, among=(8, 16))
    default = reader.part("prompt_default")
    for key in ("scale", "shift"):
        if abs(default.get(key, float)) > MAX_PROMPT:
            default.refuse(key, f"a number from {-MAX_PROMPT:g} to {MAX_PROMPT:g}")


def _canonical(value: JsonValue) -> str:
    """Return JSON text, in which `true` and `1.0` differ from 1."""
    return json.dumps(value, sort_keys=True)


def _contract_of(frame: ManifestReader, network: WrappedNetwork | None) -> Contract:
    names = ("height", "width", "batch", "x_channels", "y_channels")
    numbers = {name: frame.get(name, int) for name in names}
    grid = frame.get("grid", list) if network is None else [1, 1]
    sizes = (*numbers.values(), *grid)
    if len(grid) != 2 or not all(type(n) is int and 0 < n <= MAX_NUMBER for n in sizes):
        frame_text = {name: frame.values.get(name) for name in (*names, "grid") if name in frame.values}
        raise BundleError(
            f"'frame' is {shown(frame_text)}; expected positive sizes",
            subject=frame.path,
            remedy=frame.remedy,
        )
    height, width, batch, x_channels, y_channels = numbers.values()
    sizes_of = partial(Contract, height, width, batch=batch, x_channels=x_channels, y_channels=y_channels)
    if network is not None:
        stretches = frame.get("stretches", int, among=range(MAX_STRETCHES + 1))
        return sizes_of(grid=(0, 0), prompts=0, with_control=False, stretches=stretches)
    prompts = frame.get("prompts", int)
    if not 0 <= prompts <= MAX_NUMBER:
        frame.refuse("prompts", f"an integer from 0 to {MAX_NUMBER}")
    return sizes_of(grid=(grid[0], grid[1]), prompts=prompts, with_prompt=frame.get("with_prompt", bool))
