"""The lines about an engine that `tcmoa build` and `tcmoa inspect` print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tcmoa_runtime.engine import Engine
from tcmoa_runtime.engine_folders import ENGINES_FOLDER
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.gpu.compute_capabilities import target_of

_LIBRARIES: Final = {"rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}


def engine_rows(engine: Engine) -> list[tuple[str, str]]:
    """Return label and text of each line about an engine."""
    manifest: Mapping[str, Any] = engine.manifest
    first = ("engine", f"{engine.path.name}, {manifest['engine']['bytes']:,} bytes")
    if "kernels" not in manifest:
        why = manifest.get("audit_error", "it was written without its kernels")
        return [first, ("kernels", f"not audited: {why}"), ("next", _next_step(engine))]
    excess = manifest["bytes_moved"] / manifest["minimum_bytes"] - 1
    batch = engine.bundle.contract.batch
    precisions = ", ".join(f"{count} {name}" for name, count in manifest["precisions"].items())
    return [
        first,
        (
            "kernels",
            f"{manifest['kernels']} ({precisions}); {manifest['fused_attentions']} of {manifest['attentions']} "
            f"attentions fused",
        ),
        (
            "moves",
            f"{manifest['bytes_moved'] / batch / 1e9:.3f} GB per frame{_in_batches(batch)}, {excess:.1%} above the "
            f"counted minimum; {manifest['flops'] / batch / 1e9:.1f} GFLOP",
        ),
        *_bound_rows(engine),
        ("next", _next_step(engine)),
    ]


def _bound_rows(engine: Engine) -> list[tuple[str, str]]:
    """Return lower bounds of the frame time for GPUs that the engine was built for."""
    manifest: Mapping[str, Any] = engine.manifest
    batch = engine.bundle.contract.batch
    texts = [
        f"{name} {bound['ms'] / batch:.2f} ms"
        for name, bound in manifest["bounds"].items()
        if _target(name) in _targets(engine)
    ]
    if not texts:
        return []
    unit = f" per frame{_in_batches(batch)}" if batch > 1 else ""
    return [
        ("bound", f"{', '.join(texts)}{unit} (at best, from datasheets and the kernel list; not measured)")
    ]


def _in_batches(batch: int) -> str:
    return f" in batches of {batch}" if batch > 1 else ""


def _targets(engine: Engine) -> set[str]:
    """Return the compute capabilities that an engine was built for, e.g. `sm89`."""
    found = set(engine.targets)
    if engine.gpu is not None:
        found.add(f"sm{engine.gpu.compute_capability.replace('.', '')}")
    return found


def _target(gpu: str) -> str | None:
    try:
        return target_of(gpu)
    except InputError:
        return None


def _next_step(engine: Engine) -> str:
    """Say how the engine gets to a GPU that runs it, and the command that measures it there."""
    bundle = engine.bundle
    bench = f"tcmoa bench {bundle.spelling} --backend onnxruntime,tensorrt --pick"
    if not engine.targets:
        return f"measure it on this machine with `{bench}`"
    gpus = ", ".join(target.upper() for target in engine.targets)
    where = f"a machine with an {gpus} GPU and {_LIBRARIES[engine.flavor]} {engine.version}"
    if engine.path.parent != bundle.path / ENGINES_FOLDER:  # a bundle of the package
        return f"on {where}, run `tcmoa build {bundle.spelling}` and `{bench}`"
    extra = (
        f"the extra {engine.flavor} of tcmoa"  # not a command: that machine has another checkout, or a wheel
    )
    return f"copy {bundle.path} to {where} ({extra}), and run `{bench} --trust-engines` there"
