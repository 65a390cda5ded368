"""An installation without extras, in a clean environment: it fuses with ready bundles, and names what it lacks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from one_thread import one_thread_per_session
from tcmoa_runtime import demo as demo_module
from tcmoa_runtime.images import read_frame, resize_frame, write_image
from tcmoa_runtime.pairs import read_frame_pair
from tcmoa_runtime.shipped_pairs import shipped_pairs

__all__ = ["one_thread_per_session"]

ROOT = Path(__file__).parents[1]

SIZES = (
    *(
        (75, 100),
        (77, 101),
        (99, 133),
        (120, 160),
        (144, 176),
        (200, 200),
        (240, 320),
        (243, 319),
        (288, 352),
    ),
    *((300, 451), (320, 240), (360, 480), (377, 512), (427, 640), (479, 641), (480, 640), (480, 854)),
    *((450, 300), (600, 800), (130, 960)),
)
"""(height, width) of the pairs of a user."""


@pytest.fixture(scope="module")
def base_install(tmp_path_factory):
    """Function that runs a program of a clean environment, where the package is installed without extras."""
    folder = tmp_path_factory.mktemp("base")
    venv = folder / "venv"
    # The pip of this environment installs into that one; copying pip and compiling every module would double the time.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    # The parent's environment must not lend its packages.
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def call(*command, cwd=folder):
        return subprocess.run(
            [*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, check=False
        )

    def run(program, *arguments, cwd=folder):
        if program == "pip":
            return call(sys.executable, "-m", "pip", "--python", venv, *arguments, cwd=cwd)
        return call(venv / "bin" / program, *arguments, cwd=cwd)

    done = run("pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", ROOT)
    if done.returncode and re.search(
        r"NewConnectionError|Temporary failure|No matching distribution", done.stderr
    ):
        pytest.skip("no package index in reach; run with one to try a clean install")
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.slow
def test_a_base_install_fuses_pairs_of_twenty_sizes(base_install, tmp_path):
    """`pip install .` with no extra, in a clean environment: then `tcmoa fuse` with a ready bundle."""
    installed = Path(
        base_install("tcmoa", "models", "--json").stdout.partition('"path": "')[2].partition('"')[0]
    )
    package = installed.parents[1]
    before = {path for path in package.rglob("*") if path.suffix != ".pyc"}
    x, y = read_frame_pair(shipped_pairs("vif")[1])
    assert len(SIZES) == 20
    for size in SIZES:
        for folder, image in (("X", x), ("Y", y)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_image(tmp_path / folder / f"{size[1]}x{size[0]}.png", resize_frame(image, size))
    done = base_install("tcmoa", "fuse", "nano-vif", "X", "Y", "-o", "out/", "--threads", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fused = {path.stem: read_frame(path).shape for path in (tmp_path / "out").glob("*.png")}
    assert fused == {f"{width}x{height}": (height, width, 3) for height, width in SIZES}
    assert {path for path in package.rglob("*") if path.suffix != ".pyc"} - before <= set(
        package.rglob("__pycache__")
    )
    listed = base_install("pip", "list").stdout
    assert "onnxruntime " in listed
    assert not re.search(r"^(torch|onnx|scikit-image) ", listed, flags=re.MULTILINE)


@pytest.mark.slow
def test_a_base_install_fuses_as_the_demo_shows(base_install, tmp_path, monkeypatch):
    demo = tmp_path / "demo-out"
    monkeypatch.setattr(demo_module, "READY_NAMES", {"nano-vif": "vif"})  # the others take time
    demo_module.run_demo(demo)
    x, y = demo / "vif_rocket_x.png", demo / "vif_rocket_y.png"
    done = base_install("tcmoa", "fuse", "nano-vif", x, y, "-o", tmp_path / "out.png")
    assert done.returncode == 0, done.stderr
    fused, shown = (
        read_frame(path).astype(int) for path in (tmp_path / "out.png", demo / "vif_rocket_fused.png")
    )
    assert np.abs(fused - shown).max() <= 1  # the demo has OpenVINO


@pytest.mark.slow
def test_a_base_install_names_the_extra_for_exports(base_install):
    done = base_install("tcmoa", "export", "--weights", "tiny", "--task", "vif", "--size", "64x64", "-o", "b")
    assert done.returncode == 3
    assert re.search(r"Run `pip install [^`]*\[export\]'?`", done.stderr)
