"""The model of Triton's python backend: requests, settings, its log, and a Triton without tcmoa.

A stand-in takes the place of Triton; `test_triton` runs the model there.
"""

import json
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from tcmoa_runtime import Bundle, Fuser
from tcmoa_runtime.images import decode_image, encode_image
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.model_repository import write_model_repository
from tcmoa_runtime.model_repository.python_model import PythonModel, PythonSettings, RequestFuser


class FakeTensor:
    def __init__(self, name, value):
        self._name, self._value = name, value

    def name(self):
        return self._name

    def as_numpy(self):
        return self._value


class FakeTriton:
    """What `python_model` uses of Triton's module."""

    Tensor = FakeTensor

    class TritonModelException(Exception):  # noqa: N818  # its name in Triton
        pass

    class TritonError(Exception):
        INVALID_ARG, INTERNAL = 3, 1

        def __init__(self, message, code):
            super().__init__(message)
            self.code = code

    InferenceResponse = staticmethod(
        lambda output_tensors=(), error=None: SimpleNamespace(
            outputs={t.name(): t.as_numpy() for t in output_tensors}, error=error
        )
    )

    def __init__(self):
        self.log = []
        levels = ("error", "warn", "info", "verbose")
        self.Logger = SimpleNamespace(**{f"log_{level}": partial(self._add, level) for level in levels})

    def _add(self, level, text):
        self.log.append((level, text))


def request(outputs=("fused",), **inputs):
    return SimpleNamespace(
        inputs=lambda: [FakeTensor(name, value) for name, value in inputs.items()],
        requested_output_names=lambda: set(outputs),
    )


def load_model(bundle, triton=None, parameters=None, instances=1):
    config = {
        "parameters": {
            key: {"string_value": value}
            for key, value in {"fuser_backend": "onnxruntime", "threads": "1", **(parameters or {})}.items()
        },
        "instance_group": [{"count": instances}],
    }
    return PythonModel(bundle, {"model_config": json.dumps(config)}, triton or FakeTriton())


@pytest.fixture(scope="module")
def model(vif):
    loaded = load_model(vif)
    yield loaded
    loaded.close()


def answer(model, *arguments, **inputs):
    (response,) = model.execute([request(*arguments, **inputs)])
    return response


def refusal(model, *arguments, **inputs):
    """The line with which a request is refused."""
    response = answer(model, *arguments, **inputs)
    assert not response.outputs
    assert response.error.code == FakeTriton.TritonError.INVALID_ARG
    (line,) = str(response.error).splitlines()
    return line


def test_a_request_is_fused_like_the_fuser_does(model, fuser, pair):
    x, y = pair
    every = ("fused", "fused_png", "fused_jpeg", "prompt")
    with Fuser.load(fuser.bundle.path, "onnxruntime", threads=1) as own:
        fused, prompt = own.with_prompt(x, y, scale=1.5, shift=0.25)
        number = {
            name: np.float32(value).reshape(1, 1, 1) for name, value in (("scale", 1.5), ("shift", 0.25))
        }
        inputs = {"x": x[None], "y": y[None], **{f"prompt_{name}": value for name, value in number.items()}}
        outputs = answer(model, every, **inputs).outputs  # as Triton asks where a request names no output
        assert outputs.keys() == {"fused", "prompt"}
        np.testing.assert_array_equal(outputs["fused"], fused[None])
        np.testing.assert_array_equal(outputs["prompt"], prompt[None])
        files = answer(model, ("fused_png", "fused_jpeg"), **inputs).outputs
        assert files.keys() == {"fused_png", "fused_jpeg"}
        np.testing.assert_array_equal(decode_image(files["fused_png"][0], "png"), fused)
        assert files["fused_jpeg"][0] == encode_image(fused, "JPEG")
        files = {
            f"{name}_encoded": np.array([encode_image(image, "PNG")], object)
            for name, image in zip("xy", pair, strict=True)
        }
        outputs = answer(model, **files).outputs
        np.testing.assert_array_equal(outputs["fused"][0], own(x, y))
        both = np.stack([x, y]), np.stack([y, x])
        scales = np.float32([[[0.5]], [[2.0]]])
        outputs = answer(model, x=both[0], y=both[1], prompt_scale=scales).outputs
        expected = [own(both[0][i], both[1][i], scale=scales[i, 0, 0]) for i in range(2)]
        np.testing.assert_array_equal(outputs["fused"], expected)


