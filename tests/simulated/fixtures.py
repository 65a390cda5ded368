"""Fixtures for tests of the TensorRT backend on a simulated GPU.

A plugin of pytest: test files list it in `pytest_plugins`.
"""

import gc
import shutil
import sys
from contextlib import closing

import pytest

from simulated import cuda_runtime
from simulated.cases import Cases, add_engine
from simulated.tensorrt_module import Library
from tcmoa_runtime import Bundle
from tcmoa_runtime.backends.tensorrt.backend import TensorRTBackend


@pytest.fixture(scope="module")
def bundle(vif, tmp_path_factory):
    """A bundle with one rtx engine; tests must not change it."""
    copy = Bundle.open(shutil.copytree(vif, tmp_path_factory.mktemp("engines") / "bundle"))
    add_engine(copy)
    return copy


@pytest.fixture
def own(vif, tmp_path):
    """A bundle without engines, which a test may change."""
    return Bundle.open(shutil.copytree(vif, tmp_path / "own"))


@pytest.fixture
def only_own_cycles():
    """Let `gc.collect` search only objects of the test for cycles: those of PyTorch and pytest take 0.5 s and more."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def device(monkeypatch, only_own_cycles):
    """A simulated GPU on which everything must be freed."""
    simulated = cuda_runtime.Device(devices=2)
    cuda_runtime.install(monkeypatch, simulated)
    yield simulated
    gc.collect()
    simulated.check()
    assert simulated.live() == {}
    assert simulated.pageable_copies == 0


@pytest.fixture
def library(device, monkeypatch):
    """The simulated TensorRT-RTX; TensorRT is not installed."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    return Library(device, "rtx").install(monkeypatch)


@pytest.fixture
def backend(bundle, library):
    with closing(TensorRTBackend(bundle)) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def cases(bundle):
    made = Cases(bundle)
    yield made
    made.reference.close()
