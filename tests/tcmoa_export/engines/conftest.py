"""Fixtures of tests that build engines: small bundles, an engine, and what stands for a GPU."""

import shutil

import pytest

import engine_pieces
from engine_pieces import GPU, SIZE
from micro_model import scrambled
from tcmoa import Sizes
from tcmoa_export.engines.build import build_engine
from tcmoa_export.engines.builder import EngineBuilder
from tcmoa_runtime import Bundle, MissingError
from tcmoa_runtime.gpu.cuda import CudaDevice


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Return the path of a small float32 bundle without engines, which tests do not change."""
    out = tmp_path_factory.mktemp("exported") / "bundle"
    engine_pieces.export_unchecked(scrambled(Sizes(64, 2, 2, 64, 2, 2)), out, size=SIZE)
    return out


@pytest.fixture
def bundle(exported, tmp_path):
    """Return a small float32 bundle to build into."""
    return Bundle.open(shutil.copytree(exported, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def built_once(exported, tmp_path_factory):
    """Return the path of a bundle with an engine, which is recorded in the user folders of the file."""
    copy = shutil.copytree(exported, tmp_path_factory.mktemp("built") / "bundle")
    build_engine(copy)
    return copy


@pytest.fixture
def built(built_once, tmp_path):
    """Return a small float32 bundle with an fp16 engine."""
    return Bundle.open(shutil.copytree(built_once, tmp_path / "built"))


@pytest.fixture
def fake_gpu(monkeypatch):
    monkeypatch.setattr(CudaDevice, "current", staticmethod(lambda: GPU))


@pytest.fixture
def no_gpu(monkeypatch):
    def refuse():
        raise MissingError("no CUDA driver is installed")

    monkeypatch.setattr(CudaDevice, "current", staticmethod(refuse))


@pytest.fixture
def no_build(monkeypatch):
    """Let every build fail the test."""

    def refuse(*_):
        raise AssertionError("an engine was built")

    monkeypatch.setattr(EngineBuilder, "build", refuse)


@pytest.fixture
def remembered_builds(monkeypatch):
    """Build the same graph with the same configuration only once, for tests of what happens around the builder."""
    from build_pieces import REMEMBERED  # not above: importing it skips a file where there is no builder

    REMEMBERED.install(monkeypatch)
