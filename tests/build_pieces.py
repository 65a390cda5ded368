"""What tests of building engines share; importing it skips a test file where TensorRT-RTX's builder is missing."""

import pytest

import engine_pieces
from tcmoa_export.engines.build import build_engine
from tcmoa_runtime.engine_folders import ENGINES_FOLDER
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.typing import ignore_phase

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=engine_pieces.NO_RTX, exc_type=ImportError)

VERSION = rtx.__version__
STEM = f"rtx-{VERSION}-sm80+sm86+sm89+sm120"
FP16 = f"{STEM}-fp16.engine"


def names_in(bundle):
    """Return the names of the files in engines/."""
    folder = bundle.path / ENGINES_FOLDER
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def build_with(bundle, *, on_progress=ignore_phase, **options):
    """Build an engine."""
    return build_engine(bundle, BuildOptions(**options), on_progress=on_progress)


def build_and_listen(bundle, **options):
    """Build an engine, and return it with the messages."""
    messages = []
    return build_engine(bundle, BuildOptions(**options), on_message=messages.append), messages


def state(engine):
    """Return what changes when a file is written, even with the same content."""
    files = engine.path, engine.path.with_suffix(".json")
    return [(p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in files]


def assert_one_line(error, *words):
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
