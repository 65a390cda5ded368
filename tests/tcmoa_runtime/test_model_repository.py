"""Model repositories for Triton: which models are written, what their configurations say, and what is refused.

`test_triton` runs them on a real tritonserver.
"""

import json
import stat
import sys
import warnings
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format

from repository_pieces import write_aligned
from tcmoa_runtime import Bundle, Fuser, InputError
from tcmoa_runtime.engine import BuilderGpu, EngineDescription, write_engine
from tcmoa_runtime.engine_trust import record_built
from tcmoa_runtime.images import decode_image, encode_image
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.model_repository import write_model_repository
from tcmoa_runtime.model_repository.config_text import Symbol, format_config
from tcmoa_runtime.model_repository.python_model import PythonModel, PythonSettings, RequestFuser
from tcmoa_runtime.options.repository import RepositoryOptions
from wrapped_pieces import write_two_layers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of an older protobuf, which wrote the module
    from tritonclient.grpc import model_config_pb2

TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
GRAPH_TYPES = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}


def config_of(folder):
    """Parse config.pbtxt as Triton does; a field that `ModelConfig` does not have is an error."""
    return text_format.Parse((folder / "config.pbtxt").read_text("ascii"), model_config_pb2.ModelConfig())


def tensors_of(entries):
    """Tensors of a configuration by name: type and dims."""
    name_of = model_config_pb2.DataType.Name
    return {entry.name: (name_of(entry.data_type), tuple(entry.dims)) for entry in entries}


def parameters_of(config):
    return {key: value.string_value for key, value in config.parameters.items()}


@pytest.fixture(scope="module")
def aligned(exported, tmp_path_factory):
    """Path of a bundle that aligns y."""
    return write_aligned(exported("bgr"), tmp_path_factory.mktemp("aligned") / "aligned")


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory):
    """Path of a wrapped bundle without prompts, whose network stretches a picture by its own extremes."""
    return write_two_layers(tmp_path_factory.mktemp("wrapped") / "two-layers", stretches=1)


def add_engine(folder, version="10.13.3.9", precision="fp16", **changes):
    """Write an engine that was not built here."""
    description = {
        "flavor": "tensorrt",
        "version": version,
        "precision": precision,
        "gpu": BuilderGpu("NVIDIA L4", "8.9"),
        **changes,
    }
    data = f"engine {version} {precision}".encode()
    return write_engine(Bundle.open(folder), data, EngineDescription(**description))


def test_a_bundle_becomes_a_model_in_python_and_one_of_the_graph(vif, tmp_path, tcmoa):
    out = tmp_path / "models"
    shown = tcmoa("repository", vif, "-o", out)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0].startswith(f"{out / 'vif'}: python, version 1; needs tcmoa ")
    assert lines[1:] == [
        f"{out / 'vif-onnxruntime'}: onnxruntime, version 1; needs the backend onnxruntime",
        f"start Triton with: tritonserver --model-repository {out}",
    ]
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        "repository.json",
        "vif/config.pbtxt",
        "vif/1/model.py",
        "vif/1/bundle/bundle.json",
        "vif/1/bundle/fusion.onnx",
        "vif-onnxruntime/config.pbtxt",
        "vif-onnxruntime/1/model.onnx",
        "vif-onnxruntime/warmup/prompt_scale",
        "vif-onnxruntime/warmup/prompt_shift",
    }
    graph = (vif / "fusion.onnx").read_bytes()
    assert (out / "vif-onnxruntime" / "1" / "model.onnx").read_bytes() == graph
    copy = Bundle.open(out / "vif" / "1" / "bundle")
    copy.check()
    assert copy.manifest == Bundle.open(vif).manifest


