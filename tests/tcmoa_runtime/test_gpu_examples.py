"""The programs in examples/ that fuse arrays on a GPU, run as their users run them, on a simulated GPU."""

import ast
import importlib
import importlib.util
import re
import runpy
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from simulated import gpu_libraries
from simulated.cases import add_engine
from simulated.gpu_libraries import HardwareFrame, Memories
from tcmoa_runtime import Fuser
from tcmoa_runtime.backends.onnxruntime import OnnxRuntimeBackend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.images import read_frame, write_image

pytest_plugins = ["simulated.fixtures"]

EXAMPLES = Path(__file__).parents[2] / "examples"
LIBRARIES = {
    "pycuda_arrays": "pycuda",
    "cupy_arrays": "cupy",
    "pytorch_tensors": "torch",
    "opencv_gpumat": "cv2",
    "nvdec_pynvvideocodec": "PyNvVideoCodec",
    "nvdec_pyav": "av",
}
"""The library of each program."""


@pytest.fixture
def memories(device):
    made = Memories(device)
    yield made
    device.pageable_copies = 0  # of DeviceArray.copy_to_host
    made.close()


@pytest.fixture(scope="module")
def with_engine(exported, tmp_path_factory):
    """Function that returns a copy of a bundle with an engine, and its reference on the CPU."""
    made = {}

    def load(name):
        if name not in made:
            bundle = Bundle.open(
                shutil.copytree(exported(name), tmp_path_factory.mktemp("engines") / "bundle")
            )
            add_engine(bundle)
            made[name] = bundle, Fuser(bundle, OnnxRuntimeBackend(bundle, threads=1))
        return made[name]

    yield load
    for _, reference in made.values():
        reference.close()


@pytest.fixture
def files(tmp_path, pair):
    """Paths of x.png, y.png and out.png."""
    paths = [str(tmp_path / f"{name}.png") for name in ("x", "y", "out")]
    for path, frame in zip(paths, pair, strict=False):
        write_image(path, frame)
    return paths


def run_example(monkeypatch, name, *arguments):
    path = EXAMPLES / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("pycuda_arrays", gpu_libraries.install_pycuda),
        ("cupy_arrays", gpu_libraries.install_cupy),
        ("pytorch_tensors", gpu_libraries.install_torch),
    ],
)
def test_a_program_fuses_two_files(name, install, with_engine, library, memories, monkeypatch, files, pair):
    bundle, reference = with_engine("vif")
    install(monkeypatch, memories)
    run_example(monkeypatch, name, bundle.path, *files)
    np.testing.assert_array_equal(read_frame(files[2]), reference(*pair))


def test_opencv_fuses_bgr_images_with_padded_rows(
    with_engine, library, device, memories, monkeypatch, files, pair
):
    bundle, reference = with_engine("bgr")
    gpu_libraries.install_opencv(monkeypatch, memories)
    run_example(monkeypatch, "opencv_gpumat", bundle.path, *files)
    x, y = (frame[..., ::-1] for frame in pair)
    np.testing.assert_array_equal(read_frame(files[2]), reference(x, y)[..., ::-1])
    assert device.calls.count("cudaMemcpy2DAsync") == 2


def test_opencv_refuses_a_bundle_for_rgb(with_engine, library, memories, monkeypatch, files):
    bundle, _ = with_engine("vif")
    gpu_libraries.install_opencv(monkeypatch, memories)
    with pytest.raises(SystemExit) as caught:
        run_example(monkeypatch, "opencv_gpumat", bundle.path, *files)
    assert str(caught.value) == (
        f"{bundle.path}: RGB; expected BGR, as OpenCV reads images. Export it with --channel-order bgr."
    )


def test_opencv_names_a_file_that_is_no_image(with_engine, library, memories, monkeypatch, files):
    bundle, _ = with_engine("bgr")
    gpu_libraries.install_opencv(monkeypatch, memories)
    Path(files[1]).write_text("no image")
    with pytest.raises(SystemExit) as caught:
        run_example(monkeypatch, "opencv_gpumat", bundle.path, *files)
    assert str(caught.value) == f"{files[1]}: cannot be read; expected an image file."


def test_pynvvideocodec_fuses_two_videos(
    with_engine, library, memories, monkeypatch, tmp_path, four_pairs, pair
):
    bundle, reference = with_engine("vif")
    videos = {"x.mp4": four_pairs[0][:3], "y.mp4": four_pairs[1][:2]}
    gpu_libraries.install_pynvvideocodec(monkeypatch, memories, videos)
    run_example(monkeypatch, "nvdec_pynvvideocodec", bundle.path, "x.mp4", "y.mp4", tmp_path / "out")
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == ["000000.png", "000001.png"]
    for path, x, y in zip(written, *videos.values(), strict=False):
        np.testing.assert_array_equal(read_frame(path), reference(x, y))


