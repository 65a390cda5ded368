"""`tcmoa fuse --backend`: its choices, and the errors of backends that cannot run."""

import sys

import pytest

from simulated import cuda_runtime
from simulated.cases import add_engine
from simulated.cuda_runtime import cudaError_t
from simulated.tensorrt_module import Library
from tcmoa_runtime.backends.pick import BACKENDS
from tcmoa_runtime.install import install_command

pytest_plugins = ["simulated.fixtures"]


@pytest.fixture
def fuse(tcmoa, sources, tmp_path):
    return lambda bundle, backend: tcmoa(
        "fuse", bundle, *sources, "-o", tmp_path / "f.png", "--backend", backend
    )


def test_help_lists_the_backends(tcmoa, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert f"<auto|{'|'.join(BACKENDS)}>" in tcmoa("fuse", "--help").out


def test_an_unknown_backend_is_one_line(fuse, vif):
    fuse(vif, "cuda").assert_error(2, "'--backend': 'cuda' is not one of", *BACKENDS)


def test_tensorrt_without_an_engine_says_how_to_build_one(fuse, vif):
    fuse(vif, "tensorrt").assert_error(
        2, f"{vif}: has no engine", f"`tcmoa build {vif}`, or use --backend onnxruntime"
    )


def test_tensorrt_without_a_driver_is_missing(fuse, own, device, monkeypatch):
    Library(device, "rtx").install(monkeypatch)
    add_engine(own)
    device.fail(1, cudaError_t.cudaErrorInsufficientDriver, "cudaGetDeviceCount")
    fuse(own.path, "tensorrt").assert_error(3, "NVIDIA driver", "--backend onnxruntime")


def test_tensorrt_without_its_library_is_missing(fuse, own, device, monkeypatch):
    cuda_runtime.install(monkeypatch, device)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    add_engine(own)
    fuse(own.path, "tensorrt").assert_error(3, install_command("rtx"))


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-rtx"])
def test_a_provider_that_is_not_installed_is_missing(backend, fuse, vif, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", None)
    fuse(vif, backend).assert_error(3, f"backend {backend}: ", "pip install", "must not both be installed")


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_auto_and_onnxruntime_fuse(backend, fuse, vif, tmp_path):
    outcome = fuse(vif, backend)
    assert (outcome.code, outcome.err) == (0, "")
    assert (tmp_path / "f.png").is_file()
