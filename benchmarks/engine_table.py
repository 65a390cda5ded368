"""Kernels of TensorRT-RTX engines for each preset, and bounds of their latency. Prints Markdown; needs no GPU.

    python benchmarks/engine_table.py [--precision fp16] [--presets nano,tiny,base,large] [--sizes 640x480,448x448-]

A size that ends in `-` means without the model's x2 upsampling. Presets without bundled weights get random ones, which
make no difference here. Bounds follow from the bytes and operations of the kernels and from datasheets
(`tcmoa_export.engines.gpus.GPUS`): nothing is run.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from tcmoa import PRESETS, TCMoA, load_weights
from tcmoa.weights import bundled_weights
from tcmoa_export.engines.audit import Audit, audit
from tcmoa_export.engines.builder import EngineBuilder
from tcmoa_export.engines.gpus import GPUS
from tcmoa_export.engines.graph_summary import summarize_graph
from tcmoa_export.engines.plan import plan_build
from tcmoa_export.network import build_graph
from tcmoa_export.spec import make_spec
from tcmoa_runtime.cli.options import parse_size
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.typing import Precision


def build(preset: str, size: tuple[int, int], precision: Precision, *, upsample: bool) -> tuple[Audit, float]:
    """Return the audit of an engine, and the seconds that the builder took."""
    torch.manual_seed(0)
    is_bundled = bundled_weights(preset).is_file()
    model = (
        load_weights(preset, upsample=upsample) if is_bundled else TCMoA(PRESETS[preset], upsample=upsample)
    )
    spec = make_spec(model.eval(), ExportOptions(task="vif", size=size, precision=precision))
    graph = build_graph(model, spec, preset, "0")
    del model
    summary = summarize_graph(graph)
    builder = EngineBuilder(plan_build(BuildOptions(), precision))
    began = time.perf_counter()
    built = builder.build(graph)
    return audit(built.kernels, summary, precision), time.perf_counter() - began


SHOWN = [gpu for gpu in GPUS if gpu.name in ("RTX 4090", "RTX A6000", "Jetson AGX Orin 64GB", "H100 SXM")]
"""One GPU of each kind, so that the table fits a page."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", default="fp16", help="fp16, bf16 or both with a comma")
    parser.add_argument("--presets", default="nano,tiny,base,large")
    parser.add_argument("--sizes", default="640x480,448x448-")
    arguments = parser.parse_args()
    names = " | ".join(gpu.name for gpu in SHOWN)
    print(f"| model | frame | | kernels | attentions fused | GB moved (floor) | GFLOP | built in | {names} |")
    print("|---" * (8 + len(SHOWN)) + "|")
    for preset in arguments.presets.split(","):
        for text in arguments.sizes.split(","):
            for precision in arguments.precision.split(","):
                upsample = not text.endswith("-")
                result, seconds = build(preset, parse_size(text.rstrip("-")), precision, upsample=upsample)
                attentions = len(result.graph.attentions)
                fused = attentions - len(result.unfused)
                bounds = " | ".join(f"{result.bound_ms(gpu):.2f} ms" for gpu in SHOWN)
                print(
                    f"| {preset} | {text.rstrip('-')}{'' if upsample else ', not upsampled'} | {precision} | "
                    f"{len(result.kernels)} | {fused} of {attentions} | {result.bytes_moved / 1e9:.3f} "
                    f"({result.graph.min_bytes / 1e9:.3f}) | {sum(result.flops()) / 1e9:.0f} | {seconds:.1f} s | "
                    f"{bounds} |"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
