"""What an ONNX file says about itself: its `metadata_props`, which Netron and ONNX Runtime show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from tcmoa_runtime.contract import PROMPT_SCALE, PROMPT_SHIFT, SOURCE_ROLES, TASKS
from tcmoa_runtime.typing import JsonValue

PREFIX: Final = "tcmoa."
"""Beginning of every key; a bundle with another key is refused, because libraries read settings from some."""


class MetadataEntry(Protocol):
    """What is used of `onnx.StringStringEntryProto`."""

    key: str
    value: str


class MetadataEntries(Protocol):
    """What is used of a repeated field of entries."""

    def __iter__(self) -> Iterator[MetadataEntry]: ...

    def __delitem__(self, key: slice, /) -> None: ...

    def add(self, *, key: str, value: str) -> object:
        """Append an entry."""
        ...


class Model(Protocol):
    """What is used of `onnx.ModelProto`: this package does not import onnx."""

    @property
    def metadata_props(self) -> MetadataEntries:
        """The entries."""
        ...


def write_metadata(model: Model, manifest: Mapping[str, JsonValue]) -> None:
    """Replace the metadata of a graph by that of its bundle.json.

    Equal entries give equal bytes. The prompt is that of the export: `tcmoa calibrate prompt` changes it in bundle.json
    and leaves the graph, and so its engines, as they are.

    Args:
        model: The graph, changed in place.
        manifest: Entries of bundle.json; not yet with the hash of the graph.
    """
    entries = _describe(manifest)
    del model.metadata_props[:]
    for key, value in entries.items():
        model.metadata_props.add(key=PREFIX + key, value=value)


def write_precision(model: Model, precision: str) -> None:
    """Replace the precision in the metadata of a graph, where it has one."""
    for entry in model.metadata_props:
        if entry.key == f"{PREFIX}precision":
            entry.value = precision


def _describe(manifest: Mapping[str, Any]) -> dict[str, str]:
    task = next(task for task in TASKS if task == manifest["task"])
    frame, prompt, weights = manifest["frame"], manifest.get("prompt_default"), manifest["weights"]
    network = manifest.get("network")
    entries = {
        "format": f"{manifest['format']} {manifest['format_version']}",
        "tool": f"tcmoa {manifest['tools']['tcmoa']}",
        "task": task,
        "x": f"{SOURCE_ROLES[task]['x']}, {frame['x_channels']} channels",
        "y": f"{SOURCE_ROLES[task]['y']}, {frame['y_channels']} channels",
        "frame": f"{frame['width']}x{frame['height']}, batch {frame['batch']}",
        "channel_order": manifest["channel_order"],
        "color": manifest.get("color", "rgb"),
        "precision": manifest["precision"],
        "network": network and network["name"],
        "prompt_default": prompt
        and f"{PROMPT_SCALE} {prompt['scale']:g}, {PROMPT_SHIFT} {prompt['shift']:g}",
        "weights_sha256": weights["sha256"],
        "license": manifest.get("license"),
    }
    return {key: str(value) for key, value in entries.items() if value}
