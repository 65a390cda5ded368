"""Model repositories on a real tritonserver, on the CPU.

It has the python backend only. `make triton-env` builds the environment that it runs in.
"""

import os
import re
import runpy
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from repository_pieces import write_aligned
from tcmoa_runtime import Fuser
from tcmoa_runtime.images import decode_image, encode_image
from tcmoa_runtime.model_repository import write_model_repository
from tcmoa_runtime.options.repository import RepositoryOptions
from triton_server import find_server, triton_server
from wrapped_pieces import write_two_layers

ROOT = Path(__file__).parents[3]
TYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.uint16): "UINT16", np.dtype(np.float32): "FP32"}
GRAPH = "vif-onnxruntime"

STAND_IN = '''
"""Runs the graph of a model in place of Triton's onnxruntime backend, which is not installed."""
from pathlib import Path
import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        folder = Path(__file__).parent
        self.first = folder / "first.npz"
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def execute(self, requests):
        (request,) = requests
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if not self.first.exists():
            np.savez(self.first, **inputs)
        names = [node.name for node in self.session.get_outputs()]
        results = self.session.run(names, inputs)
        outputs = [triton.Tensor(name, value) for name, value in zip(names, results)]
        return [triton.InferenceResponse(outputs)]
'''


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def bundles(exported, tmp_path_factory):
    """Bundles by the names of their models."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "vif": exported("vif"),
        "aligned": write_aligned(exported("bgr"), folder / "aligned"),
        "two-layers": write_two_layers(folder / "two-layers", stretches=1),
    }


@pytest.fixture(scope="module")
def repository(bundles, tmp_path_factory):
    """A repository with one model in python for each bundle, and the graph of one."""
    find_server()
    folder = tmp_path_factory.mktemp("triton")
    options = {"fuser_backend": "onnxruntime", "threads": 1}
    out = folder / "models"
    write_model_repository(list(bundles.values()), out, RepositoryOptions(backend=("python",), **options))
    other = RepositoryOptions(backend=("python", "onnxruntime"), name=("vif",), instances=2, **options)
    write_model_repository(bundles["vif"], folder / "other", other)
    shutil.move(folder / "other" / GRAPH, out / GRAPH)
    two = (folder / "other" / "vif" / "config.pbtxt").read_text()
    (out / "vif" / "config.pbtxt").write_text(two)
    config = out / GRAPH / "config.pbtxt"
    text = config.read_text()
    for old, new in (('backend: "onnxruntime"', 'backend: "python"'), ('"model.onnx"', '"model.py"')):
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    (out / GRAPH / "1" / "model.py").write_text(STAND_IN)
    return out


@pytest.fixture(scope="module")
def server(repository, bundles, tmp_path_factory):
    """A client of a server with all models of the repository, and the address."""
    log = tmp_path_factory.mktemp("log") / "triton.log"
    models = [f"--load-model={name}" for name in (*bundles, GRAPH)]
    with triton_server(repository, log, *models) as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    return server[0]


@pytest.fixture(scope="module")
def fusers(bundles):
    """Fusers of the bundles by the names of their models."""
    loaded = {name: Fuser.load(path, "onnxruntime", threads=1) for name, path in bundles.items()}
    yield loaded
    for one in loaded.values():
        one.close()


def tensors_of(**inputs):
    """Tensors of a request."""
    from tritonclient import http

    tensors = []
    for name, value in inputs.items():
        array = np.asarray(value)
        tensors.append(http.InferInput(name, array.shape, TYPES.get(array.dtype, "BYTES")))
        tensors[-1].set_data_from_numpy(array)
    return tensors


def infer(client, model, outputs=("fused",), **inputs):
    """Send tensors; return the outputs of the response by name."""
    from tritonclient import http

    tensors = tensors_of(**inputs)
    requested = [http.InferRequestedOutput(name) for name in outputs] or None
    result = client.infer(model, tensors, outputs=requested)
    return {entry["name"]: result.as_numpy(entry["name"]) for entry in result.get_response()["outputs"]}


def refusal(call, *arguments, **inputs):
    """The line that a client gets."""
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **inputs)
    return caught.value.message()


def processes_with(argument):
    """Numbers of the running processes that have a path among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            if str(argument).encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def files_of(*images):
    return np.array([encode_image(image, "PNG") for image in images], np.object_)


def test_models_are_ready_and_say_what_they_are(client, bundles):
    for name in (*bundles, GRAPH):
        assert client.is_model_ready(name, "1")
    config = client.get_model_config("vif")
    assert config["max_batch_size"] == 0
    assert config["parameters"]["tcmoa.task"] == {"string_value": "vif"}
    inputs = {entry["name"]: entry for entry in client.get_model_metadata("vif")["inputs"]}
    assert inputs["x_encoded"] == {"name": "x_encoded", "datatype": "BYTES", "shape": [-1]}


