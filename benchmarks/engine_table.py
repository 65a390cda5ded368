"""Kernels of TensorRT-RTX engines for each preset, and bounds of their latency. Prints Markdown; needs no GPU.

    python benchmarks/engine_table.py [--precision fp16] [--presets nano,tiny,base,large] [--sizes 640x480,448x448-]
        [--batch 1]

A size that ends in `-` means without the model's x2 upsampling. `int8` is a bundle of `tcmoa calibrate int8 --target
gpu` and `int8-cpu` one of `--target cpu`, both with smoothing. Presets without bundled weights get random ones, and
ranges are not measured; neither changes a kernel. Bytes, operations and bounds are of one frame: those of an engine by
its batch. Bounds follow from the bytes and operations of the kernels and from datasheets
(`tcmoa_export.engines.gpus.GPUS`): nothing is run.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

import numpy as np
import onnx
import torch

from tcmoa import PRESETS, TCMoA, load_weights
from tcmoa.weights import bundled_weights
from tcmoa_calibration.quantize.activations import ActivationStats
from tcmoa_calibration.quantize.formats import FORMATS
from tcmoa_calibration.quantize.linears import backbone_linears, group_linears
from tcmoa_calibration.quantize.rewrite import finalize
from tcmoa_calibration.quantize.scheme import Scheme, quantize_graph
from tcmoa_export.engines.audit import Audit, audit
from tcmoa_export.engines.builder import EngineBuilder
from tcmoa_export.engines.gpus import GPUS
from tcmoa_export.engines.graph_summary import summarize_graph
from tcmoa_export.engines.lowering import sign_activations
from tcmoa_export.engines.plan import plan_build
from tcmoa_export.network import build_graph
from tcmoa_export.precision import lower
from tcmoa_export.spec import make_spec
from tcmoa_runtime.cli.options import parse_size
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.options.quantize import LowPrecision
from tcmoa_runtime.typing import ExportTarget, Precision

PRECISIONS: Final[dict[str, Precision]] = {"fp16": "fp16", "bf16": "bf16"}
QUANTIZED: Final[dict[str, tuple[LowPrecision, ExportTarget]]] = {
    "int8": ("int8", "gpu"),
    "int8-cpu": ("int8", "cpu"),
    "fp8": ("fp8", "gpu"),
}
FP8_TARGETS: Final = ("sm89", "sm120")


def build(
    preset: str, size: tuple[int, int], precision: str, *, upsample: bool, batch: int = 1
) -> tuple[Audit, float]:
    """Return the audit of an engine, and the seconds that the builder took."""
    torch.manual_seed(0)
    is_bundled = bundled_weights(preset).is_file()
    model = (
        load_weights(preset, upsample=upsample) if is_bundled else TCMoA(PRESETS[preset], upsample=upsample)
    )
    own = PRECISIONS.get(precision, "fp32")
    spec = make_spec(model.eval(), ExportOptions(task="vif", size=size, precision=own, batch=batch))
    graph = build_graph(model, spec, preset, "0")
    del model
    if precision in QUANTIZED:
        graph = lower(sign_activations(quantize(graph, *QUANTIZED[precision])), "fp16")
        own = "fp16"
    summary = summarize_graph(graph)
    targets = FP8_TARGETS if precision == "fp8" else ()
    builder = EngineBuilder(plan_build(BuildOptions(targets=targets), own))
    began = time.perf_counter()
    built = builder.build(graph)
    return audit(built.kernels, summary, own), time.perf_counter() - began


def quantize(graph: onnx.ModelProto, number_format: LowPrecision, target: ExportTarget) -> onnx.ModelProto:
    """Quantize a graph as `tcmoa calibrate` does, with magnitudes that are not measured."""
    linears = backbone_linears(graph)
    rng = np.random.default_rng(0)
    widths = {name: width for x in linears for name, width in zip((x.input, x.node), x.shape, strict=True)}
    stats = {}
    for name, width in widths.items():
        rows = np.abs(rng.normal(size=(16, width))).astype(np.float32)
        stats[name] = ActivationStats(rows.max(axis=0), rows)
    scheme = Scheme(0.5, "max")
    quantized = quantize_graph(graph, stats, FORMATS[number_format], scheme, group_linears(linears), target)
    finalize(quantized, number_format)
    return quantized


SHOWN = [gpu for gpu in GPUS if gpu.name in ("RTX 4090", "RTX A6000", "Jetson AGX Orin 64GB", "H100 SXM")]
"""One GPU of each kind, so that the table fits a page."""


def format_bound(bound: float | None, batch: int) -> str:
    return "none" if bound is None else f"{bound / batch:.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", default="fp16", help=", ".join((*PRECISIONS, *QUANTIZED)))
    parser.add_argument("--presets", default="nano,tiny,base,large")
    parser.add_argument("--sizes", default="640x480,448x448-")
    parser.add_argument("--batch", default="1")
    arguments = parser.parse_args()
    names = " | ".join(gpu.name for gpu in SHOWN)
    print(
        f"| model | frame | batch | | kernels | attentions fused | GB moved (minimum) | GFLOP | built in | {names} |"
    )
    print("|---" * (9 + len(SHOWN)) + "|")
    for preset in arguments.presets.split(","):
        for text in arguments.sizes.split(","):
            for precision in arguments.precision.split(","):
                for batch in map(int, arguments.batch.split(",")):
                    size, upsample = parse_size(text.rstrip("-")), not text.endswith("-")
                    result, seconds = build(preset, size, precision, upsample=upsample, batch=batch)
                    attentions = len(result.graph.attentions)
                    fused = attentions - len(result.unfused)
                    bounds = " | ".join(format_bound(result.bound_ms(gpu), batch) for gpu in SHOWN)
                    print(
                        f"| {preset} | {text.rstrip('-')}{'' if upsample else ', not upsampled'} | {batch} | "
                        f"{precision} | {len(result.kernels)} | {fused} of {attentions} | "
                        f"{result.bytes_moved / batch / 1e9:.3f} ({result.graph.min_bytes / batch / 1e9:.3f}) | "
                        f"{sum(result.flops()) / batch / 1e9:.0f} | {seconds:.1f} s | {bounds} |"
                    )
                    if result.wrong_precision:
                        print(f"wrong precision: {result.wrong_precision[0]}", file=sys.stderr)
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
