"""Inference over HTTP with Triton's own client: the same bytes as the fuser's, in every form of input and output."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service_pieces import infer_body, noise, running_service
from tcmoa_runtime import Fuser
from tcmoa_runtime.options.serve import ServeOptions
from tcmoa_runtime.serving.tensors import DATA_TYPES

pytest.importorskip("uvicorn", reason="uvicorn is not installed; `pip install 'tcmoa[serve]'` runs this")
client_module = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

NAMES = ("vif", "plain", "bgr", "gray", "batch")


@pytest.fixture(scope="module")
def fusers(exported):
    loaded = {name: Fuser.load(exported(name), "onnxruntime", threads=1) for name in NAMES}
    yield loaded
    for fuser in loaded.values():
        fuser.close()


@pytest.fixture(scope="module")
def service(fusers):
    with running_service(fusers, ServeOptions(max_body_mib=2, max_megapixels=0.2)) as running:
        yield running


@pytest.fixture(scope="module")
def client(service):
    with client_module.InferenceServerClient(f"127.0.0.1:{service.port}") as opened:
        yield opened


def tensor(name, array, *, binary=True):
    datatype = {"O": "BYTES", "f": f"FP{array.itemsize * 8}"}.get(
        array.dtype.kind, f"{'U' if array.dtype.kind == 'u' else ''}INT{array.itemsize * 8}"
    )
    made = client_module.InferInput(name, list(array.shape), datatype)
    return made.set_data_from_numpy(array, binary_data=binary)


def infer(client, arrays, outputs=("fused",), *, model="vif", binary=True, **options):
    """Return the requested outputs of a call of Triton's client."""
    result = client.infer(
        model,
        [tensor(name, array, binary=binary) for name, array in arrays.items()],
        outputs=[client_module.InferRequestedOutput(name, binary_data=binary) for name in outputs],
        **options,
    )
    return [result.as_numpy(name) for name in outputs]


def encoded(image, suffix=".png"):
    """Bytes of an image file of an RGB image."""
    return cv2.imencode(suffix, image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.is_model_ready("vif")
    assert client.is_model_ready("vif", "1")
    index = client.get_model_repository_index()
    assert [(entry["name"], entry["state"]) for entry in index] == [(name, "READY") for name in NAMES]
    assert client.get_model_metadata("gray") == {
        "name": "gray",
        "versions": ["1"],
        "platform": "tcmoa_onnxruntime",
        "inputs": [
            {"name": "x", "datatype": "UINT8", "shape": [-1, -1, 3]},
            {"name": "y", "datatype": "UINT8", "shape": [-1, -1, 1]},
            {"name": "prompt_scale", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "prompt_shift", "datatype": "FP32", "shape": [-1, -1]},
        ],
        "outputs": [
            {"name": "fused", "datatype": "UINT8", "shape": [-1, -1, 3]},
            {"name": "fused_png", "datatype": "BYTES", "shape": [1]},
            {"name": "fused_jpeg", "datatype": "BYTES", "shape": [1]},
        ],
    }
    prompt = client.get_model_metadata("vif")["outputs"][-1]
    assert prompt == {"name": "prompt", "datatype": "FP32", "shape": [2, 2, -1, -1]}


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("binary", [True, False])
def test_a_pair_gives_the_bytes_of_the_fuser(client, fusers, pair, model, binary):
    x, y = pair
    (fused,) = infer(client, {"x": x, "y": y}, model=model, binary=binary)
    np.testing.assert_array_equal(fused, fusers[model](x, y))


@pytest.mark.parametrize("shape", [(100, 130), (60, 70), (150, 200), (1, 1)])
def test_pairs_of_any_size_and_type_are_fused(client, fusers, shape):
    gray = noise(*shape, seed=1)[..., 0]
    infrared = noise(*shape, seed=2, channels=1, dtype=np.uint16)
    for x, y in ((noise(*shape), gray), (noise(*shape, channels=4), infrared)):
        (fused,) = infer(client, {"x": x, "y": y})
        np.testing.assert_array_equal(fused, fusers["vif"](x, y))


@pytest.mark.parametrize("model", ["vif", "batch"])
def test_a_batch_gives_the_bytes_of_the_fuser(client, fusers, four_pairs, model):
    x, y = (frames[:3] for frames in four_pairs)
    fused, prompt = infer(client, {"x": x, "y": y}, ("fused", "prompt"), model=model)
    expected = fusers[model].with_prompt(x, y)
    np.testing.assert_array_equal(fused, expected[0])
    np.testing.assert_array_equal(prompt, expected[1])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8])
