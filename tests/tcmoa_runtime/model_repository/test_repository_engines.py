"""Engines in model repositories: which become plans, which are copied with their bundle, and which are refused."""

from repository_pieces import config_of, model_config_pb2, parameters_of, tensors_of
from tcmoa_runtime import Bundle
from tcmoa_runtime.engine import BuilderGpu, EngineDescription, write_engine
from tcmoa_runtime.engine_trust import record_built
from tcmoa_runtime.model_repository import write_model_repository
from tcmoa_runtime.options.repository import RepositoryOptions


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
