"""Programs of users, as a type checker sees them.

`make types-installed` checks this file with mypy and pyright against an installed wheel (PEP 561). It is not run.
"""

from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration import EvaluateOptions, Method, evaluate_pairs, metrics
from tcmoa_runtime import Bundle, Contract, Fuser, InputError, TcmoaError, TensorSpec
from tcmoa_runtime.bulk.run import fuse_in_bulk
from tcmoa_runtime.bulk.summary import BulkSummary
from tcmoa_runtime.gpu.cuda_memory import CudaMemory
from tcmoa_runtime.gpu.device_arrays import DeviceArray
from tcmoa_runtime.images import decode_frame, encode_image, read_frame, write_image
from tcmoa_runtime.metrics_text import Histogram, MetricsText
from tcmoa_runtime.model_repository import ModelRepository, write_model_repository
from tcmoa_runtime.options.bulk import BulkOptions
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.options.repository import RepositoryOptions


class DeviceFrame:
    """An array of another library in GPU memory."""

    def __dlpack__(self, *, stream: int | None = None) -> object:
        return stream

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


class OpenCvStream:
    """A stream of a library without `__cuda_stream__`."""

    def cudaPtr(self) -> int:  # noqa: N802  # the name in OpenCV
        return 0


def answer_request(fuser: Fuser, x: bytes, y: memoryview, metrics_text: MetricsText) -> bytes:
    fused = fuser(decode_frame(x, "x", max_pixels=1 << 24), decode_frame(y, "y", 3))
    times = Histogram((0.01, 0.1))
    times.add(0.02)
    metrics_text.with_labels(model="nano-vif").histogram("seconds", "Time of a request.", times, status="200")
    assert_type(metrics_text.text(), str)
    return encode_image(fused, "PNG")


def fuse_files(x_path: Path, y_path: Path) -> None:
    x, y = read_frame(x_path), read_frame(y_path)
    assert_type(x, NDArray[np.uint8])
    with Fuser.load("night-640x480", backend="openvino", threads=2) as fuser:
        assert_type(fuser(x, y), NDArray[np.uint8])
        assert_type(fuser(x, y, scale=1.5, shift=np.zeros(fuser.grid)), NDArray[np.uint8])
        assert_type(fuser.region(x[..., 0] > 200, inside=0.4, outside=0.0), NDArray[np.float32])
        assert_type(fuser.with_prompt(x, y), tuple[NDArray[np.uint8], NDArray[np.float32]])
        assert_type(fuser.size, tuple[int, int])
        write_image("fused.png", fuser(x, y))


def fuse_on_gpu(fuser: Fuser, x: DeviceFrame, y: DeviceFrame) -> None:
    assert_type(fuser(x, y), NDArray[np.uint8] | DeviceArray)
    surface = CudaMemory(0x7F00, (480, 640, 3), row_pitch=2048, owner=x)
    fused = fuser(surface, y, stream=OpenCvStream())
    assert_type(fused, DeviceArray)
    assert_type((fused.pointer, fused.nbytes), tuple[int, int])
    assert_type(fuser.with_prompt(surface, y, stream=0x7F00), tuple[DeviceArray, DeviceArray])


def describe(path: str) -> str:
    try:
        bundle = Bundle.open(path)
    except InputError as error:
        assert_type(error.remedy, str | None)
        raise TcmoaError("cannot describe", subject=path, remedy=error.remedy) from error
    assert_type(bundle.contract, Contract)
    assert_type(bundle.contract.inputs, tuple[TensorSpec, ...])
    return f"{bundle.task} {bundle.precision} {bundle.size}"


def choose() -> ExportOptions:
    return ExportOptions(task="vif", size=(480, 640), precision="fp16", gray=("y",))


def measure(x: NDArray[np.uint8], y: NDArray[np.uint16], fused: NDArray[np.uint8]) -> None:
    assert_type(metrics.qabf(x, y, fused), float)
    assert_type(metrics.evaluate(x, y, fused, names=["Qabf", "SSIM"]), dict[str, float])
    evaluation = evaluate_pairs("pairs", [Method.bundle("night-640x480")], EvaluateOptions(metrics=("Qabf",)))
    assert_type(evaluation.methods[0].mean("Qabf").mean, float | None)


def write_repository(bundles: list[Path]) -> None:
    options = RepositoryOptions(backend=("python", "tensorrt"), instances=2, trust_engines=True)
    assert_type(write_model_repository(bundles, "models", options), ModelRepository)
    written = write_model_repository("nano-vif", Path("models"))
    assert_type([(model.name, model.needs) for model in written.models], list[tuple[str, str]])


def archive() -> None:
    options = BulkOptions(address="auto", actors=4, container="parquet", prompt_shift=0.2)
    summary = fuse_in_bulk("nano-vif", "s3://bucket/x", "s3://bucket/y", Path("fused"), options)
    assert_type(summary, BulkSummary)
    assert_type([failure.error for failure in summary.failures], list[TcmoaError])
