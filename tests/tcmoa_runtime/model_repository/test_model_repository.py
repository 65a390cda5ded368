"""Model repositories for Triton: which models are written, and what their configurations say.

`test_triton` runs them on a real tritonserver.
"""

import json
import stat

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format

from repository_pieces import config_of, model_config_pb2, parameters_of, tensors_of
from tcmoa_runtime import Bundle
from tcmoa_runtime.model_repository import write_model_repository
from tcmoa_runtime.model_repository.config_text import Symbol, format_config
from tcmoa_runtime.model_repository.python_model import PythonSettings
from tcmoa_runtime.options.repository import RepositoryOptions

TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
GRAPH_TYPES = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}


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


def test_weights_of_their_own_are_copied_and_readable_like_other_files(external_data_bundle, tmp_path):
    out = write_model_repository([external_data_bundle], tmp_path / "m").path
    weights = (external_data_bundle / "fusion.data").read_bytes()
    for folder in ("bundle/1/bundle", "bundle-onnxruntime/1"):
        path = out / folder / "fusion.data"
        assert path.read_bytes() == weights
        beside = next(p for p in path.parent.iterdir() if p.suffix == ".onnx")
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(beside.stat().st_mode)
    Bundle.open(out / "bundle" / "1" / "bundle").check()


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