@pytest.mark.parametrize("name", ["vif", "batch", "gray", "wrapped", "external"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graphs_configuration_has_the_names_types_and_shapes_of_the_graph(
    name, backend, exported, wrapped, external_data_bundle, tmp_path
):
    """These backends of Triton are not run here: what they compare with the graph is compared with it."""
    bundle = {"wrapped": wrapped, "external": external_data_bundle}.get(name) or exported(name)
    out = write_model_repository(
        [bundle], tmp_path / "m", RepositoryOptions(backend=(backend,), name=("m",))
    ).path
    config = config_of(out / f"m-{backend}")
    graph = out / f"m-{backend}" / "1" / config.default_model_filename
    assert (config.name, config.backend, config.max_batch_size) == (f"m-{backend}", backend, 0)
    described = onnx.load(graph, load_external_data=False).graph
    for entries, infos in ((config.input, described.input), (config.output, described.output)):
        assert tensors_of(entries) == {
            info.name: (
                GRAPH_TYPES[info.type.tensor_type.elem_type],
                tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim),
            )
            for info in infos
        }
    if backend == "onnxruntime":  # the library loads the file, with weights beside it, as its backend does
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        for entries, nodes in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
            assert tensors_of(entries) == {node.name: (TYPES[node.type], tuple(node.shape)) for node in nodes}


def test_openvino_reads_the_file_and_its_names(exported, tmp_path):
    pytest.importorskip("openvino")
    from tcmoa_runtime.backends.openvino import _process_core  # one core in a process, see there

    out = write_model_repository(
        [exported("batch")], tmp_path / "m", RepositoryOptions(backend=("openvino",), threads=2)
    ).path
    config = config_of(out / "batch-openvino")
    model = _process_core().read_model(out / "batch-openvino" / "1" / "model.onnx")
    types = {"u8": "TYPE_UINT8", "f32": "TYPE_FP32"}
    for entries, ports in ((config.input, model.inputs), (config.output, model.outputs)):
        assert tensors_of(entries) == {
            port.any_name: (types[port.element_type.get_type_name()], tuple(port.shape)) for port in ports
        }
    assert parameters_of(config)["INFERENCE_NUM_THREADS"] == "2"


def test_the_warm_up_request_fits_the_inputs(exported, wrapped, tmp_path):
    options = RepositoryOptions(backend=("python", "onnxruntime"))
    out = write_model_repository([exported("vif"), wrapped], tmp_path / "m", options).path
    for name in ("vif", "vif-onnxruntime", "two-layers", "two-layers-onnxruntime"):
        config = config_of(out / name)
        (sample,) = config.model_warmup
        assert (sample.batch_size, config.max_batch_size) == (1, 0)
        tensors = tensors_of(config.input)
        needed = {e.name for e in config.input if not e.optional} or {"x", "y"}
        assert sample.inputs.keys() == needed
        for key, entry in sample.inputs.items():
            dtype, dims = tensors[key]
            assert model_config_pb2.DataType.Name(entry.data_type) == dtype
            assert all(dim in (-1, given) for dim, given in zip(dims, entry.dims, strict=True))
            if entry.input_data_file:
                size = (out / name / "warmup" / entry.input_data_file).stat().st_size
                assert size == 4 * np.prod(entry.dims)
            else:
                assert entry.random_data
    scale = np.fromfile(out / "vif-onnxruntime" / "warmup" / "prompt_scale", "<f4")
    assert set(scale) == {Bundle.open(exported("vif")).default_prompt[0]}
    held = np.fromfile(out / "two-layers-onnxruntime" / "warmup" / "held_extremes", "<f4")
    assert list(held) == [1, 0]


def test_a_model_in_python_takes_any_size_and_either_form(exported, wrapped, tmp_path):
    out = write_model_repository([exported("vif"), wrapped], tmp_path / "m").path
    sources = {
        f"{source}{form}": (dtype, dims)
        for form, dtype, dims in (
            ("", "TYPE_UINT8", (-1,) * 4),
            ("_uint16", "TYPE_UINT16", (-1,) * 4),
            ("_encoded", "TYPE_STRING", (-1,)),
        )
        for source in "xy"
    }
    prompts = dict.fromkeys(("prompt_scale", "prompt_shift"), ("TYPE_FP32", (-1, -1, -1)))
    fused = {
        "fused": ("TYPE_UINT8", (-1, -1, -1, 3)),
        "fused_png": ("TYPE_STRING", (-1,)),
        "fused_jpeg": ("TYPE_STRING", (-1,)),
    }
    config = config_of(out / "vif")
    count = Bundle.open(exported("vif")).contract.prompts
    assert tensors_of(config.input) == sources | prompts
    assert tensors_of(config.output) == fused | {"prompt": ("TYPE_FP32", (-1, count, 2, -1, -1))}
    assert all(entry.optional for entry in config.input)
    config = config_of(out / "two-layers")
    assert tensors_of(config.input) == sources
    assert tensors_of(config.output) == fused


def test_instances_threads_version_and_settings_are_in_the_configuration(vif, tmp_path, tcmoa):
    out = tmp_path / "models"
    arguments = (
        "--instances",
        3,
        "--threads",
        2,
        "--model-version",
        7,
        "--fit",
        "pad",
        "--stretch",
        "2,98.5",
    )
    more = ("--fuser-backend", "onnxruntime", "--max-pixels", 1000, "--name", "night")
    shown = tcmoa("repository", vif, "-o", out, *arguments, *more, "--json")
    assert shown.code == 0
    config = config_of(out / "night")
    (group,) = config.instance_group
    assert (model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind), group.count) == ("KIND_CPU", 3)
    assert config.version_policy.latest.num_versions == 1
    assert (out / "night" / "7" / "model.py").is_file()
    parameters = parameters_of(config)
    settings = PythonSettings(
        fuser_backend="onnxruntime", fit="pad", stretch=(2.0, 98.5), threads=2, max_pixels=1000
    )
    assert PythonSettings.from_parameters(parameters) == settings
    assert parameters_of(config_of(out / "night-onnxruntime"))["intra_op_thread_count"] == "2"
    record = json.loads((out / "repository.json").read_text())
    assert shown.json == {"path": str(out), **record}
    python, graph = record["models"]
    assert (python["name"], python["backend"], python["version"], python["instances"]) == (
        "night",
        "python",
        7,
        3,
    )
    assert python["inputs"][4] == {
        "name": "x_encoded",
        "datatype": "BYTES",
        "shape": [-1],
        "optional": True,
    }
    assert graph["inputs"][0] == {"name": "x", "datatype": "UINT8", "shape": [1, 100, 130, 3]}