def test_encoded_sources_follow_the_order_of_the_bundle(exported, pair):
    x, y = pair
    loaded = load_model(exported("bgr gray"))
    gray = np.array([encode_image(y[..., 0], "PNG")] * 2, object)
    color = np.array([encode_image(x, "PNG")] * 2, object)
    outputs = answer(loaded, ("fused", "fused_png"), x_encoded=color, y_encoded=gray).outputs
    with Fuser.load(exported("bgr gray"), "onnxruntime", threads=1) as own:
        fused = own(np.ascontiguousarray(x[..., ::-1]), y[..., 0])
    np.testing.assert_array_equal(outputs["fused"], [fused] * 2)
    np.testing.assert_array_equal(decode_image(outputs["fused_png"][1], "png"), fused[..., ::-1])
    loaded.close()


def test_frames_of_16_bits_are_stretched(model, fuser, pair):
    x = pair[0].astype(np.uint16) * 17 + 900
    outputs = answer(model, x_uint16=x[None], y=pair[1][None]).outputs
    with Fuser.load(fuser.bundle.path, "onnxruntime", threads=1) as own:
        np.testing.assert_array_equal(outputs["fused"][0], own(x, pair[1]))


def test_wrong_requests_are_one_line(model, pair):
    x, y = (frame[None] for frame in pair)
    ones = np.ones((1, 1, 1), np.float32)
    png = encode_image(pair[0], "PNG")
    small = encode_image(pair[0][:50], "PNG")
    cases = [
        ({"x": x}, "y: not given; expected one of the inputs y, y_uint16, y_encoded"),
        ({}, "x: not given; expected one of the inputs x, x_uint16, x_encoded"),
        (
            {"x": x, "x_encoded": np.array([png], object), "y": y},
            "x: given as x and x_encoded; expected one of the inputs x, x_uint16, x_encoded",
        ),
        ({"x": x[:0], "y": y}, "x has 0 frames and y 1; expected the same number of frames"),
        ({"x": np.zeros((65, 1, 1, 3), np.uint8), "y": y}, "x: 65 frames; expected at most 64 in a request"),
        (
            {"x": x, "y": np.zeros((1, 1, 32769, 1), np.uint8)},
            "y: 32769x1; expected sides of at most 32768 pixels",
        ),
        (
            {"x_encoded": np.array([], object), "y": y},
            "x_encoded: 0 image files; expected 1 to 64 in a request",
        ),
        ({"x": np.repeat(x, 2, 0), "y": y}, "x has 2 frames and y 1; expected the same number of frames"),
        (
            {"x": x[..., :2], "y": y},
            "x: shape [100, 130, 2]; expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]",
        ),
        (
            {"x": x[:, :50], "y": y},
            "y: 130x100; expected 130x50, the size of x. Register the two images first, or align the bundle with "
            "`tcmoa calibrate align`",
        ),
        (
            {"x_encoded": np.array([b"no image"], object), "y": y},
            "x_encoded: not a readable image; expected PNG, JPEG, TIFF, BMP or WebP",
        ),
        ({"x_encoded": np.array([b""], object), "y": y}, "x_encoded: "),
        (
            {"x_encoded": np.array([png, small], object), "y": np.repeat(y, 2, 0)},
            "x_encoded: images of 130x100 in uint8 and of 130x50 in uint8; expected images of one size and type in a "
            "request",
        ),
        ({"x": x, "y": y, "prompt_scale": ones * 99}, "prompt_scale: holds 99; expected -16 to 16"),
        (
            {"x": x, "y": y, "prompt_shift": ones * np.nan},
            "prompt_shift: holds NaN or infinity; expected finite",
        ),
        (
            {"x": x, "y": y, "prompt_shift": np.zeros((1, 3, 4), np.float32)},
            "prompt_shift: shape [1, 3, 4]; expected",
        ),
    ]
    for inputs, line in cases:
        assert refusal(model, **inputs).startswith(line)


def test_an_encoded_image_of_too_many_pixels_is_refused_before_it_is_decoded(vif, pair):
    loaded = load_model(vif, parameters={"max_pixels": "1000"})
    files = np.array([encode_image(pair[0], "PNG")], object)
    line = refusal(loaded, x=pair[0][None], y=pair[1][None])
    assert line == "x: 13000 pixels; expected at most 1000 in a request"
    line = refusal(loaded, x_encoded=files, y=pair[1][None])
    assert line == (
        "x_encoded: not a readable image (130x100, more pixels than can be decoded); expected at most 1000 pixels"
    )
    loaded.close()


def test_a_network_without_prompt_refuses_one(wrapped):
    loaded = load_model(wrapped)
    frame = np.zeros((1, 40, 56, 3), np.uint8)
    line = refusal(loaded, x=frame, y=frame, prompt_scale=np.ones((1, 1, 1), np.float32))
    assert line.startswith("prompt_scale: this network has no prompt; expected a bundle of `tcmoa export`")
    loaded.close()


