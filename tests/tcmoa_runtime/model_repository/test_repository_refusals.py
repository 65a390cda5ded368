"""What a model repository is not written from: options, names, targets and bundles, each in one line."""

import pytest

from tcmoa_runtime import InputError
from tcmoa_runtime.model_repository import write_model_repository


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
        ("--name", "a,b"): "--name: a,b; expected 1, a name for each bundle",
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