def test_labels_say_what_a_model_is(exported, wrapped, tmp_path):
    out = write_model_repository([exported("bgr"), wrapped], tmp_path / "m").path
    bundle = Bundle.open(exported("bgr"))
    for name in ("bgr", "bgr-onnxruntime"):
        labels = parameters_of(config_of(out / name))
        assert labels["tcmoa.task"] == "vif"
        assert labels["tcmoa.x"] == "visible, 3 channels"
        assert labels["tcmoa.frame"] == "130x100, batch 1"
        assert labels["tcmoa.channel_order"] == "bgr"
        assert labels["tcmoa.graph_sha256"] == bundle.files["fusion.onnx"].sha256
        assert labels["tcmoa.prompt_default"] == "prompt_scale 1, prompt_shift 0"
    labels = parameters_of(config_of(out / "two-layers"))
    assert (labels["tcmoa.model"], "tcmoa.prompt_default" in labels) == ("two-layers", False)


def test_models_on_gpus(vif, tmp_path):
    out = write_model_repository([vif], tmp_path / "m", RepositoryOptions(device="gpu", instances=2)).path
    kinds = model_config_pb2.ModelInstanceGroup.Kind
    (group,) = config_of(out / "vif").instance_group
    assert (kinds.Name(group.kind), list(group.gpus), group.count) == ("KIND_GPU", [0], 2)
    (group,) = config_of(out / "vif-onnxruntime").instance_group
    assert (kinds.Name(group.kind), list(group.gpus)) == ("KIND_GPU", [])