def test_frames_of_the_bundles_size_have_the_bytes_of_the_fuser(client, fusers, pair):
    x, y = pair
    fused, prompt = fusers["vif"].with_prompt(x, y)
    outputs = infer(client, "vif", (), x=x[None], y=y[None])
    assert outputs.keys() == {"fused", "prompt"}
    np.testing.assert_array_equal(outputs["fused"][0], fused)
    np.testing.assert_array_equal(outputs["prompt"][0], prompt)


@pytest.mark.parametrize("size", [(60, 80), (157, 211)])
def test_frames_of_other_sizes_have_the_bytes_of_the_fuser(size, client, fusers, four_pairs):
    x, y = (np.tile(batch[0], (2, 2, 1))[: size[0], : size[1]] for batch in four_pairs)
    outputs = infer(client, "vif", x=x[None], y=y[None])
    np.testing.assert_array_equal(outputs["fused"][0], fusers["vif"](x, y))


def test_several_frames_are_fused_in_one_request(client, fusers, four_pairs):
    outputs = infer(client, "vif", x=four_pairs[0], y=four_pairs[1])
    np.testing.assert_array_equal(outputs["fused"], fusers["vif"](*four_pairs))


def test_requests_at_the_same_time_get_their_own_frames(server, fusers, four_pairs):
    """The model has two instances, each in a process of its own."""
    from tritonclient.http import InferenceServerClient

    assert server[0].get_model_config("vif")["instance_group"][0]["count"] == 2
    expected = fusers["vif"](*four_pairs)

    def fuse(index):
        with InferenceServerClient(server[1]) as own:
            x, y = (frames[index : index + 1] for frames in four_pairs)
            return all((infer(own, "vif", x=x, y=y)["fused"][0] == expected[index]).all() for _ in range(5))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fuse, range(4))) == [True] * 4


def test_encoded_images_go_in_and_come_back(client, fusers, pair):
    x, y = pair
    fused = fusers["vif"](x, y)
    outputs = infer(
        client, "vif", ("fused", "fused_png", "fused_jpeg"), x_encoded=files_of(x), y_encoded=files_of(y)
    )
    np.testing.assert_array_equal(outputs["fused"][0], fused)
    np.testing.assert_array_equal(decode_image(outputs["fused_png"][0], "fused_png"), fused)
    assert decode_image(outputs["fused_jpeg"][0], "fused_jpeg").shape == fused.shape


def test_the_example_and_the_guide_fuse(client, fusers, pair, sources, tmp_path):
    example = runpy.run_path(str(ROOT / "examples" / "triton_client.py"))
    files = [path.read_bytes() for path in sources]
    png = example["fuse_files"](client, "vif", *files, shift=0.25)
    expected = fusers["vif"](*pair, shift=0.25)
    np.testing.assert_array_equal(decode_image(png, "png"), expected)
    guide = (ROOT / "docs" / "guides" / "triton.md").read_text(encoding="utf-8")
    (block,) = [text for text in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "def fuse(" in text]
    names = {}
    exec(block.replace('"nano-vif"', '"vif"'), names)
    np.testing.assert_array_equal(names["fuse"](client, *pair, shift=0.25), expected)


def test_frames_of_16_bits_are_stretched(client, fusers, pair):
    x = pair[0].astype(np.uint16) * 150 + 1000
    outputs = infer(client, "vif", x_uint16=x[None], y=pair[1][None])
    np.testing.assert_array_equal(outputs["fused"][0], fusers["vif"](x, pair[1]))


def test_a_prompt_is_a_number_or_a_map(client, fusers, pair):
    x, y = pair
    fuser = fusers["vif"]
    number = np.full((1, 1, 1), 0.25, np.float32)
    map_ = np.linspace(-0.5, 0.5, np.prod(fuser.grid)).reshape(1, *fuser.grid).astype(np.float32)
    results = []
    for shift, own in ((number, 0.25), (map_, map_[0])):
        outputs = infer(client, "vif", x=x[None], y=y[None], prompt_shift=shift, prompt_scale=number)
        results.append(outputs["fused"][0])
        np.testing.assert_array_equal(results[-1], fuser(x, y, scale=0.25, shift=own))
    assert (results[0] != results[1]).any()


def test_sources_are_aligned_in_the_order_of_the_bundle(client, fusers, pair):
    x, y = pair
    outputs = infer(client, "aligned", x=x[None], y=y[None, :80])
    np.testing.assert_array_equal(outputs["fused"][0], fusers["aligned"](x, y[:80]))
    outputs = infer(client, "aligned", ("fused_png",), x_encoded=files_of(x), y_encoded=files_of(y))
    fused = fusers["aligned"](x[..., ::-1], y[..., ::-1])
    np.testing.assert_array_equal(decode_image(outputs["fused_png"][0], "fused_png"), fused[..., ::-1])


