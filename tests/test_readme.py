"""Every command and every line of Python in the README runs, as a newcomer would run them."""

import os
import re
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tcmoa_runtime.images import read_frame
from tcmoa_runtime.streams.interfaces import FusedFrame, StreamFormat
from tcmoa_runtime.streams.sinks import open_sink

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENGINES, CALIBRATION = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("engines", "calibration")
)


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the demo has run."""
    folder = tmp_path_factory.mktemp("newcomer")
    tcmoa(folder, ["demo", "--out", "demo-out"])
    for name in ("x", "y"):
        film(folder / f"{name}.mp4", read_frame(folder / "demo-out" / f"vif_coffee_{name}.png"))
    return folder


def film(path, picture):
    """The user's own video: here four frames of a picture that slides by."""
    sink = open_sink(str(path))
    sink.open(StreamFormat(*picture.shape[:2], "rgb", Fraction(1, 25), Fraction(25), live=False))
    for i in range(4):
        image = np.roll(picture, 4 * i, axis=1)
        sink.write(FusedFrame(image, i, Fraction(1, 25), i, "fused", None, None, None, None, 0.0))
    sink.close()


def tcmoa(folder, arguments):
    """Run the `tcmoa` command of this environment in `folder` and return what it printed."""
    command = [sys.executable, "-c", "from tcmoa_runtime.cli import main; main()", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"tcmoa {shlex.join(arguments)}: {done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_demo_writes_the_pictures_of_the_readme(place):
    written = {path.name for path in (place / "demo-out").iterdir()}
    assert {"contact_sheet.jpg", "prompt_strip.jpg", "vif-448x336", "mef-448x336", "mff-448x336"} <= written
    for name in re.findall(r"!\[[^]]*\]\(docs/([^)]+)\)", README):
        assert name in written
        assert (ROOT / "docs" / name).is_file()


@pytest.mark.slow
def test_every_tcmoa_command_of_the_readme_runs(place):
    told = blocks("bash") + blocks("bash", ENGINES) + blocks("bash", CALIBRATION)
    lines = [line for block in told for line in block.splitlines() if line.strip()]
    assert len(lines) >= 10
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[0] == "tcmoa"
        tcmoa(place, words[1:])
    assert (place / "fused.png").read_bytes() != (place / "redder.png").read_bytes()


@pytest.mark.slow
def test_every_line_of_python_of_the_readme_runs(place):
    if not (place / "night-448x336").exists():
        tcmoa(place, shlex.split("export --weights tiny --task vif --size 448x336 --out night-448x336"))
    (code,) = blocks("python")
    code += "\nassert fused.shape == x.shape and (mixed != fused).any() and (sharper != fused).any()\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_commands_that_are_not_run_here_exist():
    """`make` targets, extras and files that the README's other blocks name."""
    makefile = (ROOT / "Makefile").read_text()
    pyproject = (ROOT / "pyproject.toml").read_text()
    seen = 0
    for line in "\n".join(blocks("sh")).splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        seen += 1
        if words[0] == "make":
            assert f"\n{words[1]}:" in makefile
        elif words[:2] == ["pip", "install"]:
            for extra in re.findall(r"\[(\w+)\]", words[2]):
                assert f"\n{extra} = [" in pyproject
        elif words[0] == "python":  # tests/benchmarks runs it
            assert words[1:] == ["benchmarks/speed.py", "--quick"]
        else:
            assert words[:2] == ["tcmoa", "train"]
            assert (ROOT / words[2]).is_file()
    assert seen == 14
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


@pytest.mark.slow
def test_a_base_install_fuses_without_torch(place, tmp_path):
    """`pip install .` with no extra, in a clean environment: then `tcmoa fuse`."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(ROOT)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode and re.search(
        r"NewConnectionError|Temporary failure|No matching distribution", done.stderr
    ):
        pytest.skip("no package index in reach; run with one to try a clean install")
    assert done.returncode == 0, done.stderr
    bundle, demo = place / "demo-out" / "vif-448x336", place / "demo-out"
    fuse = [
        "fuse",
        str(bundle),
        str(demo / "vif_coffee_x.png"),
        str(demo / "vif_coffee_y.png"),
        "-o",
        "out.png",
    ]
    # The parent's environment must not lend its packages.
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    run = subprocess.run(
        [str(venv / "bin" / "tcmoa"), *fuse],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    fused, shown = (
        read_frame(path).astype(int)
        for path in (tmp_path / "out.png", place / "demo-out" / "vif_coffee_fused.png")
    )
    assert np.abs(fused - shown).max() <= 1  # the demo has OpenVINO
    listed = subprocess.run(
        [str(python), "-m", "pip", "list"], env=clean, capture_output=True, text=True, check=True
    ).stdout
    assert not re.search(r"^(torch|onnx|scikit-image) ", listed, flags=re.MULTILINE)
    missing = subprocess.run(
        [
            str(venv / "bin" / "tcmoa"),
            "export",
            "--weights",
            "tiny",
            "--task",
            "vif",
            "--size",
            "64x64",
            "-o",
            "b",
        ],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode == 3
    assert "pip install 'tcmoa[export]'" in missing.stderr


@pytest.mark.slow
def test_the_gstreamer_pipeline_fuses_two_videos(place):
    plugins = ROOT / "build" / "cpp" / "gst"
    if not (plugins / "libgsttcmoa.so").exists():
        pytest.skip("the GStreamer element is not built; `make cpp` builds it, and this runs")
    if not (place / "night-448x336").exists():
        tcmoa(place, shlex.split("export --weights tiny --task vif --size 448x336 --out night-448x336"))
    (pipeline,) = blocks("gst")
    environment = {
        **os.environ,
        "GST_PLUGIN_PATH": str(plugins),
        "GST_REGISTRY": str(place / "registry.bin"),
    }
    done = subprocess.run(
        shlex.split(pipeline), cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(read_video(place / "fused-gst.mp4"))) == 4


def read_video(path):
    import av

    with av.open(str(path)) as container:
        yield from (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