def test_text_from_elsewhere_stays_one_string():
    hostile = 'a" } parameters { key: "b\\\n\x00é\U0001f600\udc80'
    text = format_config({"name": hostile, "backend": Symbol("x")}).splitlines()
    assert len(text) == 2
    parsed = text_format.Parse(text[0], model_config_pb2.ModelConfig())
    assert parsed.name == hostile.replace("\udc80", "\\udc80")


def test_an_engine_becomes_a_plan(broken, tmp_path, tcmoa):
    engine = add_engine(broken)
    out = tmp_path / "models"
    command = ("repository", broken, "-o", out, "--backend", "tensorrt")
    tcmoa(*command).assert_error(
        2,
        f"{engine.path}: this user did not build this engine, and an engine is native code; expected one that was "
        "built here.",
        "load it with --trust-engines",
    )
    assert not out.exists()
    record_built(engine)
    shown = tcmoa(*command)
    assert shown.out.splitlines()[0] == (
        f"{out / 'broken-tensorrt'}: tensorrt, version 1; needs TensorRT 10.13.3.9 on NVIDIA L4 "
        "(compute capability 8.9)"
    )
    assert (out / "broken-tensorrt" / "1" / "model.plan").read_bytes() == engine.path.read_bytes()
    config = config_of(out / "broken-tensorrt")
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    assert tensors_of(config.input)["x"] == ("TYPE_UINT8", (1, 100, 130, 3))
    assert parameters_of(config)["tcmoa.needs"].startswith("TensorRT 10.13.3.9 on ")
    (group,) = config.instance_group
    assert model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind) == "KIND_GPU"
    for compatibility, gpus in (("ampere_plus", "8.0 and above"), ("same_compute_capability", "8.9")):
        record_built(add_engine(broken, hardware_compatibility=compatibility))
        needs = tcmoa(*command, "--overwrite", "--json").json["models"][0]["needs"]
        assert needs == f"TensorRT 10.13.3.9 on GPUs of compute capability {gpus}"
    engine.path.write_bytes(b"another engine")
    tcmoa(*command, "--overwrite").assert_error(2, f"{engine.path}: 14 bytes, truncated or another file")
    assert (out / "broken-tensorrt" / "1" / "model.plan").is_file()


def test_engines_that_triton_cannot_load_are_refused(broken, tmp_path, tcmoa):
    command = ("repository", broken, "-o", tmp_path / "models", "--backend", "tensorrt", "--trust-engines")
    tcmoa(*command).assert_error(
        2,
        f"{broken}: has no engine; expected one of TensorRT with its weights, as Triton loads no other. Build",
    )
    add_engine(broken, flavor="rtx", targets=("sm89",))
    add_engine(broken, "10.9.0.34", stripped=True)
    tcmoa(*command).assert_error(
        2, f"{broken}: has engines of rtx 1", "stripped tensorrt 10.9.0.34 fp16; expected one of TensorRT"
    )
    add_engine(broken, "10.13.3.9")
    add_engine(broken, "10.9.0.34", "fp32")
    tcmoa(*command).assert_error(
        2,
        f"{broken}: has engines of TensorRT 10.13.3.9 and 10.9.0.34; expected one version, that of TensorRT in "
        "Triton. Set --tensorrt-version",
    )
    assert tcmoa(*command, "--tensorrt-version", "10.9.0.34").code == 0
    needs = parameters_of(config_of(tmp_path / "models" / "broken-tensorrt"))["tcmoa.needs"]
    assert needs.startswith("TensorRT 10.9.0.34 on NVIDIA L4")
    tcmoa(*command, "--precision", "bf16", "--overwrite").assert_error(
        2, "expected one of TensorRT bf16 with its"
    )
    assert tcmoa(*command, "--precision", "fp32", "--overwrite").code == 0


