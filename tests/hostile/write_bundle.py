"""A tiny valid bundle, and ways to write another one instead."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hostile.onnx_wire import FLOAT, UINT8, attribute, blob, graph, model, node, tensor, value_info
from tcmoa_runtime.contract import Contract
from tcmoa_runtime.manifest import contract_to_json

HEIGHT, WIDTH = 32, 48
CONTRACT = Contract(height=HEIGHT, width=WIDTH, grid=(2, 3), prompts=2)
NAME = "tcmoa_hostile"
ChangeManifest = Callable[[dict], None]

TYPES = {"uint8": UINT8, "float32": FLOAT}
INPUTS = [blob(11, value_info(s.name, TYPES[s.dtype], s.shape)) for s in CONTRACT.inputs]
OUTPUTS = [blob(12, value_info(s.name, TYPES[s.dtype], s.shape)) for s in CONTRACT.outputs]
PROLOGUE = [
    node("Cast", ["x"], ["x_float"], attribute("to", FLOAT)),
    # OpenVINO removes inputs that are not used, so all of them take part, multiplied by zero.
    node("Cast", ["y"], ["y_float"], attribute("to", FLOAT)),
    node("Add", ["prompt_scale", "prompt_shift"], ["prompts"]),
    node("ReduceSum", ["prompts"], ["prompt_sum"], attribute("keepdims", 0)),
    node("Mul", ["y_float", "zero"], ["y_zero"]),
    node("Mul", ["prompt_sum", "zero"], ["prompt_zero"]),
    node("Sum", ["y_zero", "prompt_zero"], ["nothing_more"]),
]
EPILOGUE = [
    node("Add", ["x_float", "nothing_more"], ["fused_float"]),
    node("Cast", ["fused_float"], ["fused"], attribute("to", UINT8)),
]
TENSORS = [tensor("zero", [], bytes(4))]


def graph_of(
    nodes: Iterable[bytes] = (),
    tensors: Iterable[bytes] = (),
    *,
    infos: Sequence[bytes] = (*INPUTS, *OUTPUTS),
    extra: bytes = b"",
    name: str = NAME,
) -> bytes:
    """Encode a graph that copies x to fused, with more nodes and tensors."""
    return graph(name, [*PROLOGUE, *nodes, *EPILOGUE], [*TENSORS, *tensors], infos, extra)


def model_of(nodes: Iterable[bytes] = (), tensors: Iterable[bytes] = (), **options: bytes) -> bytes:
    """Encode a model of `graph_of`."""
    return model(graph_of(nodes, tensors, **options))


def manifest_of(graph_bytes: bytes, data: bytes | None = None) -> dict:
    """Describe a bundle with right hashes."""
    files = {"fusion.onnx": graph_bytes} | ({} if data is None else {"fusion.data": data})
    return {
        "format": "tcmoa-bundle",
        "format_version": 1,
        "task": "vif",
        "preset": "custom",
        "precision": "fp32",
        "channel_order": "rgb",
        "frame": {
            "height": HEIGHT,
            "width": WIDTH,
            "batch": 1,
            "x_channels": 3,
            "y_channels": 3,
            "grid": list(CONTRACT.grid),
            "prompts": CONTRACT.prompts,
            "with_prompt": False,
        },
        "fit": "pad",
        "token_pixels": 16,
        "graph": {"name": NAME},
        "prompt_default": {"scale": 1.0, "shift": 0.0},
        "contract": contract_to_json(CONTRACT),
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        },
    }


def sealed(manifest: dict) -> str:
    """Return the text of a manifest with its own hash, also where it holds what Python would not read."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return json.dumps({**manifest, "manifest_sha256": hashlib.sha256(text.encode()).hexdigest()})


def write_bundle(
    folder: Path,
    graph_bytes: bytes | None = None,
    data: bytes | None = None,
    *,
    change: ChangeManifest = lambda manifest: None,
    encode: Callable[[str], bytes] = str.encode,
) -> None:
    """Write a bundle; the valid one if nothing else is given."""
    folder.mkdir(parents=True)
    graph_bytes = model_of() if graph_bytes is None else graph_bytes
    (folder / "fusion.onnx").write_bytes(graph_bytes)
    if data is not None:
        (folder / "fusion.data").write_bytes(data)
    manifest = manifest_of(graph_bytes, data)
    change(manifest)
    (folder / "bundle.json").write_bytes(encode(sealed(manifest)))
