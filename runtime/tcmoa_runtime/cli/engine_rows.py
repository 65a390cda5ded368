"""The lines about an engine that `tcmoa build` and `tcmoa inspect` print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tcmoa_runtime.engine import Engine


def engine_rows(engine: Engine) -> list[tuple[str, str]]:
    """Return label and text of each line about an engine."""
    manifest: Mapping[str, Any] = engine.manifest
    excess = manifest["bytes_moved"] / manifest["minimum_bytes"] - 1
    bounds = ", ".join(f"{gpu} {bound['ms']:.2f} ms" for gpu, bound in manifest["bounds"].items())
    precisions = ", ".join(f"{count} {name}" for name, count in manifest["precisions"].items())
    return [
        ("engine", f"{engine.path.name}, {manifest['engine']['bytes']:,} bytes"),
        (
            "kernels",
            f"{manifest['kernels']} ({precisions}); {manifest['fused_attentions']} of {manifest['attentions']} "
            f"attentions fused",
        ),
        (
            "moves",
            f"{manifest['bytes_moved'] / 1e9:.3f} GB per frame, {excess:.1%} above the counted minimum; "
            f"{manifest['flops'] / 1e9:.1f} GFLOP",
        ),
        ("bound", f"{bounds} (from datasheets and the kernel list; not measured)"),
    ]