def test_engines_go_with_a_model_in_python_only_where_they_are_trusted(broken, tmp_path):
    engine = add_engine(broken, flavor="rtx", version="1.7.1.116", targets=("sm89",), gpu=None)
    for trusts, names in ((False, []), (True, [engine.path.name])):
        out = tmp_path / str(trusts)
        options = RepositoryOptions(backend=("python",), trust_engines=trusts)
        write_model_repository([broken], out, options)
        copied = out / "broken" / "1" / "bundle" / "engines"
        assert sorted(path.name for path in copied.glob("*.engine")) == names
        assert parameters_of(config_of(out / "broken"))["trust_engines"] == str(trusts).lower()


def test_a_graph_alone_that_would_fuse_otherwise_is_refused_and_left_out_by_default(aligned, tmp_path, tcmoa):
    tcmoa("repository", aligned, "-o", tmp_path / "a", "--backend", "onnxruntime").assert_error(
        2,
        f"{aligned}: aligns its sources, which the graph alone, in the backend onnxruntime, does not; expected the "
        "backend python. Set --backend python",
    )
    shown = tcmoa("repository", aligned, "-o", tmp_path / "b")
    assert (shown.code, len(shown.out.splitlines())) == (0, 2)
    assert shown.err.startswith("tcmoa: warning: no model of the graph alone is written: ")
    assert not (tmp_path / "a").exists()


def test_a_bf16_graph_has_no_model_for_onnxruntime_on_the_cpu(broken, rehash, tmp_path, tcmoa):
    rehash(broken, lambda manifest: manifest.update(precision="bf16"))
    tcmoa("repository", broken, "-o", tmp_path / "m", "--backend", "onnxruntime").assert_error(
        2,
        "a bf16 graph, which ONNX Runtime cannot run on the CPU; expected another precision. Set --device gpu, or",
    )
    assert tcmoa("repository", broken, "-o", tmp_path / "m", "--device", "gpu").code == 0


