"""A contender in its own process: `python -m harness.contender NAME FOLDER THREADS`, controlled by requests on stdin.

FOLDER was built by `harness.build`. In addition to the requests of `tcmoa_runtime.bench.worker.serve`, `save PATH`
writes the fused frame, uint8 [H, W, 3].
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from harness.plan import BUNDLES, COMPILED, EAGER, NAIVE, Case
from tcmoa_runtime.bench.worker import RunFrame, Worker, python_module, serve
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import BackendName

ROOT = Path(__file__).resolve().parents[2]
COMPILER_CACHE: Final = "compiled"
"""Folder of the output of torch.compile, in the folder of a case."""
USER_CACHE: Final = "user-cache"
"""Folder in place of the user's cache folder, in the folder of a case."""


def environment(threads: int) -> dict[str, str]:
    """Return the environment of measured processes: the number of threads, and the path of the harness."""
    path = [str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(path)}


def start(name: str, folder: Path, threads: int) -> Worker:
    """Start the process of a contender; it loads on request."""
    caches = {
        "TORCHINDUCTOR_CACHE_DIR": str(folder / COMPILER_CACHE),
        "XDG_CACHE_HOME": str(folder / USER_CACHE),
    }
    command = python_module("harness.contender", name, str(folder), str(threads))
    return Worker(name, command, environment(threads) | caches)


def delete_compiled(folder: Path) -> None:
    """Delete compiled files of earlier runs of a case, so that each load is a first load."""
    for cache in (COMPILER_CACHE, USER_CACHE):
        shutil.rmtree(folder / cache, ignore_errors=True)


def read_frames(folder: Path) -> tuple[Any, Any]:
    """Return x and y of a case, uint8 [1, H, W, 3]."""
    import numpy as np

    return np.load(folder / "x.npy"), np.load(folder / "y.npy")


def loader(name: str, folder: Path, threads: int) -> RunFrame:
    """Load a contender; returns a function that fuses the frames and returns the result, uint8 [H, W, 3].

    Imports happen here, so that they are part of the load time.

    Raises:
        InputError: The name is unknown.
    """
    if name in (EAGER, COMPILED):
        return _torch(folder, threads, compiled=name == COMPILED)
    if name == NAIVE:
        return _naive(folder / "naive.onnx", folder, threads)
    if name in BUNDLES:
        return _bundle(folder, *BUNDLES[name], threads)
    raise InputError(f"contender is {name!r}; expected {EAGER}, {COMPILED}, {NAIVE} or {', '.join(BUNDLES)}")


def _torch(folder: Path, threads: int, *, compiled: bool) -> RunFrame:
    import torch

    from harness.model import FrameModel, load_model

    torch.set_num_threads(threads)
    case = Case.from_json(json.loads((folder / "case.json").read_bytes()))
    run: Any = FrameModel(load_model(case)[0], case.task)
    if compiled:
        run = torch.compile(run, backend=case.compiler)
    x, y = (torch.from_numpy(frame) for frame in read_frames(folder))

    def infer() -> object:
        with torch.inference_mode():
            return run(x, y)[0].numpy()

    return infer


def _naive(path: Path, folder: Path, threads: int) -> RunFrame:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = dict(zip(("x", "y"), read_frames(folder), strict=True))
    return lambda: session.run(None, inputs)[0][0]


def _bundle(folder: Path, precision: str, backend: BackendName, threads: int) -> RunFrame:
    import numpy as np

    from tcmoa_runtime.backends.pick import load_backend
    from tcmoa_runtime.bundle import Bundle
    from tcmoa_runtime.contract import FUSED, PROMPT_SCALE, PROMPT_SHIFT, X, Y

    bundle = Bundle.open(folder / precision)
    loaded = load_backend(bundle, backend, threads=threads)
    grid = (1, *bundle.contract.grid)
    x, y = read_frames(folder)
    inputs = {X: x, Y: y, PROMPT_SCALE: np.ones(grid, np.float32), PROMPT_SHIFT: np.zeros(grid, np.float32)}
    return lambda: loaded.infer(inputs)[FUSED][0]


def _save(infer: RunFrame, words: Sequence[str]) -> dict[str, Any]:
    import numpy as np

    np.save(" ".join(words), np.asarray(infer()))
    return {}


if __name__ == "__main__":
    serve(lambda: loader(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])), {"save": _save})
