"""The page "Your own network" runs, with a few steps of training and small pictures."""

import contextlib
import re
import shlex
import subprocess
import sys
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tcmoa_export.wrap.tryout import candidates
from tcmoa_runtime import Bundle
from tcmoa_runtime.cli import run
from tcmoa_runtime.images import resize_frame
from tcmoa_runtime.pairs import read_frame_pair
from tcmoa_runtime.shipped_pairs import shipped_pairs
from tcmoa_runtime.streams.interfaces import FusedFrame, StreamFormat
from tcmoa_runtime.streams.sinks import open_sink

PAGE = Path(__file__).parents[1] / "docs" / "guides" / "your-own-network.md"
TEXT = PAGE.read_text(encoding="utf-8")
SIZE = (48, 64)

pytestmark = pytest.mark.slow


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def replaced(code, pattern, text):
    """Replace what stands once in the code."""
    code, count = re.subn(pattern, text, code)
    assert count == 1, pattern
    return code


def command(start):
    """Return the command of the page that starts so, as words after `tcmoa`."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith(start)]
    assert len(lines) == 1, lines
    return shlex.split(lines[0])[1:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which the first example of the page has run, and its variables."""
    folder = tmp_path_factory.mktemp("own")
    code = replaced(
        "\n".join(blocks("py")[:-1]), "STEPS, SIDE, BATCH = [0-9, ]+", "STEPS, SIDE, BATCH = 2, 48, 2"
    )
    code = replaced(code, r"size=\(336, 448\)", f"size={SIZE}")
    variables = {"__name__": "page"}
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        with contextlib.chdir(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of PyTorch's exporter
            exec(compile(code, PAGE, "exec"), variables)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    for index, name in enumerate("xy"):
        film(folder / f"{name}.mp4", resize_frame(read_frame_pair(shipped_pairs("vif")[0])[index], SIZE))
    return folder, variables


def film(path, picture):
    """Write three equal frames."""
    sink = open_sink(str(path))
    sink.open(StreamFormat(*picture.shape[:2], "rgb", Fraction(1, 25), Fraction(25), live=False))
    for i in range(3):
        sink.write(FusedFrame(picture, i, Fraction(1, 25), i, "fused", None, None, None, None, 0.0))
    sink.close()


def test_the_network_is_trained_and_wrapped(trained):
    folder, variables = trained
    bundle = Bundle.open(folder / "small-fusion")
    assert (bundle.network.name, bundle.network.license, bundle.size) == ("small-fusion", "MIT", SIZE)
    assert not bundle.has_prompt
    assert variables["report"].parity.beyond_one <= 0.001
    x, fused = variables["x"], variables["fused"]
    assert (fused.shape, fused.dtype) == (x.shape, np.uint8)
    assert np.isfinite(variables["losses"]).all()


def test_the_conventions_that_were_trained_with_come_first(trained, capsys, monkeypatch):
    monkeypatch.setattr(candidates, "WORK_SIZE", (96, 128))
    with contextlib.chdir(trained[0]):
        assert run(command("tcmoa wrap small-fusion.onnx")) == 0
    lines = capsys.readouterr().out.splitlines()
    best = next(i for i, line in enumerate(lines) if line.startswith("1  score "))
    assert "--range-in 0..1 --range-out 0..1 --color-out chroma-x" in lines[best + 1]
    assert (trained[0] / "small-fusion-try.png").is_file()


def test_the_bundle_streams(trained):
    pytest.importorskip("av", reason="PyAV is not installed; `pip install 'tcmoa[stream]'` runs this")
    with contextlib.chdir(trained[0]):
        assert run(command("tcmoa stream small-fusion")) == 0
    assert (trained[0] / "small-fusion.mp4").stat().st_size > 0


def test_the_bundle_becomes_an_engine(trained):
    pytest.importorskip(
        "tensorrt_rtx_bindings",
        reason="TensorRT-RTX is not installed; `pip install 'tcmoa[rtx]'` runs this",
        exc_type=ImportError,
    )
    with contextlib.chdir(trained[0]):
        assert run(command("tcmoa build small-fusion")) == 0


def test_the_network_of_a_package_is_wrapped(tmp_path, monkeypatch):
    install = next(line for block in blocks("sh") for line in block.splitlines() if line.startswith("pip "))
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(install), "--quiet", "--disable-pip-version-check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"openfocus cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    code = replaced(blocks("py")[-1], r"size=\(480, 640\)", f"size={SIZE}")
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with contextlib.chdir(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of PyTorch's exporter
        exec(compile(code, PAGE, "exec"), {"__name__": "page"})
    for name in set(sys.modules) - modules:  # `core` is no name for a module of this process
        if name.partition(".")[0] == "core":
            del sys.modules[name]
    bundle = Bundle.open(tmp_path / "stackmff")
    assert (bundle.task, bundle.network.name, bundle.size) == ("mff", "StackMFF", SIZE)