def test_an_aligned_bundle_aligns_in_python(aligned, pair):
    x, y = pair
    loaded = load_model(aligned)
    outputs = answer(loaded, x=x[None], y=y[None, :80]).outputs
    with Fuser.load(aligned, "onnxruntime", threads=1) as own:
        np.testing.assert_array_equal(outputs["fused"][0], own(x, y[:80]))
    loaded.close()


def test_a_fault_of_ours_ends_one_request_only(model, pair, monkeypatch):
    def fail(*_):
        raise RuntimeError("lost\nand more")

    monkeypatch.setattr(RequestFuser, "fuse", fail)
    response = answer(model, x=pair[0][None], y=pair[1][None])
    assert (str(response.error), response.error.code) == (
        "internal error: lost",
        FakeTriton.TritonError.INTERNAL,
    )


def test_what_the_library_logs_is_in_the_log_of_triton(vif, monkeypatch):
    triton = FakeTriton()
    monkeypatch.setenv("TCMOA_LOG", "info")
    loaded = load_model(vif, triton)
    assert ("info", f"{vif}: backend onnxruntime (CPU) (it was named)") in triton.log
    get_logger("repository").error("lost\nand more")
    assert triton.log[-1] == ("error", "lost and more")
    loaded.close()
    count = len(triton.log)
    get_logger("repository").error("later")
    assert len(triton.log) == count
    monkeypatch.setenv("TCMOA_LOG", "all")
    with pytest.raises(
        FakeTriton.TritonModelException, match="TCMOA_LOG: 'all'; expected one of debug, info, "
    ):
        load_model(vif)


def test_wrong_parameters_are_one_line(vif):
    cases = {
        (
            "fit",
            "fill",
        ): "parameter fit of config.pbtxt: 'fill'; expected one of exact, resize, pad, tile, auto",
        ("stretch", "1"): "parameter stretch of config.pbtxt: '1'; expected two percentiles, e.g. 1,99",
        (
            "stretch",
            "9,1",
        ): "parameter stretch of config.pbtxt: 9,1; expected two percentiles, 0 <= LOW < HIGH <= 100",
        ("threads", "all"): "parameter threads of config.pbtxt: 'all'; expected a whole number",
        ("threads", "0"): "parameter threads of config.pbtxt: 0; expected 1 or more",
        ("max_pixels", "-1"): "parameter max_pixels of config.pbtxt: -1; expected 1 or more",
        ("trust_engines", "yes"): "parameter trust_engines of config.pbtxt: 'yes'; expected true or false",
        ("fuser_backend", "onnx"): "parameter fuser_backend of config.pbtxt: 'onnx'; expected one of auto, ",
    }
    load_model(vif, parameters={"EXECUTION_ENV_PATH": "/env", "tcmoa.task": "vif"}).close()
    for (name, value), line in cases.items():
        with pytest.raises(FakeTriton.TritonModelException) as caught:
            load_model(vif, parameters={name: value})
        assert str(caught.value).startswith(line)


def test_instances_share_the_cores(vif, monkeypatch):
    seen, loaded = [], SimpleNamespace(bundle=Bundle.open(vif))
    monkeypatch.setattr(Fuser, "load", lambda *_, threads, **__: seen.append(threads) or loaded)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for settings, instances in ((PythonSettings(), 1), (PythonSettings(), 3), (PythonSettings(threads=5), 3)):
        RequestFuser.load(vif, settings, instances)
    assert seen == [None, 2, 5]


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("tcmoa_runtime", "tcmoa is not installed, in Python "),
        ("tcmoa_runtime.model_repository", "tcmoa is older than the one that wrote this model, in Python "),
        ("numpy", "tcmoa cannot be imported (No module named 'numpy'), in Python "),
    ],
)
def test_a_triton_without_tcmoa_says_how_to_install_it(missing, line, vif, tmp_path, fresh_python):
    out = write_model_repository([vif], tmp_path / "m").path
    code = f"""
import sys, types
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
triton = types.ModuleType("triton_python_backend_utils")
triton.TritonModelException = Exception
sys.modules[triton.__name__] = triton
sys.path.insert(0, {str(out / "vif" / "1")!r})
from model import TritonPythonModel
try:
    TritonPythonModel().initialize({{}})
except Exception as error:
    print(error)
"""
    shown = fresh_python(code).out
    assert shown.startswith(line)
    assert shown.endswith(f"Install it there: {sys.prefix}/bin/python3 -m pip install tcmoa\n")