def nv12_of(rgb):
    """Luma [H, W] and chroma [H/2, W/2, 2] of an image, by FFmpeg, BT.709."""
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format="nv12", dst_colorspace="ITU709", dst_color_range="MPEG"
    )
    height, width = rgb.shape[:2]
    values = frame.to_ndarray()
    return values[:height, :width].copy(), values[height:, :width].reshape(height // 2, width // 2, 2).copy()


@pytest.mark.parametrize("name", ["vif", "gray"])
def test_pyav_fuses_frames_of_the_decoder(
    name, with_engine, library, device, memories, monkeypatch, tmp_path, four_pairs
):
    bundle, reference = with_engine(name)
    gpu_libraries.install_torch(monkeypatch, memories)
    videos = {
        path: [nv12_of(rgb) for rgb in frames[:2]] for path, frames in zip("xy", four_pairs, strict=True)
    }
    program = runpy.run_path(str(EXAMPLES / "nvdec_pyav.py"))
    monkeypatch.setitem(
        program["main"].__globals__,
        "decode",
        lambda path: (HardwareFrame(memories, luma, chroma) for luma, chroma in videos[path]),
    )
    program["main"](str(bundle.path), "x", "y", str(tmp_path / "out"))
    import torch

    for index, (x, y) in enumerate(zip(videos["x"], videos["y"], strict=True)):
        x_rgb = program["nv12_to_rgb"](*map(torch.from_numpy, x)).numpy()
        y_rgb = program["nv12_to_rgb"](*map(torch.from_numpy, y)).numpy()
        expected = reference(x_rgb, y[0] if name == "gray" else y_rgb)
        np.testing.assert_array_equal(read_frame(tmp_path / "out" / f"{index:06}.png"), expected)
    assert ("cudaMemcpy2DAsync" in device.calls) == (name == "gray")  # luma, as it was decoded


def test_nv12_becomes_the_rgb_that_ffmpeg_makes():
    """Of smooth images, because FFmpeg interpolates chroma and the program repeats it."""
    import torch

    program = runpy.run_path(str(EXAMPLES / "nvdec_pyav.py"))
    ramp = np.linspace(0, 255, 64)
    rgb = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), -1).astype(np.uint8)
    planes = [torch.from_numpy(plane) for plane in nv12_of(rgb)]
    assert np.abs(program["nv12_to_rgb"](*planes).numpy().astype(int) - rgb).max() <= 8


def test_pyav_accepts_the_options_and_gives_planes_as_dlpack(tmp_path):
    """Up to the device, which is missing here; planes on the CPU have the same layout."""
    import torch

    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode()])
    program = runpy.run_path(str(EXAMPLES / "nvdec_pyav.py"))
    with pytest.raises((av.FFmpegError, NotImplementedError, OSError)):
        next(program["decode"](str(path)))
    planes = [program["as_tensor"](plane) for plane in frame.reformat(format="nv12").planes]
    assert [tuple(plane.shape) for plane in planes] == [(48, 64), (24, 32, 2)]
    assert all(isinstance(plane, torch.Tensor) for plane in planes)


def names_in(tree):
    """Dotted names of a program that start with an imported module: (module, attribute, ...)."""
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported[alias.asname or alias.name.partition(".")[0]] = alias.name
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.module, (alias.name,)
    for node in ast.walk(tree):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in imported:
            yield imported[node.id], tuple(reversed(parts))


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_names_of_a_program_exist_in_its_library(name):
    """The simulated libraries have what the programs use; the real ones must have it too."""
    if importlib.util.find_spec(LIBRARIES[name]) is None:
        pytest.skip(f"{LIBRARIES[name]} is not installed")
    for module, attributes in set(names_in(ast.parse((EXAMPLES / f"{name}.py").read_text()))):
        found = importlib.import_module(module)
        for attribute in attributes:
            found = getattr(found, attribute, None) or importlib.import_module(f"{module}.{attribute}")


def test_every_program_is_tested_and_documented():
    programs = {path.stem for path in EXAMPLES.glob("*.py")} - {"triton_client"}  # tested by test_triton
    assert programs == LIBRARIES.keys()
    page = (EXAMPLES.parent / "docs" / "guides" / "gpu-arrays.md").read_text()
    for name in programs:
        assert f"examples/{name}.py" in page, name
    code = "".join((EXAMPLES / f"{name}.py").read_text() for name in programs)
    first, *quoted = re.findall(r"^```py\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert first.startswith("fused = fuser(x, y)")
    assert quoted
    for block in quoted:
        assert block in code, block