def test_a_wrapped_network_has_no_prompt(client, fusers, pair):
    x, y = (frame[:40, :56] for frame in pair)
    outputs = infer(client, "two-layers", (), x=x[None], y=y[None])
    assert outputs.keys() == {"fused"}
    np.testing.assert_array_equal(outputs["fused"][0], fusers["two-layers"](x, y))
    line = refusal(
        infer, client, "two-layers", x=x[None], y=y[None], prompt_scale=np.ones((1, 1, 1), np.float32)
    )
    assert "prompt_scale" in line


def test_a_graphs_configuration_is_one_that_triton_takes(client, repository, fusers, pair):
    """The stand-in for the onnxruntime backend gets what that backend would get, warm-up included."""
    x, y = pair
    with np.load(repository / GRAPH / "1" / "first.npz") as file:
        first = dict(file)
    assert {name: (first[name].dtype.name, first[name].shape) for name in first} == {
        spec.name: (spec.dtype, spec.shape) for spec in fusers["vif"].bundle.contract.inputs
    }
    scale, shift = fusers["vif"].bundle.default_prompt
    assert (set(first["prompt_scale"].flat), set(first["prompt_shift"].flat)) == ({scale}, {shift})
    maps = {name: first[name] for name in ("prompt_scale", "prompt_shift")}
    outputs = infer(client, GRAPH, x=x[None], y=y[None], **maps)
    np.testing.assert_array_equal(outputs["fused"][0], fusers["vif"](x, y))
    line = refusal(infer, client, GRAPH, x=x[None, :50], y=y[None], **maps)
    assert line.endswith(
        "unexpected shape for input 'x' for model 'vif-onnxruntime'. Expected [1,100,130,3], got [1,50,130,3]. "
    )


def test_wrong_requests_come_back_as_one_line(client, pair):
    x, y = (frame[None] for frame in pair)
    cases = [
        ({"x": x}, "y: not given; expected one of the inputs y, y_uint16, y_encoded"),
        (
            {"x": x[:, :50], "y": y},
            "y: 130x100; expected 130x50, the size of x. Register the two images first, or align the bundle with "
            "`tcmoa calibrate align`",
        ),
        (
            {"x_encoded": np.array([b"no image"], np.object_), "y": y},
            "x_encoded: not a readable image; expected PNG, JPEG, TIFF, BMP or WebP",
        ),
        ({"x": np.zeros((65, 1, 1, 3), np.uint8), "y": y}, "x: 65 frames; expected at most 64 in a request"),
        (
            {"x": x, "y": y, "prompt_shift": np.full((1, 1, 1), 99, np.float32)},
            "prompt_shift: holds 99; expected -16 to 16",
        ),
    ]
    for inputs, line in cases:
        assert refusal(infer, client, "vif", **inputs) == line
    assert infer(client, "vif", x=x, y=y)["fused"].shape == x.shape


@pytest.mark.parametrize("damage", ["graph", "parameter"])
def test_a_damaged_model_is_not_loaded_and_says_why(damage, client, repository):
    name = f"damaged-{damage}"
    model = repository / name
    shutil.copytree(repository / "vif", model)
    config = (model / "config.pbtxt").read_text().replace('name: "vif"', f'name: "{name}"')
    if damage == "graph":
        graph = model / "1" / "bundle" / "fusion.onnx"
        flip_a_byte(graph)
        line = f"TritonModelException: {graph}: SHA-256 is "
    else:
        config = config.replace('string_value: "auto"', 'string_value: "fill"')
        line = "TritonModelException: parameter fit of config.pbtxt: 'fill'; expected one of exact, resize, pad, "
    (model / "config.pbtxt").write_text(config)
    message = refusal(client.load_model, name)
    assert line in message.splitlines()[0]
    assert not client.is_model_ready(name)


def test_a_killed_process_fails_its_requests_until_the_model_is_loaded_again(
    client, repository, fusers, pair
):
    x, y = (frame[:40, :56] for frame in pair)
    model = repository / "two-layers" / "1" / "model.py"
    (process,) = processes_with(model)
    os.kill(process, signal.SIGKILL)
    line = refusal(infer, client, "two-layers", x=x[None], y=y[None])
    assert line == "Stub process 'two-layers_0_0' is not healthy."
    client.load_model("two-layers")
    outputs = infer(client, "two-layers", x=x[None], y=y[None])
    np.testing.assert_array_equal(outputs["fused"][0], fusers["two-layers"](x, y))