def test_wrong_options_and_targets_are_one_line(vif, tmp_path, tcmoa, tree):
    out = tmp_path / "models"
    command = ("repository", vif, "-o", out)
    cases = {
        ("--backend", "onnx"): "--backend: 'onnx'; expected one of python, onnxruntime, openvino, tensorrt",
        ("--backend", "python,python"): "--backend: python,python; expected each once",
        (
            "--device",
            "cpu",
            "--backend",
            "tensorrt",
        ): "--device: cpu, but models of tensorrt run on the GPU; expected",
        (
            "--device",
            "gpu",
            "--backend",
            "openvino",
        ): "--device: gpu, but models of openvino run on the CPU; expected",
        ("--instances", "0"): "--instances: 0; expected 1 to 256",
        ("--model-version", "0"): "--model-version: 0; expected 1 to 2147483647",
        ("--threads", "0"): "--threads: 0; expected 1 or more",
        ("--max-pixels", "0"): "--max-pixels: 0; expected 1 or more",
        ("--name", "a,b"): "--name: 2 names for 1 bundles; expected one for each",
        ("--name", "../a"): "--name: '../a' as the name of a model; expected at most 100 letters, digits,",
        ("--fuser-backend", "tensorrt"): (
            "--fuser-backend: tensorrt, but engines are not copied; expected that they are trusted. Set "
            "--trust-engines if you trust whoever built them"
        ),
        ("--tensorrt-version", "ten"): "--tensorrt-version: 'ten'; expected a version, e.g. 10.13.3.9",
        ("--stretch", "9,1"): "9,1; expected two percentiles",
        ("--backend", "onnxruntime", "--fit", "tile"): (
            "--fit: an option of python, of which no model is written; expected python among the backends. Leave it "
            "out, or add python to --backend."
        ),
        (
            "--precision",
            "fp16",
        ): "--precision: an option of tensorrt, of which no model is written; expected tensorrt",
    }
    for arguments, line in cases.items():
        tcmoa(*command, *arguments).assert_error(2, line)
    tcmoa("repository", vif, vif, "-o", out).assert_error(
        2, f"{vif}: a second model named 'vif', after that of {vif}; expected different names. Set --name"
    )
    assert tcmoa("repository", vif, vif, "-o", out, "--name", "a,b").code == 0
    before = tree(tmp_path)
    tcmoa(*command).assert_error(
        2,
        f"{out}: holds a model repository already; expected an empty folder or none. Choose another folder, or replace "
        "the model repository with --overwrite.",
    )
    tcmoa("repository", vif, "-o", tmp_path, "--overwrite").assert_error(
        2, f"{tmp_path}: holds other files; expected a model repository, an empty folder or none."
    )
    tcmoa("repository", tmp_path / "none", "-o", out, "--overwrite").assert_error(
        2, "none: no such bundle; expected"
    )
    assert tree(tmp_path) == before
    inside = out / "a" / "1" / "bundle"
    tcmoa("repository", inside, "-o", out, "--overwrite").assert_error(
        2,
        f"{out}: within {inside}, or the bundle in it; expected a folder apart from the bundles. Choose another",
    )
    tcmoa("repository", inside, "-o", inside / "m").assert_error(
        2, f"{inside / 'm'}: within {inside}, or the bundle"
    )
    assert tree(tmp_path) == before
    assert tcmoa(*command, "--overwrite").code == 0
    assert sorted(path.name for path in out.iterdir()) == ["repository.json", "vif", "vif-onnxruntime"]
    with pytest.raises(InputError, match="bundles: no bundles; expected one or more"):
        write_model_repository([], out)


def test_a_name_that_triton_does_not_take_is_refused(vif, tmp_path, tcmoa):
    link = tmp_path / "night shift"
    link.mkdir()
    for path in vif.iterdir():
        (link / path.name).write_bytes(path.read_bytes())
    tcmoa("repository", link, "-o", tmp_path / "m").assert_error(
        2,
        f"{link}: 'night shift' as the name of a model; expected at most 100 letters, digits, dots, dashes and "
        "underscores, first a letter or a digit.",
        "Rename the folder, or set --name.",
    )


@pytest.mark.parametrize("backend", ["python", "onnxruntime"])
def test_a_damaged_bundle_is_refused_and_nothing_is_written(backend, broken, tmp_path, tcmoa):
    graph = broken / "fusion.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    tcmoa("repository", broken, "-o", tmp_path / "m", "--backend", backend).assert_error(
        2, f"{graph}: SHA-256 is ", "so the file was changed since its export; expected"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]


def test_weights_of_their_own_are_copied_and_readable_like_other_files(external_data_bundle, tmp_path):
    out = write_model_repository([external_data_bundle], tmp_path / "m").path
    weights = (external_data_bundle / "fusion.data").read_bytes()
    for folder in ("bundle/1/bundle", "bundle-onnxruntime/1"):
        path = out / folder / "fusion.data"
        assert path.read_bytes() == weights
        beside = next(p for p in path.parent.iterdir() if p.suffix == ".onnx")
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(beside.stat().st_mode)
    Bundle.open(out / "bundle" / "1" / "bundle").check()


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


def test_one_ready_bundle_may_be_given_by_its_name(tmp_path):
    written = write_model_repository(
        ["nano-mff"], tmp_path / "models", RepositoryOptions(backend=("python",))
    )
    (only,) = written.models
    assert (only.name, only.backend, only.version, only.path) == (
        "nano-mff",
        "python",
        1,
        tmp_path / "models/nano-mff",
    )
    assert parameters_of(config_of(only.path))["tcmoa.license"] == "CC-BY-NC-4.0"
