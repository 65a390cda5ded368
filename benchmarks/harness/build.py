"""Build the files of a case: `python -m harness.build FOLDER THREADS`, where FOLDER contains `case.json`.

x.npy, y.npy, x.png, y.png   the pair
fp32/, int8/                 bundles
naive.onnx                   the unfolded model as written by torch.onnx.export
made.json                    a record of the build, written last
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.contender import ROOT
from harness.model import FrameModel, load_model
from harness.plan import BUNDLES, COMPILED, NAIVE, Case
from harness.work import BUILD_RECORD, CASE_FILE, fingerprint
from tcmoa import TCMoA
from tcmoa_calibration.quantize import quantize_bundle
from tcmoa_export import export_bundle
from tcmoa_export.engines.graph_summary import summarize_graph
from tcmoa_export.photographs import PHOTOGRAPHS, make_pair
from tcmoa_runtime.bench.worker import peak_mb
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.images import read_frame, write_bytes, write_image
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.options.quantize import QuantizeOptions
from tcmoa_runtime.pairs import PairPaths, find_pairs

DATA = ROOT.parent / "shared" / "data"
"""Real pairs; photographs replace them if the folder is missing."""
SMOOTHING: Final = 0.5
RANGES: Final = "max"
"""Ranges of the int8 bundle. A search for better ones takes minutes and does not change the speed."""


def sources(case: Case) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
    """Return x and y [H, W, 3] in the size of the case, and their origin."""
    folder, size = DATA / "val" / case.task, (case.width, case.height)
    if folder.is_dir() and case.preset != "micro":
        pair = find_pairs(folder)[0]
        x, y = (np.asarray(cv2.resize(read_frame(path), size), np.uint8) for path in (pair.x, pair.y))
        return x, y, f"real pair {pair.name}, resized"
    made = make_pair(case.task, PHOTOGRAPHS[0], (case.height, case.width))
    return made.x, made.y, f"photograph {made.name}: {made.origin}"


def calibration_pairs(case: Case, folder: Path) -> tuple[list[PairPaths], str]:
    """Return pairs for the int8 calibration and their origin; photographs are written into `folder`."""
    real = DATA / "train" / case.task
    if real.is_dir() and case.preset != "micro":
        return find_pairs(real), "real training pairs"
    folder.mkdir(exist_ok=True)
    for i in range(case.calibration_pairs):
        made = make_pair(case.task, PHOTOGRAPHS[i % len(PHOTOGRAPHS)], (case.height, case.width), i)
        write_image(folder / f"{i:02}_x.png", made.x)
        write_image(folder / f"{i:02}_y.png", made.y)
    return find_pairs(folder), "pairs made from photographs"


class _Exported(nn.Module):
    """A program of torch.export as a module, hidden from `Module.train`, which the program does not support."""

    program: Any

    def __init__(self, program: Any) -> None:
        super().__init__()
        object.__setattr__(self, "program", program.module())

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Run the program."""
        result: Tensor = self.program(x, y)
        return result


def export_unfolded(model: TCMoA, case: Case, x: Tensor, y: Tensor, path: Path) -> str:
    """Write the unfolded model with torch.onnx.export; returns the method that succeeded.

    The tracing exporter does not support the model itself, whose Python code computes with sizes, but it supports the
    result of torch.export, in which sizes are constants. The newer exporter is used if onnxscript is installed.
    """
    frames = (
        FrameModel(model, case.task).eval().requires_grad_(requires_grad=False)
    )  # constants must not require gradients
    names: dict[str, Any] = {"input_names": ["x", "y"], "output_names": ["fused"]}
    failures = []

    def newer() -> None:
        torch.onnx.export(frames, (x, y), str(path), dynamo=True, **names)

    def traced() -> None:
        torch.onnx.export(frames, (x, y), str(path), dynamo=False, opset_version=18, **names)

    def exported() -> None:
        program = torch.export.export(frames, (x, y))
        torch.onnx.export(_Exported(program), (x, y), str(path), dynamo=False, opset_version=18, **names)

    for method, write in (
        ("torch.onnx.export(dynamo=True)", newer),
        ("torch.onnx.export(dynamo=False)", traced),
        ("torch.export, then torch.onnx.export(dynamo=False)", exported),
    ):
        try:
            with torch.no_grad():
                write()
        except Exception as error:  # exporters raise various types
            failures.append(f"{method}: {_line(error)}")
        else:
            return f"{method}; {'; '.join(failures)}" if failures else method
    raise TcmoaError("; ".join(failures))


def build(folder: Path) -> None:
    """Build the files of `folder`; optional parts that fail are recorded in made.json with the reason."""
    case = Case.from_json(json.loads((folder / CASE_FILE).read_bytes()))
    x, y, pair = sources(case)
    for name, frame in (("x", x), ("y", y)):
        np.save(folder / f"{name}.npy", frame[None])
        write_image(folder / f"{name}.png", frame)
    _log("exporting the bundle")
    model, weights = load_model(case)
    began = time.perf_counter()
    bundle = export_bundle(
        model,
        ExportOptions(task=case.task, size=(case.height, case.width), target="cpu"),
        folder / "fp32",
        weights_source=weights,
    )
    seconds = time.perf_counter() - began
    made: dict[str, Any] = {
        "export": {"seconds": seconds, "peak_mb": peak_mb(), "parity": bundle.manifest["parity"]},
        "pair": pair,
        "weights": weights,
        "flops": sum(summarize_graph(onnx.load(bundle.graph_path)).flops.values()),
        "notes": {},
        "failed": {},
    }
    if COMPILED in case.contenders:
        made["notes"][COMPILED] = f"backend {case.compiler}"
    if NAIVE in case.contenders:
        _log("exporting the unfolded model")
        tensors = [torch.from_numpy(frame[None].copy()) for frame in (x, y)]
        try:
            made["notes"][NAIVE] = export_unfolded(model, case, tensors[0], tensors[1], folder / "naive.onnx")
        except TcmoaError as error:
            made["failed"][NAIVE] = str(error)
    eight = [name for name, (kind, _) in BUNDLES.items() if kind == "int8" and name in case.contenders]
    if eight:
        del model
        _int8(case, folder, bundle, eight, made)
    made["fingerprint"] = fingerprint(case)
    write_bytes(folder / BUILD_RECORD, (json.dumps(made, indent=1) + "\n").encode())


def _int8(case: Case, folder: Path, bundle: Bundle, names: list[str], made: dict[str, Any]) -> None:
    _log("calibrating the int8 bundle")
    found, which = calibration_pairs(case, folder / "pairs")
    try:
        options = QuantizeOptions(
            min_psnr=0, smoothing=SMOOTHING, ranges=RANGES, max_pairs=case.calibration_pairs
        )
        result = quantize_bundle(bundle, found, folder / "int8", options)
    except TcmoaError as error:
        made["failed"].update(dict.fromkeys(names, _line(error)))
        return
    used = len(result.pairs.fit) + len(result.pairs.held_out)
    made["notes"]["int8"] = f"calibrated on {used} {which}, smoothing {SMOOTHING:g}, ranges {RANGES}"


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    short = text if len(text) <= 160 else f"{text[:160]}…"
    return f"{type(error).__name__}: {short}" if not isinstance(error, TcmoaError) else short


def _log(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # exporters emit dozens
    torch.set_num_threads(int(sys.argv[2]))
    try:
        build(Path(sys.argv[1]))
    except TcmoaError as fault:
        print(f"speed: {fault}", file=sys.stderr)
        sys.exit(fault.exit_code)