def test_prompts_are_tensors_of_any_type_of_numbers(client, fusers, pair, dtype, binary):
    x, y = pair
    shift = np.ones(fusers["vif"].grid, dtype)
    shift[0] = 0
    sent = {"x": x, "y": y, "prompt_scale": np.array([2], dtype), "prompt_shift": shift}
    fused, prompt = infer(client, sent, ("fused", "prompt"), binary=binary)
    expected = fusers["vif"].with_prompt(x, y, scale=2.0, shift=shift)
    np.testing.assert_array_equal(fused, expected[0])
    np.testing.assert_allclose(prompt, expected[1], rtol=0 if binary else 1e-7)


def test_prompts_are_numbers_in_the_shape_that_triton_takes_them(client, fusers, pair, four_pairs):
    """A client may send the same tensors to this service and to a model of Triton's python backend."""
    x, y = pair
    number = np.full((1, 1, 1), 0.25, np.float32)
    (fused,) = infer(client, {"x": x, "y": y, "prompt_shift": number})
    np.testing.assert_array_equal(fused, fusers["vif"](x, y, shift=0.25))
    x, y = (frames[:2] for frames in four_pairs)
    (fused,) = infer(client, {"x": x, "y": y, "prompt_scale": np.float32([[[0.5]], [[2.0]]])})
    expected = [fusers["vif"](x[i], y[i], scale=(0.5, 2.0)[i]) for i in range(2)]
    np.testing.assert_array_equal(fused, expected)


def test_prompts_are_parameters_too(client, fusers, pair):
    x, y = pair
    (fused,) = infer(client, {"x": x, "y": y}, parameters={"prompt_scale": 2, "prompt_shift": -0.5})
    np.testing.assert_array_equal(fused, fusers["vif"](x, y, scale=2.0, shift=-0.5))
    assert (fused != fusers["vif"](x, y)).any()


