"""What tests of building engines share; importing it skips a test file where TensorRT-RTX's builder is missing."""

import hashlib

import pytest

import engine_pieces
from tcmoa_export.engines.build import build_engine
from tcmoa_runtime.backends.tensorrt import library_log
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


class RememberedBuilds:
    """In place of the builder and parser of TensorRT-RTX: builds each graph once for each configuration.

    A build that is repeated gives the same engine and log, but reports no progress.
    """

    def __init__(self):
        self.real, self.real_parser = rtx.Builder, rtx.OnnxParser
        self.builds, self.parsed = {}, None

    def install(self, monkeypatch):
        monkeypatch.setattr(rtx, "Builder", lambda logger: RememberingBuilder(self, logger))
        monkeypatch.setattr(rtx, "OnnxParser", lambda *arguments: RememberingParser(self, *arguments))

    def build(self, builder, logger, network, config):
        (lines,) = (log._lines for log in library_log._logs.values() if log._collecting is logger)
        targets = map(config.get_compute_capability, range(config.num_compute_capabilities))
        workspace = config.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE)
        key = (self.parsed, config.flags, config.profiling_verbosity, workspace, *targets)
        if key not in self.builds:
            before = len(lines)
            self.builds[key] = bytes(builder.build_serialized_network(network, config)), lines[before:]
            return self.builds[key][0]
        data, logged = self.builds[key]
        lines.extend(logged)
        return data


class RememberingBuilder:
    def __init__(self, remembered, logger):
        vars(self).update(remembered=remembered, logger=logger, real=remembered.real(logger))

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __setattr__(self, name, value):
        setattr(self.real, name, value)

    def build_serialized_network(self, network, config):
        return self.remembered.build(self.real, self.logger, network, config)


class RememberingParser:
    def __init__(self, remembered, network, logger):
        self.remembered, self.real = remembered, remembered.real_parser(network, logger)

    def parse(self, graph):
        self.remembered.parsed = hashlib.sha256(graph).digest()
        return self.real.parse(graph)


REMEMBERED = RememberedBuilds()