@pytest.mark.parametrize("model", ["vif", "bgr", "gray"])
def test_image_files_go_in_and_come_out(client, fusers, pair, model):
    """Files are RGB in any bundle; tensors are in the bundle's order."""
    x, y = pair
    files = {"x": np.array([encoded(x)], object), "y": np.array([encoded(y)], object)}
    fused, png, jpeg = infer(client, files, ("fused", "fused_png", "fused_jpeg"), model=model)
    order = slice(None, None, -1 if model == "bgr" else 1)
    expected = fusers[model](x[..., order], y[..., order])
    np.testing.assert_array_equal(fused, expected)
    assert (png.shape, png.dtype, jpeg[0][:2]) == ((1,), object, b"\xff\xd8")
    decoded = cv2.imdecode(np.frombuffer(png[0], np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded[..., ::-1], expected[..., order])


def test_several_image_files_are_a_batch(client, fusers, four_pairs):
    files = {
        name: np.array([encoded(frame) for frame in frames[:2]], object)
        for name, frames in zip("xy", four_pairs, strict=True)
    }
    fused, png = infer(client, files, ("fused", "fused_png"))
    np.testing.assert_array_equal(fused, fusers["vif"](four_pairs[0][:2], four_pairs[1][:2]))
    assert png.shape == (2,)


def test_the_client_chooses_the_form_of_outputs_that_it_does_not_name(client, fusers, pair):
    x, y = pair
    for asked in ({}, {"outputs": None}):
        result = client.infer("vif", [tensor("x", x), tensor("y", y)], request_id="seven", **asked)
        np.testing.assert_array_equal(result.as_numpy("fused"), fusers["vif"](x, y))
        response = result.get_response()
        assert (response["id"], response["model_name"], response["model_version"]) == ("seven", "vif", "1")


def test_the_default_prompt_of_a_service_is_used(exported, fusers, pair):
    from tcmoa_runtime.given_prompt import Prompt

    x, y = pair
    mask = np.full((100, 130), 255, np.uint8)
    with running_service({"vif": fusers["vif"]}, prompt=Prompt(1.5, mask)) as running:
        _, _, data = running.infer(x, y)
        given = running.infer(x, y, parameters={"prompt_shift": 0.25, "binary_data_output": True})[2]
        wrong = [running.infer(np.zeros(shape, np.uint8))[:2] for shape in ((3,), (0, 2, 3), (1, 1, 1, 1, 1))]
    assert [status for status, _ in wrong] == [400, 400, 400]
    assert wrong[0][1] == {"error": "x: shape [3]; expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"}
    expected = fusers["vif"](x, y, scale=1.5, shift=127 / 256)
    np.testing.assert_array_equal(np.frombuffer(data, np.uint8).reshape(expected.shape), expected)
    assert given == fusers["vif"](x, y, scale=1.5, shift=0.25).tobytes()


# Wrong requests


def entry(name, array, **changes):
    value = {"name": name, "shape": list(array.shape), "datatype": "UINT8", "data": array.ravel().tolist()}
    return {**value, **changes}


TINY = np.zeros((2, 2, 3), np.uint8)
PAIR = [entry("x", TINY), entry("y", TINY)]
FILE = {"datatype": "BYTES", "shape": [1]}

WRONG = {
    "model": ("/v2/models/nothing/infer", {"inputs": PAIR}, 404,
              "nothing: no such bundle; expected vif, plain, bgr, gray, batch."),
    "version": ("/v2/models/vif/versions/2/infer", {"inputs": PAIR}, 404, "vif: no version '2'; expected 1."),
    "input": ("", {"inputs": [*PAIR, entry("z", TINY)]}, 400,
              "z: no such input; expected x, y, prompt_scale, prompt_shift"),
    "output": ("", {"inputs": PAIR, "outputs": [{"name": "mask"}]}, 400,
               "mask: no such output; expected fused, fused_png, fused_jpeg, prompt"),
    "missing": ("", {"inputs": PAIR[:1]}, 400, "y: missing; expected both x and y among the inputs"),
    "datatype": ("", {"inputs": [PAIR[0], entry("y", TINY, datatype="INT64")]}, 400,
                 "y: datatype INT64; expected UINT8, UINT16 or BYTES (image files)"),
    "sizes": ("", {"inputs": [PAIR[0], entry("y", TINY[:1])]}, 400,
              "y: 2x1; expected 2x2, the size of x. Register the two images first, or align the bundle with "
              "`tcmoa calibrate align`"),
    "axes": ("", {"inputs": [entry("x", TINY[0, 0]), PAIR[1]]}, 400,
             "x: shape [3]; expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"),
    "no frame": ("", {"inputs": [entry("x", TINY[None][:0]), entry("y", TINY[None][:0])]}, 400,
                 "x: shape [0, 2, 2, 3], which holds no frame; expected one or more"),
    "empty": ("", {"inputs": [entry("x", TINY[:0]), entry("y", TINY[:0])]}, 400,
              "x: shape [0, 2, 3], which is empty; expected an image"),
    "long": ("", {"inputs": [entry("x", np.zeros((1, 40_000), np.uint8)), PAIR[1]]}, 400,
             "x: 40000x1; expected sides of at most 32768 pixels"),
    "large": ("", {"inputs": [entry("x", np.zeros((500, 500), np.uint8)), PAIR[1]]}, 400,
              "x: 250000 pixels; expected at most 200000 in a request"),
    "many": ("", {"inputs": [entry("x", np.zeros((65, 1, 1, 3), np.uint8)), PAIR[1]]}, 400,
             "x: 65 frames; expected at most 64 in a request"),
    "prompt": ("", {"inputs": PAIR, "parameters": {"prompt_shift": "0.1"}}, 400,
               "prompt_shift: '0.1'; expected a number"),
    "prompt range": ("", {"inputs": PAIR, "parameters": {"prompt_shift": 99}}, 400,
                     "prompt_shift: holds 99; expected -16 to 16"),
    "prompt shape": ("", {"inputs": [*PAIR, entry("prompt_scale", TINY[0], datatype="FP32")]}, 400,
                     "prompt_scale: shape [2, 3]; expected a number, a map [1, 1] or maps [1, 1, 1] (one number "
                     "per token)"),
    "prompt twice": ("", {"inputs": [*PAIR, entry("prompt_scale", TINY[0, 0, :1], datatype="FP32")],
                          "parameters": {"prompt_scale": 1}}, 400,
                     "prompt_scale: given as a tensor and as a parameter; expected one of the two"),
    "prompt bytes": ("", {"inputs": [*PAIR, entry("prompt_scale", TINY, **FILE, data=["YQ=="])]}, 400,
                     "prompt_scale: datatype BYTES; expected numbers, e.g. FP32"),
    "no prompt output": ("/v2/models/plain/infer", {"inputs": PAIR, "outputs": [{"name": "prompt"}]}, 400,
                         r".*/plain: has no prompt output. Export the bundle again with with_prompt=True."),
    "parameter": ("", {"inputs": PAIR, "parameters": {"priority": 1}}, 400,
                  "priority: no such parameter; expected prompt_scale, prompt_shift, timeout, binary_data_output"),
    "timeout": ("", {"inputs": PAIR, "parameters": {"timeout": 1.5}}, 400,
                "timeout: 1.5; expected a number of microseconds"),
    "no image": ("", {"inputs": [entry("x", TINY, **FILE, data=["YQ=="]), PAIR[1]]}, 400,
                 "x: not a readable image; expected PNG, JPEG, TIFF, BMP or WebP"),
    "no files": ("", {"inputs": [entry("x", TINY, datatype="BYTES", shape=[0], data=[]), PAIR[1]]}, 400,
                 "x: BYTES [0]; expected [1], or [B] for at most 64 image files"),
    "files of axes": ("", {"inputs": [entry("x", TINY, datatype="BYTES", shape=[1, 1], data=["YQ=="]), PAIR[1]]}, 400,
                      "x: BYTES [1, 1]; expected [1], or [B] for at most 64 image files"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_gets_one_line(service, case):
    path, value, status, line = WRONG[case]
    answer = service.call("POST", path or "/v2/models/vif/infer", json.dumps(value))
    if line.startswith(".*"):
        assert answer[0] == status
        assert answer[1]["error"].endswith(line[2:])
    else:
        assert answer == (status, {"error": line})


def test_images_of_different_sizes_are_no_batch(client, service):
    files = [encoded(noise(20, 30)), encoded(noise(20, 31))]
    with pytest.raises(client_module.InferenceServerException) as caught:
        infer(client, {"x": np.array(files, object), "y": np.array(files, object)})
    assert caught.value.message() == (
        "x: images of 30x20 in uint8 and of 31x20 in uint8; expected images of one size and type in a request"
    )


def test_an_image_file_of_many_pixels_is_not_decoded(client):
    files = np.array([encoded(np.zeros((500, 500), np.uint8))], object)
    with pytest.raises(client_module.InferenceServerException) as caught:
        infer(client, {"x": files, "y": files})
    assert caught.value.message() == (
        "x: not a readable image (500x500, more pixels than can be decoded); expected at most 200000 pixels"
    )


@settings(max_examples=30)
@given(
    st.sampled_from(DATA_TYPES),
    st.lists(st.integers(0, 3), max_size=4),
    st.binary(max_size=60),
    st.sampled_from(["x", "prompt_shift"]),
)
def test_no_tensor_is_an_internal_error(service, datatype, shape, data, name):
    """Whatever arrives as a tensor, the answer is 200 or 400 with one line."""
    arrays = {"x": TINY, "y": TINY}
    arrays.pop(name, None)
    body, length = infer_body(arrays)
    head = json.loads(body[:length])
    head["inputs"].append(
        {
            "name": name,
            "datatype": datatype,
            "shape": shape,
            "parameters": {"binary_data_size": len(data)},
        }
    )
    text = json.dumps(head).encode()
    status, headers, answer = service.request(
        "POST",
        "/v2/models/vif/infer",
        text + body[length:] + data,
        {"Inference-Header-Content-Length": str(len(text))},
    )
    assert status in (200, 400), answer
    if status == 400:
        assert headers["Content-Type"] == "application/json"
        assert len(json.loads(answer)["error"].splitlines()) == 1
